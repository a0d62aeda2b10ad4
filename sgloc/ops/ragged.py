"""Ragged batches: flat rows with offsets, and their padded form.

Shapes: R rows in all, B groups (sketches, nodes ...), M the most rows in a group; offsets int64 [B+1] with offsets[0] =
    0 and offsets[B] = R.
"""

import torch
from torch import Tensor


def offsets_from_lengths(lengths: Tensor) -> Tensor:
    """int64 lengths [B] to offsets [B+1]."""
    return torch.nn.functional.pad(torch.cumsum(lengths, 0), (1, 0))


def group_index(offsets: Tensor) -> Tensor:
    """The group of every row: offsets [B+1] to int64 [R]."""
    return torch.repeat_interleave(offsets.diff())


def local_index(offsets: Tensor) -> Tensor:
    """The place of every row in its group: offsets [B+1] to int64 [R]."""
    group = group_index(offsets)
    return torch.arange(len(group), device=offsets.device) - offsets[group]


def padded_index(offsets: Tensor) -> tuple[Tensor, int]:
    """Where each row stands in the padded form.

    Returns:
        int64 [R], the place in the flattened [B * M]; and M, which costs a transfer from the device.
    """
    most = int(offsets.diff().max()) if len(offsets) > 1 else 0
    return group_index(offsets) * most + local_index(offsets), most


def segment_sum(rows: Tensor, offsets: Tensor) -> Tensor:
    """Sum of each group's rows: [R, D] and offsets [B+1] to [B, D]; an empty group gives zero."""
    result = rows.new_zeros(len(offsets) - 1, rows.shape[1])
    return result.index_add(0, group_index(offsets), rows)
