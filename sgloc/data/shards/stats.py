"""Statistics of a folder of shards, computed from its manifest alone."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from sgloc.data.manifest import Manifest, Split, join_splits
from sgloc.strict_json import to_json

# Bytes of a point: dx and dy as int16.
_PAYLOAD_BYTES = 4


@dataclass(frozen=True)
class Lengths:
    """Summary of the lengths of drawings, in points or in strokes.

    Attributes:
        median: smallest length that at least half of the drawings do not exceed.
        mean: mean length.
        percentile_90: 90th percentile, defined like the median.
        percentile_99: 99th percentile, defined like the median.
        longest: length of the longest drawing.
    """

    median: int
    mean: float
    percentile_90: int
    percentile_99: int
    longest: int


@dataclass(frozen=True)
class SplitStats:
    """Statistics of one split, or of all splits together.

    Attributes:
        num_sketches: number of drawings.
        num_shards: number of tar files.
        num_bytes: total size of the tar files.
        payload_bytes: size of the bare offsets (dx, dy) as int16.
        points: points per drawing; None if there are no drawings.
        strokes: strokes per drawing; None if there are no drawings.
    """

    num_sketches: int
    num_shards: int
    num_bytes: int
    payload_bytes: int
    points: Lengths | None
    strokes: Lengths | None


@dataclass(frozen=True)
class ShardStats:
    """Statistics of a folder of shards.

    Attributes:
        bytes_per_sketch: mean number of tar file bytes per drawing.
        bytes_over_payload: size of the tar files relative to that of the bare offsets.
        splits: statistics of train, valid and test, and of "all" three together.
        categories: for each category, the number of drawings in each of these splits.
    """

    bytes_per_sketch: float
    bytes_over_payload: float
    splits: dict[str, SplitStats]
    categories: dict[str, dict[str, int]]

    def to_json(self) -> str:
        """Serialise to one line of JSON."""
        return to_json(dataclasses.asdict(self), ensure_ascii=False) + "\n"

    def print(self, console: Console) -> None:
        """Print a table of drawings by category, a table of drawing lengths by split, and a sentence on the size."""
        console.print(_category_table(self))
        console.print(_length_table(self))
        total = self.splits["all"]
        console.print(
            f"{total.num_sketches:,} drawings in {total.num_shards:,} shards of {total.num_bytes:,} bytes: "
            f"{self.bytes_per_sketch:.1f} bytes per drawing, "
            f"{self.bytes_over_payload:.3f} times the bare int16 (dx, dy)",
            soft_wrap=True,
        )


def lengths_of(histogram: Mapping[int, int]) -> Lengths | None:
    """Summarise a histogram, from length to number of drawings; return None if it is empty."""
    lengths = np.array(sorted(length for length, count in histogram.items() if count), dtype=np.int64)
    if len(lengths) == 0:
        return None
    counts = np.array([histogram[length] for length in lengths.tolist()], dtype=np.int64)
    up_to = np.cumsum(counts)
    # Integer arithmetic, so that rounding cannot shift a percentile.
    median, percentile_90, percentile_99 = (
        int(lengths[np.searchsorted(100 * up_to, percent * up_to[-1])]) for percent in (50, 90, 99)
    )
    return Lengths(median, float(lengths @ counts / up_to[-1]), percentile_90, percentile_99, int(lengths[-1]))


def shard_stats(manifest: Manifest) -> ShardStats:
    """Compute the statistics of the shards in a manifest."""
    named = {**manifest.splits, "all": join_splits(list(manifest.splits.values()))}
    splits = {name: _split_stats(split) for name, split in named.items()}
    return ShardStats(
        bytes_per_sketch=splits["all"].num_bytes / max(splits["all"].num_sketches, 1),
        bytes_over_payload=splits["all"].num_bytes / max(splits["all"].payload_bytes, 1),
        splits=splits,
        categories={
            category: {name: split.categories.get(category, 0) for name, split in named.items()}
            for category in manifest.categories
        },
    )


def _split_stats(split: Split) -> SplitStats:
    return SplitStats(
        num_sketches=split.num_sketches,
        num_shards=len(split.shards),
        num_bytes=sum(shard.num_bytes for shard in split.shards),
        payload_bytes=_PAYLOAD_BYTES * split.num_points,
        points=lengths_of(split.points),
        strokes=lengths_of(split.strokes),
    )


def _category_table(stats: ShardStats) -> Table:
    table = Table("category", *(Column(name, justify="right") for name in stats.splits))
    for category, counts in stats.categories.items():
        table.add_row(category, *(f"{count:,}" for count in counts.values()))
    table.add_section()
    table.add_row(
        f"{len(stats.categories)} categories", *(f"{split.num_sketches:,}" for split in stats.splits.values())
    )
    return table


def _length_table(stats: ShardStats) -> Table:
    headings = ("median", "mean", "90 %", "99 %", "longest")
    table = Table("", "split", *(Column(heading, justify="right") for heading in headings))
    for what in ("points", "strokes"):
        table.add_section()
        for name, split in stats.splits.items():
            lengths: Lengths | None = getattr(split, what)
            if lengths is not None:
                numbers = dataclasses.replace(lengths, mean=round(lengths.mean, 1))
                table.add_row(f"{what} per drawing", name, *(f"{number:,}" for number in dataclasses.astuple(numbers)))
    return table
