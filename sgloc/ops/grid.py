"""The nine graphs from a 3x3 grid around every node (METHOD 4), for ragged batches.

Adjacency and aggregation are torch custom operators, `torch.ops.sgloc.<name>`, with a vectorised PyTorch implementation
for any device and Triton kernels for CUDA where Triton is installed. torch.compile can capture them. The shape of an
adjacency depends on the data, which needs `torch._dynamo.config.capture_dynamic_output_shape_ops` in torch 2.9; later
releases also accept it with fullgraph=True.

Shapes: P points, S nodes and B sketches in the batch, M the largest number of nodes in a sketch, D embedding width.
"""

import functools
import importlib.util
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef

from sgloc.ops import vectorised
from sgloc.ops.ragged import group_index

NUM_CELLS = vectorised.NUM_CELLS


def node_boxes(points: Tensor, node_offsets: Tensor) -> Tensor:
    """Compute the bounding boxes of nodes (METHOD 4).

    Args:
        points: floating [P, 2], absolute (x, y).
        node_offsets: int64 [S+1], where each node's points begin; no node is empty.

    Returns:
        [S, 4] in the dtype of the points: (x0, x1, y0, y1). Differentiable with respect to the points: those that
        attain a bound share its gradient evenly.

    Raises:
        ValueError: if a tensor has the wrong shape, dtype or device.
    """
    _check_rows("points", points, 2)
    _check_offsets("node_offsets", node_offsets, points)
    node = group_index(node_offsets, points.shape[0])[:, None].expand(-1, 2)
    # NaN, because a number equal to a bound would get a share of its gradient.
    room = points.new_full((node_offsets.shape[0] - 1, 2), math.nan)
    low, high = (room.scatter_reduce(0, node, points, bound, include_self=False) for bound in ("amin", "amax"))
    return torch.stack([low, high], dim=2).flatten(1)


def grid_adjacency(boxes: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Compute which cells of node i's grid node j touches, for all pairs within a sketch (METHOD 4).

    Args:
        boxes: floating [S, 4], (x0, x1, y0, y1) of each node.
        sketch_offsets: int64 [B+1], where each sketch's nodes begin.

    Returns:
        int16 [B, M, M]: bit 3u+v of [b, i, j] is the relation of j to i in column u and row v; 0 in padding. Not
        differentiable.

    Raises:
        ValueError: if a tensor has the wrong shape, dtype or device.
    """
    _check_rows("boxes", boxes, 4)
    _check_offsets("sketch_offsets", sketch_offsets, boxes)
    return _grid_adjacency(boxes, sketch_offsets)  # type: ignore[no-any-return]


def node_adjacency(points: Tensor, node_offsets: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Compute `grid_adjacency` from the `node_boxes` of points (METHOD 4).

    Args:
        points: floating [P, 2], absolute (x, y).
        node_offsets: int64 [S+1], where each node's points begin; no node is empty.
        sketch_offsets: int64 [B+1], where each sketch's nodes begin.

    Returns:
        int16 [B, M, M], as returned by `grid_adjacency`.

    Raises:
        ValueError: if a tensor has the wrong shape, dtype or device.
    """
    return grid_adjacency(node_boxes(points.detach(), node_offsets), sketch_offsets)


def grid_aggregate(adjacency: Tensor, embeddings: Tensor, sketch_offsets: Tensor) -> Tensor:
    """Sum the embeddings of the neighbours in each of the nine graphs: A_k e of METHOD 5.2.

    Args:
        adjacency: int16 [B, M, M], as returned by `grid_adjacency`.
        embeddings: floating [S, D].
        sketch_offsets: int64 [B+1], where each sketch's nodes begin.

    Returns:
        [9, S, D] in the dtype of the embeddings, summed in float32 or wider; differentiable with respect to the
        embeddings, any number of times.

    Raises:
        ValueError: if a tensor has the wrong shape, dtype or device.
    """
    _check_rows("embeddings", embeddings, None)
    _check_offsets("sketch_offsets", sketch_offsets, embeddings)
    num_sketches = sketch_offsets.shape[0] - 1
    shape = adjacency.shape
    if adjacency.dtype != torch.int16 or len(shape) != 3 or shape[0] != num_sketches or shape[1] != shape[2]:
        raise ValueError(
            f"adjacency must be int16 [{num_sketches}, M, M] for {num_sketches} sketches, as returned by "
            f"grid_adjacency, not {_describe(adjacency)}"
        )
    _check_device("adjacency", adjacency, embeddings)
    return _grid_aggregate(embeddings, adjacency, sketch_offsets, False)  # type: ignore[no-any-return]


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _check_rows(name: str, rows: Tensor, width: int | None) -> None:
    if not rows.is_floating_point() or rows.ndim != 2 or (width is not None and rows.shape[1] != width):
        raise ValueError(f"{name} must be floating [rows, {width or 'columns'}], not {_describe(rows)}")


def _check_offsets(name: str, offsets: Tensor, rows: Tensor) -> None:
    # Here and elsewhere shape[0], because len() would fix the size in a traced program.
    if offsets.dtype != torch.int64 or offsets.ndim != 1 or offsets.shape[0] == 0:
        raise ValueError(f"{name} must be int64 [groups + 1], starting with 0, not {_describe(offsets)}")
    _check_device(name, offsets, rows)


def _check_device(name: str, tensor: Tensor, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on {other.device} like the other tensors, not on {tensor.device}")


@functools.cache
def _triton() -> ModuleType | None:
    """Import the Triton implementation when a CUDA tensor first needs it; return None if Triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("sgloc.ops.triton_launch")


def _register(name: str) -> CustomOpDef:
    """Register the operator sgloc::<name> with its vectorised and CUDA implementations."""
    implementation: Callable[..., Tensor] = getattr(vectorised, name)
    operator = torch.library.custom_op(f"sgloc::{name}", implementation, mutates_args=())

    def on_cuda(rows: Tensor, *others: Tensor | bool) -> Tensor:
        # The kernels compute in float32.
        if _triton() is None or rows.dtype == torch.float64:
            return implementation(rows, *others)
        return getattr(_triton(), name)(rows, *others)  # type: ignore[no-any-return]

    operator.register_kernel("cuda")(on_cuda)
    return operator


_grid_adjacency = _register("grid_adjacency")
_grid_aggregate = _register("grid_aggregate")


@_grid_adjacency.register_fake
def _(boxes: Tensor, sketch_offsets: Tensor) -> Tensor:
    most = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(sketch_offsets.shape[0] - 1, most, most, dtype=torch.int16)


@_grid_aggregate.register_fake
def _(rows: Tensor, adjacency: Tensor, sketch_offsets: Tensor, transposed: bool) -> Tensor:
    return rows.new_empty(rows.shape[1:] if transposed else (NUM_CELLS, *rows.shape))


def _save_relation(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
    _, adjacency, sketch_offsets, ctx.transposed = inputs
    ctx.save_for_backward(adjacency, sketch_offsets)


def _grid_aggregate_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    adjacency, sketch_offsets = ctx.saved_tensors
    return _grid_aggregate(gradient, adjacency, sketch_offsets, not ctx.transposed), None, None, None


_grid_aggregate.register_autograd(_grid_aggregate_backward, setup_context=_save_relation)
