"""Graphs between the nodes of a sketch, and message passing over them (METHOD 4, 5.2 and 5.3).

SketchGloc uses the nine grid graphs. The other graphs are baselines that follow ideas of earlier work: each is a
single symmetric graph with self-loops, normalised by the node degrees (Kipf and Welling 2017).

Shapes: S nodes and B sketches in the batch, E links, D embedding width, K graphs.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from sgloc import ops
from sgloc.errors import ConfigError
from sgloc.nn.product import at_least_float32, multiply
from sgloc.ops.ragged import group_index, local_index, offsets_from_lengths, segment_sum
from sgloc.ops.vectorised import NodePairs, node_pairs
from sgloc.sketch.ragged import SketchBatch

# Bit of the grid's centre cell.
_CENTER = 4

# Maps a batch and the number of neighbours (which only `nearest` uses) to links: int64 [E] and [E], the nodes at either
# end. Every link is listed in both directions, and every node is linked to itself.
Links = Callable[[SketchBatch, int], tuple[Tensor, Tensor]]
GRAPHS: dict[str, Links] = {}


def graph(links: Links) -> Links:
    """Register a function in `GRAPHS` under its own name."""
    GRAPHS[links.__name__] = links
    return links


@graph
def none(sketches: SketchBatch, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Link every node to itself only, so that no messages are passed."""
    node = torch.arange(len(sketches.node_offsets) - 1, device=sketches.points.device)
    return node, node


