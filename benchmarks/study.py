"""Shared by the studies: command-line options from the fields of a dataclass, and the output of a report."""

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
    """The results of a study."""

    def to_json(self) -> str:
        """Return the results as JSON lines."""
        ...

    def print(self, console: Console) -> None:
        """Print the results as tables."""
        ...


def number_of_sketches() -> Any:
    """Return the option for the size of a synthetic QuickDraw; the minimum keeps every category non-empty."""
    return option(50_000_000, at_least=10_000, at_most=2**31 - 1)


def require_counts(name: str, numbers: Sequence[int]) -> None:
    """Require that an option has at least one number, and none below 1.

    Raises:
        ConfigError: if it has none, or one below 1.
    """
    is_right = len(numbers) > 0 and min(numbers) >= 1
    require(is_right, name, "integers of at least 1, separated by commas", ",".join(map(str, numbers)) or "none")


def run_study(
    name: str,
    study: Callable[[Options, Config], Report],
    options: type[Options],
    arguments: list[str],
    default: Callable[[], Config] = Config,
) -> int:
    """Parse a study's options, run it, and print its report.

    Args:
        name: name of the study.
        study: function of the study's options and a training configuration; its docstring is the help text.
        options: dataclass whose fields are the study's options.
        arguments: command-line arguments without the study's name.
        default: makes the configuration to use without a configuration file.

    Returns:
        The exit code.
    """
    program = f"python -m benchmarks {name}"

    def run(wanted: "Options", config: str = "", json: bool = False) -> int:
        """Options of every study.

        Args:
            wanted: The study's own options.
            config: YAML file of `sgloc train` options; default: the study's own sizes.
            json: Print JSON lines instead of tables.
        """
        report = study(wanted, read_config(program, config) if config else default())
        if json:
            sys.stdout.write(report.to_json())
        else:
            report.print(results())
        return 0

    return run(**Reader(program, run, options, description=study.__doc__ or "").read(arguments))
