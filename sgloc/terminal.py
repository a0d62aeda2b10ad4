"""What the terminal shows while something long runs."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sgloc.masking import mask


@contextlib.contextmanager
def shard_progress() -> Iterator[tuple[Callable[[int, int, int, int], None], Callable[[str], None]]]:
    """A bar of parts built, with the drawings read and rejected, and sentences above it; give what it yields to
    `build_shards` as progress and told."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        first: tuple[float, int] | None = None

        def show(num_built: int, num_parts: int, num_read: int, num_rejected: int) -> None:
            nonlocal first
            # What an earlier start has read says nothing of the speed of this one.
            started, already_read = first = first or (time.monotonic(), num_read)
            rate = (num_read - already_read) / max(time.monotonic() - started, 1e-3)
            said = f"{num_read:,} drawings, {num_rejected:,} rejected, {rate:,.0f} drawings/s"
            bar.update(task, completed=num_built, total=num_parts, description=said)

        def say(sentence: str) -> None:
            console.print(mask(sentence), markup=False, highlight=False, soft_wrap=True)

        yield show, say
