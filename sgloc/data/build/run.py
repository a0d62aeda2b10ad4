"""Building of all shards, or of one task's share of them."""

import functools
from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

from sgloc.data.build.fetch import Downloads
from sgloc.data.build.part import Report, build_part
from sgloc.data.build.plan import BuildOptions, Plan, make_plan
from sgloc.data.build.state import begin, finish, finished_parts, is_finished
from sgloc.data.formats.sources import QUICKDRAW_URL
from sgloc.data.manifest import Manifest
from sgloc.data.processes import resolve_workers, shared_out
from sgloc.errors import ConfigError, DataError
from sgloc.failpoint import failpoint
from sgloc.storage import Storage, is_local, local_path, writing

_DOWNLOADS = "downloads"

Progress = Callable[[int, int, int, int], None]
"""Callback that takes the parts built, the total number of parts, the drawings read and the drawings rejected."""


class Means(TypedDict, total=False):
    """Execution options of a build, which do not affect its output bytes.

    Attributes:
        num_workers: number of processes; 1, the default, builds in this process, 0 uses one per core.
        mirror: folder or URL of the public data set.
        downloads: local folder for remote source files while they are read; None uses a subfolder of the output folder
            if that is local, else a temporary folder.
        keep_downloads: whether to keep downloaded files.
        progress: called with the parts built, the total number of parts, the drawings read and the drawings rejected.
    """

    num_workers: int
    mirror: str
    downloads: str | None
    keep_downloads: bool
    progress: Progress


def build_shards(
    source: str | Sequence[str],
    folder: str,
    options: BuildOptions | None = None,
    *,
    overwrite: bool = False,
    **means: Unpack[Means],
) -> Manifest:
    """Pack drawings into shards deterministically: the same drawings in the same files give the same bytes.

    An interrupted build resumes when it is started again.

    Args:
        source: one or several files, folders, globs, URLs or formats of the public data set; see `find_sources`.
        folder: folder or URL to write to. Its manifest.json is written last.
        options: build options; None uses the defaults.
        overwrite: whether to replace existing shards or an unfinished build.
        means: execution options; see `Means`.

    Returns:
        The manifest written.

    Raises:
        ConfigError: if num_workers is negative, or worker processes could not access the folder or a source.
        DataError: if a source cannot be read in its declared format, a requested category does not occur, no training
            drawings remain, a worker dies, or the folder already holds shards or a different build.
    """
    outcome = _build(source, folder, options, None, overwrite, means)
    assert isinstance(outcome, Manifest), f"{outcome} parts are missing although none failed"
    return outcome


def build_task(
    source: str | Sequence[str],
    folder: str,
    task: tuple[int, int],
    options: BuildOptions | None = None,
    **means: Unpack[Means],
) -> Manifest | int:
    """Build one task's share of the parts: those whose number modulo the number of tasks is the task's index.

    Tasks may run concurrently on any machines that share the folder, in any order, and repeatedly.

    Args:
        source, folder, options, means: as in `build_shards`.
        task: index of the task, and the number of tasks.

    Returns:
        The manifest if all parts are now built, whether this task wrote it or another one finishing at the same time;
        else the number of missing parts.

    Raises:
        ConfigError, DataError: as in `build_shards`; ConfigError also if the task index is out of range.
    """
    index, count = task
    if not 0 <= index < count:
        raise ConfigError(f"task must be from 0/{count} to {count - 1}/{count}, not {index}/{count}")
    return _build(source, folder, options, task, False, means)


def _build(
    source: str | Sequence[str],
    folder: str,
    options: BuildOptions | None,
    task: tuple[int, int] | None,
    overwrite: bool,
    means: Means,
) -> Manifest | int:
    """Build the missing parts, all or one task's; return the manifest, or the number of parts still missing."""
    plan = make_plan(source, options or BuildOptions(), mirror=means.get("mirror", QUICKDRAW_URL))
    downloads = _downloads(folder, means.get("downloads"), means.get("keep_downloads", False))
    sources = (file.location for part in plan.parts for file in part)
    num_workers = resolve_workers(means.get("num_workers", 1), [folder, *sources])
    progress = means.get("progress", lambda *_: None)
    target = Storage(folder)
    with writing(folder, "shards"):
        manifest = begin(target, plan, overwrite=overwrite, is_task=task is not None)
        if manifest is not None:
            return manifest
        try:
            _build_missing(target, plan, task or (0, 1), downloads, num_workers, progress)
        except (FileNotFoundError, DataError):
            # Another process may have finished the same build meanwhile and removed its intermediate files.
            if not is_finished(target, plan):
                raise
        return finish(target, plan)


def _build_missing(
    target: Storage, plan: Plan, task: tuple[int, int], downloads: Downloads, num_workers: int, progress: Progress
) -> None:
    """Build a task's missing parts."""
    index, count = task
    numbers = range(index, len(plan.parts), count)
    finished = finished_parts(target, plan)
    counts = {
        number: (finished[number].num_read, sum(finished[number].rejected.values()))
        for number in numbers
        if number in finished
    }
    num_built = len(counts)
    missing = [number for number in numbers if number not in counts]

    def show() -> None:
        num_read = sum(read for read, _ in counts.values())
        num_rejected = sum(rejected for _, rejected in counts.values())
        progress(num_built, len(numbers), num_read, num_rejected)

    def report(number: int, num_read: int, num_rejected: int) -> None:
        counts[number] = num_read, num_rejected
        show()

    show()
    build = functools.partial(_build_one, target.location, plan, downloads)
    for _ in shared_out(build, missing, num_workers, lambda number: f"built part {number}", report):
        num_built += 1
        show()
    target.remove_if_empty(_DOWNLOADS)


def _build_one(location: str, plan: Plan, downloads: Downloads, number: int, report: Report) -> None:
    """Build one part, in this process or in a worker."""
    failpoint("part", number)
    with writing(location, "shards"):
        build_part(Storage(location), plan, number, downloads, report)


def _downloads(location: str, folder: str | None, keep: bool) -> Downloads:
    """Resolve and check the folder for downloads."""
    if folder is not None:
        if not is_local(folder):
            raise ConfigError(f"downloads need a local folder, not {folder}; choose another")
        folder = local_path(folder)
    elif is_local(location):
        folder = Storage(location).path(_DOWNLOADS)
    elif keep:
        raise ConfigError("downloads would be kept in a temporary folder; choose a folder for downloads")
    return Downloads(folder, keep)
