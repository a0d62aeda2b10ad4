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
    """Compute recurrent dropout masks, one row per step.

    Args:
        cell: the cell to mask.
        keys: int64 [R], the random key of each row's sketch.
        purpose: distinguishes these masks from others of the same sketch.
        step: int64 [R], the position of each row in its sketch.
        keep: probability of keeping a unit.

    Returns:
        [R, mask size], 0 or 1 / keep.
    """
    return random.keep_mask(random.fold(random.fold(keys, purpose), step), cell.mask_size, keep)


class Bidirectional(nn.Module):
    """A bidirectional network that reads runs of consecutive points of a sketch.

    Args:
        forward_cell, backward_cell: the cells of the two directions; both take the same inputs, I numbers per point.
        keep: probability with which recurrent dropout keeps a unit.
    """

    def __init__(self, forward_cell: Cell, backward_cell: Cell, keep: float) -> None:
        super().__init__()
        self.forward_cell, self.backward_cell, self.keep = forward_cell, backward_cell, keep

    def forward(self, inputs: Tensor, offsets: Tensor, sketches: SketchBatch) -> Tensor:
        """Embed each run of points by its last forward output and its backward output at the first point.

        Args:
            inputs: [P, I], one row per point of the batch.
            offsets: int64 [n+1], where each run of points begins.
            sketches: the batch that the points belong to.

        Returns:
            [n, 2H], the forward output first.
        """
        starts, lengths = offsets[:-1], offsets.diff()
        layout = TimeMajor.from_lengths(lengths)
        ahead = starts[layout.sequence] + layout.step
        drops = self.training and self.keep < 1
        # torch.lstm only without gradients: with them it is slower on a CPU, and cuDNN has no backward pass in
        # evaluation mode.
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
