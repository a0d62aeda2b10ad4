"""From strokes to a sketch code: SketchGloc's encoder (METHOD 5), and the classical one to compare with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sgloc import random
from sgloc.errors import ConfigError
from sgloc.models.sketchgloc.config import DecoderConfig, EncoderConfig, ModelConfig
from sgloc.nn.batch_norm import GlobalBatchNorm
from sgloc.nn.graphs import GraphConvolution
from sgloc.nn.product import Linear, at_least_float32
from sgloc.nn.recurrent.bidirectional import Bidirectional
from sgloc.nn.recurrent.cells import LSTM, Cell, HyperLSTM, LayerNormLSTM
from sgloc.random import Purpose
from sgloc.sketch.ragged import SketchBatch

_POINT_SIZE = 2
_OFFSET_ROW_SIZE = 4
_CELLS: dict[str, Callable[..., Cell]] = {"lstm": LSTM, "layer_norm": LayerNormLSTM, "hyper": HyperLSTM}


@dataclass(frozen=True)
class Code:
    """Sketch codes: what is decoded (y), and the distribution that it came from; each [B, Z]."""

    y: Tensor
    mean: Tensor
    log_variance: Tensor


def cell_of(config: ModelConfig, part: EncoderConfig | DecoderConfig, input_size: int) -> Cell:
    """A new recurrent cell of a part of the model, for inputs of this size.

    Raises:
        ConfigError: if there is no such cell.
    """
    if part.cell not in _CELLS:
        raise ConfigError(f"cell must be one of {', '.join(_CELLS)}, not {part.cell}")
    hyper = (config.hyper_size, config.hyper_embedding_size, config.hyper_dropout == "both")
    return _CELLS[part.cell](input_size, part.hidden_size, *(hyper if part.cell == "hyper" else ()))


def _bidirectional(config: ModelConfig, input_size: int) -> Bidirectional:
    ahead, back = (cell_of(config, config.encoder, input_size) for _ in range(2))
    return Bidirectional(ahead, back, config.encoder.recurrent_keep)


class Encoder(nn.Module):
    """What both encoders have in common: from a vector a sketch to its code (METHOD 5.5)."""

    def _add_heads(self, config: ModelConfig) -> None:
        width = 2 * config.encoder.hidden_size
        self.mean = Linear(width, config.latent_size)
        self.log_variance = Linear(width, config.latent_size)

    def gather(self, sketches: SketchBatch) -> Tensor:
        """What each sketch amounts to, as far as it can be computed a part of the batch at a time, [B, D]."""
        raise NotImplementedError

    def activation(self, gathered: Tensor) -> Tensor:
        """What the code is made of, [B, D], from `gather` of the whole batch."""
        return gathered

    def code(self, gathered: Tensor, random_key: Tensor) -> Code:
        """From `gather` [B, D] to codes: sampled in training, the mean otherwise; random_key int64 [B]."""
        activation = self.activation(gathered)
        mean, log_variance = at_least_float32(self.mean(activation)), at_least_float32(self.log_variance(activation))
        if not self.training:
            return Code(mean, mean, log_variance)
        columns = torch.arange(mean.shape[1], device=mean.device)
        noise = random.normal(random.fold(random_key, Purpose.LATENT)[:, None], columns)
        return Code(mean + torch.exp(log_variance / 2) * noise, mean, log_variance)


class LayoutEncoder(Encoder):
    """SketchGloc's: strokes one by one, then their layout (METHOD 5)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.strokes = _bidirectional(config, _POINT_SIZE)
        width = 2 * config.encoder.hidden_size
        self.graph = GraphConvolution(
            width,
            config.graph,
            config.graph_layers,
            num_neighbours=config.num_neighbours,
            shares_weights=config.graph_weights == "shared",
            relation=config.graph_relation,
            has_center=config.graph_center,
            takes_mean=config.graph_mean,
        )
        self.batch_norm = GlobalBatchNorm(width, config.batch_norm_epsilon)
        self._add_heads(config)

    def gather(self, sketches: SketchBatch) -> Tensor:
        """What the strokes and their layout amount to, before batch norm: g of METHOD 5.3."""
        embeddings = self.strokes(sketches.points, sketches.node_offsets, sketches)
        return self.graph(embeddings, sketches)  # type: ignore[no-any-return]

    def activation(self, gathered: Tensor) -> Tensor:
        """c of METHOD 5.4."""
        return torch.tanh(self.batch_norm(gathered))


class SequenceEncoder(Encoder):
    """Sketch-RNN's (Ha and Eck 2018): one bidirectional network over the whole drawing, point after point."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.points = _bidirectional(config, _OFFSET_ROW_SIZE)
        self._add_heads(config)

    def gather(self, sketches: SketchBatch) -> Tensor:
        """The last output of either direction."""
        offsets = sketches.sketch_point_offsets
        return self.points(_offset_rows(sketches), offsets, sketches)  # type: ignore[no-any-return]


def _offset_rows(sketches: SketchBatch) -> Tensor:
    """(dx, dy, pen stays down, pen lifts) of every point, from the point before, a sketch's first from the origin: [P,
    4]."""
    previous = sketches.points.roll(1, dims=0)
    previous[sketches.sketch_point_offsets[:-1]] = 0
    lift = sketches.pen_lift[:, None].to(previous.dtype)
    return torch.cat([sketches.points - previous, 1 - lift, lift], dim=1)
