"""Launchers of the Triton kernels.

Each function implements the operation of its name in `sgloc.ops.grid`, which checks the arguments, and runs on the
tensors' device and its current stream.

Shapes: P points, S nodes and B sketches in the batch, M the largest number of nodes in a sketch, D embedding width.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from sgloc.ops import triton_kernels as kernels
from sgloc.ops.vectorised import NUM_CELLS, most_nodes

_ADJACENCY_NODES = 32
# A tensor core multiplies at least 16 rows.
_SUM_NODES = 16
_SUM_COLUMNS = 128


def _launch(kernel: Any, programs: tuple[int, ...], result: Tensor, *arguments: Tensor | int, **constants: int) -> None:
    """Launch a kernel, unless its result is empty.

    Args:
        kernel: the kernel; its first parameter is the result.
        programs: number of programs along each axis.
        result: contiguous tensor that the kernel writes.
        arguments: the remaining parameters; tensors are made contiguous.
        constants: the constexpr parameters.
    """
    if result.numel() > 0:
        dense = (argument.contiguous() if isinstance(argument, Tensor) else argument for argument in arguments)
        with torch.cuda.device_of(result):
            kernel[programs](result, *dense, **constants)


def grid_adjacency(boxes: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Compute the adjacency, int16 [B, M, M], from boxes [S, 4] and offsets [B+1]."""
    num_sketches, most = len(sketch_offsets) - 1, most_nodes(sketch_offsets)
    adjacency = boxes.new_empty(num_sketches, most, most, dtype=torch.int16)
    num_tiles = triton.cdiv(most, _ADJACENCY_NODES)
    programs = (num_sketches, num_tiles, num_tiles)
    _launch(
        kernels.grid_adjacency_kernel, programs, adjacency, boxes, sketch_offsets, most, block_nodes=_ADJACENCY_NODES
    )
    return adjacency


def grid_aggregate(rows: Tensor, adjacency: Tensor, sketch_offsets: Tensor, transposed: bool) -> Tensor:
    """Compute sums [9, S, D] from rows [S, D], adjacency int16 [B, M, M] and offsets [B+1].

    The transposed operation maps rows [9, S, D] to [S, D].
    """
    num_nodes, width = rows.shape[-2:]
    sums = rows.new_empty(rows.shape[1:] if transposed else (NUM_CELLS, *rows.shape))
    num_sketches, most, _ = adjacency.shape
    num_tiles = triton.cdiv(most, _SUM_NODES)
    _launch(
        kernels.grid_aggregate_kernel,
        (num_sketches * num_tiles, 1 if transposed else NUM_CELLS, triton.cdiv(width, _SUM_COLUMNS)),
        sums,
        rows,
        adjacency,
        sketch_offsets,
        most,
        num_tiles,
        num_nodes,
        width,
        num_cells=NUM_CELLS if transposed else 1,
        transposed=transposed,
        block_nodes=_SUM_NODES,
        block_columns=_SUM_COLUMNS,
    )
    return sums
