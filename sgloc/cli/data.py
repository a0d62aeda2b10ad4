"""`sgloc sample`, `sgloc shard` and `sgloc shards`: drawings on their way to shards, and shards that are there."""

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
    """The options of a build, whose module takes its time."""
    from sgloc.data.build.plan import BuildOptions

    return BuildOptions


def sample(out: str, train: int = 1000, valid: int = 100, test: int = 100, seed: int = 0) -> None:
    """Draw the built-in synthetic sample: sketch-rnn npz files of eight categories.

    Args:
        out: Folder or URL to write to.
        train: Training drawings a category.
        valid: Validation drawings a category.
        test: Test drawings a category.
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
    """Pack drawings into WebDataset shards with a manifest; a build that was killed goes on where it was.

    Args:
        source: Files, folders, globs or URLs of simplified or raw ndjson, binary or sketch-rnn npz files; folders of
            SVG or JSON drawings, or with such a folder for each category; or quickdraw:npz, quickdraw:simplified,
            quickdraw:raw or quickdraw:binary, the public data set.
        out: Folder or URL to write to.
        options: What is taken of the drawings, and how it is packed.
        task: Build only this share, as 0/16 to 15/16; the one that ends last writes the manifest. Default: all.
        mirror: Folder or URL of a copy of the public data set.
        downloads: Local folder for files that are not local, while they are read; default: in --out, where that is
            local.
        keep_downloads: Leave downloaded files where they are.
        workers: Processes; 0: one a core.
        overwrite: Replace shards that are there already.
    """
    if task is not None and not re.fullmatch(r"\d{1,9}/\d{1,9}", task):
        raise ConfigError(f"task is {task!r}; give a number and how many there are, as 3/16")
    if task is not None and overwrite:
        raise ConfigError("each task would overwrite what the others have built; remove the folder first")
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
        show(f"{out}: task {task} is built; parts that other tasks have still to build: {outcome}")
        return
    counts = ", ".join(
        f"{split.num_sketches:,} {name} in {len(split.shards)} shards" for name, split in outcome.splits.items()
    )
    show(
        f"{out}: {outcome.num_read:,} drawings read of {len(outcome.categories)} categories: {counts}; "
        f"skipped: {_counted(outcome.skipped)}; rejected: {_counted(outcome.rejected)}"
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"


def verify(data: str, workers: int = 0) -> None:
    """Read every shard and compare it with the manifest; exit code 2 tells of a problem.

    Args:
        data: Folder or URL of shards.
        workers: Processes; 0: one a core.
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
    """Count drawings by category and split, their lengths and their bytes, from the manifest alone.

    Args:
        data: Folder or URL of shards.
        plot: PNG to draw the distributions into, a path or URL.
        json: Print JSON in place of text and tables.
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
    """Join finished builds into one folder; shards are linked where possible, else copied.

    Args:
        data: Folders or URLs of shards, each with a manifest.
        out: Folder or URL to write to.
        overwrite: Replace shards that are there already.
    """
    from sgloc.data.shards.merge import merge_shards
    from sgloc.terminal import progress

    with progress("shards") as advance:
        manifest = merge_shards(data, out, overwrite=overwrite, progress=advance)
    num_shards = len(manifest.shards)
    show(
        f"{out}: {manifest.num_accepted:,} drawings of {len(manifest.categories)} categories in "
        f"{num_shards:,} shards of {len(data)} builds"
    )
