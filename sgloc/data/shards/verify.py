"""Verification of a folder of shards against its manifest: every byte, block and count (DESIGN contract 8)."""

import contextlib
import functools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from sgloc.data.manifest import Manifest, Moments, Shard, Split, join_splits, load_manifest
from sgloc.data.processes import resolve_workers, shared_out
from sgloc.data.shards.check_shard import CheckedShard, check_shard, read_rejects
from sgloc.errors import DataError
from sgloc.storage import Retries, Storage, reading

# Number of examples in a message about many discrepancies.
_NUM_EXAMPLES = 3


@dataclass
class Verification:
    """The result of a verification.

    Attributes:
        num_problems: number of problems found.
        num_shards: number of shards checked.
        num_sketches: number of readable sketches.
        num_bytes: number of shard bytes read.
        notes: what could not be checked, and the number of read retries.
    """

    num_problems: int = 0
    num_shards: int = 0
    num_sketches: int = 0
    num_bytes: int = 0
    notes: list[str] = field(default_factory=list)


def verify_shards(
    folder: str,
    on_problem: Callable[[str], None],
    *,
    num_workers: int = 1,
    retries: Retries | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Verification:
    """Read every shard of a folder and compare it with the manifest.

    The following is checked:

    - for each shard: existence, size, SHA-256 and tar structure;
    - for each block: checksum, content and number of drawings;
    - for the folder: categories, numbers of points and strokes, moments of the offsets, number of rejects, duplicate
      key_ids, and tar files missing from the manifest.

    Memory is bounded by a few shards; key_ids are compared in temporary files of 16 bytes per drawing.

    Args:
        folder: folder or URL of the shards.
        on_problem: called with each problem, as a sentence, when it is found.
        num_workers: number of processes; 1 checks in this process, 0 uses one per core.
        retries: retry policy for failed reads; None uses the default.
        progress: called with the number of shards checked and the total.

    Raises:
        ConfigError: if num_workers is negative, or worker processes could not access the folder.
        DataError: if there is no readable manifest, or a worker process dies.
    """
    num_workers = resolve_workers(num_workers, [folder])
    verification, storage = Verification(), Storage(folder, retries or Retries())
    for problem in _problems(storage, num_workers, progress, verification):
        verification.num_problems += 1
        on_problem(problem)
    return verification


def _problems(
    storage: Storage, num_workers: int, progress: Callable[[int, int], None], verification: Verification
) -> Iterator[str]:
    """Yield the problems of a folder and record what was checked in `verification`."""
    manifest = load_manifest(storage.location, storage.retries)
    split_of = {shard.path: name for name, split in manifest.splits.items() for shard in split.shards}
    shards = manifest.shards
    check = functools.partial(
        check_shard,
        folder=storage.location,
        sketches_per_block=manifest.sketches_per_block,
        retries=storage.retries,
    )
    reading_shard = functools.partial(_without_report, check)
    checks = shared_out(reading_shard, shards, num_workers, lambda shard: f"read {shard.path}")
    found = {name: Split() for name in manifest.splits}
    moments = Moments()
    lost: Counter[str] = Counter()
    num_retries = 0
    with tempfile.TemporaryFile(prefix="sgloc-keys-") as keys, contextlib.closing(checks):
        paths, bounds = [], [0]
        for shard, checked in checks:
            name = split_of[shard.path]
            yield from (f"{shard.path}: {problem}" for problem in checked.problems)
            found[name] = join_splits([found[name], checked.split])
            if name == "train":
                moments += checked.moments
            lost[name] += not checked.is_whole
            keys.write(checked.key_ids.tobytes())
            paths.append(shard.path)
            bounds.append(bounds[-1] + len(checked.key_ids))
            num_retries += checked.num_retries
            verification.num_bytes += checked.num_bytes
            verification.num_shards += 1
            progress(verification.num_shards, len(shards))
        keys.flush()
        yield from _duplicates(keys, paths, bounds)
    verification.num_sketches = bounds[-1]
    for name, split in found.items():
        if lost[name]:
            verification.notes.append(f"{lost[name]} shards of {name} are unreadable, so its counts were not compared")
        else:
            yield from _compare_split(name, split, manifest.splits[name])
    if not lost["train"] and moments != manifest.moments:
        yield f"the offsets of train have the moments {moments}, but the manifest says {manifest.moments}"
    yield from _compare(manifest)
    if num_retries:
        verification.notes.append(f"{num_retries} reads were retried")
    yield from _other_files(storage, manifest, verification.notes)


def _without_report(check: Callable[[Shard], CheckedShard], shard: Shard, _: object) -> CheckedShard:
    return check(shard)


def _duplicates(file: IO[bytes], paths: list[str], bounds: list[int]) -> Iterator[str]:
    """Yield one problem if any key_id occurs more than once.

    Args:
        file: file of all key_ids, uint64, shard after shard.
        paths: paths of the n shards.
        bounds: n + 1 numbers; shard i's key_ids are those from bounds[i] to bounds[i + 1].
    """
    if bounds[-1] < 2:
        return
    # Memory-map both arrays to unnamed temporary files, which vanish with the process and which the OS can page out.
    keys = np.memmap(file, dtype=np.uint64, mode="r")
    with tempfile.TemporaryFile(prefix="sgloc-keys-") as other:
        ordered = np.memmap(other, dtype=np.uint64, mode="w+", shape=keys.shape)
        ordered[:] = keys
        ordered.sort()
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    examples = []
    for key in repeated[:_NUM_EXAMPLES]:
        places = np.flatnonzero(keys == key)[:2]
        first, second = (paths[number] for number in np.searchsorted(bounds, places, side="right") - 1)
        examples.append(f"{key} in {first} and {second}")
    if examples:
        yield f"{len(repeated):,} drawings repeat an earlier key_id: {_some(examples, len(repeated))}"


def _compare(manifest: Manifest) -> Iterator[str]:
    """Yield the internal contradictions of a manifest."""
    splits = manifest.splits.values()
    for what in ("points", "strokes"):
        longest = max((max(getattr(split, what), default=0) for split in splits), default=0)
        said = getattr(manifest, f"longest_{what}")
        if longest != said:
            yield f"the manifest's longest_{what} is {said}, but its histograms go up to {longest}"
    rejected, skipped = sum(manifest.rejected.values()), sum(manifest.skipped.values())
    if manifest.num_accepted + rejected + skipped != manifest.num_read:
        yield (
            f"the manifest has {manifest.num_accepted} drawings, {rejected} rejected and {skipped} skipped, "
            f"which do not add up to the {manifest.num_read} read"
        )
    for what, total in (("accepted", manifest.num_accepted), ("rejected", rejected), ("skipped", skipped)):
        of_sources = sum(getattr(source, f"num_{what}") for source in manifest.sources)
        if of_sources != total:
            yield f"the manifest's sources add up to {of_sources} {what} drawings, but the manifest has {total}"


def _compare_split(name: str, found: Split, split: Split) -> Iterator[str]:
    for what in ("categories", "points", "strokes"):
        counted: Mapping[Any, int] = getattr(found, what)
        said: Mapping[Any, int] = getattr(split, what)
        differing = [key for key in sorted({*counted, *said}) if counted.get(key, 0) != said.get(key, 0)]
        if differing:
            examples = [f"{key}: {counted.get(key, 0)}, not {said.get(key, 0)}" for key in differing[:_NUM_EXAMPLES]]
            yield f"{name} differs from the manifest in its numbers of {what}: {_some(examples, len(differing))}"


def _some(examples: list[str], number: int) -> str:
    """Join examples, noting how many more of `number` there are."""
    more = number - len(examples)
    return "; ".join(examples) + (f"; and {more:,} more" if more else "")


def _other_files(storage: Storage, manifest: Manifest, notes: list[str]) -> Iterator[str]:
    """Yield the problems with the folder's other files: unknown tar files, and the rejects."""
    names: set[str] = set()
    try:
        with reading(storage.root, storage.retries):
            names = set(storage.sizes())
    except DataError as error:
        notes.append(
            f"the folder cannot be listed ({error}), so tar files missing from the manifest may have gone unnoticed"
        )
    known = {shard.path for shard in manifest.shards}
    for name in sorted(names - known):
        if name.endswith(".tar"):
            yield f"{name}: it is not listed in the manifest"
    try:
        for _ in read_rejects(storage, manifest):
            pass
    except DataError as error:
        yield str(error)
