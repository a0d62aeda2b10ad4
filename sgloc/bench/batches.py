"""Set up a benchmark: the batch to measure on, and the engine that a training run would use."""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import torch

from sgloc import dist
from sgloc.bench.drawn import draw_batch
from sgloc.bench.options import BatchOptions
from sgloc.data.batch import PackedBatch, Preparation
from sgloc.data.manifest import SPLITS, Manifest, Moments, Split, add_counts, load_manifest
from sgloc.data.order import Order
from sgloc.data.reader import ShardReader
from sgloc.data.stream import Share, training_batches
from sgloc.masking import mask
from sgloc.models.sketchgloc.config import Config
from sgloc.models.sketchgloc.recipe import SketchGlocRecipe
from sgloc.train.engine import Engine, open_engine


def open_batches(data: str, manifest: Manifest, config: Config, size: int) -> Generator[PackedBatch, None, None]:
    """Yield the training batches of a single-process run, from its first step.

    Raises:
        DataError: if the data set has no training drawings.
    """
    reader, order = ShardReader(data, manifest, "train"), Order.of_training(manifest, config.train.seed)
    return training_batches(
        reader, order, Share(size), prefetch=config.data.prefetch, num_threads=config.data.read_threads
    )


def first_batch(options: BatchOptions, config: Config) -> tuple[PackedBatch, Manifest]:
    """Return the batch to measure on, and the manifest of its data set.

    Raises:
        DataError: if the shards cannot be used.
    """
    if options.data is None:
        packed = draw_batch(options.batch, config.train.seed)
        return packed, drawn_manifest(packed)
    manifest = load_manifest(options.data)
    with closing(open_batches(options.data, manifest, config, options.batch)) as batches:
        return next(batches), manifest


def drawn_manifest(packed: PackedBatch) -> Manifest:
    """Return a manifest without shards; its training split contains exactly the drawings of one batch."""
    points, strokes = np.diff(packed.point_starts).tolist(), packed.num_strokes.tolist()
    splits = {name: Split() for name in SPLITS}
    splits["train"] = Split(points=add_counts([points]), strokes=add_counts([strokes]))
    origin: dict[str, Any] = {"num_read": 0, "skipped": {}, "rejected": {}, "sources": [], "licence": ""}
    return Manifest.of(splits, Moments.of(packed.offsets), sketches_per_block=1, **origin)


def preparation(config: Config, manifest: Manifest) -> Preparation:
    """Return the preparation that a run applies to its training batches."""
    return SketchGlocRecipe().preparations(config, manifest)[0]


@contextmanager
def opened_engine(config: Config, manifest: Manifest, device: torch.device) -> Iterator[Engine]:
    """Open the engine of a single-process run, with initial weights; close it on exit."""
    with dist.process_group(dist.resolve_placement({}), device) as group:
        model = SketchGlocRecipe().build_model(config, manifest).to(device)
        with closing(open_engine(model, config, group)) as engine:
            yield engine


def describe(packed: PackedBatch, options: BatchOptions) -> dict[str, object]:
    """Return the source of a batch, and its sizes as stored in the shards, before augmentation."""
    num_points = np.diff(packed.point_starts)
    return {
        "data": mask(options.data or "drawn"),
        "sketches": len(packed),
        "mean_points": float(num_points.mean()),
        "longest_points": int(num_points.max()),
        "mean_strokes": float(packed.num_strokes.mean()),
        "most_strokes": int(packed.num_strokes.max()),
        "repeats": options.repeats,
    }
