"""`sgloc bench`."""

from typing import TYPE_CHECKING

from sgloc.bench.options import OPTIONS
from sgloc.cli.shared import chosen_device
from sgloc.cli.train import read_config
from sgloc.program import show

if TYPE_CHECKING:
    from sgloc.bench.options import BenchOptions


def measure(options: "BenchOptions", config: str = "", json: bool = False) -> None:
    """Benchmark one part of a run.

    Args:
        options: Options of the benchmark.
        config: YAML file with options of `sgloc train`; default: the published model and data sizes.
        json: Print JSON instead of text and tables.
    """
    from sgloc.bench import run
    from sgloc.terminal import results

    (what,) = (name for name, kind in OPTIONS.items() if kind is type(options))
    run_config = read_config(f"sgloc bench {what}", config)
    chosen_device(options.device)
    report = run.bench(what, options, run_config)
    if json:
        show(report.to_json(), end="")
    else:
        report.print(results())
