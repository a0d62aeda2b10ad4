"""Graphs between the nodes of a sketch, and message passing over them (METHOD 4, 5.2 and 5.3).

SketchGloc's are the nine grid graphs. The others are single graphs after the ideas of earlier work, to compare with:
each is symmetric, links every node to itself, and is normalised by the nodes' degrees (Kipf and Welling 2017).

Shapes: S nodes and B sketches in the batch, E links, D the width of an embedding, K graphs.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sgloc import ops
from sgloc.config import GraphName, ModelConfig
from sgloc.nn.product import multiply
from sgloc.ops.ragged import group_index, offsets_from_lengths, segment_sum
from sgloc.sketch.ragged import SketchBatch

# The bit of the grid's middle cell.
_CENTER = 4


def at_least_float32(values: Tensor) -> Tensor:
    """The values in float32, unless their type is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _all_pairs(sketch_offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Every ordered pair of nodes of the same sketch, int64 [E] and [E]; pairs of one node are together."""
    num_nodes = sketch_offsets.diff()
    sketch = group_index(sketch_offsets)
    pair_offsets = offsets_from_lengths(num_nodes[sketch])
    first = group_index(pair_offsets)
    place = torch.arange(len(first), device=first.device) - pair_offsets[first]
    return first, sketch_offsets[sketch[first]] + place


def _middles(boxes: Tensor) -> Tensor:
    """Where the middles of boxes [S, 4] are, (x, y), [S, 2]."""
    return torch.stack([boxes[:, 0] + boxes[:, 1], boxes[:, 2] + boxes[:, 3]], dim=1) / 2


def no_links(sketches: SketchBatch, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Every node alone: no message is passed."""
    node = torch.arange(len(sketches.node_offsets) - 1, device=sketches.points.device)
    return node, node


def complete_links(sketches: SketchBatch, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Everything linked with everything of its sketch."""
    return _all_pairs(sketches.sketch_node_offsets)


def temporal_links(sketches: SketchBatch, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Every node linked with those drawn just before and just after it."""
    first, second = _all_pairs(sketches.sketch_node_offsets)
    is_near = (first - second).abs() <= 1
    return first[is_near], second[is_near]


def nearest_links(sketches: SketchBatch, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Every node linked with those whose boxes' centres are nearest to its own's, so many of them, and with those to
    which it is among the nearest; of equally distant ones the earlier drawn."""
    centres = _middles(ops.node_boxes(sketches.points, sketches.node_offsets).detach())
    first, second = _all_pairs(sketches.sketch_node_offsets)
    # A node comes first of its own list, then the others by their distance.
    distance = torch.where(first == second, -1, (centres[first] - centres[second]).square().sum(1))
    by_distance = torch.argsort(distance, stable=True)
    by_node = by_distance[torch.argsort(first[by_distance], stable=True)]
    num_nodes = len(centres)
    list_offsets = offsets_from_lengths(torch.bincount(first, minlength=num_nodes))
    place = torch.arange(len(by_node), device=first.device) - list_offsets[first[by_node]]
    chosen = by_node[place <= num_neighbours]
    there, back = first[chosen] * num_nodes + second[chosen], second[chosen] * num_nodes + first[chosen]
    links = torch.unique(torch.cat([there, back]))
    return links // num_nodes, links % num_nodes


_LINKS: dict[GraphName, Callable[[SketchBatch, int], tuple[Tensor, Tensor]]] = {
    "none": no_links,
    "complete": complete_links,
    "temporal": temporal_links,
    "nearest": nearest_links,
}


def single_graph_sum(embeddings: Tensor, links: tuple[Tensor, Tensor]) -> Tensor:
    """Weighted sum over the linked nodes, the weight of a link 1 / sqrt(degree * degree).

    Args:
        embeddings: [S, D].
        links: int64 [E] and [E], the nodes at either end, in both directions, each node's own included.

    Returns:
        [1, S, D].
    """
    first, second = links
    degree = torch.bincount(first, minlength=len(embeddings)).to(embeddings.dtype)
    weight = torch.rsqrt(degree[first] * degree[second])
    return torch.zeros_like(embeddings).index_add(0, first, embeddings[second] * weight[:, None])[None]


def middle_adjacency(sketches: SketchBatch, adjacency: Tensor) -> Tensor:
    """The nine graphs, had the relation of a node to another only the cell that the middle of its box is in.

    Args:
        sketches: the batch.
        adjacency: int16 [B, M, M], of the published relation.

    Returns:
        int16 [B, M, M].
    """
    boxes = ops.node_boxes(sketches.points, sketches.node_offsets).detach()
    middles = _middles(boxes)
    first, second = _all_pairs(sketches.sketch_node_offsets)
    least, most, value = boxes[first][:, [0, 2]], boxes[first][:, [1, 3]], middles[second]
    cell = (value >= least).short() + (value > most).short()  # column and row, [E, 2]
    sketch = group_index(sketches.sketch_node_offsets)[first]
    begin = sketches.sketch_node_offsets[sketch]
    bits = torch.ones_like(first, dtype=adjacency.dtype) << (3 * cell[:, 0] + cell[:, 1])
    return torch.zeros_like(adjacency).index_put((sketch, first - begin, second - begin), bits)


class GraphConvolution(nn.Module):
    """Message passing over a sketch's graphs, then a sum over the sketch (METHOD 5.2 and 5.3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.name, self.num_neighbours = config.graph, config.num_neighbours
        self.relation, self.has_center, self.takes_mean = config.graph_relation, config.graph_center, config.graph_mean
        self.num_graphs = ops.NUM_CELLS if self.name == "grid9" else 1
        self.num_layers = config.graph_layers
        width = 2 * config.encoder.hidden_size
        shape = (self.num_graphs if config.graph_weights == "separate" else 1, width, width)
        for layer in range(1, self.num_layers + 1):
            self.register_parameter(f"weight{layer}", nn.Parameter(torch.randn(shape) * math.sqrt(2 / width)))

    def forward(self, embeddings: Tensor, sketches: SketchBatch) -> Tensor:
        """Embeddings [S, D] to one vector a sketch, [B, D]."""
        h0 = self._neighbour_sums(embeddings, sketches)  # [K, S, D]
        # A node without a neighbour in a graph has a zero there, which stays zero and gets no gradient through relu:
        # three of ten rows of the grid graphs on real drawings, whose products are left out.
        is_real = h0.detach().any(dim=2)
        counts = is_real.sum(1).tolist()
        row = is_real.flatten().nonzero()[:, 0]
        parts = h0.flatten(0, 1).index_select(0, row).split(counts)
        layers = [
            self.get_parameter(f"weight{layer}").expand(self.num_graphs, -1, -1).unbind()
            for layer in range(1, self.num_layers + 1)
        ]
        outputs = []
        for h, *weights in zip(parts, *layers, strict=True):
            for weight in weights:
                h = torch.relu(multiply(h, weight))
            outputs.append(h)
        sketch = group_index(sketches.sketch_node_offsets)[row % len(embeddings)]
        own = segment_sum(at_least_float32(h0.sum(0)), sketches.sketch_node_offsets)
        # The last layer's real rows of [K, S, D].
        return own.index_add(0, sketch, at_least_float32(torch.cat(outputs))) / 2

    def _neighbour_sums(self, embeddings: Tensor, sketches: SketchBatch) -> Tensor:
        if self.name != "grid9":
            return single_graph_sum(embeddings, _LINKS[self.name](sketches, self.num_neighbours))
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
