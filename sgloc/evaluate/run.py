"""`sgloc evaluate`: the metrics of a whole test set, computed by any number of ranks (METHOD 10).

The test set is split into batches independently of the number of ranks. The arrays of each batch go to a part file of
their own, so an interrupted evaluation resumes where it stopped. Once all parts exist, each rank reads every part once
and finishes its own batches, and rank 0 computes the summary.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sgloc.data.block import IntArray
from sgloc.data.manifest import Manifest
from sgloc.data.reader import ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.dist import Group
from sgloc.errors import ConfigError
from sgloc.evaluate.bootstrap import Bootstrap
from sgloc.evaluate.measure import DRAWN, GIVEN, Measuring, named, section
from sgloc.evaluate.metric import Arrays, Models
from sgloc.evaluate.metrics import all_metrics
from sgloc.evaluate.options import EvaluateOptions
from sgloc.evaluate.parts import Parts, join
from sgloc.evaluate.tables import OF_GIVEN, markdown, tables
from sgloc.hub.load import load_model, whole_model
from sgloc.hub.split import open_split
from sgloc.models.sketch_a_net.load import load_classifier
from sgloc.storage import Storage
from sgloc.strict_json import to_json
from sgloc.terminal import tracked
from sgloc.tf32 import float32_products
from sgloc.train.record import recorded_place, versions

RESULTS, TABLES, PLAN = "results.json", "results.md", "plan.json"


def evaluate(
    checkpoint: str, data: str, classifier: str, folder: str, options: EvaluateOptions, ranks: Group, *, kind: str = ""
) -> dict[str, Any] | None:
    """Evaluate a model, or resume its evaluation. All ranks must call this function.

    Writes results.json, results.md and parts/, which holds one file per batch; a later call resumes from these.

    Args:
        checkpoint: folder or URL of a checkpoint, a run or an exported model.
        data: folder or URL of shards.
        classifier: run of `sgloc train-classifier` on the same shards; empty skips the metric Rec.
        folder: folder or URL to write to.
        options: what to measure, and how.
        ranks: the process group; each rank computes on the group's device.
        kind: kind of the model, see `load_model`.

    Returns:
        The content of results.json on rank 0; None on the other ranks.

    Raises:
        SglocError: if the checkpoint, the classifier or the shards cannot be used, or the folder cannot be written or
            holds another evaluation.
    """
    device = ranks.device
    # Only rank 0 resolves the places: a run may save a better checkpoint while the other ranks are still looking.
    places = ranks.on_rank_0(lambda: [whole_model(place) if place else "" for place in (checkpoint, classifier)])
    reader, measuring = ranks.on_each_rank(lambda: _load(places[0], kind, data, places[1], options, device))
    manifest = reader.manifest
    chosen = reader.spread(options.count or reader.num_sketches)
    storage = Storage(folder)
    plan = _plan(manifest, measuring.models, options, len(chosen))
    ranks.on_rank_0(lambda: _agree(storage, {**plan, "metrics": [metric.name for metric in measuring.metrics]}))
    parts = Parts(storage, len(chosen), options.batch_size, ranks.rank, ranks.world_size)
    with _one_thread(device), float32_products(device):
        ranks.on_each_rank(lambda: _measure(parts, reader, chosen, measuring, options.batch_size))
        ranks.on_each_rank(parts.take_others)
        gathered = ranks.gather(ranks.on_each_rank(lambda: list(_finished(parts, measuring, device))))
    if ranks.rank != 0:
        return None
    tasks = _summarise(join([group for groups in gathered for group in groups]), manifest, options)
    results = {**plan, "tasks": tasks, "tables": tables(tasks)}
    results["model"] = {"checkpoint": recorded_place(checkpoint), **plan["model"]}
    results["data"] = {"path": recorded_place(data), **plan["data"]}
    if measuring.models.classifier is not None:
        judged_by = recorded_place(measuring.models.classifier.checkpoint)
        results["classifier"] = {"checkpoint": judged_by, **plan["classifier"]}
    storage.save({RESULTS: (to_json(results, indent=1) + "\n").encode(), TABLES: markdown(results).encode()})
    return results


@contextlib.contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Compute with a single thread on a CPU inside the context.

    The last digit of a product, and therefore a drawing, can depend on the number of threads. Use more processes to
    use more cores.
    """
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _load(
    checkpoint: str, kind: str, data: str, classifier: str, options: EvaluateOptions, device: torch.device
) -> tuple[ShardReader, Measuring]:
    pretrained = load_model(checkpoint, device, kind)
    reader, prepare = open_split(pretrained, data, options.split, options.seed)
    judge = load_classifier(classifier, device) if classifier else None
    if judge is not None and judge.data_identity != reader.manifest.identity:
        raise ConfigError(
            f"the classifier {classifier} was not trained on the shards {data}; pass one that was trained on them"
        )
    models = Models(pretrained, judge)
    metrics = [metric for metric in all_metrics() if metric.applies(models)]
    max_points = options.max_points or pretrained.longest_points
    return reader, Measuring(models, prepare, metrics, options.tasks, options.temperature, max_points)


