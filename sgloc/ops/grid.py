"""Nine graphs from a 3x3 grid around every node (METHOD 4), for ragged batches.

Shapes: P points, S nodes and B sketches in the batch, M the most nodes in a sketch, D the width of an embedding.
"""

import functools

import torch
from torch import Tensor

from sgloc.ops.ragged import padded_index

NUM_CELLS = 9


def node_boxes(points: Tensor, node_offsets: Tensor) -> Tensor:
    """Bounding boxes of nodes (METHOD 4).

    Args:
        points: floating [P, 2], absolute (x, y).
        node_offsets: int64 [S+1], where each node's points begin; no node is empty.

    Returns:
        [S, 4] of the points' type: (x0, x1, y0, y1).
    """
    lengths = node_offsets.diff()
    low = torch.segment_reduce(points, "min", lengths=lengths, axis=0)
    high = torch.segment_reduce(points, "max", lengths=lengths, axis=0)
    return torch.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], dim=1)


def _perimeter(a: int, b: int, c: int, d: int) -> int:
    """The bits 3u+v of the cells (u, v) on the perimeter of columns a..b and rows c..d."""
    cells = ((u, v) for u in range(a, b + 1) for v in range(c, d + 1) if u in (a, b) or v in (c, d))
    return sum(1 << (3 * u + v) for u, v in cells)


@functools.cache
def _perimeter_table(device: torch.device) -> Tensor:
    digits = range(3)
    table = [_perimeter(a, b, c, d) for a in digits for b in digits for c in digits for d in digits]
    return torch.tensor(table, dtype=torch.int16, device=device)


def _grid_cell(low: Tensor, high: Tensor, value: Tensor) -> Tensor:
    """0 where value < low, 2 where value > high, else 1: the column or row of METHOD 4."""
    return (value >= low).to(torch.int32) + (value > high).to(torch.int32)


def grid_adjacency(boxes: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Which cells of node i's grid node j touches, for all pairs within a sketch (METHOD 4).

    Args:
        boxes: floating [S, 4], (x0, x1, y0, y1) of each node.
        sketch_offsets: int64 [B+1], where each sketch's nodes begin.

    Returns:
        int16 [B, M, M]: bit 3u+v of [b, i, j] is the relation of j to i in column u and row v; 0 in padding.
    """
    index, most = padded_index(sketch_offsets)
    num_sketches = len(sketch_offsets) - 1
    padded = boxes.new_zeros(num_sketches * most, 4).index_copy(0, index, boxes).view(num_sketches, most, 4)
    x0, x1, y0, y1 = padded[:, :, None].unbind(-1)
    other_x0, other_x1, other_y0, other_y1 = padded[:, None, :].unbind(-1)
    code = _grid_cell(x0, x1, other_x0)
    code = code * 3 + _grid_cell(x0, x1, other_x1)
    code = code * 3 + _grid_cell(y0, y1, other_y0)
    code = code * 3 + _grid_cell(y0, y1, other_y1)
    real = (
        torch.zeros(num_sketches * most, dtype=torch.bool, device=boxes.device)
        .index_fill(0, index, True)
        .view(num_sketches, most)
    )
    return _perimeter_table(boxes.device)[code] * (real[:, :, None] & real[:, None, :])


def grid_aggregate(adjacency: Tensor, embeddings: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Sum over the neighbours in each of the nine graphs: A_k e of METHOD 5.2.

    Args:
        adjacency: int16 [B, M, M], as `grid_adjacency` makes it.
        embeddings: floating [S, D].
        sketch_offsets: int64 [B+1].

    Returns:
        [9, S, D] of the embeddings' type; differentiable with respect to the embeddings.
    """
    index, most = padded_index(sketch_offsets)
    num_sketches, width = len(sketch_offsets) - 1, embeddings.shape[1]
    padded = (
        embeddings.new_zeros(num_sketches * most, width)
        .index_copy(0, index, embeddings)
        .view(num_sketches, most, width)
    )
    shift = torch.arange(NUM_CELLS, dtype=torch.int16, device=adjacency.device)[:, None, None]
    relation = (adjacency[:, None] >> shift & 1).to(embeddings.dtype)  # [B, 9, M, M]
    sums = relation.flatten(1, 2) @ padded  # [B, 9 M, D]
    return sums.view(num_sketches, NUM_CELLS, most, width).transpose(0, 1).flatten(1, 2)[:, index]
