"""Time-major layout of sequences of different lengths, in which no padded step is computed.

Sequences are sorted by length, longest first, and stored time-major: all first rows, then the second rows of the
sequences that have one, and so on. The batch can only shrink from one step to the next.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TimeMajor:
    """The layout of n sequences with R rows in total.

    Attributes:
        order: int64 [n], sequence indices, longest first; sequences of equal length keep their order.
        batch_sizes: for each step t, the number of sequences that have a row at t.
        sequence: int64 [R], the sequence index of each time-major row.
        step: int64 [R], the step of each time-major row.
        last: int64 [n], the time-major row in which each sequence ends, in the original order of the sequences.
    """

    order: Tensor
    batch_sizes: list[int]
    sequence: Tensor
    step: Tensor
    last: Tensor

    @classmethod
    def from_lengths(cls, lengths: Tensor) -> "TimeMajor":
        """Build the layout from sequence lengths, int64 [n], each at least 1. Costs one transfer from the device."""
        order = torch.argsort(lengths, descending=True, stable=True)
        # longer[t] is the number of sequences longer than t.
        longer = len(lengths) - torch.cumsum(torch.bincount(lengths), 0)[:-1]
        starts = torch.cumsum(longer, 0) - longer
        step = torch.repeat_interleave(longer)
        place = torch.arange(len(step), device=lengths.device) - starts[step]
        rank = torch.argsort(order)
        return cls(
            order=order, batch_sizes=longer.tolist(), sequence=order[place], step=step, last=starts[lengths - 1] + rank
        )
