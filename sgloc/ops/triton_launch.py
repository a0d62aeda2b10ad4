"""Launching the Triton kernels: each function does what `sgloc.ops.grid` describes to what is checked there, on the
tensors' device and its current stream.

Shapes: P points, S nodes and B sketches in the batch, M the most nodes in a sketch, D the width of an embedding.
"""

import torch
import triton
from torch import Tensor

from sgloc.ops import triton_kernels as kernels
from sgloc.ops.vectorised import NUM_CELLS, most_nodes

_BOX_NODES = 32
_BOX_POINTS = 16
_ADJACENCY_NODES = 32
# A tensor core's product has no fewer than 16 rows.
_SUM_NODES = 16
_SUM_COLUMNS = 128


def node_boxes(points: Tensor, node_offsets: Tensor) -> Tensor:
    """[P, 2] and [S+1] to [S, 4]."""
    num_nodes = len(node_offsets) - 1
    boxes = points.new_empty(num_nodes, 4)
    if num_nodes > 0:
        with torch.cuda.device_of(points):
            kernels.node_boxes_kernel[(triton.cdiv(num_nodes, _BOX_NODES),)](
                points.contiguous(),
                node_offsets.contiguous(),
                boxes,
                num_nodes,
                block_nodes=_BOX_NODES,
                block_points=_BOX_POINTS,
            )
    return boxes


def _empty_adjacency(sketch_offsets: Tensor) -> tuple[Tensor, int]:
    """[B, M, M] to be written, and how many tiles a row of it has."""
    most = most_nodes(sketch_offsets)
    adjacency = sketch_offsets.new_empty(len(sketch_offsets) - 1, most, most, dtype=torch.int16)
    return adjacency, triton.cdiv(most, _ADJACENCY_NODES)


def grid_adjacency(boxes: Tensor, sketch_offsets: Tensor) -> Tensor:
    """[S, 4] and [B+1] to int16 [B, M, M]."""
    adjacency, num_tiles = _empty_adjacency(sketch_offsets)
    if adjacency.numel() > 0:
        with torch.cuda.device_of(boxes):
            kernels.grid_adjacency_kernel[(len(adjacency) * num_tiles**2,)](
                boxes.contiguous(),
                sketch_offsets.contiguous(),
                adjacency,
                adjacency.shape[1],
                num_tiles,
                block_nodes=_ADJACENCY_NODES,
            )
    return adjacency


def node_adjacency(points: Tensor, node_offsets: Tensor, sketch_offsets: Tensor) -> Tensor:
    """[P, 2], [S+1] and [B+1] to int16 [B, M, M]."""
    adjacency, num_tiles = _empty_adjacency(sketch_offsets)
    if adjacency.numel() > 0:
        with torch.cuda.device_of(points):
            kernels.node_adjacency_kernel[(len(adjacency) * num_tiles**2,)](
                points.contiguous(),
                node_offsets.contiguous(),
                sketch_offsets.contiguous(),
                adjacency,
                adjacency.shape[1],
                num_tiles,
                block_nodes=_ADJACENCY_NODES,
                block_points=_BOX_POINTS,
            )
    return adjacency


def grid_aggregate(adjacency: Tensor, embeddings: Tensor, sketch_offsets: Tensor) -> Tensor:
    """int16 [B, M, M], [S, D] and [B+1] to [9, S, D]."""
    num_nodes, width = embeddings.shape
    sums = embeddings.new_empty(NUM_CELLS, num_nodes, width)
    num_tiles = triton.cdiv(adjacency.shape[1], _SUM_NODES)
    if sums.numel() > 0:
        with torch.cuda.device_of(embeddings):
            kernels.grid_aggregate_kernel[(len(adjacency) * num_tiles, NUM_CELLS, triton.cdiv(width, _SUM_COLUMNS))](
                adjacency.contiguous(),
                embeddings.contiguous(),
                sketch_offsets.contiguous(),
                sums,
                adjacency.shape[1],
                num_tiles,
                num_nodes,
                width,
                block_nodes=_SUM_NODES,
                block_columns=_SUM_COLUMNS,
            )
    return sums


def grid_aggregate_transposed(adjacency: Tensor, sums: Tensor, sketch_offsets: Tensor) -> Tensor:
    """int16 [B, M, M], [9, S, D] and [B+1] to [S, D]."""
    _, num_nodes, width = sums.shape
    result = sums.new_empty(num_nodes, width)
    num_tiles = triton.cdiv(adjacency.shape[1], _SUM_NODES)
    if result.numel() > 0:
        with torch.cuda.device_of(sums):
            kernels.grid_aggregate_transposed_kernel[(len(adjacency) * num_tiles, triton.cdiv(width, _SUM_COLUMNS))](
                adjacency.contiguous(),
                sums.contiguous(),
                sketch_offsets.contiguous(),
                result,
                adjacency.shape[1],
                num_tiles,
                num_nodes,
                width,
                num_cells=NUM_CELLS,
                block_nodes=_SUM_NODES,
                block_columns=_SUM_COLUMNS,
            )
    return result
