"""The command line: `sgloc <command>`. One function a command; all logic is elsewhere.

What a command needs is imported when it runs, so that `sgloc --help` and a mistyped option answer at once.
"""

import difflib
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

import jsonargparse

from sgloc import __version__
from sgloc.errors import ConfigError, SglocError
from sgloc.orphan import die_with_parent

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from sgloc.config import Config

# How the parser names what it does not know: on the command line, in a file's section, at a file's top.
_UNKNOWN = re.compile(
    r"arguments: --([\w.-]+)|Group '([\w.]+)' does not accept option '([\w.]+)'|Option '([\w.]+)' is not accepted"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sgloc`; a user's mistake becomes one sentence and exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return
    if words[0] == "--version":
        print(__version__)
        return
    command = words[0]
    if command not in _COMMANDS:
        _fail("sgloc", f"there is no command {command!r}{_nearest(command, list(_COMMANDS))}; see `sgloc --help`")
    try:
        _COMMANDS[command](words[1:])
    except SglocError as error:
        if not error.told:
            _tell(f"sgloc {command}", str(error))
        sys.exit(2)
    except OSError as error:
        _tell(f"sgloc {command}", f"{error}; check the path, its permissions and the space left")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _overview() -> str:
    lines = [f"  {name:<10} {(function.__doc__ or '').splitlines()[0]}" for name, function in _COMMANDS.items()]
    return "\n".join(["usage: sgloc <command> [options]; `sgloc <command> --help` lists the options", "", *lines])


def _tell(program: str, message: str) -> None:
    """One sentence on standard error."""
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)


def _fail(program: str, message: str) -> NoReturn:
    """Refuse the command line, which all ranks were given alike: rank 0 tells it."""
    if os.environ.get("RANK", "0") == "0":
        _tell(program, message)
    sys.exit(2)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _parser(command: str) -> "ArgumentParser":
    description = (_COMMANDS[command].__doc__ or "").split("\n\n")[0]
    return jsonargparse.ArgumentParser(
        prog=f"sgloc {command}", description=description, exit_on_error=False, allow_abbrev=False
    )


def _parse(parser: "ArgumentParser", words: list[str], *locations: str) -> "Namespace":
    """Parse, or fail with a sentence that names the nearest option to an unknown one.

    Args:
        parser: of the command.
        words: what was given to it.
        locations: the options that are a path or URL.
    """
    try:
        options = parser.parse_args(words)
    except UnicodeDecodeError as error:
        _fail(parser.prog, f"the file of options is not text ({error}); give a YAML file")
    except jsonargparse.ArgumentError as error:
        known = [option.removeprefix("--") for action in parser._actions for option in action.option_strings]
        unknown = _UNKNOWN.search(str(error))
        hint = _nearest(".".join(filter(None, unknown.groups())), known) if unknown else ""
        _fail(parser.prog, f"{str(error).strip()}{hint}; see `{parser.prog} --help`")
    for name, default in parser.get_defaults().items():
        # In a file, the parser lets null stand for any value, and anything for a section.
        if default is not None and options.get(name) is None:
            _fail(parser.prog, f"{name} has no value, or its section is not one; give it, or leave it out altogether")
    for name in locations:
        _check_location(parser, name, options[name])
    return options


def _check_location(parser: "ArgumentParser", name: str, location: str) -> None:
    """Refuse a path or URL that is empty, or of a file system that cannot be had here."""
    import fsspec.core

    if not location:
        _fail(parser.prog, f"{name} is not set; give a folder or URL")
    try:
        fsspec.core.url_to_fs(location)
    except (ValueError, ImportError) as error:
        _fail(parser.prog, f"{name} is {location!r}, which cannot be used ({error}); give another")


def _sample(words: list[str]) -> None:
    """Draw the built-in synthetic sample: sketch-rnn npz files of eight categories."""
    parser = _parser("sample")
    parser.add_argument("--out", required=True, help="folder or URL to write the npz files to")
    parser.add_argument("--train", type=int, default=1000, help="training drawings a category")
    parser.add_argument("--valid", type=int, default=100, help="validation drawings a category")
    parser.add_argument("--test", type=int, default=100, help="test drawings a category")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator")
    options = _parse(parser, words, "out")
    from sgloc.sketch.synthetic import write_sample

    paths = write_sample(
        options.out, num_train=options.train, num_valid=options.valid, num_test=options.test, seed=options.seed
    )
    print(
        f"{len(paths)} categories of {options.train} + {options.valid} + {options.test} synthetic drawings "
        f"in {options.out}"
    )


def _shard(words: list[str]) -> None:
    """Pack drawings into WebDataset shards with a manifest."""
    parser = _parser("shard")
    parser.add_argument(
        "--source",
        nargs="+",
        required=True,
        help="files, folders, globs or URLs of simplified ndjson or sketch-rnn npz files",
    )
    parser.add_argument("--out", required=True, help="folder or URL to write the shards to")
    parser.add_argument("--categories", default=None, type=str, help="take only these, comma-separated; default: all")
    parser.add_argument("--sketches_per_shard", type=int, default=16384, help="most drawings in a shard")
    parser.add_argument(
        "--licence",
        default=None,
        type=str,
        help="licence and attribution to write into the manifest; default: QuickDraw's",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace shards that are there already")
    options = _parse(parser, words, "out")
    from sgloc.data.shards import QUICKDRAW_LICENCE, build_shards
    from sgloc.terminal import shard_progress

    categories = (
        None if options.categories is None else [name.strip() for name in options.categories.split(",") if name.strip()]
    )
    with shard_progress() as progress:
        manifest = build_shards(
            options.source,
            options.out,
            categories=categories,
            sketches_per_shard=options.sketches_per_shard,
            licence=options.licence or QUICKDRAW_LICENCE,
            overwrite=options.overwrite,
            progress=progress,
        )
    counts = ", ".join(
        f"{split.num_sketches:,} {name} in {len(split.shards)} shards" for name, split in manifest.splits.items()
    )
    rejected = ", ".join(f"{count} {reason}" for reason, count in manifest.rejected.items()) or "none"
    print(
        f"{options.out}: {manifest.num_read:,} drawings read of {len(manifest.categories)} categories: {counts}; "
        f"rejected: {rejected}"
    )


def _config_first(words: list[str]) -> list[str]:
    """Bring --config to the front: the parser lets what comes later win, and options are to override the file's."""
    first: list[str] = []
    rest: list[str] = []
    for previous, word in itertools.pairwise(["", *words]):
        is_config = word.startswith("--config=") or "--config" in (word, previous)
        (first if is_config else rest).append(word)
    return first + rest


def _config_parser(command: str) -> "ArgumentParser":
    """A parser of all options of `sgloc train`, from a YAML file and the command line."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    from sgloc.config import Config

    parser = _parser(command)
    parser.add_argument("--config", action="config", help="YAML file of options")
    parser.add_class_arguments(Config)
    parser.add_argument(
        "--resume",
        default="auto",
        type=str,
        help="auto: go on from the run's newest checkpoint, if any; never; or a checkpoint to start from",
    )
    return parser


def _instantiate(parser: "ArgumentParser", options: "Namespace") -> "Config":
    """The configuration that was parsed."""
    from sgloc.config import Config

    try:
        values = parser.instantiate(options)
    except ConfigError as error:
        _fail(parser.prog, str(error))
    return Config(**{name: values[name] for name in Config.__dataclass_fields__})


def _train(words: list[str]) -> None:
    """Train SketchGloc, or go on training: `sgloc train --config configs/quickstart.yaml`, or the same under torchrun.

    Options override the file's. Every option is listed below with its default, unit and meaning; --print_config prints
    them all as YAML.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    parser = _config_parser("train")
    options = _parse(parser, _config_first(words), "data.path", "train.run_dir", "resume")
    config = _instantiate(parser, options)
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory
    from sgloc.train.loop import train

    if select_device(config.train.device, resolve_placement(os.environ)).type == "cpu":
        keep_freed_memory()
    train(config, options.resume)


def _generate(words: list[str]) -> None:
    """Redraw sketches with a trained model: simplified ndjson, an SVG each, and a gallery."""
    parser = _parser("generate")
    parser.add_argument(
        "--checkpoint", required=True, help="a checkpoint, or a run's folder, of which the best is taken"
    )
    parser.add_argument("--data", required=True, help="folder or URL of shards")
    parser.add_argument("--out", required=True, help="folder or URL to write to")
    parser.add_argument(
        "--task",
        choices=["synthesis", "reorganization"],
        default="synthesis",
        help="redraw the sketches, or first move their strokes",
    )
    parser.add_argument(
        "--disturb",
        type=float,
        default=0.1,
        help="how far reorganization moves strokes, in sketch sizes (r of METHOD 3)",
    )
    parser.add_argument("--split", choices=["train", "valid", "test"], default="test", help="which sketches")
    parser.add_argument("--count", type=int, default=64, help="sketches, spread evenly over the split")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: greedy; above: sample, 0.24 as published")
    parser.add_argument(
        "--max_points",
        type=int,
        default=0,
        help="most points of a drawing; 0: as many as the longest drawing of the training data has",
    )
    parser.add_argument("--batch_size", type=int, default=256, help="sketches decoded together")
    parser.add_argument("--rows", default="original,disturbed,redrawn", help="rows of the gallery, comma-separated")
    parser.add_argument("--seed", type=int, default=0, help="seed of the disturbance and of sampling")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    options = _parse(parser, words, "checkpoint", "data", "out")
    from sgloc.dist import resolve_placement, select_device
    from sgloc.evaluate.generate import GenerateOptions, generate
    from sgloc.memory import keep_freed_memory

    wanted = GenerateOptions(
        split=options.split,
        count=options.count,
        disturb_scale=options.disturb if options.task == "reorganization" else 0.0,
        temperature=options.temperature,
        max_points=options.max_points,
        seed=options.seed,
        batch_size=options.batch_size,
        rows=tuple(name.strip() for name in options.rows.split(",")),
    )
    device = select_device(options.device, resolve_placement({}))
    if device.type == "cpu":
        keep_freed_memory()
    say = functools.partial(print, file=sys.stderr)
    drawn = generate(options.checkpoint, options.data, options.out, wanted, device=device, say=say)
    out = options.out.rstrip("/")
    print(f"{len(drawn)} sketches redrawn: {out}/gallery.png, {out}/redrawn.ndjson, {out}/svg/")


def _bench(words: list[str]) -> None:
    """Measure speed, memory and padding: `sgloc bench ops`, `stream`, `step` or `generate`."""
    parser = _parser("bench")
    parser.add_argument(
        "what",
        choices=["ops", "stream", "step", "generate"],
        help="grid operations and preparation, reading shards, a training step, or drawing",
    )
    parser.add_argument(
        "--data",
        default=None,
        type=str,
        help="folder or URL of shards to measure on; default: a drawn batch as real drawings make it",
    )
    parser.add_argument(
        "--config",
        default=None,
        type=str,
        help="YAML file of options of `sgloc train`; default: the published sizes",
    )
    parser.add_argument(
        "--batch", type=int, default=0, help="sketches in a batch; 0: 100, for ops 1024, for generate 256"
    )
    parser.add_argument(
        "--repeats", type=int, default=0, help="of each measurement; 0: 5, for ops 10, for stream and generate 3"
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines in place of a table")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    options = _parse(parser, words)
    if options.data is not None:
        _check_location(parser, "data", options.data)
    config_parser = _config_parser("bench")
    config = _instantiate(
        config_parser, _parse(config_parser, [f"--config={options.config}"] if options.config else [])
    )
    from rich.console import Console

    from sgloc.bench.options import BenchOptions
    from sgloc.bench.run import bench
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory

    device = select_device(options.device, resolve_placement({}))
    if device.type == "cpu":
        keep_freed_memory()
    wanted = BenchOptions(options.what, device, data=options.data, batch=options.batch, repeats=options.repeats)
    report = bench(wanted, config)
    if options.json:
        print(report.to_json(), end="")
    else:
        # Where there is no terminal there is no width to keep to.
        report.print(Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160))


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "sample": _sample,
    "shard": _shard,
    "train": _train,
    "generate": _generate,
    "bench": _bench,
}
