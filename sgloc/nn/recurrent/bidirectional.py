"""A bidirectional recurrent network over ragged sequences of points (METHOD 5.1)."""

import torch
from torch import Tensor, nn

from sgloc import random
from sgloc.nn.recurrent.cells import LSTM, Cell, last_outputs
from sgloc.nn.recurrent.sequence import TimeMajor
from sgloc.ops.ragged import group_index, local_index
from sgloc.random import Purpose
from sgloc.sketch.ragged import SketchBatch


def recurrent_masks(cell: Cell, keys: Tensor, purpose: Purpose, step: Tensor, keep: float) -> Tensor:
    """Recurrent dropout masks, one row a step.

    Args:
        cell: whose masks.
        keys: int64 [R], each row's sketch's key.
        purpose: what tells these masks from others of the same sketch.
        step: int64 [R], the row's place in its sketch.
        keep: probability that a unit is kept.

    Returns:
        [R, mask size], 0 or 1 / keep.
    """
    return random.keep_mask(random.fold(random.fold(keys, purpose), step), cell.mask_size, keep)


class Bidirectional(nn.Module):
    """Reads runs of a sketch's points in both directions.

    Args:
        forward_cell, backward_cell: of either direction, for the same inputs of I numbers a point.
        keep: probability that recurrent dropout keeps a unit.
    """

    def __init__(self, forward_cell: Cell, backward_cell: Cell, keep: float) -> None:
        super().__init__()
        self.forward_cell, self.backward_cell, self.keep = forward_cell, backward_cell, keep

    def forward(self, inputs: Tensor, offsets: Tensor, sketches: SketchBatch) -> Tensor:
        """The last forward output, then the backward output at the first point.

        Args:
            inputs: [P, I], of each point of the batch.
            offsets: int64 [n+1], where each run of points begins.
            sketches: whose points they are.

        Returns:
            [n, 2H].
        """
        starts, lengths = offsets[:-1], offsets.diff()
        layout = TimeMajor.from_lengths(lengths)
        ahead = starts[layout.sequence] + layout.step
        drops = self.training and self.keep < 1
        # Only where nothing is to be differentiated: on a CPU the library is slower with gradients, and cuDNN refuses
        # the backward pass of an evaluation.
        if not drops and not torch.is_grad_enabled():
            cells = self.forward_cell, self.backward_cell
            if isinstance(cells[0], LSTM) and isinstance(cells[1], LSTM):
                return last_outputs(cells[0], cells[1], inputs[ahead], layout)
        back = starts[layout.sequence] + lengths[layout.sequence] - 1 - layout.step
        begin, num_points = sketches.sketch_point_offsets, len(inputs)
        keys, place = sketches.random_key[group_index(begin, num_points)], local_index(begin, num_points)
        outputs = []
        for cell, point, purpose in (
            (self.forward_cell, ahead, Purpose.ENCODER_FORWARD),
            (self.backward_cell, back, Purpose.ENCODER_BACKWARD),
        ):
            mask = recurrent_masks(cell, keys[point], purpose, place[point], self.keep) if drops else None
            outputs.append(cell.run(cell.project(inputs[point]), layout, None, mask)[layout.last])
        return torch.cat(outputs, dim=1)
