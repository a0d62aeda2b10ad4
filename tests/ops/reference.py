"""Reference implementations of the grid operations as literal float64 loops, and batches to test with."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from sgloc.ops.ragged import offsets_from_lengths
from tests.oracle import layout

NUM_CELLS = 9
# Number of nodes of each sketch; includes an empty batch, sketches without nodes, and one larger than a kernel tile.
SHAPES: dict[str, list[int]] = {
    "no sketch": [],
    "no node": [0, 0],
    "one node": [1],
    "one node each": [1, 1, 1],
    "ragged": [3, 1, 0, 5, 2],
    "beyond a tile": [35, 0, 2],
}


def _spans(offsets: Tensor) -> list[tuple[int, int]]:
    return list(itertools.pairwise(offsets.tolist()))


def make_points(num_nodes: Sequence[int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return points [P, 2], node_offsets [S+1] and sketch_offsets [B+1] of sketches with these numbers of nodes.

    Coordinates are small integers, so that many boxes touch, coincide or have no extent; nodes have 1 to 19 points.
    """
    generator = torch.Generator().manual_seed(len(num_nodes) + sum(num_nodes))
    lengths = torch.randint(1, 8, (sum(num_nodes),), generator=generator)
    lengths[::5] += 12
    points = torch.randint(-4, 5, (int(lengths.sum()), 2), generator=generator).to(dtype)
    return points, offsets_from_lengths(lengths), offsets_from_lengths(torch.tensor(num_nodes, dtype=torch.int64))


def make_rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor of reproducible random numbers of this shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


def node_boxes(points: Tensor, node_offsets: Tensor) -> Tensor:
    """Return the nodes' boxes, float64 [S, 4]."""
    boxes = [layout.node_box(points[start:stop].double().numpy()) for start, stop in _spans(node_offsets)]
    return torch.tensor(boxes, dtype=torch.float64).view(-1, 4)


def grid_adjacency(boxes: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Return the adjacency, int16 [B, M, M]."""
    spans = _spans(sketch_offsets)
    most = max((stop - start for start, stop in spans), default=0)
    adjacency = torch.zeros(len(spans), most, most, dtype=torch.int16)
    for sketch, (start, stop) in enumerate(spans):
        bits = layout.adjacency([(x0, x1, y0, y1) for x0, x1, y0, y1 in boxes[start:stop].tolist()])
        for i, row in enumerate(bits):
            for j, relation in enumerate(row):
                adjacency[sketch, i, j] = relation
    return adjacency


def relations(adjacency: Tensor, sketch_offsets: Tensor) -> list[tuple[int, int, int]]:
    """Return every (k, i, j) with A_k[i, j] = 1; i and j number the nodes of the whole batch."""
    return [
        (k, i, j)
        for sketch, (start, stop) in enumerate(_spans(sketch_offsets))
        for i in range(start, stop)
        for j in range(start, stop)
        for k in range(NUM_CELLS)
        if int(adjacency[sketch, i - start, j - start]) >> k & 1
    ]


def grid_aggregate(adjacency: Tensor, embeddings: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Return each node's sums over its neighbours in the nine graphs, float64 [9, S, D]."""
    sums = torch.zeros(NUM_CELLS, *embeddings.shape, dtype=torch.float64)
    for k, i, j in relations(adjacency, sketch_offsets):
        sums[k, i] += embeddings[j].double()
    return sums


def grid_aggregate_transposed(adjacency: Tensor, sums: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Return the result of the transposed aggregation, float64 [S, D]."""
    result = torch.zeros(sums.shape[1:], dtype=torch.float64)
    for k, i, j in relations(adjacency, sketch_offsets):
        result[j] += sums[k, i].double()
    return result
