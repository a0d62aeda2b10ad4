"""Building shards: the whole, or a task's share of it."""

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
"""Takes parts built, parts in all, drawings read and drawings rejected."""


class Means(TypedDict, total=False):
    """How a build is done, on which its bytes do not depend.

    Attributes:
        num_workers: processes; 1, the default, builds in this one, 0 stands for one a core.
        mirror: where the public data set is.
        downloads: local folder for files that are not local, while they are read; None: one in the folder that is
            written to where that is local, else a temporary one.
        keep_downloads: leave them there.
        progress: called with parts built, parts in all, drawings read and drawings rejected.
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
    """Pack drawings into shards; the same drawings in the same files give the same bytes.

    A build that was killed goes on where it was when it is started again.

    Args:
        source: files, a folder, a glob, URLs, or the public data set, as `find_sources` takes them.
        folder: folder or URL to write to. Its manifest.json is written last.
        options: what is taken of the drawings, and how it is packed; None is `BuildOptions()`.
        overwrite: replace shards, or an unfinished build, that are there already.
        means: see `Means`.

    Returns:
        The manifest that was written.

    Raises:
        ConfigError: if num_workers is negative, or other processes cannot see the folder or a source.
        DataError: if a source cannot be read as what it claims to be, a category does not occur, nothing is left to
            train on, a worker dies, or shards or another build are there already.
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
    """Build the parts whose number leaves a remainder when divided by the number of tasks; see `build_shards`.

    All tasks may run at once, on any machines that share the folder, in any order, and again.

    Args:
        source, folder, options, means: as `build_shards` takes them.
        task: the remainder, and the number of tasks.

    Returns:
        The manifest, if now all parts are built; then this wrote it, or another task that ended at the same time. Else
        how many parts are missing.

    Raises:
        ConfigError, DataError: as `build_shards`; ConfigError also if there is no such task.
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
    """Build what is not built yet of all parts, or of a task's; the manifest, or how many parts are missing."""
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
            # Another process that builds the same may have finished, and removed what only a build needs.
            if not is_finished(target, plan):
                raise
        return finish(target, plan)


def _build_missing(
    target: Storage, plan: Plan, task: tuple[int, int], downloads: Downloads, num_workers: int, progress: Progress
) -> None:
    """Build the parts of a task that are not built yet."""
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
    """Build a part, in any process."""
    failpoint("part", number)
    with writing(location, "shards"):
        build_part(Storage(location), plan, number, downloads, report)


def _downloads(location: str, folder: str | None, keep: bool) -> Downloads:
    """Where files that are not local go, checked."""
    if folder is not None:
        if not is_local(folder):
            raise ConfigError(f"downloads go to a local folder, not to {folder}; give another")
        folder = local_path(folder)
    elif is_local(location):
        folder = Storage(location).path(_DOWNLOADS)
    elif keep:
        raise ConfigError("downloads would be kept in a temporary folder; give a folder for downloads")
    return Downloads(folder, keep)
