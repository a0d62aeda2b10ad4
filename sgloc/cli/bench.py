"""`sgloc bench`."""

import sys
from typing import TYPE_CHECKING

from sgloc.cli.parsing import check_location, new_parser, parse
from sgloc.cli.train import config_parser, instantiate
from sgloc.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def bench(words: list[str]) -> None:
    """Measure speed, memory, padding, order, sameness: `sgloc bench ops`, `stream`, `step`, `generate`, `checkpoint`,
    `order`, `scale`, `scaling`, `parity` or `resume`."""
    parser = new_parser("bench", bench)
    _add_options(parser)
    options = parse(parser, words)
    for name in ("data", "remote"):
        if options[name] is not None:
            check_location(parser, name, options[name])
    training = config_parser("bench", bench)
    config = instantiate(training, parse(training, [f"--config={options.config}"] if options.config else []))
    from rich.console import Console

    from sgloc.bench import run
    from sgloc.bench.launched import small_config
    from sgloc.bench.options import WORLD_SIZES, BenchOptions
    from sgloc.dist import resolve_placement, select_device
    from sgloc.memory import keep_freed_memory

    device = select_device(options.device, resolve_placement({}))
    if device.type == "cpu":
        keep_freed_memory()
    if options.what in ("parity", "resume") and not options.config:
        config = small_config()
    wanted = BenchOptions(
        options.what,
        device,
        data=options.data,
        batch=options.batch,
        repeats=options.repeats,
        sketches=options.sketches,
        world_sizes=WORLD_SIZES if options.world_sizes is None else _numbers("world_sizes", options.world_sizes),
        plot=options.plot,
        folder=options.folder,
        num_workers=options.workers,
        remote=options.remote,
        costs=options.costs,
        steps=options.steps,
        engines=tuple(options.engines.split(",")),
        accumulations=_numbers("accumulations", options.accumulations),
    )
    report = run.bench(wanted, config)
    if options.json:
        print(report.to_json(), end="")
    else:
        # Where there is no terminal there is no width to keep to.
        report.print(Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160))


def _add_options(parser: "ArgumentParser") -> None:
    parser.add_argument(
        "what",
        choices=["ops", "stream", "step", "generate", "checkpoint", "order", "scale", "scaling", "parity", "resume"],
        help="grid operations and preparation, reading shards, a training step, drawing, checkpoints, the order of an "
        "epoch at many numbers of ranks (simulated), building and streaming as many drawings as QuickDraw has, what "
        "steps and epochs cost at many ranks (computed), whether losses depend on ranks, accumulation and engine, or "
        "on a resume (real runs)",
    )
    parser.add_argument(
        "--data",
        default=None,
        type=str,
        help="folder or URL of shards to measure on, not for scale; default: a drawn batch as real drawings make it, "
        "for order made-up shards",
    )
    parser.add_argument(
        "--remote", default=None, type=str, help="for stream: URL of the same shards on a server, to measure as well"
    )
    parser.add_argument(
        "--config",
        default=None,
        type=str,
        help="YAML file of options of `sgloc train`; default: the published sizes, for parity and resume those of "
        "configs/quickstart.yaml",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=0,
        help="sketches in a batch, for order of a rank; 0: 100, for ops and scale 1024, for generate 256, for order 64",
    )
    parser.add_argument(
        "--repeats", type=int, default=0, help="of each measurement; 0: 5, for ops 10, for stream and generate 3"
    )
    parser.add_argument(
        "--sketches",
        type=int,
        default=50_000_000,
        help="for order, scale and scaling: sketches in the made-up QuickDraw",
    )
    parser.add_argument(
        "--world_sizes",
        default=None,
        type=str,
        help="for order and scaling: numbers of ranks to simulate, comma-separated; default: 15 of them from 1 to 512, "
        "for scaling 8,64,512; for parity and resume: to train on; default: 1,2,4",
    )
    parser.add_argument(
        "--steps", type=int, default=0, help="for parity and resume: steps that are compared; 0: 50, for resume 20"
    )
    parser.add_argument(
        "--engines",
        type=str,
        default="ddp,zero0,zero1,zero2,zero3",
        help="for parity and resume: what to train with, of these, comma-separated",
    )
    parser.add_argument(
        "--accumulations",
        type=str,
        default="1,2,4",
        help="for parity: parts in which a batch is computed, comma-separated",
    )
    parser.add_argument(
        "--costs",
        default="",
        type=str,
        help="for scaling: seconds a point of the longest drawing, a drawing and a doubling of the ranks, and bytes a "
        "second, as launch=2e-4,sketch=1e-5,latency=1e-5,bandwidth=1e11, which is about the default",
    )
    parser.add_argument("--plot", default=None, type=str, help="for order: PNG file to plot to")
    parser.add_argument(
        "--folder",
        default=None,
        type=str,
        help="for scale: local folder to build in; for checkpoint: folder or URL to save to, default: a temporary one",
    )
    parser.add_argument("--workers", type=int, default=1, help="for scale: processes that build; 0: one a core")
    parser.add_argument("--json", action="store_true", help="print JSON lines in place of a table")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")


def _numbers(name: str, text: str) -> tuple[int, ...]:
    """The numbers of a comma-separated list, which an option holds.

    Raises:
        ConfigError: if it is none.
    """
    try:
        return tuple(map(int, text.split(",")))
    except ValueError as error:
        raise ConfigError(f"{name} is {text!r}; give whole numbers, separated by commas") from error
