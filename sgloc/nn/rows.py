"""Stroke-5 rows (x, y, p1, p2, p3) in absolute normalised coordinates: decoder inputs and targets (METHOD 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sgloc.ops.ragged import group_index, local_index, offsets_from_lengths
from sgloc.sketch.ragged import SketchBatch

ROW_SIZE = 5
NUM_PEN_STATES = 3
PEN_DOWN, PEN_LIFT, PEN_END = range(NUM_PEN_STATES)


def start_rows(num_sketches: int, like: Tensor) -> Tensor:
    """Return the start row (0, 0, 1, 0, 0) for each sketch: [n, 5], with the dtype and device of `like`."""
    rows = like.new_zeros(num_sketches, ROW_SIZE)
    rows[:, 2 + PEN_DOWN] = 1
    return rows


def decoder_rows(sketches: SketchBatch, num_rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Build the decoder's input rows and targets (METHOD 1).

    Args:
        sketches: the batch.
        num_rows: int64 [B], number of rows per sketch, at least one more than its points; rows past the last point are
            end rows.

    Returns:
        The inputs [R, 5], each target's previous row; the targets' pen states, int64 [R]; and the point index of each
        target row, int64 [R], -1 for end rows. All are in sketch order, not time-major.
    """
    offsets = offsets_from_lengths(num_rows)
    place, sketch = local_index(offsets), group_index(offsets)
    num_points = sketches.sketch_point_offsets.diff()
    is_point = place < num_points[sketch]
    point = torch.where(is_point, sketches.sketch_point_offsets[sketch] + place, -1)
    pen = torch.where(is_point, sketches.pen_lift[point] * PEN_LIFT, PEN_END)
    position = torch.where(is_point[:, None], sketches.targets[point], 0)
    rows = torch.cat([position, F.one_hot(pen, 3).to(position.dtype)], dim=1)
    inputs = rows.roll(1, dims=0)
    inputs[offsets[:-1]] = start_rows(len(sketches), rows)
    return inputs, pen, point
