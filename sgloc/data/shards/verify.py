"""Checks a folder of shards against its manifest: every byte, every block and every count (DESIGN contract 8)."""

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

# Enough to see what is wrong, where everything may be.
_NUM_EXAMPLES = 3


@dataclass
class Verification:
    """What was looked at.

    Attributes:
        num_problems: that were found.
        num_shards: in the manifest.
        num_sketches: that could be read.
        num_bytes: of shards that were read.
        notes: what could not be checked, and which reads were tried again.
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

    Of each shard: that it is there, its size, SHA-256 and tar structure. Of each block: its checksum, that it can be
    unpacked, and how many drawings it holds. Of all together: categories, numbers of points and strokes, moments of
    the offsets, lines of rejects, key_ids that occur twice, and tar files that the manifest does not know. Memory is
    bounded by a few shards; key_ids are compared in temporary files of 16 bytes a drawing.

    Args:
        folder: folder or URL of shards.
        on_problem: called with each problem, a sentence, when it is found.
        num_workers: processes; 1 checks in this one, 0 stands for one a core.
        retries: of reads that fail; None is `Retries()`.
        progress: called with shards done and shards in all.

    Raises:
        ConfigError: if num_workers is negative, or other processes cannot see the folder.
        DataError: if there is no manifest that can be read, or a worker process dies.
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
    """Find the problems of a folder, and note what was looked at."""
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
            verification.notes.append(f"{lost[name]} shards of {name} cannot be read, so its counts were not compared")
        else:
            yield from _compare_split(name, split, manifest.splits[name])
    if not lost["train"] and moments != manifest.moments:
        yield f"the offsets of train have the moments {moments}, the manifest says {manifest.moments}"
    yield from _compare(manifest)
    if num_retries:
        verification.notes.append(f"{num_retries} reads were tried again")
    yield from _other_files(storage, manifest, verification.notes)


def _without_report(check: Callable[[Shard], CheckedShard], shard: Shard, _: object) -> CheckedShard:
    return check(shard)


def _duplicates(file: IO[bytes], paths: list[str], bounds: list[int]) -> Iterator[str]:
    """A sentence, if a key_id occurs twice.

    Args:
        file: of all key_ids, uint64, shard after shard.
        paths: of the n shards.
        bounds: n + 1 numbers; the key_ids of shard i are those from bounds[i] to bounds[i + 1].
    """
    if bounds[-1] < 2:
        return
    # Both lie in files that have no names and vanish with the process; the system may keep them in memory or not.
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
        yield f"{len(repeated):,} drawings have a key_id that has come before: {_some(examples, len(repeated))}"


def _compare(manifest: Manifest) -> Iterator[str]:
    """What in a manifest contradicts itself."""
    splits = manifest.splits.values()
    for what in ("points", "strokes"):
        longest = max((max(getattr(split, what), default=0) for split in splits), default=0)
        said = getattr(manifest, f"longest_{what}")
        if longest != said:
            yield f"the manifest's longest_{what} is {said}, its histograms go up to {longest}"
    rejected, skipped = sum(manifest.rejected.values()), sum(manifest.skipped.values())
    if manifest.num_accepted + rejected + skipped != manifest.num_read:
        yield (
            f"the manifest has {manifest.num_accepted} drawings, {rejected} rejected and {skipped} skipped, "
            f"which do not add up to the {manifest.num_read} read"
        )
    for what, total in (("accepted", manifest.num_accepted), ("rejected", rejected), ("skipped", skipped)):
        of_sources = sum(getattr(source, f"num_{what}") for source in manifest.sources)
        if of_sources != total:
            yield f"the manifest's sources add up to {of_sources} drawings {what}, where it has {total} of them"


def _compare_split(name: str, found: Split, split: Split) -> Iterator[str]:
    for what in ("categories", "points", "strokes"):
        counted: Mapping[Any, int] = getattr(found, what)
        said: Mapping[Any, int] = getattr(split, what)
        differing = [key for key in sorted({*counted, *said}) if counted.get(key, 0) != said.get(key, 0)]
        if differing:
            examples = [f"{key}: {counted.get(key, 0)}, not {said.get(key, 0)}" for key in differing[:_NUM_EXAMPLES]]
            yield f"{name} holds other numbers of {what} than the manifest says: {_some(examples, len(differing))}"


def _some(examples: list[str], number: int) -> str:
    """Examples of a number of things."""
    more = number - len(examples)
    return "; ".join(examples) + (f"; and {more:,} more" if more else "")


def _other_files(storage: Storage, manifest: Manifest, notes: list[str]) -> Iterator[str]:
    """What is wrong with what is in the folder besides the shards."""
    names: set[str] = set()
    try:
        with reading(storage.root, storage.retries):
            names = set(storage.sizes())
    except DataError as error:
        notes.append(
            f"the folder cannot be listed ({error}), so tar files that the manifest does not know may be there"
        )
    known = {shard.path for shard in manifest.shards}
    for name in sorted(names - known):
        if name.endswith(".tar"):
            yield f"{name}: the manifest does not know it"
    try:
        for _ in read_rejects(storage, manifest):
            pass
    except DataError as error:
        yield str(error)
