"""Simulation of an epoch's order: what the ranks would read, and how well it is shuffled. No shard is read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.quickdraw import category_sizes, draw_block_bytes
from benchmarks.study import WORLD_SIZES, number_of_sketches, require_counts, run_study
from benchmarks.tables import Table, TableReport
from sgloc.bench.report import Record
from sgloc.config import Options, option
from sgloc.data.block import IntArray
from sgloc.data.manifest import load_manifest
from sgloc.data.order import Order
from sgloc.data.reader import ShardReader
from sgloc.errors import ConfigError
from sgloc.masking import mask
from sgloc.models.sketchgloc.config import Config

_SKETCHES_PER_SHARD, _SKETCHES_PER_BLOCK = 16_384, 1024
# Positions processed together.
_CHUNK = 2**20
# Global batch sizes in which neighbours are looked for, and those whose shards and categories are counted.
_BATCHES_WITH_NEIGHBOURS = (100, 6400)
_MIXED_BATCHES = (100, 1024)
_BALANCE_HEADINGS = {
    "world_size": ("ranks", ",d"),
    "least_sketches": ("sketches, least", ",d"),
    "most_sketches": ("most", ",d"),
    "least_bytes": ("bytes x ranks, least", ".3f"),
    "most_bytes": ("most", ".3f"),
    "all_bytes": ("all ranks", ".3f"),
    "most_read_for_used": ("read / used, most", ".3f"),
}
_SHUFFLE_HEADINGS = {"what": ("", "s"), "here": ("here", ".4g"), "perfect": ("perfect shuffle", ".4g")}


@dataclass(frozen=True)
class OrderOptions(Options):
    """What to simulate."""

    data: str | None = None
    """Folder or URL of the shards; default: a synthetic QuickDraw."""
    batch: int = option(64, at_least=1)
    """Sketches per rank and step."""
    sketches: int = number_of_sketches()
    """Size of the synthetic QuickDraw."""
    world_sizes: tuple[int, ...] = WORLD_SIZES
    """Numbers of ranks, comma-separated."""
    plot: str | None = None
    """PNG file to plot to; default: no plot."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts("world_sizes", self.world_sizes)


@dataclass(frozen=True)
class _Shards:
    """The shards whose order is simulated.

    Attributes:
        order: order of a run over the shards.
        block_bytes: int64 [b], bytes of each block; blocks are numbered across all shards.
        categories: int64 [s], category of each shard; None if unknown.
    """

    order: Order
    block_bytes: IntArray
    categories: IntArray | None


def study_order(options: OrderOptions, config: Config) -> TableReport:
    """Simulate the order of the first epoch at many numbers of ranks.

    Args:
        options: shards, numbers of ranks, and the file to plot to.
        config: configuration of the run; only its seed is used.

    Raises:
        DataError: if the shards cannot be used.
        ConfigError: if there are too many sketches, or the folder of `plot` does not exist.
    """
    if options.plot is not None and not Path(options.plot).parent.is_dir():
        raise ConfigError(f"plot is {options.plot}, whose folder does not exist; create it, or choose another file")
    seed = config.train.seed
    shards = _made_up(options.sketches, seed) if options.data is None else _of_manifest(options.data, seed)
    order = shards.order
    if order.num_sketches >= 2**31:
        raise ConfigError(f"{options.data} has {order.num_sketches} drawings; at most 2**31 - 1 can be simulated")
    balance = [_balance(order, shards.block_bytes, size, options.batch) for size in options.world_sizes]
    positions = _positions(order)
    shuffle = [*_neighbours(positions), *_mixture(order, shards.categories)]
    if options.plot is not None:
        from benchmarks.order_plot import plot_order

        Path(options.plot).write_bytes(plot_order(balance, positions))
    settings = {
        "data": mask(options.data or "made up"),
        "sketches": order.num_sketches,
        "shards": order.num_shards,
        "blocks": order.num_blocks,
        "streams": order.num_streams,
        "sketches_of_a_rank_in_a_step": options.batch,
        "seed": seed,
    }
    tables = [
        Table("balance of one epoch", _BALANCE_HEADINGS, balance),
        Table("quality of the shuffle", _SHUFFLE_HEADINGS, shuffle),
    ]
    return TableReport("order", settings, tables)


def _made_up(num_sketches: int, seed: int) -> _Shards:
    """Return synthetic shards with QuickDraw's uneven categories and drawing lengths."""
    sizes: list[int] = []
    categories: list[int] = []
    for category, size in enumerate(category_sizes(num_sketches).tolist()):
        full, rest = divmod(size, _SKETCHES_PER_SHARD)
        of_category = [_SKETCHES_PER_SHARD] * full + [rest] * (rest > 0)
        sizes += of_category
        categories += [category] * len(of_category)
    of_shard = np.array(categories, dtype=np.int64)
    order = Order(sizes, _SKETCHES_PER_BLOCK, seed)
    block_bytes = draw_block_bytes(order.block_sizes, of_shard[order.shard_of_block], seed)
    return _Shards(Order(sizes, _SKETCHES_PER_BLOCK, seed, block_bytes), block_bytes, of_shard)


