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


def _thirds(boxes: Tensor, axis: int, pairs: NodePairs) -> tuple[Tensor, Tensor]:
    """The first and the last column (axis 0) or row (axis 1) of METHOD 4 that each pair's second box takes in the grid
    of its first; int16 [N]."""
    low, high = (side.index_select(0, pairs.first) for side in boxes[:, 2 * axis : 2 * axis + 2].unbind(1))
    bounds = (side.index_select(0, pairs.second) for side in boxes[:, 2 * axis : 2 * axis + 2].unbind(1))
    first, last = ((bound >= low).to(torch.int16) + (bound > high) for bound in bounds)
    return first, last


def grid_adjacency(boxes: Tensor, sketch_offsets: Tensor) -> Tensor:
    """[S, 4] and [B+1] to int16 [B, M, M]."""
    pairs = node_pairs(sketch_offsets, len(boxes))
    (a, b), (c, d) = _thirds(boxes, 0, pairs), _thirds(boxes, 1, pairs)
    rows, ends = (2 << d) - (1 << c), (1 << c) | (1 << d)
    # Columns a and b are on the perimeter from end to end, a column between them only at its ends.
    bits = (rows << 3 * a) | (rows << 3 * b) | ((b - a == 2) * (ends << 3))
    num_sketches, most = len(sketch_offsets) - 1, most_nodes(sketch_offsets)
    adjacency = torch.zeros(num_sketches * most * most, dtype=torch.int16, device=boxes.device)
    adjacency.scatter_(0, pairs.place(most), bits)
    return adjacency.view(num_sketches, most, most)


def grid_aggregate(rows: Tensor, adjacency: Tensor, sketch_offsets: Tensor, transposed: bool) -> Tensor:
    """[S, D], int16 [B, M, M] and [B+1] to [9, S, D]; the transpose from rows [9, S, D] to [S, D]."""
    num_nodes = rows.shape[-2]
    pairs = node_pairs(sketch_offsets, num_nodes)
    bits = adjacency.reshape(-1).index_select(0, pairs.place(adjacency.shape[1], transposed=transposed))
    masks = 1 << torch.arange(NUM_CELLS, dtype=torch.int16, device=bits.device)
    if transposed:
        pair, cell = (bits[:, None] & masks).nonzero(as_tuple=True)
    else:
        cell, pair = (bits & masks[:, None]).nonzero(as_tuple=True)
    # The row of each summand and, in order, the bag that it goes into.
    bag, row, of_cell = pairs.first.index_select(0, pair), pairs.second.index_select(0, pair), cell * num_nodes
    bag, row = (bag, row + of_cell) if transposed else (bag + of_cell, row)
    shape = rows.shape[1:] if transposed else torch.Size((NUM_CELLS, *rows.shape))
    offsets = offsets_from_lengths(torch.bincount(bag, minlength=shape[:-1].numel()))
    # It reads each row once and sums half types in float32.
    flat = rows.flatten(0, -2)
    return torch.nn.functional.embedding_bag(row, flat, offsets, mode="sum", include_last_offset=True).view(shape)
