"""Running a cell over sequences of different lengths without computing a padded step.

The sequences are sorted by length, longest first, and laid out time-major: all first rows, then all second rows of the
sequences that have one, and so
on. Step t then works on a batch that only shrinks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sgloc.nn.cells import Cell


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
        # rank_end[t] sequences are longer than t.
        longer = len(lengths) - torch.cumsum(torch.bincount(lengths), 0)[:-1]
        starts = torch.cumsum(longer, 0) - longer
        step = torch.repeat_interleave(longer)
        place = torch.arange(len(step), device=lengths.device) - starts[step]
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=lengths.device)
        return cls(
            order=order, batch_sizes=longer.tolist(), sequence=order[place], step=step, last=starts[lengths - 1] + rank
        )


def run_cell(cell: Cell, projected: Tensor, layout: TimeMajor, state: Tensor | None, mask: Tensor | None) -> Tensor:
    """Run a cell over sequences.

    Args:
        cell: the cell.
        projected: [R, G], the time-major rows of `Cell.project`, all parts of the input summed.
        layout: where the rows belong.
        state: [n, sum of state sizes], each sequence's first state, in the sequences' original order; None for zeros.
        mask: [R, mask size], recurrent dropout masks, time-major; None for no dropout.

    Returns:
        [R, H], the outputs, time-major.
    """
    if state is None:
        # Of the weights' type, not of `projected`, which autocast may have made bfloat16: a sum over many steps needs
        # the digits.
        state = next(cell.parameters()).new_zeros(len(layout.order), sum(cell.state_sizes))
    parts = cell.split_state(state[layout.order])
    masks = mask.split(layout.batch_sizes) if mask is not None else [None] * len(layout.batch_sizes)
    outputs = []
    for rows, step_mask in zip(projected.split(layout.batch_sizes), masks, strict=True):
        if len(rows) < len(parts[0]):
            parts = tuple(part[: len(rows)] for part in parts)
        output, parts = cell.step(rows, parts, step_mask)
        outputs.append(output)
    return torch.cat(outputs)
