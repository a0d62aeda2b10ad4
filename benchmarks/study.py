"""What the studies share: options on the command line, from the fields of a dataclass, and how a report is shown."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from rich.console import Console

from sgloc.cli.options import Reader
from sgloc.cli.train import read_config
from sgloc.config import option, require
from sgloc.models.sketchgloc.config import Config
from sgloc.terminal import results

WORLD_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

Options = TypeVar("Options")


class Report(Protocol):
    """What a study found."""

    def to_json(self) -> str:
        """JSON lines."""
        ...

    def print(self, console: Console) -> None:
        """Tables for people."""
        ...


def number_of_sketches() -> Any:
    """The option for the size of a made-up QuickDraw, of which no category may be empty."""
    return option(50_000_000, at_least=10_000, at_most=2**31 - 1)


def require_counts(name: str, numbers: Sequence[int]) -> None:
    """Refuse the numbers of an option unless they are at least 1.

    Raises:
        ConfigError: if one is not, or there is none.
    """
    is_right = len(numbers) > 0 and min(numbers) >= 1
    require(is_right, name, "numbers from 1 on, separated by commas", ",".join(map(str, numbers)) or "none")


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
        study: measures, given its options and the configuration of a training run; its docstring describes it.
        options: a dataclass whose fields are its options.
        arguments: of the command line, without the study's name.
        default: the configuration where no file is given.

    Returns:
        The exit code.
    """
    program = f"python -m benchmarks {name}"

    def run(wanted: "Options", config: str = "", json: bool = False) -> int:
        """What every study takes.

        Args:
            wanted: Its own options.
            config: YAML file of options of `sgloc train`; default: the study's own sizes.
            json: Print JSON lines in place of tables.
        """
        report = study(wanted, read_config(program, config) if config else default())
        if json:
            sys.stdout.write(report.to_json())
        else:
            report.print(results())
        return 0

    return run(**Reader(program, run, options, description=study.__doc__ or "").read(arguments))
