"""The grid operations in vectorised PyTorch, for any device.

Work and memory grow with the number of actual node pairs, not with the padded batch. Each operation is described in
`sgloc.ops.grid`, which also checks the arguments.

Shapes: P points, S nodes and B sketches in the batch, M the largest number of nodes in a sketch, N pairs of nodes of
    the same sketch, D embedding width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sgloc.ops.ragged import group_index, local_index, offsets_from_lengths

NUM_CELLS = 9


class NodePairs(NamedTuple):
    """All pairs of nodes of the same sketch, grouped by the first node.

    Attributes:
        first: int64 [N], the first node of each pair.
        second: int64 [N], the second node of each pair, in the same sketch.
        sketch: int64 [S], the sketch of each node.
        local: int64 [S], the position of each node in its sketch.
    """

    first: Tensor
    second: Tensor
    sketch: Tensor
    local: Tensor

    def place(self, most: int, *, transposed: bool = False) -> Tensor:
        """Return the index of each pair in the flat [B * M * M], int64 [N]; transposed swaps first and second."""
        row, column = self.local * most, self.local
        if transposed:
            row, column = column, row
        row = row + self.sketch * (most * most)
        return row.index_select(0, self.first) + column.index_select(0, self.second)


def node_pairs(sketch_offsets: Tensor, num_nodes: int) -> NodePairs:
    """List the node pairs of a batch, given its offsets [B+1] and S."""
    sketch = group_index(sketch_offsets, num_nodes)
    partners = sketch_offsets.diff().index_select(0, sketch)
    pair_offsets = offsets_from_lengths(partners)
    first = group_index(pair_offsets)
    # For every first node, the second node runs through the whole sketch.
    begin = sketch_offsets.index_select(0, sketch) - pair_offsets[:-1]
    second = torch.arange(len(first), device=first.device) + begin.index_select(0, first)
    return NodePairs(first, second, sketch, local_index(sketch_offsets, num_nodes))


def most_nodes(sketch_offsets: Tensor) -> int:
    """Return M; costs a transfer from the device."""
    return int(sketch_offsets.diff().max()) if len(sketch_offsets) > 1 else 0


def _thirds(boxes: Tensor, axis: int, pairs: NodePairs) -> tuple[Tensor, Tensor]:
    """Return the first and last column (axis 0) or row (axis 1) that each pair's second box covers in the grid of its
    first box (METHOD 4); int16 [N] each."""
    low, high = (side.index_select(0, pairs.first) for side in boxes[:, 2 * axis : 2 * axis + 2].unbind(1))
    bounds = (side.index_select(0, pairs.second) for side in boxes[:, 2 * axis : 2 * axis + 2].unbind(1))
    first, last = ((bound >= low).to(torch.int16) + (bound > high) for bound in bounds)
    return first, last


def grid_adjacency(boxes: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Compute the adjacency, int16 [B, M, M], from boxes [S, 4] and offsets [B+1]."""
    pairs = node_pairs(sketch_offsets, len(boxes))
    (a, b), (c, d) = _thirds(boxes, 0, pairs), _thirds(boxes, 1, pairs)
    rows, ends = (2 << d) - (1 << c), (1 << c) | (1 << d)
    # The perimeter includes columns a and b entirely, and a column between them only at its ends.
    bits = (rows << 3 * a) | (rows << 3 * b) | ((b - a == 2) * (ends << 3))
    num_sketches, most = len(sketch_offsets) - 1, most_nodes(sketch_offsets)
    adjacency = torch.zeros(num_sketches * most * most, dtype=torch.int16, device=boxes.device)
    adjacency.scatter_(0, pairs.place(most), bits)
    return adjacency.view(num_sketches, most, most)


def grid_aggregate(rows: Tensor, adjacency: Tensor, sketch_offsets: Tensor, transposed: bool) -> Tensor:
    """Compute sums [9, S, D] from rows [S, D], adjacency int16 [B, M, M] and offsets [B+1].

    The transposed operation maps rows [9, S, D] to [S, D].
    """
    num_nodes = rows.shape[-2]
    pairs = node_pairs(sketch_offsets, num_nodes)
    bits = adjacency.reshape(-1).index_select(0, pairs.place(adjacency.shape[1], transposed=transposed))
    masks = 1 << torch.arange(NUM_CELLS, dtype=torch.int16, device=bits.device)
    if transposed:
        pair, cell = (bits[:, None] & masks).nonzero(as_tuple=True)
    else:
        cell, pair = (bits & masks[:, None]).nonzero(as_tuple=True)
    # For each summand its row and, in ascending order, the bag that it is added to.
    bag, row, of_cell = pairs.first.index_select(0, pair), pairs.second.index_select(0, pair), cell * num_nodes
    bag, row = (bag, row + of_cell) if transposed else (bag + of_cell, row)
    shape = rows.shape[1:] if transposed else torch.Size((NUM_CELLS, *rows.shape))
    offsets = offsets_from_lengths(torch.bincount(bag, minlength=shape[:-1].numel()))
    # embedding_bag reads each row once and sums half-precision rows in float32.
    flat = rows.flatten(0, -2)
    return torch.nn.functional.embedding_bag(row, flat, offsets, mode="sum", include_last_offset=True).view(shape)
