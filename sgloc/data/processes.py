"""A pool of worker processes that never outlive their parent, however it ends."""

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
"""Callback that takes the progress of an item as numbers."""


def resolve_workers(num_workers: int, locations: Iterable[str]) -> int:
    """Resolve the number of processes; 0 means one per core.

    Raises:
        ConfigError: if the number is negative, or another process could not access one of the locations.
    """
    if num_workers < 0:
        raise ConfigError(f"workers must be 0 (one per core) or more, not {num_workers}")
    in_memory = [location for location in locations if location.startswith("memory:")]
    if num_workers > 1 and in_memory:
        raise ConfigError(f"other processes cannot access {in_memory[0]}; set workers to 1, or choose another folder")
    return num_workers or (1 if in_memory else len(os.sched_getaffinity(0)))


def shared_out(
    function: Callable[[Item, Report], Result],
    items: Sequence[Item],
    num_workers: int,
    doing: Callable[[Item], str],
    report: Report = lambda *_: None,
) -> Generator[tuple[Item, Result], None, None]:
    """Map a function over items, in this process or in several.

    Args:
        function: takes an item and a progress callback. With several processes the function, items, results and
            progress numbers are pickled.
        items: items to process.
        num_workers: number of processes; with 1, or a single item, everything runs in this process.
        doing: describes what a worker was doing with an item, for the error raised if the worker dies.
        report: called with an item and the progress numbers that `function` reports for it.

    Yields:
        Each item with its result, in order of completion.

    Raises:
        DataError: if a worker dies; the other workers are then terminated.
        Exception: what the function raises, as is if it is an SglocError, else converted by `as_told`.
    """
    if min(num_workers, len(items)) <= 1:
        for item in items:
            yield item, function(item, functools.partial(report, item))
        return
    waiting = iter(items)
    workers: list[_Worker[Item]] = []
    try:
        with starting_workers():
            # Add them one by one, so that if starting one fails, the earlier ones are terminated.
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
    """The parent's handle of a worker process. Each worker has its own pipe, so that its death affects only its item.

    Attributes:
        connection: the parent's end of the pipe.
        item: the current item, or None if the worker is idle.
        result: the result of the last completed item.
    """

    def __init__(self, function: Callable[[Item, Report], Any], doing: Callable[[Item], str], report: Report) -> None:
        # Spawn, because a fork of a process with threads would keep their locks held forever.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.item: Item | None = None
        self.result: Any = None
        self._doing, self._report = doing, report
        self._process: SpawnProcess = context.Process(target=_work, args=(function, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, item: Item | None) -> None:
        """Assign an item to the worker; None leaves it idle."""
        self.item = item
        if item is not None:
            # If the worker has died, the next `hear` reports it.
            with contextlib.suppress(BrokenPipeError):
                self.connection.send(item)

    def hear(self, item: Item) -> bool:
        """Handle one message of the worker about its item; return whether the item is done."""
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
        how = f"(exit code {code})" if code >= 0 else f"(signal {signal.Signals(-code).name})"
        lost = DataError(
            f"a worker process died {how} while it {self._doing(item)}; run the same command again, with fewer "
            "workers if memory ran out"
        )
        lost.exit_code = PASSING
        return lost

    def end(self) -> None:
        """Terminate the process, busy or idle."""
        self._process.terminate()
        self._process.join()
        self.connection.close()


class _ToParent(logging.handlers.QueueHandler):
    """Log handler that sends a worker's records to its parent, which logs them as its own."""

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record; drop it if the parent is gone."""
        with contextlib.suppress(OSError):
            self.queue.send(record)  # type: ignore[attr-defined]


def _work(function: Callable[[Any, Report], Any], connection: Connection) -> None:
    """Process the items that the parent sends, until it terminates this process."""
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
                # Send internal errors as well: the parent reports them.
                connection.send(as_told(error))
                return
            connection.send([result])
