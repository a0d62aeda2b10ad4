"""`sgloc shards`: what is done with folders of shards that are there."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from sgloc.cli.parsing import check_location, fail, nearest, new_parser, parse, show
from sgloc.faults import MISTAKE


def shards(words: list[str]) -> None:
    """Check, count or join shards: `sgloc shards verify`, `stats` or `merge`."""
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:<8} {(function.__doc__ or '').splitlines()[0]}" for name, function in _COMMANDS.items()]
        show("\n".join(["usage: sgloc shards <command> [options]", "", *lines]))
        return
    command = words[0]
    if command not in _COMMANDS:
        hint = nearest(command, list(_COMMANDS))
        fail("sgloc shards", f"there is no command {command!r}{hint}; see `sgloc shards --help`")
    _COMMANDS[command](words[1:])


def _verify(words: list[str]) -> None:
    """Read every shard and compare it with the manifest; exit code 2 tells of a problem."""
    parser = new_parser("shards verify", _verify)
    parser.add_argument("folder", help="folder or URL of shards")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one a core")
    options = parse(parser, words, "folder")
    from sgloc.data.shards.verify import verify_shards

    with _progress("shards") as progress:
        found = verify_shards(options.folder, show, num_workers=options.workers, progress=progress)
    notes = "".join(f"; {note}" for note in found.notes)
    show(
        f"{options.folder}: {found.num_problems or 'no'} problem{'s' * (found.num_problems != 1)}; "
        f"{found.num_shards:,} shards, {found.num_bytes:,} bytes and {found.num_sketches:,} drawings read{notes}"
    )
    if found.num_problems:
        sys.exit(MISTAKE)


def _stats(words: list[str]) -> None:
    """Count drawings by category and split, their lengths and their bytes, from the manifest alone."""
    parser = new_parser("shards stats", _stats)
    parser.add_argument("folder", help="folder or URL of shards")
    parser.add_argument("--plot", default=None, type=str, help="PNG to draw the distributions into, a path or URL")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    options = parse(parser, words, "folder")
    if options.plot is not None:
        check_location(parser, "plot", options.plot)
    from rich.console import Console

    from sgloc.data.manifest import load_manifest
    from sgloc.data.shards.stats import shard_stats

    manifest = load_manifest(options.folder)
    if options.plot is not None:
        import fsspec

        from sgloc.data.shards.stats_plot import plot_stats

        with fsspec.open(options.plot, "wb") as stream:
            stream.write(plot_stats(manifest))
    if options.json:
        show(shard_stats(manifest).to_json(), end="")
    else:
        # Where there is no terminal there is no width to keep to.
        shard_stats(manifest).print(Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160))


def _merge(words: list[str]) -> None:
    """Join finished builds into one folder; shards are linked where that can be, else copied."""
    parser = new_parser("shards merge", _merge)
    parser.add_argument("folders", nargs="+", help="folders or URLs of shards, each with a manifest")
    parser.add_argument("--out", required=True, help="folder or URL to write to")
    parser.add_argument("--overwrite", action="store_true", help="replace shards that are there already")
    options = parse(parser, words, "out")
    for folder in options.folders:
        check_location(parser, "folders", folder)
    from sgloc.data.shards.merge import merge_shards

    with _progress("shards") as progress:
        manifest = merge_shards(options.folders, options.out, overwrite=options.overwrite, progress=progress)
    num_shards = sum(len(split.shards) for split in manifest.splits.values())
    show(
        f"{options.out}: {manifest.num_accepted:,} drawings of {len(manifest.categories)} categories in "
        f"{num_shards:,} shards of {len(options.folders)} builds"
    )


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal, if there is one; it is told how many are done and how many there are."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeElapsedColumn())
    # What is printed meanwhile goes above the bar, but not away from a file or pipe.
    redirect = sys.stdout.isatty()
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=redirect, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


_COMMANDS: dict[str, Callable[[list[str]], None]] = {"verify": _verify, "stats": _stats, "merge": _merge}
