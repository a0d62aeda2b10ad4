"""What to measure, on which batch."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from sgloc.bench.drawn import draw_batch
from sgloc.config import Config
from sgloc.data.batch import PackedBatch, Preparation
from sgloc.data.manifest import Manifest, Split, load_manifest
from sgloc.data.order import Order
from sgloc.data.reader import ShardReader
from sgloc.data.stream import Share, training_batches
from sgloc.errors import ConfigError, DataError
from sgloc.masking import mask

What = Literal[
    "ops", "stream", "step", "generate", "checkpoint", "order", "scale", "scaling", "parity", "resume", "retrieval"
]

# Sketches in a batch (for order: of a rank) and repeats, where none are asked for.
_DEFAULTS: dict[What, tuple[int, int]] = {
    "ops": (1024, 10),
    "stream": (100, 3),
    "step": (100, 5),
    "generate": (256, 3),
    "checkpoint": (100, 5),
    "order": (64, 1),
    "scale": (1024, 1),
    "scaling": (1024, 1),
    "parity": (64, 1),
    "resume": (64, 1),
    "retrieval": (20_000, 3),
}
# Of real runs, DistributedDataParallel first.
ENGINES = ("ddp", "zero0", "zero1", "zero2", "zero3")
WORLD_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_LEAST_BATCH = 2
# Where the smallest of QuickDraw's categories still has some.
_LEAST_SKETCHES = 10_000


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        what: which part.
        device: on which.
        data: folder or URL of shards; None: a drawn batch.
        batch: sketches in a batch; 0: as many as is usual for this part.
        repeats: of each measurement; 0: likewise.
        long_sketch: points of the very long sketch that one of two steps has in addition.
        ceiling_size: of the square matrices whose product is the ceiling.
        sketches: in the made-up QuickDraw that an order is simulated on or that is built and streamed.
        world_sizes: numbers of ranks that are simulated, or trained on.
        plot: image file to write.
        folder: to build in, or for checkpoints.
        num_workers: processes that build.
        remote: URL of the same shards on a server, to be streamed from as well.
        costs: of a rank and the network, as `Costs.parse` takes them.
        steps: that are compared; 0: as many as is usual for this part.
        engines: to train with, of ENGINES.
        accumulations: numbers of parts to compute a batch in.
    """

    what: What
    device: torch.device
    data: str | None = None
    batch: int = 0
    repeats: int = 0
    long_sketch: int = 1000
    ceiling_size: int = 2048
    sketches: int = 50_000_000
    world_sizes: tuple[int, ...] = WORLD_SIZES
    plot: str | None = None
    folder: str | None = None
    num_workers: int = 1
    remote: str | None = None
    costs: str = ""
    steps: int = 0
    engines: tuple[str, ...] = ENGINES
    accumulations: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self) -> None:
        if self.batch != 0 and not _LEAST_BATCH <= self.batch <= 10**6:
            raise ConfigError(f"batch must be from {_LEAST_BATCH} to 1,000,000, or 0 for the default, not {self.batch}")
        if not 0 <= self.repeats <= 10**6:
            raise ConfigError(f"repeats must be from 1 to 1,000,000, or 0 for the default, not {self.repeats}")
        if not _LEAST_SKETCHES <= self.sketches < 2**31:
            raise ConfigError(f"sketches must be from {_LEAST_SKETCHES} to {2**31 - 1}, not {self.sketches}")
        if not self.world_sizes or min(self.world_sizes) < 1:
            raise ConfigError(f"world_sizes must be at least one number from 1 on, not {self.world_sizes}")
        if not self.accumulations or min(self.accumulations) < 1:
            raise ConfigError(f"accumulations must be at least one number from 1 on, not {self.accumulations}")
        if self.steps < 0:
            raise ConfigError(f"steps must be at least 1, or 0 for the default, not {self.steps}")
        for engine in self.engines:
            if engine not in ENGINES:
                raise ConfigError(f"engines must be of {', '.join(ENGINES)}, not {engine!r}")

    @property
    def num_sketches(self) -> int:
        """Sketches in a batch."""
        return self.batch or _DEFAULTS[self.what][0]

    @property
    def num_repeats(self) -> int:
        """Repeats of each measurement."""
        return self.repeats or _DEFAULTS[self.what][1]


def training_split(data: str, manifest: Manifest) -> Split:
    """The training split of shards.

    Raises:
        DataError: if it is empty.
    """
    split = manifest.splits["train"]
    if split.num_sketches == 0:
        raise DataError(f"{data} holds no training drawing; build the shards from more drawings")
    return split


def open_batches(data: str, manifest: Manifest, config: Config, size: int) -> Generator[PackedBatch, None, None]:
    """The training batches of a run of one process, from its start.

    Raises:
        DataError: if there is no training drawing.
    """
    training_split(data, manifest)
    order = Order.of_training(manifest, config.train.seed)
    return training_batches(
        ShardReader(data, manifest, "train"),
        order,
        Share(size),
        prefetch=config.data.prefetch,
        num_threads=config.data.read_threads,
    )


def first_batch(options: BenchOptions, config: Config) -> tuple[PackedBatch, float]:
    """The batch to measure on, and the scale of its data set (METHOD 1).

    Raises:
        DataError: if the shards cannot be used.
    """
    if options.data is not None:
        manifest = load_manifest(options.data)
        with closing(open_batches(options.data, manifest, config, options.num_sketches)) as batches:
            return next(batches), manifest.scale
    packed = draw_batch(options.num_sketches, config.train.seed)
    return packed, float(packed.offsets.std())


def preparation(config: Config, scale: float) -> Preparation:
    """How the run prepares its training batches."""
    return Preparation(
        scale=scale,
        seed=config.train.seed,
        disturb=config.data.disturb,
        max_node_points=config.model.max_node_points,
        augment_scale=config.data.augment_scale,
        drop_probability=config.data.drop_probability,
        translate=config.data.translate,
    )


def describe(packed: PackedBatch, options: BenchOptions) -> dict[str, object]:
    """Where a batch comes from, and its sizes as it stands in the shards, before any augmentation."""
    num_points = np.add.reduceat(packed.stroke_lengths, np.cumsum(packed.num_strokes) - packed.num_strokes)
    return {
        "data": mask(options.data or "drawn"),
        "sketches": len(packed),
        "mean_points": float(num_points.mean()),
        "longest_points": int(num_points.max()),
        "mean_strokes": float(packed.num_strokes.mean()),
        "most_strokes": int(packed.num_strokes.max()),
        "repeats": options.num_repeats,
    }