def _fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of a model's tensors."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
    return digest.hexdigest()


def _plan(manifest: Manifest, models: Models, options: EvaluateOptions, count: int) -> dict[str, Any]:
    """Return what identifies an evaluation, independently of where its model and its shards are stored."""
    pretrained, judge = models.pretrained, models.classifier
    return {
        "format": "sgloc-evaluation",
        "version": 1,
        "model": {
            "weights": _fingerprint(pretrained.model),
            "trained_on": pretrained.data_identity,
            "options": asdict(pretrained.model.config),
        },
        "data": {"identity": manifest.identity, "licence": manifest.licence, "sketches": count},
        "classifier": {"weights": _fingerprint(judge.model)} if judge else None,
        "options": {**asdict(options), "tasks": list(options.tasks)},
        # Parts computed by different versions must not be mixed.
        "versions": versions(),
    }


def _agree(storage: Storage, plan: dict[str, Any]) -> None:
    """Write the plan to an empty folder, or check that it equals the plan there.

    Raises:
        ConfigError: if the folder holds another evaluation.
    """
    text = (to_json(plan, indent=1) + "\n").encode()
    if storage.exists(PLAN):
        with storage.reading(PLAN):
            held = storage.content(PLAN)
        if held != text:
            raise ConfigError(
                f"{storage.location} holds another evaluation (of other weights, shards, options or versions); "
                "choose another folder"
            )
    else:
        storage.save({PLAN: text})


def _measure(parts: Parts, reader: ShardReader, chosen: IntArray, measuring: Measuring, batch_size: int) -> None:
    """Measure those of this rank's batches that have no part yet."""
    missing = parts.missing()
    if missing:
        some = np.concatenate([chosen[parts.rows[number]] for number in missing])
        batches = tracked(fixed_batches(reader, some, batch_size=batch_size), "sketches", len(some))
        for number, packed in zip(missing, batches, strict=True):
            parts.write(number, measuring.measure(packed))


def _finished(parts: Parts, measuring: Measuring, device: torch.device) -> Iterator[Arrays]:
    """Yield the finished arrays of this rank's batches, one number per sketch in each array."""
    shared = {name: torch.from_numpy(array).to(device) for name, array in parts.shared.items()}
    for group in parts.own_groups():
        rows = torch.from_numpy(group["row"]).to(device)
        kept = {name: group[name] for name in ("row", "label", *(f"{task}/is_empty" for task in measuring.tasks))}
        for task, kind, metric in itertools.product(measuring.tasks, (DRAWN, GIVEN), measuring.metrics):
            name = f"{task}/{kind}/{metric.name}"
            kept |= named(name, metric.finish(section(name, group), section(metric.name, shared), rows))
        yield kept


def _summarise(arrays: Arrays, manifest: Manifest, options: EvaluateOptions) -> list[dict[str, Any]]:
    """Summarise each task over all sketches and by category."""
    order, bootstrap = np.argsort(arrays["row"]), Bootstrap(options.resamples, options.seed)
    arrays = {name: array[order] for name, array in arrays.items()}
    labels = arrays["label"]

    def summary(task: str, chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
        own = {name: array[chosen] for name, array in section(task, arrays).items()}
        found: dict[str, Any] = {"sketches": int(chosen.sum()), "empty": int(own["is_empty"].sum())}
        for metric in all_metrics():
            for prefix, kind in (("", DRAWN), (OF_GIVEN, GIVEN)):
                kept = section(f"{kind}/{metric.name}", own)
                found[f"{prefix}{metric.name}"] = metric.summarise(kept, bootstrap) if kept else None
        return found

    present = [(name, number) for number, name in enumerate(manifest.categories) if (labels == number).any()]
    return [
        {
            "task": task,
            **summary(task, np.ones(len(labels), dtype=bool)),
            "categories": {name: summary(task, labels == number) for name, number in present},
        }
        for task in options.tasks
    ]
