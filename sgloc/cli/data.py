"""`sgloc sample`, `sgloc shard` and `sgloc shards`: generate sample drawings, build shards, and inspect them."""

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sgloc.errors import ConfigError
from sgloc.faults import MISTAKE
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.data.build.plan import BuildOptions
    from sgloc.data.manifest import Manifest


def build_options(words: Sequence[str]) -> "type[BuildOptions]":
    """Return the dataclass of build options; its module is slow to import."""
    from sgloc.data.build.plan import BuildOptions

    return BuildOptions


def sample(out: str, train: int = 1000, valid: int = 100, test: int = 100, seed: int = 0) -> None:
    """Generate the built-in synthetic sample: sketch-rnn npz files of eight categories.

    Args:
        out: Folder or URL to write to.
        train: Training drawings per category.
        valid: Validation drawings per category.
        test: Test drawings per category.
        seed: Seed of the generator.
    """
    from sgloc.sketch.synthetic import write_sample

    paths = write_sample(out, num_train=train, num_valid=valid, num_test=test, seed=seed)
    show(f"{len(paths)} categories of {train} + {valid} + {test} synthetic drawings in {out}")


def shard(
    source: list[str],
    out: str,
    options: "BuildOptions",
    task: str | None = None,
    mirror: str | None = None,
    downloads: str | None = None,
    keep_downloads: bool = False,
    workers: int = 0,
    overwrite: bool = False,
) -> None:
    """Pack drawings into WebDataset shards with a manifest; an interrupted build resumes when run again.

    Args:
        source: Files, folders, globs or URLs of simplified or raw ndjson, binary or sketch-rnn npz files; a folder of
            SVG or JSON drawings, or one with such a folder per category; or the public QuickDraw data set as
            quickdraw:npz, quickdraw:simplified, quickdraw:raw or quickdraw:binary.
        out: Folder or URL to write to.
        options: Which drawings to take, and how to pack them.
        task: Build only this share of the parts, such as 0/16 to 15/16; the last task to finish writes the manifest.
            Default: build everything.
        mirror: Folder or URL of a mirror of the public QuickDraw data set.
        downloads: Local folder for downloaded source files while they are read; default: inside --out if that is local.
        keep_downloads: Keep downloaded source files.
        workers: Number of worker processes; 0 uses one per core.
        overwrite: Replace existing shards.
    """
    if task is not None and not re.fullmatch(r"\d{1,9}/\d{1,9}", task):
        raise ConfigError(f"task is {task!r}; pass the task's number and the number of tasks, such as 3/16")
    if task is not None and overwrite:
        raise ConfigError("--task with --overwrite would overwrite the other tasks' parts; remove the folder first")
    from sgloc.data.build.run import build_shards, build_task
    from sgloc.data.formats.sources import QUICKDRAW_URL
    from sgloc.terminal import progress

    with progress("parts") as advance:
        means: dict[str, Any] = {
            "num_workers": workers,
            "mirror": mirror or QUICKDRAW_URL,
            "downloads": downloads,
            "keep_downloads": keep_downloads,
            "progress": lambda built, parts, read, rejected: advance(
                built, parts, f"{read:,} drawings, {rejected:,} rejected"
            ),
        }
        outcome: Manifest | int
        if task is None:
            outcome = build_shards(source, out, options, overwrite=overwrite, **means)
        else:
            number, count = map(int, task.split("/"))
            outcome = build_task(source, out, (number, count), options, **means)
    if isinstance(outcome, int):
        show(f"{out}: task {task} finished; parts still to be built by other tasks: {outcome}")
        return
    counts = ", ".join(
        f"{split.num_sketches:,} {name} in {len(split.shards)} shards" for name, split in outcome.splits.items()
    )
    show(
        f"{out}: read {outcome.num_read:,} drawings in {len(outcome.categories)} categories: {counts}; "
        f"skipped: {_counted(outcome.skipped)}; rejected: {_counted(outcome.rejected)}"
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"


def verify(data: str, workers: int = 0) -> None:
    """Read every shard and compare it with the manifest; exit code 2 if any problem is found.

    Args:
        data: Folder or URL of shards.
        workers: Number of worker processes; 0 uses one per core.
    """
    from sgloc.data.shards.verify import verify_shards
    from sgloc.terminal import progress

    with progress("shards") as advance:
        found = verify_shards(data, show, num_workers=workers, progress=advance)
    notes = "".join(f"; {note}" for note in found.notes)
    show(
        f"{data}: {found.num_problems or 'no'} problem{'s' * (found.num_problems != 1)}; "
        f"{found.num_shards:,} shards, {found.num_bytes:,} bytes and {found.num_sketches:,} drawings read{notes}"
    )
    if found.num_problems:
        sys.exit(MISTAKE)


def stats(data: str, plot: str | None = None, json: bool = False) -> None:
    """Show drawing counts, lengths and bytes by category and split; reads only the manifest.

    Args:
        data: Folder or URL of shards.
        plot: Path or URL of a PNG file to plot the distributions to.
        json: Print JSON instead of text and tables.
    """
    from sgloc.data.manifest import load_manifest
    from sgloc.data.shards.stats import shard_stats

    manifest = load_manifest(data)
    if plot is not None:
        from sgloc.data.shards.stats_plot import plot_stats
        from sgloc.storage import write_file

        write_file(plot, plot_stats(manifest))
    if json:
        show(shard_stats(manifest).to_json(), end="")
    else:
        from sgloc.terminal import results

        shard_stats(manifest).print(results())


def merge(data: list[str], out: str, overwrite: bool = False) -> None:
    """Merge finished builds into one folder; hard-links shards where possible, copies them otherwise.

    Args:
        data: Folders or URLs of shards, each with a manifest.
        out: Folder or URL to write to.
        overwrite: Replace existing shards.
    """
    from sgloc.data.shards.merge import merge_shards
    from sgloc.terminal import progress

    with progress("shards") as advance:
        manifest = merge_shards(data, out, overwrite=overwrite, progress=advance)
    num_shards = len(manifest.shards)
    show(
        f"{out}: {manifest.num_accepted:,} drawings in {len(manifest.categories)} categories and "
        f"{num_shards:,} shards, from {len(data)} builds"
    )
