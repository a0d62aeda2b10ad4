"""Joins finished builds of shards into one folder."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sgloc.data.build.state import PLAN_NAME, REJECTS_NAME, clear, refuse_foreign_shards
from sgloc.data.manifest import FILE_NAME, Manifest, Shard, join_manifests, load_manifest
from sgloc.data.shards.check_shard import read_rejects, read_shard
from sgloc.errors import DataError
from sgloc.storage import Retries, Storage, writing


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
    target = Storage(out)
    if _identity(out) in map(_identity, folders):
        raise DataError(f"{out} is itself one of the builds to be joined; give another folder")
    moves = [
        (folder, shard, new.path)
        for folder, before, after in zip(folders, builds, renamed, strict=True)
        for shard, new in zip(before.shards, after.shards, strict=True)
    ]
    with writing(out, "shards"):
        _make_room(target, overwrite=overwrite)
        with target.create(REJECTS_NAME) as write:
            for folder, manifest in zip(folders, builds, strict=True):
                for content in read_rejects(Storage(folder, retries), manifest):
                    write(content)
        for number, (folder, shard, name) in enumerate(moves):
            progress(number, len(moves))
            _take(Storage(folder, retries), shard, target, name)
        progress(len(moves), len(moves))
        target.write(FILE_NAME, [merged.to_json().encode()])
    return merged


def _refuse_repeated(folders: Sequence[str], builds: list[Manifest]) -> None:
    """Refuse a shard that is in two builds: a build given twice, copied, or joined with others before."""
    seen: dict[str, str] = {}
    for folder, manifest in zip(folders, builds, strict=True):
        own = {shard.sha256: folder for shard in manifest.shards}
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
    folder = Storage(location)
    root = str(Path(folder.root).resolve()) if folder.is_local else folder.root
    return type(folder.file_system), root


def _make_room(target: Storage, *, overwrite: bool) -> None:
    """Remove what an earlier merge or build left, if that may be removed.

    Raises:
        DataError: if there are shards that may not be removed.
    """
    names = target.sizes().keys()
    finished = FILE_NAME in names
    if PLAN_NAME in names and not finished:
        raise DataError(f"{target.location} holds an unfinished build; finish it first, or give another folder")
    if finished and not overwrite:
        raise DataError(f"{target.location} already holds shards; give another folder, or overwrite them")
    refuse_foreign_shards(target, names)
    clear(target)
    target.make_folder()


def _take(build: Storage, shard: Shard, target: Storage, name: str) -> None:
    """Link or copy a shard, if it is what its manifest says.

    Raises:
        DataError: if it is not.
    """
    content = read_shard(build, shard)
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise DataError(
            f"{shard.path} in {build.location} is damaged: its SHA-256 is another than its manifest says; "
            f"`sgloc shards verify {build.location}` tells more"
        )
    if build.is_local and target.is_local:
        # Another file system, or one without links; then it is copied.
        with contextlib.suppress(OSError):
            os.link(build.path(shard.path), target.path(name))
            return
    target.write(name, [content])
