"""Computed cost of a step and an epoch at many ranks.

The ranks' shares of global batches come from the real order; the rest is computed from the costs of one rank and of the
network.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.study import number_of_sketches, require_counts, run_study
from benchmarks.tables import Table, TableReport
from sgloc.bench.drawn import draw_batch
from sgloc.bench.report import Record
from sgloc.config import Options
from sgloc.data.batch import PackedBatch
from sgloc.data.block import IntArray
from sgloc.data.formats.sources import CATEGORIES
from sgloc.data.manifest import load_manifest
from sgloc.data.order import Order, Places
from sgloc.data.reader import ShardReader
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.config import Config
from sgloc.models.sketchgloc.network import SketchGloc

_SKETCHES_PER_SHARD, _SKETCHES_PER_BLOCK = 16_384, 1024
# The most global batches to average over, and the most drawings whose lengths are read.
_MOST_BATCHES, _MOST_READ = 64, 2**18
_NUM_DRAWN = 2048
_BYTES_A_SKETCH = 214.8
# Ring passes of a gradient-sized buffer per step, as counted in real steps (DeepSpeed 0.19.8). An all-reduce is two
# passes. Stages 1 and 2 also all-gather the new weights. Stage 3 only reduce-scatters the gradient, and all-gathers the
# weights once.
_PASSES = {"DDP and ZeRO 0": 2, "ZeRO 1 and 2": 3, "ZeRO 3": 2}
_SHARE_HEADINGS = {
    "world_size": ("ranks", ",d"),
    "global_batch": ("global batch", ",d"),
    "sketches": ("sketches of a rank", ",.1f"),
    "most_points": ("points, most / mean", ".2f"),
    "most_points_at_random": ("if dealt at random", ".2f"),
    "longest_of_rank": ("longest drawing of a rank", ",.0f"),
    "longest": ("longest of all", ",.0f"),
}
_STEP_HEADINGS = {
    "world_size": ("ranks", ",d"),
    "global_batch": ("global batch", ",d"),
    "compute": ("compute, ms", ",.1f"),
    "gradient": ("gradient, ms", ",.1f"),
    "small": ("small all-reduces, ms", ",.2f"),
    "step": ("step, ms", ",.1f"),
    "sketches_per_second": ("sketches/s", ",.0f"),
    "efficiency": ("efficiency", ".2f"),
    "steps": ("steps per epoch", ",.0f"),
    "epoch_hours": ("epoch, h", ",.2f"),
}
_BYTE_HEADINGS = {
    "world_size": ("ranks", ",d"),
    **{name: (f"{name}, MB per step", ",.1f") for name in _PASSES},
    "small": ("batch norm and losses, KB per step", ",.1f"),
    "read": ("read, MB per epoch", ",.0f"),
}


@dataclass(frozen=True)
class ScalingOptions(Options):
    """What to compute."""

    data: str | None = None
    """Folder or URL of the shards that supply the drawings' lengths; default: synthetic lengths."""
    batches: tuple[int, ...] = (100, 1024, 8192, 32768)
    """Global batch sizes, comma-separated."""
    sketches: int = number_of_sketches()
    """Sketches per epoch."""
    world_sizes: tuple[int, ...] = (8, 64, 512)
    """Numbers of ranks, comma-separated."""
    costs: str = ""
    """Seconds per point of the longest drawing (launch), per drawing (sketch) and per doubling of the ranks (latency),
    and bytes per second (bandwidth); about the default: launch=2e-4,sketch=1e-5,latency=1e-5,bandwidth=1e11."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts("batches", self.batches)
        require_counts("world_sizes", self.world_sizes)


@dataclass(frozen=True)
class Costs:
    """Costs of one rank and of the network.

    The defaults are those of an H100 with compiled steps (computed, docs/PERFORMANCE.md) and of an assumed network.

    Attributes:
        launch: seconds per step for each point of the longest drawing, regardless of the number of drawings.
        sketch: seconds per step for each drawing of mean length.
        latency: seconds of a small all-reduce for each doubling of the ranks.
        bandwidth: bus bandwidth of an all-reduce as defined by nccl-tests, in bytes per second.
    """

    launch: float = 0.031 / 161
    sketch: float = 1e-5
    latency: float = 1e-5
    bandwidth: float = 1e11

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"costs: {name} must be above 0, not {value}")

    @classmethod
    def parse(cls, text: str) -> "Costs":
        """Parse costs such as "launch=0.0002,bandwidth=4e10"; costs that are not named keep their defaults.

        Raises:
            ConfigError: if a name is unknown or a value is not a number.
        """
        names = [one.name for one in dataclasses.fields(cls)]
        values = {}
        for word in filter(None, text.split(",")):
            name, _, value = word.partition("=")
            try:
                values[name] = float(value)
            except ValueError as error:
                raise ConfigError(f"costs: {word!r} is not a name and a number, such as latency=1e-5") from error
            if name not in names:
                raise ConfigError(f"costs: unknown name {name!r}; the names are {', '.join(names)}")
        return cls(**values)


@dataclass(frozen=True)
class Collectives:
    """The collectives of a training step without ZeRO.

    Attributes:
        gradient: elements of the gradient, float32; reduced in buckets, one all-reduce each.
        small: bytes of every other all-reduce: batch norm's row count, sums and sums of squares, the gradients of
            both sums, and the losses together with the stop flag.
    """

    gradient: int
    small: tuple[int, ...]

    @classmethod
    def of(cls, config: Config) -> "Collectives":
        """Return the collectives of a configuration's model."""
        with torch.device("meta"):
            model = SketchGloc(config.model, config.loss, 2)
        gradient = sum(parameter.numel() for parameter in model.parameters())
        of_features = 4 * 2 * config.model.encoder.hidden_size
        return cls(gradient, (4, *[of_features] * 4, 5 * 8))


