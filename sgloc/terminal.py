"""What the terminal shows while something long runs."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextlib.contextmanager
def shard_progress() -> Iterator[Callable[[int, int, int, int], None]]:
    """A bar of files done, with the drawings taken and rejected; give what it yields to `build_shards`."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, accepted: int, rejected: int) -> None:
            bar.update(task, completed=done, total=total, description=f"{accepted:,} drawings, {rejected:,} rejected")

        yield show
