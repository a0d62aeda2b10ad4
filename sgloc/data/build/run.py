"""Building shards: the whole, or a task's share of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Work:
    """What a worker needs to build any part.

    Attributes:
        plan: of the build.
        location: the folder or URL to write to.
        downloads: where source files that are not local go.
    """

    plan: Plan
    location: str
    downloads: Downloads

    def build(self, number: int, report: Report) -> None:
        """Build a part.

        Args:
            number: of the part.
            report: as `build_part` takes it.

        Raises:
            DataError: if a source cannot be read as what it claims to be, or the folder not be written to.
        """
        failpoint("part", number)
        sources, options = self.plan.parts[number], self.plan.options
        with writing(self.location, "shards"):
            folder = Storage(self.location)
            build_part(folder, number, sources, options, open_source=self.downloads.open, report=report)


class Tally:
    """Adds up what the parts report.

    Args:
        num_parts: in all.
        progress: is given the counts whenever they change.
    """

    def __init__(self, num_parts: int, progress: Progress) -> None:
        self._num_parts, self._progress = num_parts, progress
        self._counts: dict[int, tuple[int, int]] = {}
        self._num_built = 0

    def begin(self, finished: Mapping[int, Manifest]) -> None:
        """Take the parts that were built before."""
        for number, part in finished.items():
            self._counts[number] = part.num_read, sum(part.rejected.values())
        self._num_built = len(finished)
        self._show()

    def report(self, number: int, num_read: int, num_rejected: int) -> None:
        """Take how far a part is."""
        self._counts[number] = num_read, num_rejected
        self._show()

    def built(self) -> None:
        """Take that one more part is built."""
        self._num_built += 1
        self._show()

    def _show(self) -> None:
        counts = self._counts.values()
        read, rejected = sum(read for read, _ in counts), sum(rejected for _, rejected in counts)
        self._progress(self._num_built, self._num_parts, read, rejected)


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
    work = _work(plan, folder, means.get("downloads"), means.get("keep_downloads", False))
    sources = (file.location for part in plan.parts for file in part)
    num_workers = resolve_workers(means.get("num_workers", 1), [folder, *sources])
    target = Storage(folder)
    with writing(folder, "shards"):
        manifest = begin(target, plan, overwrite=overwrite, is_task=task is not None)
        if manifest is not None:
            return manifest
        try:
            return _build_missing(work, target, task or (0, 1), num_workers, means.get("progress", lambda *_: None))
        except (FileNotFoundError, DataError):
            # Another process that builds the same may have finished, and removed what only a build needs.
            if not is_finished(target, plan):
                raise
            return finish(target, plan)


def _build_missing(
    work: Work, target: Storage, task: tuple[int, int], num_workers: int, progress: Progress
) -> Manifest | int:
    """Build the parts of a task that are not built yet, and finish if none of any other is missing."""
    index, count = task
    numbers = range(index, len(work.plan.parts), count)
    tally = Tally(len(numbers), progress)
    parts = finished_parts(target, work.plan)
    finished = {number: parts[number] for number in numbers if number in parts}
    tally.begin(finished)
    missing = [number for number in numbers if number not in finished]
    for _ in shared_out(work.build, missing, num_workers, lambda number: f"built part {number}", tally.report):
        tally.built()
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
