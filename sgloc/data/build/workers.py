"""Processes that build parts."""

import contextlib
import functools
import logging
import logging.handlers
import multiprocessing
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from sgloc.data.build.fetch import Downloads
from sgloc.data.build.part import Report, build_part
from sgloc.data.build.plan import Plan
from sgloc.data.manifest import Manifest
from sgloc.errors import DataError, SglocError
from sgloc.failpoint import failpoint
from sgloc.faults import PASSING, as_told
from sgloc.orphan import begin_worker
from sgloc.signals import starting_workers
from sgloc.storage import Storage, writing

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


def build_here(work: Work, numbers: list[int], tally: Tally) -> None:
    """Build parts, one after another, in this process.

    Raises:
        DataError: as `Work.build`.
    """
    for number in numbers:
        work.build(number, functools.partial(tally.report, number))
        tally.built()


def build_with_workers(work: Work, numbers: list[int], num_workers: int, tally: Tally) -> None:
    """Build parts in processes; they end with this one, however it ends.

    Raises:
        DataError: as `Work.build`, or if a process dies; the others are then ended too.
    """
    waiting = iter(numbers)
    workers: list[_Worker] = []
    try:
        with starting_workers():
            # One by one, so that those that were started are known where the next fails.
            workers.extend(_Worker(work) for _ in range(min(num_workers, len(numbers))))
        for worker in workers:
            worker.begin(next(waiting))
        while busy := [worker for worker in workers if worker.number is not None]:
            speaking = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in speaking and worker.hear(tally):
                    worker.begin(next(waiting, None))
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process, as its parent sees it: with a pipe of its own, so that its death can harm nothing but its part.

    Attributes:
        connection: to it.
        number: of the part that it builds, if any.
    """

    def __init__(self, work: Work) -> None:
        # A new process: this one may have threads, of which a copy would hold the locks for ever.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.number: int | None = None
        self._process: SpawnProcess = context.Process(target=_work, args=(work, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, number: int | None) -> None:
        """Have it build a part, or nothing more."""
        self.number = number
        if number is not None:
            # That it has died is heard next.
            with contextlib.suppress(BrokenPipeError):
                self.connection.send(number)

    def hear(self, tally: Tally) -> bool:
        """Take what it says; True if its part is built."""
        assert self.number is not None
        try:
            said = self.connection.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            raise _lost_worker(self._process.exitcode, self.number) from error
        if isinstance(said, SglocError):
            raise said
        if said is None:
            tally.built()
            return True
        if isinstance(said, logging.LogRecord):
            logging.getLogger(said.name).handle(said)
        else:
            tally.report(self.number, *said)
        return False

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.terminate()
        self._process.join()
        self.connection.close()


def _lost_worker(exitcode: int | None, number: int) -> DataError:
    lost = DataError(
        f"a worker process ended {_how(exitcode)} while it built part {number}; what is built is kept: give the same "
        "command again, with fewer --workers if memory was short"
    )
    lost.exit_code = PASSING
    return lost


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"by signal {signal.Signals(-exitcode).name}"
    return f"with exit code {exitcode}"


class _ToParent(logging.handlers.QueueHandler):
    """Hands the records of a worker to its parent, which shows them as its own."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record, unless the parent is gone."""
        with contextlib.suppress(OSError):
            self.queue.send(record)  # type: ignore[attr-defined]


def _work(work: Work, connection: Connection) -> None:
    """Build the parts that the parent names, until it ends this process."""
    begin_worker()
    logger = logging.getLogger("sgloc")
    logger.addHandler(_ToParent(connection))  # type: ignore[arg-type]
    logger.setLevel(logging.INFO)
    # When the parent dies, the pipe may break before the kernel has ended this process too.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            number = connection.recv()
            try:
                work.build(number, lambda *counts: connection.send(counts))
            except Exception as error:
                # A fault, too, is the parent's to tell.
                connection.send(as_told(error))
                return
            connection.send(None)
