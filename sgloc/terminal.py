"""Progress bars, progress log lines, and the console for tables of results."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from sgloc.log import is_for_people, rank_of
from sgloc.masking import mask

logger = logging.getLogger(__name__)

# Width of tables that are not written to a terminal.
_WIDTH = 160
_SECONDS_BETWEEN_LINES = 60.0


Batch = TypeVar("Batch", bound=Sized)


class Advance(Protocol):
    """Callback that reports progress."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report the number done, the total if known, and an optional note."""
        ...


@contextlib.contextmanager
def progress(unit: str, total: int | None = None, *, says_lines: bool = True) -> Iterator[Advance]:
    """Show progress: on a terminal, a bar with speed and remaining time; elsewhere, a log line from time to time.

    Log output appears above the bar. Only rank 0 shows progress, and only if the program is not quiet.

    Args:
        unit: what is counted, in the plural.
        total: total number, if known.
        says_lines: whether to log lines when there is no bar.
    """
    console = Console(stderr=True)
    if rank_of(os.environ) != 0 or not is_for_people() or not console.is_terminal:
        yield _Lines(unit, total) if says_lines else lambda *_: None
        return
    columns = (SpinnerColumn(), BarColumn(), _Count(unit), TimeRemainingColumn(), TextColumn("{task.description}"))
    # Print results above the bar too, but do not redirect them away from a file or pipe.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as bar:
        task = bar.add_task("", total=total)

        def advance(done: int, total: int | None = None, note: str = "") -> None:
            bar.update(task, completed=done, total=total, description=mask(note).replace("[", r"\["))

        yield advance


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show a spinner on a terminal during an activity without a count.

    Args:
        what: the activity, such as "writing the model".
    """
    with progress("", says_lines=False) as advance:
        advance(0, None, what)
        yield


def tracked(batches: Iterable[Batch], unit: str, total: int) -> Iterator[Batch]:
    """Iterate over batches and show how many of their items have been processed.

    Args:
        batches: the batches; each counts as many items as its length.
        unit: what is counted, in the plural.
        total: number of items in all batches.
    """
    done = 0
    with progress(unit, total) as advance:
        for batch in batches:
            yield batch
            done += len(batch)
            advance(done)


class _Count(ProgressColumn):
    """Progress column with the number done, the total and the speed."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        if not self._unit:
            return Text()
        of = "" if task.total is None else f"/{task.total:,.0f}"
        speed = "" if task.speed is None else f", {task.speed:,.{0 if task.speed >= 10 else 1}f}/s"
        return Text(f"{task.completed:,.0f}{of} {self._unit}{speed}")


class _Lines:
    """Logs progress at most once a minute, so that short activities log nothing."""

    def __init__(self, unit: str, total: int | None) -> None:
        self._unit, self._total, self._last = unit, total, time.monotonic()

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report progress; see `Advance`."""
        if time.monotonic() - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last, most = time.monotonic(), total or self._total
        of = "" if most is None else f" of {most:,}"
        logger.info("%s", f"{done:,}{of} {self._unit}{f'; {note}' if note else ''}")


def results() -> Console:
    """Return the console for a command's tables of results."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDTH)
