"""Taking times, and the rate of matrix products with which they are compared."""

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
    """The median of at least one value, the least, and the 10th and 90th percentile."""
    names = ("median", "minimum", "percentile_10", "percentile_90")
    return dict(zip(names, np.percentile(values, [50, 0, 10, 90]).tolist(), strict=True))


class Clock:
    """Points in time on a device: of the host, or in the order of the device's stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Any:
        """This point in time. On CUDA nothing is waited for."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds(self, start: Any, stop: Any) -> float:
        """From one mark to a later one. On CUDA the later one is waited for."""
        if self.device.type != "cuda":
            return float(stop - start)
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1000

    def time(self, function: Callable[[], object]) -> float:
        """Seconds that a call takes, with all that it starts on the device."""
        start = self.mark()
        function()
        return self.seconds(start, self.mark())


class Ceiling:
    """The rate of square matrix products of the same type on the same device, by the faster of torch's own and the
    model's way to multiply. Rounds of them are measured between the repeats of a measurement, so that other work on the
    machine slows both.

    Args:
        clock: of the device.
        dtype: of the factors.
        size: of the matrices.

    Attributes:
        rounds: FLOP/s of each round.
        rounds_of_torch: the same by `torch.mm` alone.
    """

    def __init__(self, clock: Clock, dtype: torch.dtype, size: int) -> None:
        self.clock, self.size, self.dtype = clock, size, dtype
        factor = torch.full((size, size), 0.5, dtype=dtype, device=clock.device)
        output = torch.empty_like(factor)
        self._products = [partial(multiply, factor, factor, out=output) for multiply in (torch.mm, product)]
        self.rounds: list[float] = []
        self.rounds_of_torch: list[float] = []
        # Not counted: the first product sets up the library.
        for multiply in self._products:
            multiply()

    def between(
        self, measurements: Sequence[Callable[[], Result]], num_repeats: int
    ) -> list[tuple[list[Result], list[float]]]:
        """Take measurements in turn, with a round before the first and after each.

        Returns:
            For each measurement its results, and of each the faster of the two rounds around it.
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
        """Time a round of a few products each way; the fastest counts."""
        of_torch, of_model = (
            2 * self.size**3 / min(self.clock.time(multiply) for _ in range(_PRODUCTS_IN_ROUND))
            for multiply in self._products
        )
        self.rounds.append(max(of_torch, of_model))
        self.rounds_of_torch.append(of_torch)

    @property
    def record(self) -> dict[str, object]:
        """What the rates were compared with, for a report."""
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
    """What a call gives, and the operations of all matrix products that torch computes in it, in backward passes
    too."""
    # Torch's own counter overlooks these.
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
    """Operations of total += rows @ weight, from the shapes."""
    return 2 * math.prod(rows) * weight[-1]


def _linear_flops(rows: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Operations of rows [n, a] times the transpose of weight [b, a], from the shapes."""
    return 2 * math.prod(rows) * weight[0]
