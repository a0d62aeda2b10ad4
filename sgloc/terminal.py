"""What the terminal shows while something long runs, and how results are laid out."""

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

# Where there is no terminal there is no width to keep to.
_WIDTH = 160
_SECONDS_BETWEEN_LINES = 60.0


Batch = TypeVar("Batch", bound=Sized)


class Advance(Protocol):
    """Says how far something is."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Take what is done, of how much if that is known, and what else is worth saying."""
        ...


@contextlib.contextmanager
def progress(unit: str, total: int | None = None, *, says_lines: bool = True) -> Iterator[Advance]:
    """Show how far something is: a bar with the speed and the time left on a terminal, now and then a line elsewhere.

    What is logged meanwhile stands above the bar. Ranks but the first, and a quiet program, show nothing.

    Args:
        unit: what is counted, in the plural.
        total: how many there are, if that is known.
        says_lines: whether there are lines where there is no bar.
    """
    console = Console(stderr=True)
    if rank_of(os.environ) != 0 or not is_for_people() or not console.is_terminal:
        yield _Lines(unit, total) if says_lines else lambda *_: None
        return
    columns = (SpinnerColumn(), BarColumn(), _Count(unit), TimeRemainingColumn(), TextColumn("{task.description}"))
    # Results go above the bar, too, but not away from a file or pipe.
    redirect = sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as bar:
        task = bar.add_task("", total=total)

        def advance(done: int, total: int | None = None, note: str = "") -> None:
            bar.update(task, completed=done, total=total, description=mask(note).replace("[", r"\["))

        yield advance


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal that something is going on of which nothing can be counted.

    Args:
        what: it is, such as "writing the model".
    """
    with progress("", says_lines=False) as advance:
        advance(0, None, what)
        yield


def tracked(batches: Iterable[Batch], unit: str, total: int) -> Iterator[Batch]:
    """Batches, and how many of all that is in them has been worked on.

    Args:
        batches: each of the length that it counts for.
        unit: what is counted, in the plural.
        total: how many there are in all batches.
    """
    done = 0
    with progress(unit, total) as advance:
        for batch in batches:
            yield batch
            done += len(batch)
            advance(done)


class _Count(ProgressColumn):
    """How many are done of how many, and how fast."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """One line."""
        if not self._unit:
            return Text()
        of = "" if task.total is None else f"/{task.total:,.0f}"
        speed = "" if task.speed is None else f", {task.speed:,.{0 if task.speed >= 10 else 1}f}/s"
        return Text(f"{task.completed:,.0f}{of} {self._unit}{speed}")


class _Lines:
    """Logs how far something is, so seldom that what is short says nothing."""

    def __init__(self, unit: str, total: int | None) -> None:
        self._unit, self._total, self._last = unit, total, time.monotonic()

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """As `Advance`."""
        if time.monotonic() - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last, most = time.monotonic(), total or self._total
        of = "" if most is None else f" of {most:,}"
        logger.info("%s", f"{done:,}{of} {self._unit}{f'; {note}' if note else ''}")


def results() -> Console:
    """Where tables go that a command was asked for."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDTH)
