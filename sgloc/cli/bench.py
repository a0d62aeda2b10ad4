"""`sgloc bench`: what it measures, and the options of each."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from sgloc.cli.parsing import check_location, fail, nearest, new_parser, parse, show
from sgloc.cli.train import config_parser, instantiate
from sgloc.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from sgloc.bench.options import What

# In the order in which --help shows them; a bench says what stands for {usual}.
_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "data": {"type": str, "default": None, "help": "folder or URL of shards to measure on; default: {usual}"},
        "remote": {"type": str, "default": None, "help": "URL of the same shards on a server, to measure as well"},
        "config": {"type": str, "default": None, "help": "YAML file of options of `sgloc train`; default: {usual}"},
        "batch": {"type": int, "default": 0, "help": "sketches in a batch; 0: {usual}"},
        "repeats": {"type": int, "default": 0, "help": "of each measurement; 0: {usual}"},
        "sketches": {"type": int, "default": 50_000_000, "help": "in the made-up QuickDraw"},
        "world_sizes": {
            "type": str,
            "default": None,
            "help": "numbers of ranks, comma-separated; default: {usual}",
        },
        "accumulations": {
            "type": str,
            "default": "1,2,4",
            "help": "numbers of parts in which a batch is computed, comma-separated",
        },
        "engines": {
            "type": str,
            "default": "ddp,zero0,zero1,zero2,zero3",
            "help": "what to train with, of these, comma-separated",
        },
        "steps": {"type": int, "default": 0, "help": "steps that are compared; 0: {usual}"},
        "costs": {
            "type": str,
            "default": "",
            "help": "seconds a point of the longest drawing, a drawing and a doubling of the ranks, and bytes a "
            "second, as launch=2e-4,sketch=1e-5,latency=1e-5,bandwidth=1e11, which is about the default",
        },
        "plot": {"type": str, "default": None, "help": "PNG file to plot to"},
        "folder": {"type": str, "default": None, "help": "{usual}"},
        "workers": {"type": int, "default": 1, "help": "processes that build; 0: one a core"},
    }
)


@dataclass(frozen=True)
class _Bench:
    """What is measured, in a sentence, and the options that say on what, with what is usual where that differs from
    bench to bench; all have --json and --device as well."""

    sentence: str
    options: Mapping[str, str]


_PUBLISHED = "the published sizes"
_DRAWN = {"data": "a drawn batch", "config": _PUBLISHED}
_RUNS = {
    "data": "a small drawn sample",
    "config": "the sizes of configs/quickstart.yaml",
    "batch": "that of the configuration",
    "world_sizes": "1,2,4",
    "engines": "",
}
_BENCHES: Mapping[str, _Bench] = MappingProxyType(
    {
        "ops": _Bench("Grid operations and preparation of a batch.", {**_DRAWN, "batch": "1024", "repeats": "10"}),
        "stream": _Bench(
            "Reading shards.",
            {"data": "drawn ones", "remote": "", "config": _PUBLISHED, "batch": "100", "repeats": "3"},
        ),
        "step": _Bench("A training step.", {**_DRAWN, "batch": "100", "repeats": "5"}),
        "generate": _Bench("Drawing.", {**_DRAWN, "batch": "256", "repeats": "3"}),
        "checkpoint": _Bench(
            "Saving and loading a checkpoint, and what it costs steps.",
            {**_DRAWN, "batch": "100", "repeats": "5", "folder": "folder or URL to save to; default: a temporary one"},
        ),
        "order": _Bench(
            "The order of an epoch at many numbers of ranks, simulated.",
            {
                "data": "made-up shards",
                "config": _PUBLISHED,
                "batch": "64, of each rank",
                "sketches": "",
                "world_sizes": "15 of them from 1 to 512",
                "plot": "",
            },
        ),
        "scale": _Bench(
            "Building and streaming as many drawings as QuickDraw has.",
            {
                "config": _PUBLISHED,
                "batch": "1024",
                "sketches": "",
                "folder": "local folder to build in; it must be given",
                "workers": "",
            },
        ),
        "scaling": _Bench(
            "What steps and epochs cost at many numbers of ranks, computed.",
            {
                "data": "drawings as long as drawn ones",
                "config": _PUBLISHED,
                "batch": "100, 1024, 8192 and 32768 over all ranks",
                "sketches": "",
                "world_sizes": "8,64,512",
                "costs": "",
            },
        ),
        "parity": _Bench(
            "Whether losses depend on ranks, accumulation and engine: real runs.",
            {**_RUNS, "accumulations": "", "steps": "50"},
        ),
        "resume": _Bench("Whether losses depend on a resume: real runs.", {**_RUNS, "steps": "20"}),
        "retrieval": _Bench("Ranking codes, each among all.", {"config": _PUBLISHED, "batch": "20000", "repeats": "3"}),
    }
)


def bench(words: list[str]) -> None:
    """Measure speed, memory, padding, order and sameness: `sgloc bench step` and ten more."""
    if not words or words[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {one.sentence}" for name, one in _BENCHES.items()]
        usage = "usage: sgloc bench <what> [options]; `sgloc bench <what> --help` lists the options"
        show("\n".join([usage, "", *lines]))
        return
    what = words[0]
    if what not in _BENCHES:
        hint = nearest(what, list(_BENCHES)) or f"; it must be one of {', '.join(_BENCHES)}"
        fail("sgloc bench", f"there is no bench {what!r}{hint}; see `sgloc bench --help`")
    _bench(what, words[1:])


def _bench(what: str, words: list[str]) -> None:
    options = _parse(what, words)
    training = config_parser(f"bench {what}", _BENCHES[what].sentence)
    config = instantiate(training, parse(training, [f"--config={options.config}"] if options.config else []))
    from rich.console import Console

    from sgloc.bench import run
    from sgloc.bench.launched import small_config
    from sgloc.bench.options import BenchOptions
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory

    device = select_device(options.device, resolve_placement({}))
    if device.type == "cpu":
        keep_freed_memory()
    if what in ("parity", "resume") and not options.config:
        config = small_config()
    wanted = BenchOptions(cast("What", what), device, **_given(what, options))
    report = run.bench(wanted, config)
    if options.json:
        show(report.to_json(), end="")
    else:
        # Where there is no terminal there is no width to keep to.
        report.print(Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160))


def _parse(what: str, words: list[str]) -> "Namespace":
    """The options of a bench, of which it has only its own."""
    own = _BENCHES[what].options
    parser = new_parser(f"bench {what}", _BENCHES[what].sentence)
    for name, option in _OPTIONS.items():
        if name in own:
            parser.add_argument(f"--{name}", **{**option, "help": option["help"].format(usual=own[name])})
    parser.add_argument("--json", action="store_true", help="print JSON lines in place of a table")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    options = parse(parser, words)
    for name in ("data", "remote"):
        if options.get(name) is not None:
            check_location(parser, name, options[name])
    return options


def _given(what: str, options: "Namespace") -> dict[str, Any]:
    """What `BenchOptions` is given: what was not is left to it.

    Raises:
        ConfigError: if a list of numbers is none.
    """
    given = {name: options[name] for name in _BENCHES[what].options if options[name] is not None}
    given.pop("config", None)
    if "workers" in given:
        given["num_workers"] = given.pop("workers")
    if "engines" in given:
        given["engines"] = tuple(given["engines"].split(","))
    for name in ("world_sizes", "accumulations"):
        if name in given:
            given[name] = _numbers(name, given[name])
    return given


def _numbers(name: str, text: str) -> tuple[int, ...]:
    """The numbers of a comma-separated list, which an option holds.

    Raises:
        ConfigError: if it is none.
    """
    try:
        return tuple(map(int, text.split(",")))
    except ValueError as error:
        raise ConfigError(f"{name} is {text!r}; give whole numbers, separated by commas") from error
