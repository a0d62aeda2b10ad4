"""Ragged batches: flat rows with offsets that say whose they are.

Shapes: R rows in all, B groups (sketches, nodes ...); offsets int64 [B+1] with offsets[0] = 0 and offsets[B] = R. To
    give R, where it is known, spares a transfer from the device.
"""

import torch
from torch import Tensor


def offsets_from_lengths(lengths: Tensor) -> Tensor:
    """int64 lengths [B] to offsets [B+1]."""
    return torch.nn.functional.pad(torch.cumsum(lengths, 0), (1, 0))


def group_index(offsets: Tensor, num_rows: int | None = None) -> Tensor:
    """The group of every row: offsets [B+1] to int64 [R]."""
    return torch.repeat_interleave(offsets.diff(), output_size=num_rows)


def local_index(offsets: Tensor, num_rows: int | None = None) -> Tensor:
    """The place of every row in its group: offsets [B+1] to int64 [R]."""
    group = group_index(offsets, num_rows)
    return torch.arange(group.shape[0], device=offsets.device) - offsets.index_select(0, group)


def segment_sum(rows: Tensor, offsets: Tensor) -> Tensor:
    """Sum of each group's rows: [R, D] and offsets [B+1] to [B, D]; an empty group gives zero."""
    # Not len(), which would fix the size in a traced program.
    result = rows.new_zeros(offsets.shape[0] - 1, rows.shape[1])
    return result.index_add(0, group_index(offsets, rows.shape[0]), rows)
