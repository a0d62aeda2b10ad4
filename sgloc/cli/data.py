"""`sgloc sample` and `sgloc shard`."""

import re
from typing import TYPE_CHECKING

from sgloc.cli.parsing import check_location, fail, new_parser, parse, show

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from sgloc.data.build.plan import BuildOptions
    from sgloc.data.manifest import Manifest


def sample(words: list[str]) -> None:
    """Draw the built-in synthetic sample: sketch-rnn npz files of eight categories."""
    parser = new_parser("sample", sample)
    parser.add_argument("--out", required=True, help="folder or URL to write the npz files to")
    parser.add_argument("--train", type=int, default=1000, help="training drawings a category")
    parser.add_argument("--valid", type=int, default=100, help="validation drawings a category")
    parser.add_argument("--test", type=int, default=100, help="test drawings a category")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
    options = parse(parser, words, "out")
    from sgloc.sketch.synthetic import write_sample

    paths = write_sample(
        options.out, num_train=options.train, num_valid=options.valid, num_test=options.test, seed=options.seed
    )
    show(
        f"{len(paths)} categories of {options.train} + {options.valid} + {options.test} synthetic drawings "
        f"in {options.out}"
    )


def shard(words: list[str]) -> None:
    """Pack drawings into WebDataset shards with a manifest; a build that was killed goes on where it was."""
    parser = new_parser("shard", shard)
    _add_shard_options(parser)
    options = parse(parser, words, "out")
    for name in ("mirror", "downloads"):
        if options[name] is not None:
            check_location(parser, name, options[name])
    task = _parse_task(parser, options)
    from sgloc.data.build.run import build_shards, build_task
    from sgloc.data.formats.sources import QUICKDRAW_URL
    from sgloc.terminal import shard_progress

    wanted = _build_options(options)
    with shard_progress() as (progress, _):
        means = {
            "num_workers": options.workers,
            "mirror": options.mirror or QUICKDRAW_URL,
            "downloads": options.downloads,
            "keep_downloads": options.keep_downloads,
            "progress": progress,
        }
        outcome: Manifest | int
        if task is None:
            outcome = build_shards(options.source, options.out, wanted, overwrite=options.overwrite, **means)
        else:
            outcome = build_task(options.source, options.out, task, wanted, **means)
    if isinstance(outcome, int):
        show(f"{options.out}: task {options.task} is built; parts that other tasks have still to build: {outcome}")
        return
    manifest = outcome
    counts = ", ".join(
        f"{split.num_sketches:,} {name} in {len(split.shards)} shards" for name, split in manifest.splits.items()
    )
    show(
        f"{options.out}: {manifest.num_read:,} drawings read of {len(manifest.categories)} categories: {counts}; "
        f"skipped: {_counted(manifest.skipped)}; rejected: {_counted(manifest.rejected)}"
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"


def _add_shard_options(parser: "ArgumentParser") -> None:
    parser.add_argument(
        "--source",
        nargs="+",
        required=True,
        help="files, folders, globs or URLs of simplified or raw ndjson, binary or sketch-rnn npz files; folders of "
        "SVG or JSON drawings, or with such a folder for each category; or quickdraw:npz, quickdraw:simplified, "
        "quickdraw:raw or quickdraw:binary, the public data set",
    )
    parser.add_argument("--out", required=True, help="folder or URL to write the shards to")
    parser.add_argument("--categories", default=None, type=str, help="take only these, comma-separated; default: all")
    parser.add_argument(
        "--per_category",
        type=int,
        default=75_000,
        help="most drawings of a category, 1/30 of them for each of valid and test; 0: all; npz keep their own splits",
    )
    parser.add_argument("--recognized_only", action="store_true", help="take only drawings that the game recognised")
    parser.add_argument("--compression", choices=["none", "zstd"], default="none", help="of the blocks of a shard")
    parser.add_argument("--sketches_per_shard", type=int, default=16_384, help="most drawings in a shard")
    parser.add_argument("--sketches_per_block", type=int, default=1024, help="drawings that are packed together")
    parser.add_argument(
        "--licence",
        default=None,
        type=str,
        help="licence and attribution to write into the manifest; default: QuickDraw's",
    )
    parser.add_argument("--workers", type=int, default=0, help="processes; 0: one a core")
    parser.add_argument(
        "--task",
        default=None,
        type=str,
        help="build only this share, as 0/16 to 15/16; the one that ends last writes the manifest; default: all",
    )
    parser.add_argument("--mirror", default=None, type=str, help="folder or URL of a copy of the public data set")
    parser.add_argument(
        "--downloads",
        default=None,
        type=str,
        help="local folder for files that are not local, while they are read; default: in --out, where that is local",
    )
    parser.add_argument("--keep_downloads", action="store_true", help="leave downloaded files where they are")
    parser.add_argument("--overwrite", action="store_true", help="replace shards that are there already")


def _parse_task(parser: "ArgumentParser", options: "Namespace") -> tuple[int, int] | None:
    if options.task is None:
        return None
    numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", options.task)
    if numbers is None:
        fail(parser.prog, f"task is {options.task!r}; give a number and how many there are, as 3/16")
    if options.overwrite:
        fail(parser.prog, "each task would overwrite what the others have built; remove the folder first")
    return int(numbers[1]), int(numbers[2])


def _build_options(options: "Namespace") -> "BuildOptions":
    from sgloc.data.build.plan import QUICKDRAW_LICENCE, BuildOptions

    categories = options.categories
    return BuildOptions(
        categories=None if categories is None else [name.strip() for name in categories.split(",") if name.strip()],
        per_category=options.per_category,
        recognized_only=options.recognized_only,
        compression=options.compression,
        sketches_per_shard=options.sketches_per_shard,
        sketches_per_block=options.sketches_per_block,
        licence=options.licence or QUICKDRAW_LICENCE,
    )
