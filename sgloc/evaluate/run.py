"""`sgloc evaluate`: Rec, Ret and distances over a whole test set, by any number of ranks (METHOD 10).

The test set is cut into batches that do not depend on the ranks. What a batch gave is written as a file of its own, so
that an evaluation that is stopped goes on where it was; all ranks then share in ranking, and rank 0 sums up.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import nn

from sgloc import dist
from sgloc.classifier.load import Classifier, load_classifier
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.data.origin import starts_at_first_point
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.errors import ConfigError, DataError
from sgloc.evaluate.load import load_model
from sgloc.evaluate.measure import Measuring
from sgloc.evaluate.pretrained import Pretrained
from sgloc.evaluate.results import Outcome, markdown, summarise
from sgloc.evaluate.retrieval import retrieval_ranks
from sgloc.evaluate.tasks import EvaluationTask
from sgloc.strict_json import to_json
from sgloc.tf32 import float32_products
from sgloc.train.checkpoint.storage import Storage, describe, patiently
from sgloc.train.versions import versions

RESULTS, TABLES, PLAN, PARTS = "results.json", "results.md", "plan.json", "parts"
# What there is of each task, one number a sketch.
_OF_TASK = ("category", "given_category", "moved", "left", "strokes", "is_empty")
Array = npt.NDArray[Any]


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
    with _one_thread(device), float32_products(device):
        dist.on_each_rank(lambda: _measure_all(storage, reader, chosen, measuring, options, rank, world_size, tell))
    num_parts = -(-count // options.batch_size)
    outcomes = _retrieve(storage, num_parts, options.tasks, rank, world_size, device)
    if rank != 0:
        return None
    tasks = summarise(outcomes, manifest.categories, options.num_resamples, options.seed)
    results = {**plan, "tasks": tasks}
    _write(storage, RESULTS, (to_json(results, indent=1) + "\n").encode())
    _write(storage, TABLES, markdown(results).encode())
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
            "checkpoint": checkpoint,
            "weights": _fingerprint(model.model),
            "trained_on": model.data_identity,
            "options": asdict(model.model.config),
        },
        "data": {"path": data, "identity": manifest.identity, "licence": manifest.licence, "sketches": count},
        "classifier": None if judge is None else {"checkpoint": judge.checkpoint, "weights": _fingerprint(judge.model)},
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
        storage.make_folder(PARTS)
    except OSError as error:
        raise _unwritable(storage, error) from error
    _write(storage, PLAN, (to_json(plan, indent=1) + "\n").encode())


def _write(storage: Storage, name: str, content: bytes) -> None:
    try:
        patiently(lambda: storage.write(name, [content]))
    except OSError as error:
        raise _unwritable(storage, error) from error


def _unwritable(storage: Storage, error: OSError) -> DataError:
    return DataError(f"cannot write to {storage.location} ({describe(error)}); give an --out that can be written")


def _part_name(number: int) -> str:
    return f"{PARTS}/{number:06d}.safetensors"


def _measure_all(
    storage: Storage,
    reader: ShardReader,
    chosen: npt.NDArray[np.int64],
    measuring: Measuring,
    options: EvaluateOptions,
    rank: int,
    world_size: int,
    tell: Callable[[str], None],
) -> None:
    """This rank's batches that are not there yet."""
    starts = range(0, len(chosen), options.batch_size)
    there = storage.sizes(PARTS)
    for number in range(rank, len(starts), world_size):
        name = _part_name(number)
        if there.get(name.rpartition("/")[2]) and _read_part(storage, number) is not None:
            continue
        some = chosen[starts[number] : starts[number] + options.batch_size]
        (packed,) = fixed_batches(reader, some, batch_size=len(some))
        _write(storage, name, safetensors.numpy.save(measuring.measure(packed, options.tasks)))
        tell(f"{min(number + world_size, len(starts))} of {len(starts)} batches are evaluated")


def _read_part(storage: Storage, number: int) -> dict[str, Array] | None:
    """What a batch gave; None where its file was cut short."""
    with storage.reading(_part_name(number)):
        content = storage.content(_part_name(number))
    try:
        return safetensors.numpy.load(content)
    except (SafetensorError, ValueError, KeyError):
        return None


def _arrays(storage: Storage, num_parts: int, name: str) -> Iterator[Array]:
    """An array of each part, one after the other."""
    for number in range(num_parts):
        part = _read_part(storage, number)
        if part is None or name not in part:
            raise DataError(f"{storage.location}/{_part_name(number)} is damaged; remove it and start again")
        yield part[name]


def _ranks(
    storage: Storage,
    num_parts: int,
    task: EvaluationTask,
    gallery: npt.NDArray[np.float32],
    rank: int,
    world_size: int,
    device: torch.device,
) -> npt.NDArray[np.int64]:
    """Ranks of this rank's share of what was drawn, and of what was given: int64 [2, n]."""
    mine = slice(len(gallery) * rank // world_size, len(gallery) * (rank + 1) // world_size)
    own = torch.arange(mine.start, mine.stop, device=device)
    codes = torch.from_numpy(gallery).to(device)
    found = []
    for name in ("query", "given"):
        queries = np.concatenate(list(_arrays(storage, num_parts, f"{task.name}.{name}")))[mine]
        found.append(retrieval_ranks(torch.from_numpy(queries).to(device), own, codes).cpu().numpy())
    return np.stack(found)


def _retrieve(
    storage: Storage, num_parts: int, tasks: Sequence[EvaluationTask], rank: int, world_size: int, device: torch.device
) -> list[Outcome]:
    """Find every redrawn sketch's own original, each rank a share of them; the outcomes are on rank 0."""
    gallery = dist.on_each_rank(lambda: np.concatenate(list(_arrays(storage, num_parts, "gallery"))))
    outcomes = []
    for task in tasks:
        ranks = dist.on_each_rank(
            lambda task=task: _ranks(storage, num_parts, task, gallery, rank, world_size, device)  # type: ignore[misc]
        )
        gathered = dist.gather_to_rank_0(ranks)
        if rank == 0:
            outcomes.append(_outcome(storage, num_parts, task, np.concatenate(gathered, axis=1)))
    # Nobody ends before rank 0 has them all.
    dist.on_each_rank(lambda: None)
    return outcomes


def _outcome(storage: Storage, num_parts: int, task: EvaluationTask, ranks: npt.NDArray[np.int64]) -> Outcome:
    kept: dict[str, list[Array]] = {}
    for number in range(num_parts):
        part = _read_part(storage, number) or {}
        is_empty: Array = np.isnan(part[f"{task.name}.query"]).any(axis=1)  # type: ignore[assignment]
        part[f"{task.name}.is_empty"] = is_empty
        for name, array in part.items():
            # The codes are the greater part of it, and have done their work.
            if array.ndim == 1:
                kept.setdefault(name, []).append(array)

    def whole(name: str) -> Any:
        return np.concatenate(kept[name]) if name in kept else None

    own = {name: whole(f"{task.name}.{name}") for name in _OF_TASK}
    return Outcome(task.name, whole("label"), ranks[0], ranks[1], **own)
