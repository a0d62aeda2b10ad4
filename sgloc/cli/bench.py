"""`sgloc bench`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sgloc.cli.shared import JsonOptions, chosen_device
from sgloc.cli.train import read_config
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.bench.options import BenchOptions


@dataclass(frozen=True)
class MeasuredOptions:
    """The run that is measured."""

    config: str = ""
    """YAML file of options of `sgloc train`; default: the published sizes."""


def measure(what: str, wanted: "BenchOptions", options: MeasuredOptions, form: JsonOptions) -> None:
    """Measure a part of a run."""
    from sgloc.bench import run
    from sgloc.terminal import results

    config = read_config(f"sgloc bench {what}", options.config)
    chosen_device(wanted.device)
    report = run.bench(what, wanted, config)
    if form.json:
        show(report.to_json(), end="")
    else:
        report.print(results())
