"""The metrics of an evaluation, one file each; a new file here that defines `METRIC` is picked up automatically."""

import functools
import importlib
import pkgutil

from sgloc.evaluate.metric import Metric


@functools.cache
def all_metrics() -> tuple[Metric, ...]:
    """Return all metrics in the order of their position."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return tuple(sorted((module.METRIC for module in modules), key=lambda metric: metric.position))
