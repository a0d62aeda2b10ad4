"""Merging of finished builds of shards into one folder."""

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
    """Merge finished builds, of different categories or sources, into one folder.

    Each shard is compared with its manifest, then hard-linked if possible, else copied. Its new name is the one that
    `sgloc shard` would use if each build were a part. The drawings keep their order, build after build. The manifest is
    written last; an interrupted merge can be started again and gives the same result.

    Args:
        folders: folders or URLs of the builds.
        out: folder or URL to write to.
        overwrite: whether to replace existing shards.
        retries: retry policy for failed reads; None uses the default.
        progress: called with the number of shards done and the total.

    Returns:
        The manifest written.

    Raises:
        DataError: if a build is unfinished, damaged or incompatible with the others; if two builds hold the same shard;
            or if `out` already holds shards or an unfinished build, or is one of the builds.
    """
    retries = retries or Retries()
    builds = [load_manifest(folder, retries) for folder in folders]
    _refuse_repeated(folders, builds)
    renamed = [_renamed(manifest, number) for number, manifest in enumerate(builds)]
    merged = join_manifests(renamed)
    target = Storage(out)
    if _identity(out) in map(_identity, folders):
        raise DataError(f"{out} is itself one of the builds to merge; choose another folder")
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
    """Refuse builds that share a shard, because a build was passed twice, copied or merged with others before."""
    seen: dict[str, str] = {}
    for folder, manifest in zip(folders, builds, strict=True):
        own = {shard.sha256: folder for shard in manifest.shards}
        for repeated in seen.keys() & own.keys():
            raise DataError(f"{seen[repeated]} and {folder} hold a shard of the same drawings; pass each build once")
        seen |= own


def _renamed(manifest: Manifest, build: int) -> Manifest:
    """Return a build's manifest with shard names that are unique across builds."""
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
    """Return a key that is equal for two names of the same folder."""
    folder = Storage(location)
    root = str(Path(folder.root).resolve()) if folder.is_local else folder.root
    return type(folder.file_system), root


def _make_room(target: Storage, *, overwrite: bool) -> None:
    """Remove what an earlier merge or build left behind, if permitted.

    Raises:
        DataError: if the folder holds an unfinished build, or shards that must not be removed.
    """
    names = target.sizes().keys()
    finished = FILE_NAME in names
    if PLAN_NAME in names and not finished:
        raise DataError(f"{target.location} holds an unfinished build; finish it first, or choose another folder")
    if finished and not overwrite:
        raise DataError(f"{target.location} already holds shards; choose another folder, or overwrite them")
    refuse_foreign_shards(target, names)
    clear(target)
    target.make_folder()


def _take(build: Storage, shard: Shard, target: Storage, name: str) -> None:
    """Verify a shard against its manifest, then link or copy it.

    Raises:
        DataError: if the shard does not match its manifest.
    """
    content = read_shard(build, shard)
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise DataError(
            f"{shard.path} in {build.location} is damaged: its SHA-256 differs from its manifest's; "
            f"run `sgloc shards verify {build.location}` for details"
        )
    if build.is_local and target.is_local:
        # Linking fails across file systems and on those without hard links; then fall back to a copy.
        with contextlib.suppress(OSError):
            os.link(build.path(shard.path), target.path(name))
            return
    target.write(name, [content])
