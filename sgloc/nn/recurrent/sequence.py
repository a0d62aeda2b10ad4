"""How sequences of different lengths are laid out so that no padded step is computed.

They are sorted by length, longest first, and stand time-major: all first rows, then all second rows of the sequences
that have one, and so on. Step t then works on a batch that only shrinks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TimeMajor:
    """The layout of n sequences, R rows in all.

    Attributes:
        order: int64 [n], the sequences, longest first; sequences of equal length stay in order.
        batch_sizes: how many sequences have a row at step t.
        sequence: int64 [R], the sequence of each time-major row.
        step: int64 [R], the step of each time-major row.
        last: int64 [n], the time-major row in which each sequence (in its original place) ends.
    """

    order: Tensor
    batch_sizes: list[int]
    sequence: Tensor
    step: Tensor
    last: Tensor

    @classmethod
    def from_lengths(cls, lengths: Tensor) -> "TimeMajor":
        """The layout of sequences with these lengths, int64 [n], each at least 1. Costs one transfer from the
        device."""
        order = torch.argsort(lengths, descending=True, stable=True)
        # longer[t] sequences are longer than t.
        longer = len(lengths) - torch.cumsum(torch.bincount(lengths), 0)[:-1]
        starts = torch.cumsum(longer, 0) - longer
        step = torch.repeat_interleave(longer)
        place = torch.arange(len(step), device=lengths.device) - starts[step]
        rank = torch.argsort(order)
        return cls(
            order=order, batch_sizes=longer.tolist(), sequence=order[place], step=step, last=starts[lengths - 1] + rank
        )