def bytes_sent(num_bytes: float, num_passes: int, world_size: int) -> float:
    """Return the bytes that each rank sends in a ring for `num_passes` passes of a buffer; an all-reduce takes 2."""
    return num_passes * (world_size - 1) / world_size * num_bytes


@dataclass(frozen=True)
class Lengths:
    """Lengths of a data set's drawings, and their order.

    Attributes:
        order: order of the drawings.
        num_points: int16 [N], points of each drawing.
    """

    order: Order
    num_points: npt.NDArray[np.int16]

    @classmethod
    def draw(cls, num_sketches: int, by_category: list[IntArray], seed: int) -> "Lengths":
        """Draw a data set with categories of equal size, resampling the lengths observed in each.

        Args:
            num_sketches: approximate total number of drawings.
            by_category: int64 [n] each, points of observed drawings of each category.
            seed: seed of the resampling and of the order.
        """
        generator = np.random.default_rng(seed)
        size = max(1, num_sketches // len(by_category))
        num_points = np.concatenate([generator.choice(seen, size).astype(np.int16) for seen in by_category])
        full, rest = divmod(size, _SKETCHES_PER_SHARD)
        sizes = ([_SKETCHES_PER_SHARD] * full + [rest] * (rest > 0)) * len(by_category)
        starts = Order(sizes, _SKETCHES_PER_BLOCK, seed).block_starts
        block_points = np.add.reduceat(num_points, starts, dtype=np.int64)
        return cls(Order(sizes, _SKETCHES_PER_BLOCK, seed, block_points), num_points)

    def batches(self, global_batch: int) -> IntArray:
        """Return the points of the drawings of some global batches, int64 [n, global_batch].

        The batches are spread evenly over the first epoch. Within a batch, the ranks' shares are consecutive.
        """
        order = self.order
        num_batches = max(1, min(_MOST_BATCHES, order.num_sketches // global_batch))
        firsts = [order.num_sketches // global_batch * number // num_batches for number in range(num_batches)]
        # With a world size of 1 the share is the whole batch, in the order in which it is split into ranks' shares.
        places = [order.share(first * global_batch, 1, global_batch, 0, 1) for first in firsts]
        return np.stack([self._points_at(one) for one in places])

    def _points_at(self, places: Places) -> IntArray:
        order = self.order
        numbers, which = np.unique(places.epoch * order.num_blocks + places.block, return_inverse=True)
        sketches = np.empty(len(places), dtype=np.int64)
        by_block = np.argsort(which, kind="stable")
        bounds = np.searchsorted(which[by_block], np.arange(len(numbers) + 1)).tolist()
        for number, start, stop in zip(numbers.tolist(), bounds[:-1], bounds[1:], strict=True):
            epoch, block = divmod(number, order.num_blocks)
            here = by_block[start:stop]
            sketches[here] = order.block_starts[block] + order.visits(epoch, block)[places.visit[here]]
        return self.num_points[sketches].astype(np.int64)


def shares(points: IntArray, world_size: int) -> Record:
    """Measure the imbalance between the ranks' shares of global batches, on average.

    Args:
        points: int64 [n, global_batch], from `Lengths.batches`.
        world_size: number of ranks.
    """
    global_batch = points.shape[1]
    begins = [global_batch * rank // world_size for rank in range(world_size)]
    longest = np.maximum.reduceat(points, begins, axis=1)
    at_random = np.random.default_rng(0).permuted(points, axis=1)

    def most(of: IntArray) -> float:
        sums = np.add.reduceat(of, begins, axis=1)
        return float((sums.max(1) / sums.mean(1)).mean())

    return {
        "world_size": world_size,
        "global_batch": global_batch,
        "sketches": global_batch / world_size,
        "most_points": most(points),
        "most_points_at_random": most(at_random),
        "longest_of_rank": float(longest.mean()),
        "longest": float(longest.max(1).mean()),
    }


def step(costs: Costs, collectives: Collectives, share: Record, num_sketches: int) -> Record:
    """Compute the duration of a step in milliseconds, in which all ranks wait for the slowest, and the numbers derived.

    No overlap is assumed, neither of the gradient's all-reduce with the backward pass nor of launches with arithmetic.

    Args:
        costs: costs of a rank and of the network.
        collectives: collectives of a step.
        share: record from `shares`.
        num_sketches: sketches per epoch.
    """
    world_size, global_batch = share["world_size"], share["global_batch"]
    compute = costs.launch * share["longest"] + costs.sketch * share["sketches"] * share["most_points"]
    alone = costs.launch * share["longest_of_rank"] + costs.sketch * share["sketches"]
    latency = costs.latency * math.ceil(math.log2(world_size))
    gradient = bytes_sent(4 * collectives.gradient, 2, world_size) / costs.bandwidth + latency * (world_size > 1)
    small = latency * len(collectives.small)
    seconds = compute + gradient + small
    milliseconds = {"compute": compute, "gradient": gradient, "small": small, "step": seconds}
    return {
        "world_size": world_size,
        "global_batch": global_batch,
        **{name: 1e3 * value for name, value in milliseconds.items()},
        "sketches_per_second": global_batch / seconds,
        "efficiency": alone / seconds,
        "steps": num_sketches / global_batch,
        "epoch_hours": num_sketches / global_batch * seconds / 3600,
    }


def study_scaling(options: ScalingOptions, config: Config) -> TableReport:
    """Compute the duration of a step and of an epoch at several numbers of ranks and global batch sizes.

    Args:
        options: data set, global batch sizes, numbers of ranks and costs.
        config: configuration of the run.

    Raises:
        SglocError: if the shards cannot be used.
    """
    costs, collectives = Costs.parse(options.costs), Collectives.of(config)
    lengths = Lengths.draw(options.sketches, _seen_lengths(options, config), config.train.seed)
    num_sketches = len(lengths.num_points)
    points = [lengths.batches(batch) for batch in options.batches]
    dealt = [shares(one, size) for size in options.world_sizes for one in points if one.shape[1] >= size]
    settings = {
        "data": options.data or "drawn, without categories",
        "sketches": num_sketches,
        "parameters": collectives.gradient,
        "all-reduces besides the gradient's": len(collectives.small),
        **dataclasses.asdict(costs),
    }
    steps = [step(costs, collectives, one, num_sketches) for one in dealt]
    tables = [
        Table("shares of a global batch, simulated", _SHARE_HEADINGS, dealt),
        Table("a step, computed", _STEP_HEADINGS, steps),
        Table(
            "bytes of a rank, computed",
            _BYTE_HEADINGS,
            [_bytes(collectives, size, num_sketches) for size in options.world_sizes],
        ),
    ]
    return TableReport("scaling", settings, tables)


def _bytes(collectives: Collectives, world_size: int, num_sketches: int) -> Record:
    of_gradient = 4 * collectives.gradient
    return {
        "world_size": world_size,
        **{name: bytes_sent(of_gradient, passes, world_size) / 1e6 for name, passes in _PASSES.items()},
        "small": bytes_sent(sum(collectives.small), 2, world_size) / 1e3,
        "read": _BYTES_A_SKETCH * num_sketches / world_size / 1e6,
    }


def _seen_lengths(options: ScalingOptions, config: Config) -> list[IntArray]:
    """Return the points of real drawings of each category or, without shards, the same synthetic ones for all."""
    if options.data is None:
        points = _num_points(draw_batch(_NUM_DRAWN, config.train.seed))
        return [points] * len(CATEGORIES)
    manifest = load_manifest(options.data)
    reader, split = ShardReader(options.data, manifest, "train"), manifest.splits["train"]
    every = -(-split.num_sketches // _MOST_READ)
    packed = [reader.unpack(reader.fetch_bytes(block), block, 0) for block in range(0, reader.num_blocks, every)]
    points = np.concatenate([_num_points(one) for one in packed])
    categories = np.concatenate([one.category for one in packed])
    return [points[categories == number] for number in np.unique(categories)]


def _num_points(packed: PackedBatch) -> IntArray:
    """Return the points of each drawing, int64 [B]."""
    firsts = np.cumsum(packed.num_strokes) - packed.num_strokes
    return np.add.reduceat(packed.stroke_lengths, firsts, dtype=np.int64)


def main(arguments: list[str]) -> int:
    """Run the study."""
    return run_study("scaling", study_scaling, ScalingOptions, arguments)
