"""`sgloc evaluate`: Rec, Ret and distances over a whole test set, by any number of ranks (METHOD 10).

The test set is cut into batches that do not depend on the ranks. What a batch gave is written as a file of its own, so
that an evaluation that is stopped goes on where it was; each rank then reads every file once, ranks its own, and rank 0
sums up.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sgloc import dist
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.errors import ConfigError
from sgloc.evaluate.measure import Arrays, Measuring
from sgloc.evaluate.parts import FOLDER, Parts, in_order, unwritable, write
from sgloc.evaluate.results import Outcome, markdown, summarise
from sgloc.evaluate.retrieval import retrieval_ranks
from sgloc.evaluate.tasks import EvaluationTask
from sgloc.hub.load import load_model
from sgloc.hub.pretrained import Pretrained
from sgloc.models.sketch_a_net.load import Classifier, load_classifier
from sgloc.storage import Storage
from sgloc.strict_json import to_json
from sgloc.tf32 import float32_products
from sgloc.train.recorded import recorded_place
from sgloc.train.versions import versions

RESULTS, TABLES, PLAN = "results.json", "results.md", "plan.json"
# What there is of each task, one number a sketch.
_OF_TASK = ("rank", "given_rank", "category", "given_category", "moved", "left", "strokes", "is_empty")


@dataclass(frozen=True)
class EvaluateOptions:
    """What to evaluate, and how.

    Attributes:
        tasks: which.
        split: of the shards.
        count: sketches, spread evenly over the split; 0: all.
        temperature: of METHOD 9; 0 is greedy.
        max_points: most points of a drawing; 0: those of the longest drawing that the model was trained on.
        seed: of the disturbance, of the sampling and of the bootstrap.
        batch_size: sketches computed together.
        num_resamples: of the bootstrap.
    """

    tasks: tuple[EvaluationTask, ...]
    split: Literal["train", "valid", "test"] = "test"
    count: int = 0
    temperature: float = 0.0
    max_points: int = 0
    seed: int = 0
    batch_size: int = 256
    num_resamples: int = 1000

    def __post_init__(self) -> None:
        for name, least, most in (
            ("count", 0, 10**9),
            ("temperature", 0, 10**6),
            ("max_points", 0, 10**5),
            ("seed", 0, 2**63 - 1),
            ("batch_size", 1, 10**6),
            ("num_resamples", 1, 10**6),
        ):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be from {least} to {most:,}, not {getattr(self, name)}")


def evaluate(
    checkpoint: str,
    data: str,
    classifier: str,
    folder: str,
    options: EvaluateOptions,
    *,
    device: torch.device,
    rank: int,
    world_size: int,
    say: Callable[[str], None],
) -> dict[str, Any] | None:
    """Evaluate a model, or go on with it. All ranks must call it, inside a process group.

    Writes into the folder (or URL): results.json, results.md, and parts/, a file a batch, from which a later call goes
    on.

    Args:
        checkpoint: of the model; or a run's folder; or an exported model's.
        data: folder or URL of shards.
        classifier: run of `sgloc train-classifier` on the same shards; empty: Rec is not measured.
        folder: where to write.
        options: what to evaluate, and how.
        device: to compute on.
        rank, world_size: of this process.
        say: is told of progress, and of checkpoints that are skipped.

    Returns:
        What results.json holds, on rank 0; None elsewhere.

    Raises:
        SglocError: if the checkpoint, the classifier or the shards cannot be used, or the folder cannot be written or
            holds another evaluation.
    """
    tell = say if rank == 0 else lambda sentence: None
    loaded = dist.on_each_rank(lambda: _load(checkpoint, data, classifier, options, device, tell))
    manifest, measuring = loaded
    reader = ShardReader(data, manifest, options.split)
    count = min(options.count or reader.num_sketches, reader.num_sketches)
    chosen = np.arange(count, dtype=np.int64) * reader.num_sketches // count
    storage = Storage(folder)
    plan = _plan(checkpoint, data, manifest, measuring, options, count)
    dist.on_rank_0(lambda: _agree(storage, plan))
    parts = Parts(
        storage,
        count,
        options.batch_size,
        measuring.pretrained.model.config.latent_size,
        options.tasks,
        rank,
        world_size,
    )
    with _one_thread(device), float32_products(device):
        gallery = dist.on_each_rank(lambda: _measure_all(parts, reader, chosen, measuring, options, world_size, tell))
    outcomes = _retrieve(parts, gallery, options.tasks, device)
    if rank != 0:
        return None
    tasks = summarise(outcomes, manifest.categories, options.num_resamples, options.seed)
    results = {**plan, "tasks": tasks}
    write(storage, RESULTS, (to_json(results, indent=1) + "\n").encode())
    write(storage, TABLES, markdown(results).encode())
    return results


@contextlib.contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Inside, a process computes with one thread on a CPU: the last digit of a product, and with it a drawing, may
    depend on their number. More cores are used by more processes."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load(
    checkpoint: str,
    data: str,
    classifier: str,
    options: EvaluateOptions,
    device: torch.device,
    tell: Callable[[str], None],
) -> tuple[Manifest, Measuring]:
    pretrained = load_model(checkpoint, device, tell)
    manifest = load_manifest(data)
    judge = load_classifier(classifier, device, tell) if classifier else None
    if judge is not None and judge.data_identity != manifest.identity:
        raise ConfigError(
            f"the classifier {classifier} was trained on other shards than {data}; give one that "
            f"`sgloc train-classifier --data {data}` trained"
        )
    max_points = options.max_points or pretrained.longest_points
    from_first_point = starts_at_first_point(manifest, pretrained.origin, data)
    return manifest, Measuring(pretrained, judge, options.seed, options.temperature, max_points, from_first_point)


def _fingerprint(module: nn.Module) -> str:
    """SHA-256 of a model's tensors."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    return digest.hexdigest()


