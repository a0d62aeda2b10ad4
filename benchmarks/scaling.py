"""What a step and an epoch cost at many ranks: the shares of global batches from the real order, the rest computed from
the costs of one rank and of the network."""

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
# Global batches that are averaged over, and drawings whose lengths are read.
_MOST_BATCHES, _MOST_READ = 64, 2**18
_NUM_DRAWN = 2048
_BYTES_A_SKETCH = 214.8
# How often the gradient or the weights pass all ranks, as counted in real steps (DeepSpeed 0.19.8): reduced and
# given back; in stages 1 and 2 the new weights are gathered, too; in stage 3 gradients are only reduced, and weights
# gathered once.
_PASSES = {"DDP and ZeRO 0": 2, "ZeRO 1 and 2": 3, "ZeRO 3": 2}
_SHARE_HEADINGS = {
    "world_size": ("ranks", ",d"),
    "global_batch": ("global batch", ",d"),
    "sketches": ("sketches of a rank", ",.1f"),
    "most_points": ("points, most of mean", ".2f"),
    "most_points_at_random": ("were they dealt at random", ".2f"),
    "longest_of_rank": ("longest drawing of a rank", ",.0f"),
    "longest": ("of all", ",.0f"),
}
_STEP_HEADINGS = {
    "world_size": ("ranks", ",d"),
    "global_batch": ("global batch", ",d"),
    "compute": ("compute, ms", ",.1f"),
    "gradient": ("gradient, ms", ",.1f"),
    "small": ("small all-reduces, ms", ",.2f"),
    "step": ("step, ms", ",.1f"),
    "sketches_per_second": ("sketches/s", ",.0f"),
    "efficiency": ("of one rank's x ranks", ".2f"),
    "steps": ("steps an epoch", ",.0f"),
    "epoch_hours": ("epoch, h", ",.2f"),
}
_BYTE_HEADINGS = {
    "world_size": ("ranks", ",d"),
    **{name: (f"{name}, MB a step", ",.1f") for name in _PASSES},
    "small": ("batch norm and losses, KB a step", ",.1f"),
    "read": ("read, MB an epoch", ",.0f"),
}


@dataclass(frozen=True)
class ScalingOptions(Options):
    """Of which data set, at which numbers of ranks, at which costs."""

    data: str | None = None
    """Folder or URL of shards whose lengths are taken; without, drawn ones."""
    batches: tuple[int, ...] = (100, 1024, 8192, 32768)
    """Global batches, comma-separated."""
    sketches: int = number_of_sketches()
    """In the epoch."""
    world_sizes: tuple[int, ...] = (8, 64, 512)
    """Numbers of ranks, comma-separated."""
    costs: str = ""
    """Seconds a point of the longest drawing, a drawing and a doubling of the ranks, and bytes a second, as
    launch=2e-4,sketch=1e-5,latency=1e-5,bandwidth=1e11, which is about the default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts("batches", self.batches)
        require_counts("world_sizes", self.world_sizes)


@dataclass(frozen=True)
class Costs:
    """What one rank and the network take.

    Attributes:
        launch: seconds of a step for each point of its longest drawing, however many there are beside it.
        sketch: seconds of a step for each drawing of mean length.
        latency: seconds of a small all-reduce for each doubling of the ranks.
        bandwidth: bus bandwidth of an all-reduce, as nccl-tests define it, in bytes a second.

    The defaults are those of an H100 with compiled steps (computed, docs/PERFORMANCE.md), and of a network that is
    assumed.
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
        """Costs from words such as "launch=0.0002,bandwidth=4e10"; the others are the defaults.

        Raises:
            ConfigError: if a name is unknown or a value is no number.
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
                raise ConfigError(f"costs: there is no {name!r}; there are {', '.join(names)}")
        return cls(**values)


@dataclass(frozen=True)
class Collectives:
    """What all ranks exchange in a step of training without ZeRO.

    Attributes:
        gradient: elements of the gradient, float32; in several all-reduces, as the buckets come.
        small: bytes of each other all-reduce: batch norm's number of rows, sums and squares, the gradients of both,
            and the losses with the wish to stop.
    """

    gradient: int
    small: tuple[int, ...]

    @classmethod
    def of(cls, config: Config) -> "Collectives":
        """Those of a configuration's model."""
        with torch.device("meta"):
            model = SketchGloc(config.model, config.loss, 2)
        gradient = sum(parameter.numel() for parameter in model.parameters())
        of_features = 4 * 2 * config.model.encoder.hidden_size
        return cls(gradient, (4, *[of_features] * 4, 5 * 8))


def bytes_sent(num_bytes: float, num_passes: int, world_size: int) -> float:
    """Bytes that each rank sends, in a ring, for values that pass so often: 2 for an all-reduce."""
    return num_passes * (world_size - 1) / world_size * num_bytes


@dataclass(frozen=True)
class Lengths:
    """Points of drawings in the order of a data set.

    Attributes:
        order: of the drawings.
        num_points: int16 [N], of each drawing.
    """

    order: Order
    num_points: npt.NDArray[np.int16]

    @classmethod
    def draw(cls, num_sketches: int, by_category: list[IntArray], seed: int) -> "Lengths":
        """A data set of categories of equal size, whose drawings are as long as some that were seen of each.

        Args:
            num_sketches: in all, about.
            by_category: int64 [n] each, points of drawings of each category.
            seed: of the draw and of the order.
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
        """Points of the drawings of some global batches, int64 [n, global_batch], spread evenly over the first epoch;
        in each, the ranks' shares stand one after another."""
        order = self.order
        num_batches = max(1, min(_MOST_BATCHES, order.num_sketches // global_batch))
        firsts = [order.num_sketches // global_batch * number // num_batches for number in range(num_batches)]
        # One rank's share of one is all of the batch, sorted as the ranks' shares are cut out of it.
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
    """How unlike the ranks' shares of global batches are, on average.

    Args:
        points: int64 [n, global_batch], see `Lengths.batches`.
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
    """What a step takes where all wait for the slowest, in milliseconds, and what follows.

    Nothing is taken to overlap: neither the gradient's all-reduce with the backward pass nor launches with arithmetic.

    Args:
        costs: of a rank and the network.
        collectives: of a step.
        share: see `shares`.
        num_sketches: of an epoch.
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
    """Compute what steps and epochs take at several numbers of ranks and global batches.

    Args:
        options: see there.
        config: of the run.

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
    """Points of real drawings of each category, or, without shards, of drawn ones, as if all were alike."""
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
    """Points of each drawing, int64 [B]."""
    firsts = np.cumsum(packed.num_strokes) - packed.num_strokes
    return np.add.reduceat(packed.stroke_lengths, firsts, dtype=np.int64)


def main(arguments: list[str]) -> int:
    """Run the study."""
    return run_study("scaling", study_scaling, ScalingOptions, arguments)
