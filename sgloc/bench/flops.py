"""Floating-point operations of matrix products, computed from the shapes of a ragged batch.

A product [n, a] @ [a, b] costs 2 n a b operations. Only the necessary products with the model's weights are counted.
The sums over neighbours and over a sketch's nodes, layer norm, activations, the mixture density and Adam are not matrix
products, so they are left out.

Shapes: B sketches, S nodes, P points, R = P + B decoder rows (a drawing's points and its end), N pairs of a graph
    and a node with at least one neighbour in it, H units, D = 2H, Z latent width, A units of the small LSTM in `hyper`,
    E the width of its embeddings, m mixture components, W the width of the decoder's state.

Products of the forward pass, as rows x inputs x outputs:

=========  ==============================================================================================
strokes    per direction, the cell on P input rows of width 2 and P - S state rows: the state before a node's first step
           is zero, and so are its products
graphs     N x D x D per layer, two layers as published; a single graph has N = S. `sketch_rnn` has no graphs; its
           strokes are whole drawings, S = B, with four numbers per point
latent     mean and log variance, 2 x (B x D x Z)
decoder    first state B x Z x W; the cell on R input rows of width 5, B x Z for the code, and R state rows
output     R x H x (3 + 6 m)
=========  ==============================================================================================

Products of a cell, for n input rows of width i and n state rows. In `hyper` the small LSTM runs first. Its new state,
nonzero from the first step on, yields eight scales and four shifts:

==========  =========================================  ==============================================================
cell        on inputs                                  on the state
==========  =========================================  ==============================================================
lstm        n x i x 4H                                 n x H x 4H
layer_norm  n x i x 4H                                 n x H x 4H
hyper       n x i x 4H and n x i x 4A                  n x H x 4H, n x H x 4A, n x A x 4A; on each step's new small
                                                       state n x A x 12E, then 12 n x E x H
==========  =========================================  ==============================================================

The backward pass needs each product twice: once for the gradient of the weight and once for that of the other factor.
The second is skipped where the other factor depends on no weight: the points, and the rows of the drawing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sgloc import ops
from sgloc.models.sketchgloc.config import DecoderConfig, EncoderConfig, ModelConfig
from sgloc.nn.rows import NUM_PEN_STATES, ROW_SIZE
from sgloc.sketch.ragged import SketchBatch

_POINT_SIZES = {"sketchgloc": 2, "sketch_rnn": 4}
# Eight scales and four shifts.
_NUM_MODULATIONS = 12


@dataclass(frozen=True)
class Shapes:
    """The batch sizes that determine the number of operations.

    Attributes:
        num_sketches: B.
        num_nodes: S.
        num_points: P.
        num_graph_rows: N, at most 9 S.
    """

    num_sketches: int
    num_nodes: int
    num_points: int
    num_graph_rows: int

    @classmethod
    def of(cls, sketches: SketchBatch, config: ModelConfig) -> "Shapes":
        """Return the shapes of a batch. A node without neighbours in a graph needs no product there."""
        num_sketches, num_nodes, num_points = len(sketches), len(sketches.node_offsets) - 1, len(sketches.points)
        if config.kind == "sketch_rnn":
            return cls(num_sketches, num_sketches, num_points, 0)
        # In all graphs but grid9, every node is its own neighbour.
        num_rows = num_nodes
        if config.graph == "grid9":
            sketch_offsets = sketches.sketch_node_offsets
            adjacency = ops.node_adjacency(sketches.points, sketches.node_offsets, sketch_offsets)
            neighbours = ops.grid_aggregate(adjacency, sketches.points.new_ones(num_nodes, 1), sketch_offsets)
            num_rows = int(neighbours.count_nonzero())
        return cls(num_sketches, num_nodes, num_points, num_rows)


class Product(NamedTuple):
    """A product of rows x inputs x outputs; `is_constant` if the rows depend on no weight."""

    rows: int
    inputs: int
    outputs: int
    is_constant: bool = False


@dataclass(frozen=True)
class Flops:
    """Operations of a training step, by stage of the model.

    Attributes:
        forward: operations of the forward pass.
        backward: operations of the gradients.
        recomputed: operations that the backward pass repeats because activations were not kept
            (`train.accumulation` and `train.checkpoint_decoder`).
    """

    forward: dict[str, int]
    backward: dict[str, int]
    recomputed: dict[str, int]

    @property
    def total(self) -> int:
        """Operations of the whole step."""
        return sum(sum(stages.values()) for stages in (self.forward, self.backward, self.recomputed))


def training_flops(config: ModelConfig, shapes: Shapes, num_parts: int = 1, checkpoint_decoder: bool = False) -> Flops:
    """Count the operations of a training step (METHOD 5 to 7).

    Args:
        config: the model's sizes.
        shapes: the batch's sizes.
        num_parts: number of micro-batches. With more than one, the forward pass runs twice, except for the latent.
        checkpoint_decoder: whether the backward pass recomputes the decoder's steps.
    """
    num_sketches, rows, width = shapes.num_sketches, shapes.num_points + shapes.num_sketches, config.encoder.hidden_size
    products = {
        "strokes": _stroke_products(config, shapes),
        "graphs": config.graph_layers * [Product(shapes.num_graph_rows, 2 * width, 2 * width)],
        "latent": 2 * [Product(num_sketches, 2 * width, config.latent_size)],
        **_drawing_products(config, num_sketches, rows),
    }
    forward = {stage: _sum(some) for stage, some in products.items()}
    backward = {
        stage: _sum(some) + _sum(one for one in some if not one.is_constant) for stage, some in products.items()
    }
    # The latent is computed once, over the whole batch.
    recomputed = {stage: number if num_parts > 1 and stage != "latent" else 0 for stage, number in forward.items()}
    if checkpoint_decoder:
        recomputed["decoder"] += _sum(_state_products(config, config.decoder, rows, rows))
    return Flops(forward, backward, recomputed)


def drawing_flops(config: ModelConfig, num_sketches: int, num_rows: int) -> int:
    """Count the operations of drawing from codes (METHOD 9).

    Args:
        config: the model's sizes.
        num_sketches: number of drawings.
        num_rows: total rows of all drawings, including end rows.
    """
    return sum(_sum(some) for some in _drawing_products(config, num_sketches, num_rows).values())


def _sum(products: Iterable[Product]) -> int:
    """Return the total operations of some products, in one pass."""
    return sum(2 * one.rows * one.inputs * one.outputs for one in products)


def _stroke_products(config: ModelConfig, shapes: Shapes) -> list[Product]:
    rows = shapes.num_points
    of_points = Product(rows, _POINT_SIZES[config.kind], 4 * _num_units(config, config.encoder), is_constant=True)
    return 2 * [of_points, *_state_products(config, config.encoder, rows, rows - shapes.num_nodes)]


def _drawing_products(config: ModelConfig, num_sketches: int, num_rows: int) -> dict[str, list[Product]]:
    part, units = config.decoder, _num_units(config, config.decoder)
    decoder = [
        # The first state (h and c), and the code's contribution to the cell's four gates.
        Product(num_sketches, config.latent_size, (2 + 4) * units),
        Product(num_rows, ROW_SIZE, 4 * units, is_constant=True),
        *_state_products(config, part, num_rows, num_rows),
    ]
    output = Product(num_rows, part.hidden_size, NUM_PEN_STATES + 6 * part.num_mixtures)
    return {"decoder": decoder, "output": [output]}


def _num_units(config: ModelConfig, part: EncoderConfig | DecoderConfig) -> int:
    """Return H of a cell, or H + A for `hyper`."""
    return part.hidden_size + (config.hyper_size if part.cell == "hyper" else 0)


def _state_products(
    config: ModelConfig, part: EncoderConfig | DecoderConfig, rows: int, old_rows: int
) -> list[Product]:
    """Return a cell's products with its state over `rows` steps, of which `old_rows` start from a nonzero state."""
    hyper, embedding = config.hyper_size, config.hyper_embedding_size
    products = [Product(old_rows, part.hidden_size, 4 * _num_units(config, part))]
    if part.cell == "hyper":
        products += [
            Product(old_rows, hyper, 4 * hyper),
            Product(rows, hyper, _NUM_MODULATIONS * embedding),
            Product(_NUM_MODULATIONS * rows, embedding, part.hidden_size),
        ]
    return products