def _plan(
    checkpoint: str, data: str, manifest: Manifest, measuring: Measuring, options: EvaluateOptions, count: int
) -> dict[str, Any]:
    """What an evaluation is: with the same plan it is the same."""
    judge: Classifier | None = measuring.classifier
    model: Pretrained = measuring.pretrained
    return {
        "format": "sgloc-evaluation",
        "version": 1,
        "model": {
            "checkpoint": recorded_place(checkpoint),
            "weights": _fingerprint(model.model),
            "trained_on": model.data_identity,
            "options": asdict(model.model.config),
        },
        "data": {
            "path": recorded_place(data),
            "identity": manifest.identity,
            "licence": manifest.licence,
            "sketches": count,
        },
        "classifier": None
        if judge is None
        else {"checkpoint": recorded_place(judge.checkpoint), "weights": _fingerprint(judge.model)},
        "options": {**asdict(options), "tasks": [task.name for task in options.tasks]},
        # Parts that other programs made are not to be mixed.
        "versions": versions(),
    }


# Where the same things stand may change between two starts.
_PLACES = (("model", "checkpoint"), ("data", "path"), ("classifier", "checkpoint"))


def _without_places(plan: dict[str, Any]) -> dict[str, Any]:
    bare: dict[str, Any] = json.loads(json.dumps(plan))
    for section, name in _PLACES:
        if isinstance(bare.get(section), dict):
            bare[section].pop(name, None)
    return bare


def _agree(storage: Storage, plan: dict[str, Any]) -> None:
    """Write down what is evaluated, or see that it is what the folder holds."""
    if storage.exists(PLAN):
        with storage.reading(PLAN):
            text = storage.content(PLAN)
        try:
            held = json.loads(text)
        except ValueError:
            held = None
        if not isinstance(held, dict) or _without_places(held) != _without_places(plan):
            raise ConfigError(
                f"{storage.location} holds another evaluation (of other weights, shards, options or versions); "
                "give another --out"
            )
        return
    try:
        storage.make_folder(FOLDER)
    except OSError as error:
        raise unwritable(storage, error) from error
    write(storage, PLAN, (to_json(plan, indent=1) + "\n").encode())


def _measure_all(
    parts: Parts,
    reader: ShardReader,
    chosen: npt.NDArray[np.int64],
    measuring: Measuring,
    options: EvaluateOptions,
    world_size: int,
    tell: Callable[[str], None],
) -> npt.NDArray[np.float32]:
    """Measure this rank's batches that are not there yet; gives the gallery, complete but for the other ranks' rows."""
    gallery = parts.empty_gallery()
    missing = parts.found(gallery)
    if missing:
        some = np.concatenate([chosen[parts.rows(number)] for number in missing])
        batches = fixed_batches(reader, some, batch_size=options.batch_size)
        for number, packed in zip(missing, batches, strict=True):
            arrays = measuring.measure(packed, options.tasks)
            parts.write(number, arrays)
            gallery[parts.rows(number)] = arrays["gallery"]
            tell(f"{min(number + world_size, parts.num_parts)} of {parts.num_parts} batches are evaluated")
    return gallery


def _retrieve(
    parts: Parts, gallery: npt.NDArray[np.float32], tasks: Sequence[EvaluationTask], device: torch.device
) -> list[Outcome]:
    """Find every redrawn sketch's own original, each rank those of its batches; the outcomes are on rank 0."""
    dist.on_each_rank(lambda: parts.take_others(gallery))
    ranked = dist.on_each_rank(lambda: _ranked(parts, gallery, tasks, device))
    gathered = dist.gather_to_rank_0(ranked)
    # Nobody ends before rank 0 has them all.
    dist.on_each_rank(lambda: None)
    if not gathered:
        return []
    found: Mapping[str, Any] = in_order([group for groups in gathered for group in groups])

    def outcome(task: EvaluationTask) -> Outcome:
        own: dict[str, Any] = {name: found.get(f"{task.name}.{name}") for name in _OF_TASK}
        return Outcome(task.name, found["label"], **own)

    return [outcome(task) for task in tasks]


def _ranked(
    parts: Parts, gallery: npt.NDArray[np.float32], tasks: Sequence[EvaluationTask], device: torch.device
) -> list[Arrays]:
    """Of this rank's batches, what is one number a sketch: what was measured, and at which ranks the originals are of
    what was drawn and of what was given."""
    codes = torch.from_numpy(gallery).to(device)
    ranked = []
    for group in parts.own_groups():
        own = torch.from_numpy(group["row"]).to(device)
        # The codes are the greater part of it, and have done their work.
        kept = {name: array for name, array in group.items() if array.ndim == 1}
        for task in tasks:
            for name, code in (("rank", "query"), ("given_rank", "given")):
                queries = torch.from_numpy(group[f"{task.name}.{code}"]).to(device)
                kept[f"{task.name}.{name}"] = retrieval_ranks(queries, own, codes).cpu().numpy()
            is_empty: npt.NDArray[Any] = np.isnan(group[f"{task.name}.query"]).any(axis=1)  # type: ignore[assignment]
            kept[f"{task.name}.is_empty"] = is_empty
        ranked.append(kept)
    return ranked
