"""Whether all ranks see the same shards, whole, and how fast sketches come from them."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from sgloc.data.manifest import Manifest, Shard, load_manifest
from sgloc.data.order import Order
from sgloc.data.reader import ReadOptions, ShardReader
from sgloc.data.shards.check_shard import check_shard
from sgloc.data.stream import Share, training_batches
from sgloc.doctor.examination import Examination, outliers
from sgloc.doctor.finding import Finding
from sgloc.storage import Retries, Storage

_CHECK = "shards"
# Seconds that shards are read whole, and that sketches are streamed.
_WHOLE_SECONDS, _STREAM_SECONDS = 5.0, 2.0
# Sketches of a rank in a batch; what is prefetched is the default.
_BATCH, _PREFETCH = 100, 2
# A GPU takes fewer than this at the published sizes (docs/PERFORMANCE.md).
_LEAST_RATE = 5000.0
_SLOW_SHARE = 0.5
_NUM_LISTED = 5
_RETRIES = Retries(num_attempts=2, timeout=10.0)


@dataclass(frozen=True)
class Checked:
    """What a rank read of its part of the shards.

    Attributes:
        problems: a sentence each.
        num_whole: shards that were read to the end.
    """

    problems: tuple[str, ...]
    num_whole: int


def check_data(examination: Examination, folder: str) -> None:
    """Read shards as training does, and as `sgloc shards verify` does. All ranks must call it together."""
    manifests: list[Manifest] = []

    def load() -> tuple[str, int, int]:
        manifests.append(load_manifest(folder, _RETRIES))
        # It refuses a split without drawings.
        ShardReader(folder, manifests[0], "train")
        splits = manifests[0].splits
        return manifests[0].identity, splits["train"].num_sketches, splits["valid"].num_sketches

    advice = "put shards that `sgloc shard` wrote where every node sees them, or give their URL"
    facts = examination.gather(_CHECK, load, advice)
    if facts is None:
        return
    if refused := judge_manifests(facts, examination, folder):
        examination.findings += refused
        return
    (manifest,) = manifests
    if checked := examination.gather(_CHECK, lambda: _check_part(folder, manifest, examination), advice):
        examination.findings += judge_shards(checked, examination, folder, len(manifest.shards))
    advice = "see what `sgloc shards verify` says of the folder"
    if rates := examination.gather("data", lambda: _stream(folder, manifest, examination), advice):
        examination.findings.append(judge_rates(rates, examination))


def judge_manifests(facts: Mapping[int, tuple[str, int, int]], ranks: Examination, folder: str) -> list[Finding]:
    """All ranks are to see the same shards, with something to validate on.

    Args:
        facts: of each rank, the manifest's identity, and the training and validation drawings.
        ranks: who they are.
        folder: of the shards.
    """
    common, odd = outliers(facts)
    if odd:
        found = (
            f"{ranks.names(odd)} has other shards in {folder} than most: {next(iter(odd.values()))[1]:,} training "
            f"drawings, not {common[1]:,}, or others"
        )
        return [Finding("manifest", "problem", found, "copy the same shards to every node; training refuses these")]
    if common[2] == 0:
        found = f"{folder} holds no validation drawing"
        return [Finding("manifest", "problem", found, "build the shards from more drawings; training refuses these")]
    return []


def _check_part(folder: str, manifest: Manifest, examination: Examination) -> Checked:
    """Look whether this rank's part of the shards is there, and read as much of it as there is time for.

    Folders that are local may be others on each machine, so that each machine's ranks look at all shards.
    """
    storage = Storage(folder)
    here = list(range(len(examination.hosts)))
    if storage.is_local:
        here = examination.on_each_host()[examination.hosts[examination.rank]]
    mine = manifest.shards[here.index(examination.rank) :: len(here)]
    found = {shard.path: _size_problem(storage, shard) for shard in mine}
    problems = [f"{path}: {problem}" for path, problem in found.items() if problem]
    num_whole = 0
    end = time.monotonic() + _WHOLE_SECONDS
    for shard in mine:
        if time.monotonic() > end:
            break
        if found[shard.path] is None:
            checked = check_shard(shard, folder, manifest.sketches_per_block, _RETRIES)
            problems += [f"{shard.path}: {problem}" for problem in checked.problems]
            num_whole += 1
    return Checked(tuple(problems), num_whole)


def _size_problem(storage: Storage, shard: Shard) -> str | None:
    try:
        size = storage.size(shard.path)
    except FileNotFoundError:
        return "it is missing"
    # Some servers do not tell.
    if size is not None and size != shard.num_bytes:
        return f"it has {size} bytes, the manifest says {shard.num_bytes}"
    return None


def judge_shards(facts: Mapping[int, Checked], ranks: Examination, folder: str, num_shards: int) -> list[Finding]:
    """No shard may be missing or damaged.

    Args:
        facts: of each rank.
        ranks: who they are.
        folder: of the shards.
        num_shards: in the manifest.
    """
    problems = [f"{ranks.names([rank])}: {problem}" for rank, checked in facts.items() for problem in checked.problems]
    advice = f"copy it again; see `sgloc shards verify {folder}`"
    listed = problems[:_NUM_LISTED] + [f"{len(problems) - _NUM_LISTED} more"] * (len(problems) > _NUM_LISTED)
    findings = [Finding(_CHECK, "problem", found, advice) for found in listed]
    if not findings:
        num_whole = sum(checked.num_whole for checked in facts.values())
        found = f"all {num_shards:,} are there; read whole and compared, on {len(facts)} rank(s): {num_whole:,}"
        findings.append(Finding(_CHECK, "ok", found))
    return findings


def _stream(folder: str, manifest: Manifest, examination: Examination) -> float:
    """Sketches a second that this rank gets while all ranks read."""
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


def judge_rates(rates: Mapping[int, float], ranks: Examination) -> Finding:
    """Every rank is to get sketches faster than it can take them.

    Args:
        rates: sketches a second of each rank.
        ranks: who they are.
    """
    slowest, middle = min(rates, key=lambda rank: rates[rank]), median(rates.values())
    found = f"{middle:,.0f} sketches/s a rank; slowest {rates[slowest]:,.0f} on {ranks.names([slowest])}"
    numbers = {"median_sketches_per_second": middle, "slowest_sketches_per_second": rates[slowest]}
    advice = "copy the shards to a local disk, or let --data.cache keep them there; more --data.read_threads"
    is_fast = rates[slowest] >= max(_LEAST_RATE, _SLOW_SHARE * middle)
    return Finding.judged("data", is_fast, "warning", found, advice, numbers)
