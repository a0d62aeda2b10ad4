"""Taking times, and the rate of matrix products with which they are compared."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sgloc.nn.product import product

_PRODUCTS_IN_ROUND = 2

Result = TypeVar("Result")


@dataclass(frozen=True)
class Spread:
    """Times of the repeats of one thing, in seconds: the median, the least, and the 10th and 90th percentile."""

    median: float
    minimum: float
    percentile_10: float
    percentile_90: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        """The spread of at least one time."""
        low, high = np.percentile(seconds, [10, 90]).tolist()
        return cls(statistics.median(seconds), min(seconds), low, high)


class Clock:
    """Points in time on a device: of the host, or in the order of the device's stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> "float | torch.cuda.Event":
        """This point in time. On CUDA nothing is waited for."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds(self, start: "float | torch.cuda.Event", stop: "float | torch.cuda.Event") -> float:
        """From one mark to a later one. On CUDA the later one is waited for."""
        if isinstance(start, float):
            assert isinstance(stop, float)
            return stop - start
        assert not isinstance(stop, float)
        stop.synchronize()
        milliseconds: float = start.elapsed_time(stop)
        return milliseconds / 1000

    def time(self, function: Callable[[], object]) -> float:
        """Seconds that a call takes, with all that it starts on the device."""
        start = self.mark()
        function()
        return self.seconds(start, self.mark())


class Ceiling:
    """The rate of square matrix products of the same type on the same device, by the faster of torch's own and the
    model's way to multiply, measured in rounds between the repeats, so that what else the machine does slows both.

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
        self.factors = torch.full((2, size, size), 0.5, dtype=dtype, device=clock.device)
        self.product = torch.empty(size, size, dtype=dtype, device=clock.device)
        self.rounds: list[float] = []
        self.rounds_of_torch: list[float] = []
        # Not counted: the first product sets up the library.
        for multiply in self._ways:
            multiply(*self.factors, out=self.product)

    @property
    def _ways(self) -> tuple[Callable[..., torch.Tensor], ...]:
        return torch.mm, product

    def measure(self) -> None:
        """Time a round of a few products each way; the fastest counts."""
        calls = [partial(multiply, *self.factors, out=self.product) for multiply in self._ways]
        of_torch, of_model = (
            2 * self.size**3 / min(self.clock.time(call) for _ in range(_PRODUCTS_IN_ROUND)) for call in calls
        )
        self.rounds.append(max(of_torch, of_model))
        self.rounds_of_torch.append(of_torch)

    def around(self) -> float:
        """FLOP/s of the faster of the last two rounds, between which something stood."""
        return max(self.rounds[-2:])


def executed_flops(function: Callable[[], Result]) -> tuple[Result, int]:
    """What a call gives, and the operations of all matrix products that torch computes in it, in backward passes
    too."""
    # Torch's own counter overlooks these.
    overlooked: dict[Any, Callable[..., int]] = dict.fromkeys(
        (torch.ops.aten.addmm_, torch.ops.aten.baddbmm_), _in_place_flops
    )
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
