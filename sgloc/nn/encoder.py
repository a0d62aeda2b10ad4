"""From strokes to a sketch code: recurrent stroke encoder, graph convolution, latent (METHOD 5)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgloc import ops, random
from sgloc.config import ModelConfig
from sgloc.nn.batch_norm import GlobalBatchNorm
from sgloc.nn.cells import LSTM, Cell, last_outputs, make_cell
from sgloc.nn.product import Linear, multiply
from sgloc.nn.sequence import TimeMajor
from sgloc.ops.ragged import group_index, local_index, segment_sum
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


class StrokeEncoder(nn.Module):
    """A bidirectional recurrent network over each node's points (METHOD 5.1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.keep = config.encoder.recurrent_keep
        sizes = (2, config.encoder.hidden_size, config.hyper_size, config.hyper_embedding_size)
        self.forward_cell = make_cell(config.encoder.cell, *sizes)
        self.backward_cell = make_cell(config.encoder.cell, *sizes)

    def forward(self, sketches: SketchBatch) -> Tensor:
        """Node embeddings [S, D]: the last forward output, then the backward output at the first point."""
        starts, lengths = sketches.node_offsets[:-1], sketches.node_offsets.diff()
        layout = TimeMajor.from_lengths(lengths)
        ahead = starts[layout.sequence] + layout.step
        drops = self.training and self.keep < 1
        # On a CPU the library is faster only where nothing is to be differentiated.
        if not drops and (ahead.is_cuda or not torch.is_grad_enabled()):
            cells = self.forward_cell, self.backward_cell
            if isinstance(cells[0], LSTM) and isinstance(cells[1], LSTM):
                return torch.cat(last_outputs(cells[0], cells[1], sketches.points[ahead], layout), dim=1)
        back = starts[layout.sequence] + lengths[layout.sequence] - 1 - layout.step
        directions = (
            (self.forward_cell, ahead, Purpose.ENCODER_FORWARD),
            (self.backward_cell, back, Purpose.ENCODER_BACKWARD),
        )
        return torch.cat([self._last_output(sketches, layout, *direction) for direction in directions], dim=1)

    def _last_output(
        self, sketches: SketchBatch, layout: TimeMajor, cell: Cell, point: Tensor, purpose: Purpose
    ) -> Tensor:
        mask = None
        if self.training and self.keep < 1:
            keys = sketches.random_key[group_index(sketches.sketch_point_offsets)]
            place = local_index(sketches.sketch_point_offsets)
            mask = recurrent_masks(cell, keys[point], purpose, place[point], self.keep)
        return cell.run(cell.project(sketches.points[point]), layout, None, mask)[layout.last]


class GridConvolution(nn.Module):
    """Message passing over the nine graphs, then a sum over the sketch (METHOD 5.2 and 5.3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        shape = (ops.NUM_CELLS, width, width)
        self.weight1 = nn.Parameter(torch.randn(shape) * math.sqrt(2 / width))
        self.weight2 = nn.Parameter(torch.randn(shape) * math.sqrt(2 / width))

    def forward(self, embeddings: Tensor, adjacency: Tensor, sketch_offsets: Tensor) -> Tensor:
        """Embeddings [S, D] and adjacency int16 [B, M, M] to one vector a sketch, [B, D]."""
        h0 = ops.grid_aggregate(adjacency, embeddings, sketch_offsets)  # [9, S, D]
        # A node without a neighbour in a graph has a zero there, which stays zero and gets no gradient through relu:
        # three of ten rows on real drawings, whose products are left out.
        is_real = h0.detach().any(dim=2)
        counts = is_real.sum(1).tolist()
        row = is_real.flatten().nonzero()[:, 0]
        weights = zip(self.weight1.unbind(), self.weight2.unbind(), strict=True)
        parts = h0.flatten(0, 1).index_select(0, row).split(counts)
        h2 = torch.cat(
            [torch.relu(multiply(torch.relu(multiply(h, w1)), w2)) for h, (w1, w2) in zip(parts, weights, strict=True)]
        )  # the real rows of [9, S, D]
        sketch = group_index(sketch_offsets)[row % len(embeddings)]
        own = segment_sum(_at_least_float32(h0.sum(0)), sketch_offsets)
        return own.index_add(0, sketch, _at_least_float32(h2)) / 2


@dataclass(frozen=True)
class Code:
    """Sketch codes: what is decoded (y), and the distribution that it came from; each [B, Z]."""

    y: Tensor
    mean: Tensor
    log_variance: Tensor


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


class Encoder(nn.Module):
    """The whole encoder (METHOD 5)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = 2 * config.encoder.hidden_size
        self.strokes = StrokeEncoder(config)
        self.graph = GridConvolution(width)
        self.batch_norm = GlobalBatchNorm(width)
        self.mean = Linear(width, config.latent_size)
        self.log_variance = Linear(width, config.latent_size)

    def gather(self, sketches: SketchBatch) -> Tensor:
        """What each sketch's strokes and their layout amount to, before batch norm: g of METHOD 5.3, [B, D]."""
        adjacency = ops.node_adjacency(sketches.points, sketches.node_offsets, sketches.sketch_node_offsets)
        return self.graph(self.strokes(sketches), adjacency, sketches.sketch_node_offsets)  # type: ignore[no-any-return]

    def code(self, gathered: Tensor, random_key: Tensor) -> Code:
        """From g [B, D] to codes (METHOD 5.4 and 5.5): sampled in training, the mean otherwise; random_key int64
        [B]."""
        activation = torch.tanh(self.batch_norm(gathered))
        mean, log_variance = _at_least_float32(self.mean(activation)), _at_least_float32(self.log_variance(activation))
        if not self.training:
            return Code(mean, mean, log_variance)
        columns = torch.arange(mean.shape[1], device=mean.device)
        noise = random.normal(random.fold(random_key, Purpose.LATENT)[:, None], columns)
        return Code(mean + torch.exp(log_variance / 2) * noise, mean, log_variance)
