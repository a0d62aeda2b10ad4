"""Timing, and the rate of matrix products as a ceiling for comparison."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.flop_counter import FlopCounterMode

from sgloc.nn.product import product

_PRODUCTS_IN_ROUND = 2

Result = TypeVar("Result")


def spread(values: Sequence[float] | npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the median, the minimum, and the 10th and 90th percentile of at least one value."""
    names = ("median", "minimum", "percentile_10", "percentile_90")
    return dict(zip(names, np.percentile(values, [50, 0, 10, 90]).tolist(), strict=True))


class Clock:
    """Time marks: of the host's clock or, on CUDA, events in the current stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Any:
        """Mark the present moment, without waiting for the device."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds(self, start: Any, stop: Any) -> float:
        """Return the seconds between two marks. On CUDA, wait for the later one."""
        if self.device.type != "cuda":
            return float(stop - start)
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1000

    def time(self, function: Callable[[], object]) -> float:
        """Return the seconds that a call takes, including all work that it queues on the device."""
        start = self.mark()
        function()
        return self.seconds(start, self.mark())


class Ceiling:
    """The rate of square matrix products, on the same device and of the same dtype as the measured work.

    The faster of `torch.mm` and the model's own `product` counts. Rounds of products alternate with the repeats of a
    measurement, so that other work on the machine slows both.

    Args:
        clock: clock of the device.
        dtype: dtype of the factors.
        size: side of the matrices.

    Attributes:
        rounds: FLOP/s of each round.
        rounds_of_torch: FLOP/s of each round by `torch.mm` alone.
    """

    def __init__(self, clock: Clock, dtype: torch.dtype, size: int) -> None:
        self.clock, self.size, self.dtype = clock, size, dtype
        factor = torch.full((size, size), 0.5, dtype=dtype, device=clock.device)
        output = torch.empty_like(factor)
        self._products = [partial(multiply, factor, factor, out=output) for multiply in (torch.mm, product)]
        self.rounds: list[float] = []
        self.rounds_of_torch: list[float] = []
        # The first product initializes the library, so it is not timed.
        for multiply in self._products:
            multiply()

    def between(
        self, measurements: Sequence[Callable[[], Result]], num_repeats: int
    ) -> list[tuple[list[Result], list[float]]]:
        """Run several measurements in turn, with a round of products before the first and after each one.

        Returns:
            For each measurement, its results, and for each result the faster of the two rounds around it, in FLOP/s.
        """
        taken: list[tuple[list[Result], list[float]]] = [([], []) for _ in measurements]
        self._measure()
        for _ in range(num_repeats):
            for (results, ceilings), measurement in zip(taken, measurements, strict=True):
                results.append(measurement())
                self._measure()
                ceilings.append(max(self.rounds[-2:]))
        return taken

    def _measure(self) -> None:
        """Time one round: a few products by each function, of which the fastest counts."""
        of_torch, of_model = (
            2 * self.size**3 / min(self.clock.time(multiply) for _ in range(_PRODUCTS_IN_ROUND))
            for multiply in self._products
        )
        self.rounds.append(max(of_torch, of_model))
        self.rounds_of_torch.append(of_torch)

    @property
    def record(self) -> dict[str, object]:
        """The report's record of the ceiling."""
        return {
            "name": "ceiling",
            "size": self.size,
            "dtype": str(self.dtype).removeprefix("torch."),
            "rounds": len(self.rounds),
            "flops_per_second": max(self.rounds),
            "median_flops_per_second": statistics.median(self.rounds),
            "torch_mm_flops_per_second": max(self.rounds_of_torch),
        }


def executed_flops(function: Callable[[], Result]) -> tuple[Result, int]:
    """Return a call's result, and the operations of all matrix products that torch executes in it.

    Products of backward passes count too.
    """
    # FlopCounterMode does not count these by itself.
    overlooked: dict[Any, Callable[..., int]] = {
        torch.ops.aten.addmm_: _in_place_flops,
        torch.ops.aten.baddbmm_: _in_place_flops,
    }
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        overlooked[torch.ops.mkldnn._linear_pointwise] = _linear_flops
    with FlopCounterMode(display=False, custom_mapping=overlooked) as counter:
        result = function()
    return result, int(counter.get_total_flops())


def _in_place_flops(_total: Sequence[int], rows: Sequence[int], weight: Sequence[int], **_: object) -> int:
    """Count the operations of total += rows @ weight, from the shapes."""
    return 2 * math.prod(rows) * weight[-1]


def _linear_flops(rows: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Count the operations of rows [n, a] times the transpose of weight [b, a], from the shapes."""
    return 2 * math.prod(rows) * weight[0]
