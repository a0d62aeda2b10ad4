"""Joins finished builds of shards into one folder."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sgloc.data.build.folder import Folder, writing_shards
from sgloc.data.build.state import PLAN_NAME, REJECTS_NAME
from sgloc.data.manifest import FILE_NAME, SPLITS, Manifest, Shard, join_manifests, load_manifest
from sgloc.data.remote.access import Retries, open_file_system, read_range, retrying
from sgloc.errors import DataError

_SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}(-\d{{5,}})?\.tar")
_READ_BYTES = 2**23


def merge_shards(
    folders: Sequence[str],
    out: str,
    *,
    overwrite: bool = False,
    retries: Retries | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Manifest:
    """Join finished builds, of other categories or other sources, into one folder.

    A shard is linked where that can be, else copied, once it was compared with its manifest. It gets the name that
    `sgloc shard` would give it were each build a part; the drawings keep their order, build after build. The manifest
    is written last: a merge that was killed is to be started again, and gives the same.

    Args:
        folders: folders or URLs of the builds.
        out: folder or URL to write to.
        overwrite: replace shards that are there already.
        retries: of reads that fail; None is `Retries()`.
        progress: called with shards done and shards in all.

    Returns:
        The manifest that was written.

    Raises:
        DataError: if a build is not finished, is damaged, or cannot be joined with the others; if two hold the same
            shard; if shards or an unfinished build are in `out` already, or it is one of the builds.
    """
    retries = retries or Retries()
    builds = [load_manifest(folder, retries) for folder in folders]
    _refuse_repeated(folders, builds)
    renamed = [_renamed(manifest, number) for number, manifest in enumerate(builds)]
    merged = join_manifests(renamed)
    target = Folder(out)
    if _identity(out) in map(_identity, folders):
        raise DataError(f"{out} is itself one of the builds to be joined; give another --out")
    moves = [
        (folder, shard, new.path)
        for folder, before, after in zip(folders, builds, renamed, strict=True)
        for split in SPLITS
        for shard, new in zip(before.splits[split].shards, after.splits[split].shards, strict=True)
    ]
    with writing_shards(out):
        _make_room(target, overwrite=overwrite)
        with target.create(REJECTS_NAME) as file:
            for folder, manifest in zip(folders, builds, strict=True):
                for content in _rejects(folder, manifest, retries):
                    file.write(content)
        for number, (folder, shard, name) in enumerate(moves):
            progress(number, len(moves))
            _take(folder, shard, target, name, retries)
        progress(len(moves), len(moves))
        target.write(FILE_NAME, merged.to_json().encode())
    return merged


def _refuse_repeated(folders: Sequence[str], builds: list[Manifest]) -> None:
    """Refuse a shard that is in two builds: a build given twice, copied, or joined with others before."""
    seen: dict[str, str] = {}
    for folder, manifest in zip(folders, builds, strict=True):
        own = {shard.sha256: folder for split in SPLITS for shard in manifest.splits[split].shards}
        for repeated in seen.keys() & own.keys():
            raise DataError(f"{seen[repeated]} and {folder} hold a shard of the same drawings; give each build once")
        seen |= own


def _renamed(manifest: Manifest, build: int) -> Manifest:
    """A build's manifest with names for its shards that no other build's have."""
    splits = {
        name: dataclasses.replace(
            split,
            shards=[
                dataclasses.replace(shard, path=f"{name}-{build:05d}-{number:05d}.tar")
                for number, shard in enumerate(split.shards)
            ],
        )
        for name, split in manifest.splits.items()
    }
    return dataclasses.replace(manifest, splits=splits)


def _identity(location: str) -> tuple[object, str]:
    """Equal for two names of one folder."""
    folder = Folder(location)
    root = str(Path(folder.root).resolve()) if folder.is_local else str(folder.root)
    return type(folder.file_system), root


def _make_room(target: Folder, *, overwrite: bool) -> None:
    """Remove what an earlier merge or build left, if that may be removed.

    Raises:
        DataError: if there are shards that may not be removed.
    """
    names = target.sizes().keys()
    if PLAN_NAME in names:
        raise DataError(f"{target.location} holds an unfinished build; finish it first, or give another --out")
    finished = FILE_NAME in names
    if finished and not overwrite:
        raise DataError(f"{target.location} already holds shards; give another --out, or --overwrite to replace them")
    shards = sorted(filter(_SHARD_NAME.fullmatch, names))
    # A merge begins with the rejects.
    if shards and not (finished or REJECTS_NAME in names):
        raise DataError(f"{target.location} holds {shards[0]}, which no merge wrote; give another --out")
    # The manifest goes first: without it the folder is not complete, whatever happens next.
    for name in [FILE_NAME] * finished + shards:
        target.remove(name)
    target.remove_partial("", FILE_NAME, REJECTS_NAME, *(f"{split}-" for split in SPLITS))
    target.make()


def _rejects(folder: str, manifest: Manifest, retries: Retries) -> Iterator[bytes]:
    """The content of a build's rejects.ndjson."""
    num_lines = 0
    for content in _contents(folder, REJECTS_NAME, None, retries):
        num_lines += content.count(b"\n")
        yield content
    num_rejected = sum(manifest.rejected.values())
    if num_lines != num_rejected:
        raise DataError(
            f"{REJECTS_NAME} in {folder} has {num_lines} lines, where the manifest counts {num_rejected} drawings "
            "rejected; build the shards again"
        )


def _take(folder: str, shard: Shard, target: Folder, name: str, retries: Retries) -> None:
    """Link or copy a shard, if it is what its manifest says."""
    source = Folder(folder)
    if source.is_local and target.is_local:
        link = Path(target.path(name))
        for _ in _checked_contents(folder, shard, retries):
            pass
        # Another file system, or one without links; then it is copied.
        with contextlib.suppress(OSError):
            os.link(source.path(shard.path), link)
            return
    with target.create(name) as file:
        for content in _checked_contents(folder, shard, retries):
            file.write(content)


def _checked_contents(folder: str, shard: Shard, retries: Retries) -> Iterator[bytes]:
    """A shard's content in pieces.

    Raises:
        DataError: in the end, or before it, if the shard is not what its manifest says.
    """
    sha256 = hashlib.sha256()
    for content in _contents(folder, shard.path, shard.num_bytes, retries):
        sha256.update(content)
        yield content
    if sha256.hexdigest() != shard.sha256:
        raise DataError(
            f"{shard.path} in {folder} is damaged: its SHA-256 is another than its manifest says; "
            f"`sgloc shards verify {folder}` tells more"
        )


def _contents(folder: str, name: str, expected_size: int | None, retries: Retries) -> Iterator[bytes]:
    """A file's content in pieces.

    Raises:
        DataError: if it cannot be read, or is not of the expected size.
    """
    file_system, root = open_file_system(folder, retries.timeout)
    path = f"{root}/{name}"
    size = retrying(lambda: file_system.size(path), path, retries, _ignore)
    if expected_size is not None and size is not None and size != expected_size:
        raise DataError(f"{path} has {size} bytes, its manifest says {expected_size}; build the shards again")
    for start in range(0, size, _READ_BYTES):
        stop = min(start + _READ_BYTES, size)
        read = functools.partial(read_range, file_system, path, start, stop, file_size=size)
        yield retrying(read, f"bytes {start} to {stop} of {path}", retries, _ignore)


def _ignore(_: str) -> None:
    pass
