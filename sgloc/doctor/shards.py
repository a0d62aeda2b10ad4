"""Checks of the shards: the same and intact on all ranks, and fast enough to read."""

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping
from statistics import median

from sgloc.data.manifest import Manifest, Shard, load_manifest
from sgloc.data.order import Order
from sgloc.data.reader import ReadOptions, ShardReader
from sgloc.data.shards.check_shard import check_shard
from sgloc.data.stream import Share, training_batches
from sgloc.doctor.examination import Examination
from sgloc.doctor.finding import Finding
from sgloc.storage import Retries, Storage

_CHECK = "shards"
# Seconds spent on verifying whole shards, and on streaming sketches.
_WHOLE_SECONDS, _STREAM_SECONDS = 5.0, 2.0
# Sketches per rank and batch, and batches to prefetch (the default).
_BATCH, _PREFETCH = 100, 2
# Sketches per second; a GPU consumes fewer at the published sizes (docs/PERFORMANCE.md).
_LEAST_RATE = 5000.0
_SLOW_SHARE = 0.5
_NUM_LISTED = 5
_RETRIES = Retries(num_attempts=2, timeout=10.0)


def check_data(examination: Examination, folder: str) -> None:
    """Read shards as training and `sgloc shards verify` do. Collective: all ranks must call it."""
    load = functools.cache(lambda: load_manifest(folder, _RETRIES))

    def look() -> tuple[str, int, int]:
        # The reader refuses a split without drawings.
        ShardReader(folder, load(), "train")
        splits = load().splits
        return load().identity, splits["train"].num_sketches, splits["valid"].num_sketches

    advice = "put shards built by `sgloc shard` where every node can read them, or set data to their URL"
    if examination.check(_CHECK, look, advice, judge_manifests) is None:
        return
    manifest = load()
    judge = functools.partial(judge_shards, folder=folder, num_shards=len(manifest.shards))
    examination.check(_CHECK, lambda: _check_part(folder, manifest, examination), advice, judge)
    advice = "run `sgloc shards verify` on the folder"
    examination.check("data", lambda: _stream(folder, manifest, examination), advice, judge_rates)


def judge_manifests(facts: Mapping[int, tuple[str, int, int]], ranks: Examination) -> Iterator[Finding]:
    """Check that all ranks see the same shards, and that these have validation drawings.

    Args:
        facts: identity of the manifest, number of training drawings and of validation drawings, for each rank.
        ranks: the participating ranks.
    """
    shards = {rank: f"shards of {number:,} training drawings ({name:.8})" for rank, (name, number, _) in facts.items()}
    for sentence in ranks.differences(shards):
        yield Finding("manifest", "problem", sentence, "copy the same shards to every node; training rejects these")
    without = [rank for rank, (_, _, num_valid) in facts.items() if num_valid == 0]
    if without:
        advice = "build the shards from more drawings; training rejects these"
        yield Finding("manifest", "problem", f"{ranks.names(without)} has shards without validation drawings", advice)


def _check_part(folder: str, manifest: Manifest, examination: Examination) -> tuple[list[str], int]:
    """Check that this rank's part of the shards exists, and verify as many of them as the time allows.

    Local folders may differ between machines, so the ranks of each machine together check all shards.

    Returns:
        A sentence for each problem, and the number of shards verified.
    """
    storage = Storage(folder)
    here = list(range(len(examination.hosts)))
    if storage.is_local:
        here = examination.on_each_host()[examination.hosts[examination.rank]]
    problems: list[str] = []
    num_read, end = 0, time.monotonic() + _WHOLE_SECONDS
    for shard in manifest.shards[here.index(examination.rank) :: len(here)]:
        if time.monotonic() < end:
            found = check_shard(shard, folder, manifest.sketches_per_block, _RETRIES).problems
            num_read += 1
        else:
            found = _size_problems(storage, shard)
        problems += [f"{shard.path}: {problem}" for problem in found]
    return problems, num_read


def _size_problems(storage: Storage, shard: Shard) -> list[str]:
    path = storage.path(shard.path)
    try:
        size = storage.size(shard.path)
    except FileNotFoundError:
        return [f"{path} does not exist; check the path"]
    # Some servers do not report sizes.
    return [] if size in (None, shard.num_bytes) else [f"{path} has {size} bytes, the manifest says {shard.num_bytes}"]


def judge_shards(
    facts: Mapping[int, tuple[list[str], int]], ranks: Examination, folder: str, num_shards: int
) -> Iterator[Finding]:
    """Check that no shard is missing or damaged.

    Args:
        facts: problems of the rank's part and number of shards it verified, for each rank.
        ranks: the participating ranks.
        folder: folder of the shards.
        num_shards: number of shards in the manifest.
    """
    problems = [f"{ranks.names([rank])}: {problem}" for rank, (found, _) in facts.items() for problem in found]
    if len(problems) > _NUM_LISTED:
        problems[_NUM_LISTED:] = [f"{len(problems) - _NUM_LISTED} more"]
    for problem in problems:
        yield Finding(_CHECK, "problem", problem, f"copy it again; see `sgloc shards verify {folder}`")
    if not problems:
        num_read = sum(number for _, number in facts.values())
        found = f"all {num_shards:,} exist; number verified in full by {len(facts)} rank(s): {num_read:,}"
        yield Finding(_CHECK, "ok", found)


def _stream(folder: str, manifest: Manifest, examination: Examination) -> float:
    """Return the sketches per second that this rank reads while all ranks are reading."""
    world_size = len(examination.hosts)
    reader = ShardReader(folder, manifest, "train", options=ReadOptions(retries=_RETRIES))
    share = Share(_BATCH * world_size, examination.rank, world_size)
    batches = training_batches(reader, Order.of_training(manifest, 0), share, prefetch=_PREFETCH, num_threads=0)
    with contextlib.closing(batches):
        next(batches)
        num_sketches, start = 0, time.monotonic()
        while time.monotonic() < start + _STREAM_SECONDS:
            num_sketches += len(next(batches))
        return num_sketches / (time.monotonic() - start)


def judge_rates(rates: Mapping[int, float], ranks: Examination) -> Iterator[Finding]:
    """Check that every rank reads sketches faster than it can train on them.

    Args:
        rates: sketches per second of each rank.
        ranks: the participating ranks.
    """
    slowest, middle = min(rates, key=lambda rank: rates[rank]), median(rates.values())
    found = f"{middle:,.0f} sketches/s per rank; slowest {rates[slowest]:,.0f} on {ranks.names([slowest])}"
    numbers = {"median_sketches_per_second": middle, "slowest_sketches_per_second": rates[slowest]}
    advice = "copy the shards to a local disk, cache them there (data.cache), or raise data.read_threads"
    is_fast = rates[slowest] >= max(_LEAST_RATE, _SLOW_SHARE * middle)
    yield Finding.judged("data", is_fast, "warning", found, advice, numbers)
