"""The grid operations in vectorised PyTorch, for any device.

Work and memory grow with the pairs of nodes that there are, not with the padded batch. Every function takes what
`sgloc.ops.grid` has checked, and does what is described there.

Shapes: P points, S nodes and B sketches in the batch, M the most nodes in a sketch, N pairs of nodes of one sketch, D
    the width of an embedding.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sgloc.ops.ragged import group_index, local_index, offsets_from_lengths

NUM_CELLS = 9


class NodePairs(NamedTuple):
    """All pairs of nodes of one sketch, those with the same first node together.

    Attributes:
        first: int64 [N], a node.
        second: int64 [N], a node of the same sketch.
        sketch: int64 [S], each node's sketch.
        local: int64 [S], each node's place in its sketch.
    """

    first: Tensor
    second: Tensor
    sketch: Tensor
    local: Tensor

    def place(self, most: int, *, transposed: bool = False) -> Tensor:
        """int64 [N], where in the flat [B * M * M] the pairs (first, second) are; transposed: (second, first)."""
        row, column = self.local * most, self.local
        if transposed:
            row, column = column, row
        row = row + self.sketch * (most * most)
        return row.index_select(0, self.first) + column.index_select(0, self.second)


def node_pairs(sketch_offsets: Tensor, num_nodes: int) -> NodePairs:
    """The pairs of a batch, from its offsets [B+1] and S."""
    sketch = group_index(sketch_offsets, num_nodes)
    partners = sketch_offsets.diff().index_select(0, sketch)
    pair_offsets = offsets_from_lengths(partners)
    first = group_index(pair_offsets)
    # The second node runs through the sketch once for every first.
    begin = sketch_offsets.index_select(0, sketch) - pair_offsets[:-1]
    second = torch.arange(len(first), device=first.device) + begin.index_select(0, first)
    return NodePairs(first, second, sketch, local_index(sketch_offsets, num_nodes))


def most_nodes(sketch_offsets: Tensor) -> int:
    """M, which costs a transfer from the device."""
    return int(sketch_offsets.diff().max()) if len(sketch_offsets) > 1 else 0


def node_boxes(points: Tensor, node_offsets: Tensor) -> Tensor:
    """[P, 2] and [S+1] to [S, 4]."""
    lengths = node_offsets.diff()
    if len(lengths) == 0:
        # segment_reduce refuses to reduce nothing.
        return points.new_empty(0, 4)
    low = torch.segment_reduce(points, "min", lengths=lengths, axis=0)
    high = torch.segment_reduce(points, "max", lengths=lengths, axis=0)
    return torch.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], dim=1)


def _third(low: Tensor, high: Tensor, value: Tensor) -> Tensor:
    """0 where value < low, 2 where value > high, else 1, as int16: the column or row of METHOD 4."""
    return (value >= low).to(torch.int16) + (value > high)


def _perimeter(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The bits 3u+v of the cells (u, v) on the perimeter of columns a..b and rows c..d; all int16 [N]."""
    rows = (2 << d) - (1 << c)
    ends = (1 << c) | (1 << d)
    # Columns a and b are on the perimeter from end to end, a column between them only at its ends.
    return (rows << 3 * a) | (rows << 3 * b) | ((b - a == 2) * (ends << 3))


def grid_adjacency(boxes: Tensor, sketch_offsets: Tensor) -> Tensor:
    """[S, 4] and [B+1] to int16 [B, M, M]."""
    pairs = node_pairs(sketch_offsets, len(boxes))
    x0, x1, y0, y1 = (side.index_select(0, pairs.first) for side in boxes.unbind(1))
    other_x0, other_x1, other_y0, other_y1 = (side.index_select(0, pairs.second) for side in boxes.unbind(1))
    columns = _third(x0, x1, other_x0), _third(x0, x1, other_x1)
    rows = _third(y0, y1, other_y0), _third(y0, y1, other_y1)
    num_sketches, most = len(sketch_offsets) - 1, most_nodes(sketch_offsets)
    adjacency = torch.zeros(num_sketches * most * most, dtype=torch.int16, device=boxes.device)
    adjacency.scatter_(0, pairs.place(most), _perimeter(*columns, *rows))
    return adjacency.view(num_sketches, most, most)


def node_adjacency(points: Tensor, node_offsets: Tensor, sketch_offsets: Tensor) -> Tensor:
    """[P, 2], [S+1] and [B+1] to int16 [B, M, M]."""
    return grid_adjacency(node_boxes(points, node_offsets), sketch_offsets)


def _bag_sums(rows: Tensor, row: Tensor, bag: Tensor, num_bags: int) -> Tensor:
    """Sums of rows [R, D] picked by row int64 [n] into the bags that int64 [n], ascending, says: [num_bags, D]."""
    offsets = offsets_from_lengths(torch.bincount(bag, minlength=num_bags))
    # It reads each row once and sums half types in float32.
    return torch.nn.functional.embedding_bag(row, rows, offsets, mode="sum", include_last_offset=True)


def grid_aggregate(adjacency: Tensor, embeddings: Tensor, sketch_offsets: Tensor) -> Tensor:
    """int16 [B, M, M], [S, D] and [B+1] to [9, S, D]."""
    num_nodes, width = embeddings.shape
    pairs = node_pairs(sketch_offsets, num_nodes)
    bits = adjacency.reshape(-1).index_select(0, pairs.place(adjacency.shape[1]))
    masks = 1 << torch.arange(NUM_CELLS, dtype=torch.int16, device=bits.device)
    cell, pair = (bits & masks[:, None]).nonzero(as_tuple=True)
    bag = cell * num_nodes + pairs.first.index_select(0, pair)
    sums = _bag_sums(embeddings, pairs.second.index_select(0, pair), bag, NUM_CELLS * num_nodes)
    return sums.view(NUM_CELLS, num_nodes, width)


def grid_aggregate_transposed(adjacency: Tensor, sums: Tensor, sketch_offsets: Tensor) -> Tensor:
    """int16 [B, M, M], [9, S, D] and [B+1] to [S, D]."""
    _, num_nodes, width = sums.shape
    pairs = node_pairs(sketch_offsets, num_nodes)
    bits = adjacency.reshape(-1).index_select(0, pairs.place(adjacency.shape[1], transposed=True))
    masks = 1 << torch.arange(NUM_CELLS, dtype=torch.int16, device=bits.device)
    pair, cell = (bits[:, None] & masks).nonzero(as_tuple=True)
    row = cell * num_nodes + pairs.second.index_select(0, pair)
    return _bag_sums(sums.reshape(-1, width), row, pairs.first.index_select(0, pair), num_nodes)
