"""Encoders, which turn strokes into a sketch code: SketchGloc's (METHOD 5) and the classical baseline's."""

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
    """Sketch codes, each tensor [B, Z].

    Attributes:
        y: the code to decode.
        mean: mean of the distribution that y comes from.
        log_variance: log variance of that distribution.
    """

    y: Tensor
    mean: Tensor
    log_variance: Tensor


def cell_of(config: ModelConfig, part: EncoderConfig | DecoderConfig, input_size: int) -> Cell:
    """Create a recurrent cell for the encoder or the decoder.

    Raises:
        ConfigError: if `part.cell` is unknown.
    """
    if part.cell not in _CELLS:
        raise ConfigError(f"cell must be one of {', '.join(_CELLS)}, not {part.cell}")
    hyper = (config.hyper_size, config.hyper_embedding_size, config.hyper_dropout == "both")
    return _CELLS[part.cell](input_size, part.hidden_size, *(hyper if part.cell == "hyper" else ()))


def _bidirectional(config: ModelConfig, input_size: int) -> Bidirectional:
    ahead, back = (cell_of(config, config.encoder, input_size) for _ in range(2))
    return Bidirectional(ahead, back, config.encoder.recurrent_keep)


class Encoder(nn.Module):
    """Base of both encoders: turns one vector per sketch into its code (METHOD 5.5)."""

    def _add_heads(self, config: ModelConfig) -> None:
        width = 2 * config.encoder.hidden_size
        self.mean = Linear(width, config.latent_size)
        self.log_variance = Linear(width, config.latent_size)

    def gather(self, sketches: SketchBatch) -> Tensor:
        """Compute one vector per sketch, [B, D]: the stage that can run on one micro-batch at a time."""
        raise NotImplementedError

    def activation(self, gathered: Tensor) -> Tensor:
        """Compute the input of the code's linear layers, [B, D], from `gather` of the whole batch."""
        return gathered

    def code(self, gathered: Tensor, random_key: Tensor) -> Code:
        """Compute codes from `gather` [B, D]: sampled in training, the means otherwise.

        Args:
            gathered: [B, D], of the whole batch.
            random_key: int64 [B], for the sampling noise.
        """
        activation = self.activation(gathered)
        mean, log_variance = at_least_float32(self.mean(activation)), at_least_float32(self.log_variance(activation))
        if not self.training:
            return Code(mean, mean, log_variance)
        columns = torch.arange(mean.shape[1], device=mean.device)
        noise = random.normal(random.fold(random_key, Purpose.LATENT)[:, None], columns)
        return Code(mean + torch.exp(log_variance / 2) * noise, mean, log_variance)


class LayoutEncoder(Encoder):
    """SketchGloc's encoder: embeds each stroke, then convolves over the layout's graphs (METHOD 5)."""

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
        """Compute g of METHOD 5.3, the graph convolution's output before batch norm."""
        embeddings = self.strokes(sketches.points, sketches.node_offsets, sketches)
        return self.graph(embeddings, sketches)  # type: ignore[no-any-return]

    def activation(self, gathered: Tensor) -> Tensor:
        """Compute c of METHOD 5.4."""
        return torch.tanh(self.batch_norm(gathered))


class SequenceEncoder(Encoder):
    """Sketch-RNN's encoder (Ha and Eck 2018): one bidirectional network over all points of the drawing in order."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.points = _bidirectional(config, _OFFSET_ROW_SIZE)
        self._add_heads(config)

    def gather(self, sketches: SketchBatch) -> Tensor:
        """Return the last outputs of both directions."""
        offsets = sketches.sketch_point_offsets
        return self.points(_offset_rows(sketches), offsets, sketches)  # type: ignore[no-any-return]


def _offset_rows(sketches: SketchBatch) -> Tensor:
    """Return rows (dx, dy, pen stays down, pen lifts) of all points, [P, 4]; each sketch starts from the origin."""
    previous = sketches.points.roll(1, dims=0)
    previous[sketches.sketch_point_offsets[:-1]] = 0
    lift = sketches.pen_lift[:, None].to(previous.dtype)
    return torch.cat([sketches.points - previous, 1 - lift, lift], dim=1)
