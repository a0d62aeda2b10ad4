"""Ragged batches: flat rows, with offsets that divide them into groups.

Shapes: R rows in total, B groups (sketches, nodes, ...); offsets int64 [B+1] with offsets[0] = 0 and offsets[B] = R.
    Passing R where it is known saves a transfer from the device.
"""

import torch
from torch import Tensor


def offsets_from_lengths(lengths: Tensor) -> Tensor:
    """Convert int64 lengths [B] to offsets [B+1]."""
    return torch.nn.functional.pad(torch.cumsum(lengths, 0), (1, 0))


def group_index(offsets: Tensor, num_rows: int | None = None) -> Tensor:
    """Return the group of every row, int64 [R], from offsets [B+1]."""
    return torch.repeat_interleave(offsets.diff(), output_size=num_rows)


def local_index(offsets: Tensor, num_rows: int | None = None) -> Tensor:
    """Return the position of every row in its group, int64 [R], from offsets [B+1]."""
    group = group_index(offsets, num_rows)
    return torch.arange(group.shape[0], device=offsets.device) - offsets.index_select(0, group)


def segment_sum(rows: Tensor, offsets: Tensor) -> Tensor:
    """Sum rows [R, D] by group, given offsets [B+1]; return [B, D]. The sum of an empty group is zero."""
    # shape[0], because len() would fix the size in a traced program.
    result = rows.new_zeros(offsets.shape[0] - 1, rows.shape[1])
    return result.index_add(0, group_index(offsets, rows.shape[0]), rows)
