"""`sgloc sample`, `sgloc shard` and `sgloc shards`: drawings on their way to shards, and shards that are there."""

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sgloc.cli.shared import JsonOptions, OutOptions, OverwriteOptions, ShardsOptions, WorkersOptions
from sgloc.errors import ConfigError
from sgloc.faults import MISTAKE
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.data.build.plan import BuildOptions
    from sgloc.data.manifest import Manifest


@dataclass(frozen=True)
class SampleOptions:
    """The synthetic sample."""

    train: int = 1000
    """Training drawings a category."""
    valid: int = 100
    """Validation drawings a category."""
    test: int = 100
    """Test drawings a category."""
    seed: int = 0
    """Seed of the generator."""


def sample(into: OutOptions, options: SampleOptions) -> None:
    """Draw the built-in synthetic sample: sketch-rnn npz files of eight categories."""
    from sgloc.sketch.synthetic import write_sample

    paths = write_sample(
        into.out, num_train=options.train, num_valid=options.valid, num_test=options.test, seed=options.seed
    )
    counts = f"{options.train} + {options.valid} + {options.test}"
    show(f"{len(paths)} categories of {counts} synthetic drawings in {into.out}")


@dataclass(frozen=True)
class ShardOptions:
    """Where drawings come from and shards go."""

    source: list[str]
    """Files, folders, globs or URLs of simplified or raw ndjson, binary or sketch-rnn npz files; folders of SVG or JSON
    drawings, or with such a folder for each category; or quickdraw:npz, quickdraw:simplified, quickdraw:raw or
    quickdraw:binary, the public data set."""
    task: str | None = None
    """Build only this share, as 0/16 to 15/16; the one that ends last writes the manifest. Default: all."""
    mirror: str | None = None
    """Folder or URL of a copy of the public data set."""
    downloads: str | None = None
    """Local folder for files that are not local, while they are read; default: in --out, where that is local."""
    keep_downloads: bool = False
    """Leave downloaded files where they are."""

    def __post_init__(self) -> None:
        if self.task is not None and not re.fullmatch(r"\d{1,9}/\d{1,9}", self.task):
            raise ConfigError(f"task is {self.task!r}; give a number and how many there are, as 3/16")


def shard(
    options: ShardOptions,
    into: OutOptions,
    workers: WorkersOptions,
    over: OverwriteOptions,
    wanted: "BuildOptions",
) -> None:
    """Pack drawings into WebDataset shards with a manifest; a build that was killed goes on where it was."""
    if options.task is not None and over.overwrite:
        raise ConfigError("each task would overwrite what the others have built; remove the folder first")
    from sgloc.data.build.run import build_shards, build_task
    from sgloc.data.formats.sources import QUICKDRAW_URL
    from sgloc.terminal import progress

    with progress("parts") as advance:
        means: dict[str, Any] = {
            "num_workers": workers.workers,
            "mirror": options.mirror or QUICKDRAW_URL,
            "downloads": options.downloads,
            "keep_downloads": options.keep_downloads,
            "progress": lambda built, parts, read, rejected: advance(
                built, parts, f"{read:,} drawings, {rejected:,} rejected"
            ),
        }
        outcome: Manifest | int
        if options.task is None:
            outcome = build_shards(options.source, into.out, wanted, overwrite=over.overwrite, **means)
        else:
            number, count = map(int, options.task.split("/"))
            outcome = build_task(options.source, into.out, (number, count), wanted, **means)
    if isinstance(outcome, int):
        show(f"{into.out}: task {options.task} is built; parts that other tasks have still to build: {outcome}")
        return
    counts = ", ".join(
        f"{split.num_sketches:,} {name} in {len(split.shards)} shards" for name, split in outcome.splits.items()
    )
    show(
        f"{into.out}: {outcome.num_read:,} drawings read of {len(outcome.categories)} categories: {counts}; "
        f"skipped: {_counted(outcome.skipped)}; rejected: {_counted(outcome.rejected)}"
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"


def verify(options: ShardsOptions, workers: WorkersOptions) -> None:
    """Read every shard and compare it with the manifest; exit code 2 tells of a problem."""
    from sgloc.data.shards.verify import verify_shards
    from sgloc.terminal import progress

    with progress("shards") as advance:
        found = verify_shards(options.data, show, num_workers=workers.workers, progress=advance)
    notes = "".join(f"; {note}" for note in found.notes)
    show(
        f"{options.data}: {found.num_problems or 'no'} problem{'s' * (found.num_problems != 1)}; "
        f"{found.num_shards:,} shards, {found.num_bytes:,} bytes and {found.num_sketches:,} drawings read{notes}"
    )
    if found.num_problems:
        sys.exit(MISTAKE)


@dataclass(frozen=True)
class StatsOptions:
    """What to make of the counts."""

    plot: str | None = None
    """PNG to draw the distributions into, a path or URL."""


def stats(shards: ShardsOptions, options: StatsOptions, form: JsonOptions) -> None:
    """Count drawings by category and split, their lengths and their bytes, from the manifest alone."""
    from sgloc.data.manifest import load_manifest
    from sgloc.data.shards.stats import shard_stats

    manifest = load_manifest(shards.data)
    if options.plot is not None:
        from sgloc.data.shards.stats_plot import plot_stats
        from sgloc.storage import write_file

        write_file(options.plot, plot_stats(manifest))
    if form.json:
        show(shard_stats(manifest).to_json(), end="")
    else:
        from sgloc.terminal import results

        shard_stats(manifest).print(results())


@dataclass(frozen=True)
class MergeOptions:
    """Builds to join."""

    data: list[str]
    """Folders or URLs of shards, each with a manifest."""


def merge(options: MergeOptions, into: OutOptions, over: OverwriteOptions) -> None:
    """Join finished builds into one folder; shards are linked where possible, else copied."""
    from sgloc.data.shards.merge import merge_shards
    from sgloc.terminal import progress

    with progress("shards") as advance:
        manifest = merge_shards(options.data, into.out, overwrite=over.overwrite, progress=advance)
    num_shards = len(manifest.shards)
    show(
        f"{into.out}: {manifest.num_accepted:,} drawings of {len(manifest.categories)} categories in "
        f"{num_shards:,} shards of {len(options.data)} builds"
    )
