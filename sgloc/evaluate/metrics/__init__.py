"""The metrics of an evaluation, a file each; a file that is added here is found by its name `METRIC`."""

import functools
import importlib
import pkgutil

from sgloc.evaluate.metric import Metric


@functools.cache
def all_metrics() -> tuple[Metric, ...]:
    """Every metric, by position."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return tuple(sorted((module.METRIC for module in modules), key=lambda metric: metric.position))
