"""The Triton kernels, called through their launchers in Triton's interpreter, against the reference loops.

`test_triton.py` runs this file in a separate process, because Triton only interprets kernels if TRITON_INTERPRET=1 is
set when it is imported.
"""

import pytest
import torch
from triton import knobs

from sgloc.ops import triton_launch
from tests.ops import reference
from tests.ops.reference import SHAPES, make_points, make_rows

# The interpreters of Triton 3.5 and 3.6 use an array conversion that numpy 2.3 deprecates and numpy 2.4 rejects.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0 to a scalar:DeprecationWarning")

each_shape = pytest.mark.parametrize("num_nodes", SHAPES.values(), ids=SHAPES.keys())


def test_this_is_the_interpreter() -> None:
    assert knobs.runtime.interpret


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@each_shape
def test_adjacency(num_nodes: list[int], dtype: torch.dtype) -> None:
    points, node_offsets, sketch_offsets = make_points(num_nodes, dtype)
    boxes = reference.node_boxes(points, node_offsets)
    expected = reference.grid_adjacency(boxes, sketch_offsets)
    found = triton_launch.grid_adjacency(boxes.to(dtype), sketch_offsets)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


# No bfloat16: the interpreter multiplies its bit patterns as integers.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("width", [0, 1, 150])
@each_shape
def test_sums_over_neighbours(num_nodes: list[int], width: int, dtype: torch.dtype) -> None:
    points, node_offsets, sketch_offsets = make_points(num_nodes)
    adjacency = reference.grid_adjacency(reference.node_boxes(points, node_offsets), sketch_offsets)
    embeddings = make_rows(sum(num_nodes), width, dtype=dtype)
    found = triton_launch.grid_aggregate(embeddings, adjacency, sketch_offsets, False)
    torch.testing.assert_close(found, reference.grid_aggregate(adjacency, embeddings, sketch_offsets).to(dtype))
    sums = make_rows(*found.shape, dtype=dtype)
    torch.testing.assert_close(
        triton_launch.grid_aggregate(sums, adjacency, sketch_offsets, True),
        reference.grid_aggregate_transposed(adjacency, sums, sketch_offsets).to(dtype),
    )


def test_inputs_may_have_any_strides() -> None:
    points, node_offsets, sketch_offsets = make_points(SHAPES["ragged"])

    def strided(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat_interleave(2, dim=-1)[..., ::2]

    boxes = reference.node_boxes(points, node_offsets).float()
    adjacency = reference.grid_adjacency(boxes, sketch_offsets)
    found = triton_launch.grid_adjacency(strided(boxes), strided(sketch_offsets))
    torch.testing.assert_close(found, adjacency, rtol=0, atol=0)
    embeddings = make_rows(len(boxes), 3)
    sums = triton_launch.grid_aggregate(strided(embeddings), strided(adjacency), strided(sketch_offsets), False)
    torch.testing.assert_close(sums, triton_launch.grid_aggregate(embeddings, adjacency, sketch_offsets, False))
    torch.testing.assert_close(
        triton_launch.grid_aggregate(strided(sums), strided(adjacency), strided(sketch_offsets), True),
        triton_launch.grid_aggregate(sums, adjacency, sketch_offsets, True),
    )