@graph
def complete(sketches: SketchBatch, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Link every node to all nodes of its sketch."""
    pairs = _pairs(sketches)
    return pairs.first, pairs.second


@graph
def temporal(sketches: SketchBatch, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Link every node to the nodes drawn immediately before and after it."""
    first, second = complete(sketches, num_neighbours)
    is_near = (first - second).abs() <= 1
    return first[is_near], second[is_near]


@graph
def nearest(sketches: SketchBatch, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Link every node to its nearest neighbours, and to the nodes that have it among theirs.

    A node has `num_neighbours` neighbours. The distance is that between box centres; ties go to the node drawn first.
    """
    centres = _middles(ops.node_boxes(sketches.points, sketches.node_offsets).detach())
    first, second = complete(sketches, num_neighbours)
    # Distance -1 puts each node at the head of its own list, for the self-loop.
    distance = torch.where(first == second, -1, (centres[first] - centres[second]).square().sum(1))
    by_distance = torch.argsort(distance, stable=True)
    by_node = by_distance[torch.argsort(first[by_distance], stable=True)]
    num_nodes = len(centres)
    place = local_index(offsets_from_lengths(torch.bincount(first, minlength=num_nodes)))
    chosen = by_node[place <= num_neighbours]
    there, back = first[chosen] * num_nodes + second[chosen], second[chosen] * num_nodes + first[chosen]
    links = torch.unique(torch.cat([there, back]))
    return links // num_nodes, links % num_nodes


def _pairs(sketches: SketchBatch) -> NodePairs:
    return node_pairs(sketches.sketch_node_offsets, len(sketches.node_offsets) - 1)


def _middles(boxes: Tensor) -> Tensor:
    """Return the centres (x, y) of boxes [S, 4], as [S, 2]."""
    return torch.stack([boxes[:, 0] + boxes[:, 1], boxes[:, 2] + boxes[:, 3]], dim=1) / 2


def single_graph_sum(embeddings: Tensor, links: tuple[Tensor, Tensor]) -> Tensor:
    """Sum the embeddings of the linked nodes, weighting each link by 1 / sqrt(degree * degree).

    Args:
        embeddings: [S, D].
        links: see `Links`.

    Returns:
        [1, S, D].
    """
    first, second = links
    degree = torch.bincount(first, minlength=len(embeddings)).to(embeddings.dtype)
    weight = torch.rsqrt(degree[first] * degree[second])
    return torch.zeros_like(embeddings).index_add(0, first, embeddings[second] * weight[:, None])[None]


def middle_adjacency(sketches: SketchBatch, adjacency: Tensor) -> Tensor:
    """Build a variant of the nine graphs: a node relates to another only through the cell with its box's centre.

    Args:
        sketches: the batch.
        adjacency: int16 [B, M, M], the published relation; only its shape, dtype and device are used.

    Returns:
        int16 [B, M, M].
    """
    boxes = ops.node_boxes(sketches.points, sketches.node_offsets).detach()
    middles = _middles(boxes)
    pairs = _pairs(sketches)
    least, most, value = boxes[pairs.first][:, [0, 2]], boxes[pairs.first][:, [1, 3]], middles[pairs.second]
    cell = (value >= least).short() + (value > most).short()  # column and row, [E, 2]
    bits = torch.ones_like(cell[:, 0], dtype=adjacency.dtype) << (3 * cell[:, 0] + cell[:, 1])
    empty = torch.zeros_like(adjacency)
    return empty.flatten().index_put((pairs.place(adjacency.shape[1]),), bits).view_as(empty)


class GraphConvolution(nn.Module):
    """Message passing over a sketch's graphs, then a sum over the sketch (METHOD 5.2 and 5.3).

    Args:
        width: D.
        graph: "grid9" for the nine graphs, or a key of `GRAPHS`.
        num_layers: number of graph convolution layers.
        num_neighbours: number of neighbours per node in the graph `nearest`.
        shares_weights: whether the nine graphs share their weights.
        relation: which grid cells a node occupies in the nine graphs: those on the perimeter of its box, or the one
            that contains the centre of its box.
        has_center: whether messages pass over the graph of the grid's centre cell.
        takes_mean: whether the nine graphs average over a node's neighbours instead of summing.

    Raises:
        ConfigError: if the graph is unknown.
    """

    def __init__(
        self,
        width: int,
        graph: str = "grid9",
        num_layers: int = 2,
        *,
        num_neighbours: int = 3,
        shares_weights: bool = False,
        relation: Literal["perimeter", "middle"] = "perimeter",
        has_center: bool = True,
        takes_mean: bool = False,
    ) -> None:
        super().__init__()
        if graph not in ("grid9", *GRAPHS):
            raise ConfigError(f"graph must be one of grid9, {', '.join(GRAPHS)}, not {graph}")
        self.name, self.num_neighbours = graph, num_neighbours
        self.relation, self.has_center, self.takes_mean = relation, has_center, takes_mean
        self.num_graphs = ops.NUM_CELLS if graph == "grid9" else 1
        shape = (1 if shares_weights else self.num_graphs, width, width)
        for layer in range(1, num_layers + 1):
            self.register_parameter(f"weight{layer}", nn.Parameter(torch.randn(shape) * math.sqrt(2 / width)))

    def forward(self, embeddings: Tensor, sketches: SketchBatch) -> Tensor:
        """Map node embeddings [S, D] to one vector per sketch, [B, D]."""
        h0 = self._neighbour_sums(embeddings, sketches)  # [K, S, D]
        # A node without neighbours in a graph has an all-zero row, which stays zero and gets no gradient through relu.
        # On real drawings these are 30 % of the rows of the nine graphs; their products are skipped.
        is_real = h0.detach().any(dim=2)
        counts = is_real.sum(1).tolist()
        row = is_real.flatten().nonzero()[:, 0]
        parts = h0.flatten(0, 1).index_select(0, row).split(counts)
        layers = [weight.expand(self.num_graphs, -1, -1).unbind() for weight in self.parameters()]
        outputs = []
        for h, *weights in zip(parts, *layers, strict=True):
            for weight in weights:
                h = torch.relu(multiply(h, weight))
            outputs.append(h)
        sketch = group_index(sketches.sketch_node_offsets)[row % len(embeddings)]
        own = segment_sum(at_least_float32(h0.sum(0)), sketches.sketch_node_offsets)
        # The rows of [K, S, D] missing from `outputs` are zero and add nothing.
        return own.index_add(0, sketch, at_least_float32(torch.cat(outputs))) / 2

    def _neighbour_sums(self, embeddings: Tensor, sketches: SketchBatch) -> Tensor:
        if self.name != "grid9":
            return single_graph_sum(embeddings, GRAPHS[self.name](sketches, self.num_neighbours))
        offsets = sketches.sketch_node_offsets
        adjacency = ops.node_adjacency(sketches.points, sketches.node_offsets, offsets)
        if self.relation == "middle":
            adjacency = middle_adjacency(sketches, adjacency)
        if not self.has_center:
            adjacency = adjacency & ~(1 << _CENTER)
        sums = ops.grid_aggregate(adjacency, embeddings, offsets)
        if not self.takes_mean:
            return sums
        ones = embeddings.new_ones(len(embeddings), 1)
        return sums / ops.grid_aggregate(adjacency, ones, offsets).clamp(min=1)
