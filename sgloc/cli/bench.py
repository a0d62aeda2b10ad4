"""`sgloc bench`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgloc.cli.model import chosen_device
from sgloc.cli.train import read_config
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.bench.options import BenchOptions


@dataclass(frozen=True)
class TableOptions:
    """The run that is measured, and the form of what is printed."""

    config: str = ""
    """YAML file of options of `sgloc train`; default: the published sizes."""
    json: bool = False
    """Print JSON lines in place of a table."""


def measure(what: str, wanted: "BenchOptions", options: TableOptions) -> None:
    """Measure a part of a run."""
    from sgloc.bench import run
    from sgloc.terminal import results

    config = read_config(f"sgloc bench {what}", options.config)
    chosen_device(wanted.device)
    report = run.bench(what, wanted, config)
    if options.json:
        show(report.to_json(), end="")
    else:
        report.print(results())
