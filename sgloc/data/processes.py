"""Work shared out among processes, which end with the one that started them, however it ends."""

import contextlib
import functools
import logging
import logging.handlers
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

from sgloc.errors import ConfigError, DataError, SglocError
from sgloc.faults import PASSING, as_told
from sgloc.orphan import begin_worker
from sgloc.signals import starting_workers

Item = TypeVar("Item")
Result = TypeVar("Result")
Report = Callable[..., None]
"""Takes numbers that tell how far a piece of work is."""


def resolve_workers(num_workers: int, locations: Iterable[str]) -> int:
    """The number of processes: what is asked for, or, for 0, one a core.

    Raises:
        ConfigError: if it is negative, or other processes cannot see one of the locations.
    """
    if num_workers < 0:
        raise ConfigError(f"workers must be 0, for one a core, or more, not {num_workers}")
    in_memory = [location for location in locations if location.startswith("memory:")]
    if num_workers > 1 and in_memory:
        raise ConfigError(f"other processes cannot see {in_memory[0]}; give 1 for workers, or another folder")
    return num_workers or (1 if in_memory else len(os.sched_getaffinity(0)))


def shared_out(
    function: Callable[[Item, Report], Result],
    items: Sequence[Item],
    num_workers: int,
    doing: Callable[[Item], str],
    report: Report = lambda *_: None,
) -> Generator[tuple[Item, Result], None, None]:
    """Do work item by item, in this process or in several.

    Args:
        function: takes an item, and what to call with numbers while it is at work; where there are several processes it
            is pickled, as are items, results and numbers.
        items: what there is to do.
        num_workers: processes; with 1, or one item, all is done in this one.
        doing: says what a process did with an item when it died.
        report: is called with an item and the numbers that `function` gives.

    Yields:
        Each item with its result, as they are done.

    Raises:
        DataError: if a process dies; the others are then ended too.
        Exception: what the function raises, if it is ours, else `as_told` of it.
    """
    if min(num_workers, len(items)) <= 1:
        for item in items:
            yield item, function(item, functools.partial(report, item))
        return
    waiting = iter(items)
    workers: list[_Worker[Item]] = []
    try:
        with starting_workers():
            # One by one, so that those that were started are known where the next fails.
            workers.extend(_Worker(function, doing, report) for _ in range(min(num_workers, len(items))))
        for worker in workers:
            worker.begin(next(waiting, None))
        while busy := [(worker, worker.item) for worker in workers if worker.item is not None]:
            speaking = wait([worker.connection for worker, _ in busy])
            for worker, item in busy:
                if worker.connection in speaking and worker.hear(item):
                    worker.begin(next(waiting, None))
                    yield item, worker.result
    finally:
        for worker in workers:
            worker.end()


class _Worker(Generic[Item]):
    """A process, as its parent sees it: with a pipe of its own, so that its death can harm nothing but its item.

    Attributes:
        connection: to it.
        item: what it is at work on, if on anything.
        result: of the item that it did last.
    """

    def __init__(self, function: Callable[[Item, Report], Any], doing: Callable[[Item], str], report: Report) -> None:
        # A new process: this one may have threads, of which a copy would hold the locks for ever.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.item: Item | None = None
        self.result: Any = None
        self._doing, self._report = doing, report
        self._process: SpawnProcess = context.Process(target=_work, args=(function, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, item: Item | None) -> None:
        """Have it do an item, or nothing more."""
        self.item = item
        if item is not None:
            # That it has died is heard next.
            with contextlib.suppress(BrokenPipeError):
                self.connection.send(item)

    def hear(self, item: Item) -> bool:
        """Take what it says of its item; True if that is done."""
        try:
            said = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost(item) from error
        if isinstance(said, SglocError):
            raise said
        if isinstance(said, logging.LogRecord):
            logging.getLogger(said.name).handle(said)
        elif isinstance(said, tuple):
            self._report(item, *said)
        else:
            (self.result,) = said
            return True
        return False

    def _lost(self, item: Item) -> DataError:
        self._process.join()
        code = self._process.exitcode or 0
        how = f"with exit code {code}" if code >= 0 else f"by signal {signal.Signals(-code).name}"
        lost = DataError(
            f"a worker process ended {how} while it {self._doing(item)}; give the same command again, with fewer "
            "workers if memory was short"
        )
        lost.exit_code = PASSING
        return lost

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.terminate()
        self._process.join()
        self.connection.close()


class _ToParent(logging.handlers.QueueHandler):
    """Hands the records of a worker to its parent, which shows them as its own."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record, unless the parent is gone."""
        with contextlib.suppress(OSError):
            self.queue.send(record)  # type: ignore[attr-defined]


def _work(function: Callable[[Any, Report], Any], connection: Connection) -> None:
    """Do the items that the parent sends, until it ends this process."""
    begin_worker()
    logger = logging.getLogger("sgloc")
    logger.addHandler(_ToParent(connection))  # type: ignore[arg-type]
    logger.setLevel(logging.INFO)
    # When the parent dies, the pipe may break before the kernel has ended this process too.
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            item = connection.recv()
            try:
                result = function(item, lambda *numbers: connection.send(numbers))
            except Exception as error:
                # A fault, too, is the parent's to tell.
                connection.send(as_told(error))
                return
            connection.send([result])
