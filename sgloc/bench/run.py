"""Run a benchmark by its name."""

import dataclasses
import importlib

from sgloc import dist
from sgloc.bench.options import BatchOptions, BenchOptions
from sgloc.bench.report import Report
from sgloc.models.sketchgloc.config import Config
from sgloc.tf32 import float32_products


def bench(name: str, options: BenchOptions, config: Config) -> Report:
    """Run a benchmark.

    Args:
        name: a key of `sgloc.bench.options.OPTIONS`.
        options: options of that benchmark.
        config: configuration of the training run to measure.

    Raises:
        SglocError: if the shards or the device cannot be used.
    """
    device = dist.select_device(options.device, dist.resolve_placement({}))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, global_batch=options.batch))
    if isinstance(options, BatchOptions) and options.data is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=options.data))
    report = Report(name, device)
    with float32_products(device, config.train.tf32):
        importlib.import_module(f"sgloc.bench.{name}").measure(options, config, report)
    return report
