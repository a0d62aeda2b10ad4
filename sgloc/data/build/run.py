"""Building shards: the whole, or a task's share of it."""

import os
from collections.abc import Sequence

from sgloc.data.build.fetch import Downloads
from sgloc.data.build.plan import BuildOptions, Plan, make_plan
from sgloc.data.build.state import begin, finish, finished_parts, is_finished
from sgloc.data.build.workers import Progress, Tally, Work, build_here, build_with_workers
from sgloc.data.formats.sources import QUICKDRAW_URL
from sgloc.data.manifest import Manifest
from sgloc.errors import ConfigError, DataError
from sgloc.storage import Storage, is_local, local_path, writing

_DOWNLOADS = "downloads"


def build_shards(
    source: str | Sequence[str],
    folder: str,
    options: BuildOptions | None = None,
    *,
    overwrite: bool = False,
    num_workers: int = 1,
    mirror: str = QUICKDRAW_URL,
    downloads: str | None = None,
    keep_downloads: bool = False,
    progress: Progress = lambda *_: None,
) -> Manifest:
    """Pack drawings into shards; the same drawings in the same files give the same bytes.

    A build that was killed goes on where it was when it is started again.

    Args:
        source: files, a folder, a glob, URLs, or the public data set, as `find_sources` takes them.
        folder: folder or URL to write to. Its manifest.json is written last.
        options: what is taken of the drawings, and how it is packed; None is `BuildOptions()`.
        overwrite: replace shards, or an unfinished build, that are there already.
        num_workers: processes; 1 builds in this one, 0 stands for one a core.
        mirror: where the public data set is.
        downloads: local folder for files that are not local, while they are read; None: one in `folder` where that is
            local, else a temporary one.
        keep_downloads: leave them there.
        progress: called with parts built, parts in all, drawings read and drawings rejected.

    Returns:
        The manifest that was written.

    Raises:
        ConfigError: if num_workers is negative, or other processes cannot see the folder or a source.
        DataError: if a source cannot be read as what it claims to be, a category does not occur, nothing is left to
            train on, a worker dies, or shards or another build are there already.
    """
    plan = make_plan(source, options or BuildOptions(), mirror=mirror)
    work = _work(plan, folder, downloads, keep_downloads)
    outcome = _build(work, None, overwrite, _num_workers(num_workers, work), progress)
    assert isinstance(outcome, Manifest), f"{outcome} parts are missing although none failed"
    return outcome


def build_task(
    source: str | Sequence[str],
    folder: str,
    task: tuple[int, int],
    options: BuildOptions | None = None,
    *,
    num_workers: int = 1,
    mirror: str = QUICKDRAW_URL,
    downloads: str | None = None,
    keep_downloads: bool = False,
    progress: Progress = lambda *_: None,
) -> Manifest | int:
    """Build the parts whose number leaves a remainder when divided by the number of tasks; see `build_shards`.

    All tasks may run at once, on any machines that share the folder, in any order, and again.

    Args:
        source, folder, options: as `build_shards` takes them.
        task: the remainder, and the number of tasks.
        num_workers, mirror, downloads, keep_downloads, progress: as `build_shards` takes them.

    Returns:
        The manifest, if now all parts are built; then this wrote it, or another task that ended at the same time. Else
        how many parts are missing.

    Raises:
        ConfigError, DataError: as `build_shards`; ConfigError also if there is no such task.
    """
    index, count = task
    if not 0 <= index < count:
        raise ConfigError(f"task must be from 0/{count} to {count - 1}/{count}, not {index}/{count}")
    plan = make_plan(source, options or BuildOptions(), mirror=mirror)
    work = _work(plan, folder, downloads, keep_downloads)
    return _build(work, task, False, _num_workers(num_workers, work), progress)


def _build(
    work: Work,
    task: tuple[int, int] | None,
    overwrite: bool,
    num_workers: int,
    progress: Progress,
) -> Manifest | int:
    """Build what is not built yet of all parts, or of a task's; the manifest, or how many parts are missing."""
    target = Storage(work.location)
    with writing(work.location, "shards"):
        manifest = begin(target, work.plan, overwrite=overwrite, is_task=task is not None)
        if manifest is not None:
            return manifest
        try:
            return _build_missing(work, target, task or (0, 1), num_workers, progress)
        except (FileNotFoundError, DataError):
            # Another process that builds the same may have finished, and removed what only a build needs.
            if not is_finished(target, work.plan):
                raise
            return finish(target, work.plan)


def _build_missing(
    work: Work,
    target: Storage,
    task: tuple[int, int],
    num_workers: int,
    progress: Progress,
) -> Manifest | int:
    """Build the parts of a task that are not built yet, and finish if none of any other is missing."""
    index, count = task
    numbers = range(index, len(work.plan.parts), count)
    tally = Tally(len(numbers), progress)
    parts = finished_parts(target, work.plan)
    finished = {number: parts[number] for number in numbers if number in parts}
    tally.begin(finished)
    missing = [number for number in numbers if number not in finished]
    if min(num_workers, len(missing)) <= 1:
        build_here(work, missing, tally)
    else:
        build_with_workers(work, missing, num_workers, tally)
    target.remove_if_empty(_DOWNLOADS)
    return finish(target, work.plan)


def _work(plan: Plan, location: str, downloads: str | None, keep_downloads: bool) -> Work:
    """What workers need, the folder for downloads checked."""
    if downloads is not None:
        if not is_local(downloads):
            raise ConfigError(f"downloads go to a local folder, not to {downloads}; give another")
        downloads = local_path(downloads)
    elif is_local(location):
        downloads = Storage(location).path(_DOWNLOADS)
    elif keep_downloads:
        raise ConfigError("downloads would be kept in a temporary folder; give a folder for downloads")
    return Work(plan, location, Downloads(downloads, keep_downloads))


def _num_workers(num_workers: int, work: Work) -> int:
    """The number of processes, checked."""
    if num_workers < 0:
        raise ConfigError(f"workers must be 0, for one a core, or more, not {num_workers}")
    locations = [work.location, *(source.location for part in work.plan.parts for source in part)]
    in_memory = [location for location in locations if location.startswith("memory:")]
    if num_workers > 1 and in_memory:
        raise ConfigError(f"other processes cannot see {in_memory[0]}; give 1 for workers, or another folder")
    if num_workers == 0:
        return 1 if in_memory else len(os.sched_getaffinity(0))
    return num_workers