def _of_manifest(data: str, seed: int) -> _Shards:
    manifest = load_manifest(data)
    shards = ShardReader(data, manifest, "train").shards
    block_bytes = np.array([size for shard in shards for size in shard.block_sizes], dtype=np.int64)
    return _Shards(Order.of_training(manifest, seed), block_bytes, None)


def _balance(order: Order, block_bytes: IntArray, world_size: int, sketches_of_rank: int) -> Record:
    """Compute what the ranks take and read in the first epoch; a rank reads each block that it takes from once."""
    global_batch = world_size * sketches_of_rank
    rank_of = np.repeat(np.arange(world_size), sketches_of_rank)
    bytes_of_sketch = block_bytes / order.block_sizes
    is_read = np.zeros((world_size, order.num_blocks), dtype=np.bool_)
    taken, used = np.zeros(world_size, dtype=np.int64), np.zeros(world_size)
    num_batches = -(-order.num_sketches // global_batch)
    at_once = max(1, _CHUNK // global_batch)
    for first in range(0, num_batches, at_once):
        # With a world size of 1 the share is the whole batch, in the order in which it is split into ranks' shares.
        places = order.share(first * global_batch, min(at_once, num_batches - first), global_batch, 0, 1)
        # The last batch reaches into the second epoch.
        here = places.epoch == 0
        rank, block = np.resize(rank_of, len(places))[here], places.block[here]
        is_read[rank, block] = True
        taken += np.bincount(rank, minlength=world_size)
        used += np.bincount(rank, weights=bytes_of_sketch[block], minlength=world_size)
    read = is_read @ block_bytes
    total = int(block_bytes.sum())
    return {
        "world_size": world_size,
        "least_sketches": int(taken.min()),
        "most_sketches": int(taken.max()),
        "least_bytes": float(read.min()) / total * world_size,
        "most_bytes": float(read.max()) / total * world_size,
        "all_bytes": float(read.sum()) / total,
        "most_read_for_used": float((read[used > 0] / used[used > 0]).max()),
    }


def _positions(order: Order) -> npt.NDArray[np.int32]:
    """Return the position in the first epoch of each sketch, in the order of the shards, int32 [N]."""
    positions = np.empty(order.num_sketches, dtype=np.int32)
    for start in range(0, order.num_sketches, _CHUNK):
        these = np.arange(start, min(start + _CHUNK, order.num_sketches))
        places = order.locate(these)
        positions[order.block_starts[places.block] + places.visit] = these
    # Each block's positions are still in the order of its visits.
    for block, (start, size) in enumerate(zip(order.block_starts.tolist(), order.block_sizes.tolist(), strict=True)):
        in_block = positions[start : start + size]
        in_block[order.visits(0, block)] = in_block.copy()
    return positions


def _neighbours(positions: npt.NDArray[np.int32]) -> list[Record]:
    """Measure the distances of neighbours and how often they share a batch, next to a perfect shuffle's values."""
    total = len(positions)
    apart = np.abs(np.diff(positions))
    record = [
        {
            "what": f"distance of neighbours, {name}, share of the epoch",
            "here": float(np.quantile(apart, share)) / total,
            # The distance of two uniform random numbers is below x with probability 2 x - x ** 2.
            "perfect": 1 - (1 - share) ** 0.5,
        }
        for name, share in (("10 %", 0.1), ("median", 0.5), ("90 %", 0.9))
    ]
    for size in _BATCHES_WITH_NEIGHBOURS:
        batch = positions // size
        together = np.count_nonzero(batch[1:] == batch[:-1])
        name = f"neighbours in one global batch of {size:,}"
        record.append({"what": name, "here": float(together / (total - 1)), "perfect": (size - 1) / (total - 1)})
    return record


def _mixture(order: Order, categories: IntArray | None) -> list[Record]:
    """Count the shards and categories in a batch, averaged over all complete batches of the first epoch."""
    shard_sizes = np.bincount(order.shard_of_block, weights=order.block_sizes)
    kinds = {"shards": (np.arange(order.num_shards), shard_sizes)}
    if categories is not None:
        kinds["categories"] = (categories, np.bincount(categories, weights=shard_sizes))
    records = []
    for size in _MIXED_BATCHES:
        num_batches = order.num_sketches // size
        counts = dict.fromkeys(kinds, 0)
        at_once = max(1, _CHUNK // size)
        for first in range(0, num_batches, at_once):
            stop = min(first + at_once, num_batches)
            shard = order.shard_of_block[order.locate(np.arange(first * size, stop * size)).block]
            for name, (kind_of_shard, _) in kinds.items():
                ordered = np.sort(kind_of_shard[shard].astype(np.int32).reshape(-1, size), axis=1)
                counts[name] += len(ordered) + int(np.count_nonzero(np.diff(ordered, axis=1)))
        for name, (_, sizes) in kinds.items():
            perfect = float((1 - (1 - sizes / order.num_sketches) ** size).sum())
            here = float(counts[name] / num_batches) if num_batches > 0 else None
            records.append({"what": f"{name} in a batch of {size:,}", "here": here, "perfect": perfect})
    return records


def main(arguments: list[str]) -> int:
    """Run the study."""
    return run_study("order", study_order, OrderOptions, arguments)
