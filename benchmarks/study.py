"""What the studies share: options on the command line, from the fields of a dataclass, and how a report is shown."""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from rich.console import Console

from sgloc.cli.train import read_config
from sgloc.models.sketchgloc.config import Config

WORLD_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
# With fewer, the smallest of QuickDraw's categories would be empty.
_LEAST_SKETCHES = 10_000

Options = TypeVar("Options")


class Report(Protocol):
    """What a study found."""

    def to_json(self) -> str:
        """JSON lines."""
        ...

    def print(self, console: Console) -> None:
        """Tables for people."""
        ...


def option(default: Any, help: str, type: Callable[[str], object] = str) -> Any:  # noqa: A002
    """A field of a study's options.

    Args:
        default: its value unless another is given.
        help: its meaning.
        type: what makes its value of a word of the command line.
    """
    return dataclasses.field(default=default, metadata={"help": help, "type": type})


def numbers(text: str) -> tuple[int, ...]:
    """The whole numbers of a comma-separated list."""
    try:
        return tuple(map(int, text.split(",")))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers, separated by commas") from error


def words(text: str) -> tuple[str, ...]:
    """The words of a comma-separated list."""
    return tuple(text.split(","))


def sketches(text: str) -> int:
    """The size of a made-up QuickDraw."""
    number = int(text)
    if not _LEAST_SKETCHES <= number < 2**31:
        raise argparse.ArgumentTypeError(f"must be from {_LEAST_SKETCHES} to {2**31 - 1}, not {number}")
    return number


def counts(text: str) -> tuple[int, ...]:
    """The numbers of a comma-separated list, each at least 1."""
    found = numbers(text)
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from 1 on")
    return found


def run_study(
    name: str,
    study: Callable[[Options, Config], Report],
    options: type[Options],
    arguments: list[str],
    default: Callable[[], Config] = Config,
) -> int:
    """Parse a study's options, run it, and print its report.

    Args:
        name: of the study.
        study: measures, given its options and the configuration of a training run; the first paragraph of its
            docstring describes it.
        options: a dataclass whose fields are made by `option`.
        arguments: of the command line, without the study's name.
        default: the configuration where no file is given.

    Returns:
        The exit code.
    """
    sentence = (study.__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=sentence, allow_abbrev=False)
    for one in dataclasses.fields(options):  # type: ignore[arg-type]
        parser.add_argument(f"--{one.name}", default=one.default, **one.metadata)
    parser.add_argument("--config", help="YAML file of options of `sgloc train`")
    parser.add_argument("--json", action="store_true", help="print JSON lines in place of tables")
    given = vars(parser.parse_args(arguments))
    path, as_json = given.pop("config"), given.pop("json")
    config = read_config("python -m benchmarks", path) if path else default()
    report = study(options(**given), config)
    if as_json:
        sys.stdout.write(report.to_json())
    else:
        # Without a terminal, there is no width to keep to.
        report.print(Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 160))
    return 0
