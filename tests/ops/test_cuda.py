"""The grid operations on a GPU, compared with the CPU."""

import pytest
import torch
from torch import Tensor

from sgloc import ops
from tests.ops.reference import SHAPES, make_points, make_rows

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device; run the tests on a machine with one"
    ),
]

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
ALL_SHAPES = SHAPES | {"a large sketch": [3, 1000]}


def everything(
    points: Tensor, node_offsets: Tensor, sketch_offsets: Tensor, embeddings: Tensor, gradient: Tensor
) -> dict[str, Tensor]:
    """Return the forward and backward results of every operation."""
    points, embeddings = points.detach().requires_grad_(), embeddings.detach().requires_grad_()
    boxes = ops.node_boxes(points, node_offsets)
    (of_points,) = torch.autograd.grad(boxes, points, torch.ones_like(boxes))
    adjacency = ops.node_adjacency(points, node_offsets, sketch_offsets)
    sums = ops.grid_aggregate(adjacency, embeddings, sketch_offsets)
    (of_embeddings,) = torch.autograd.grad(sums, embeddings, gradient)
    return {
        "boxes": boxes,
        "gradient of points": of_points,
        "adjacency": ops.grid_adjacency(boxes, sketch_offsets),
        "adjacency of points": adjacency,
        "sums": sums,
        "gradient of embeddings": of_embeddings,
    }


def make_inputs(num_nodes: list[int], dtype: torch.dtype) -> tuple[Tensor, ...]:
    embeddings = make_rows(sum(num_nodes), 150, dtype=dtype)
    return *make_points(num_nodes, dtype), embeddings, make_rows(ops.NUM_CELLS, *embeddings.shape, dtype=dtype)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert all(tensor.is_cuda for tensor in found.values())
    # Up to 9,000 numbers are summed in a different order and then rounded to the dtype.
    half = expected["sums"].dtype in (torch.bfloat16, torch.float16)
    on_cpu = {name: tensor.cpu() for name, tensor in found.items()}
    torch.testing.assert_close(on_cpu, expected, rtol=1e-2 if half else 1e-5, atol=2e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_nodes", ALL_SHAPES.values(), ids=ALL_SHAPES.keys())
def test_a_gpu_gives_what_the_cpu_gives(num_nodes: list[int], dtype: torch.dtype) -> None:
    inputs = make_inputs(num_nodes, dtype)
    assert_same(everything(*(tensor.cuda() for tensor in inputs)), everything(*inputs))


def test_inputs_may_have_any_strides() -> None:
    inputs = make_inputs(SHAPES["ragged"], torch.float32)
    strided = [tensor.cuda().repeat_interleave(2, dim=-1)[..., ::2] for tensor in inputs]
    assert_same(everything(*strided), everything(*inputs))


def test_kernels_run_on_the_current_stream() -> None:
    inputs = make_inputs(SHAPES["ragged"], torch.float32)
    expected = everything(*inputs)
    on_device = [tensor.cuda() for tensor in inputs]
    late = [torch.zeros_like(tensor) for tensor in on_device]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        # Points and embeddings are written so late that a kernel on another stream would read zeros.
        torch.cuda._sleep(200_000_000)
        for target, source in zip(late, on_device, strict=True):
            target.copy_(source)
        found = everything(late[0], on_device[1], on_device[2], late[3], late[4])
    stream.synchronize()
    assert_same(found, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices; run the tests on a machine with two")
def test_kernels_run_on_the_tensors_device() -> None:
    inputs = make_inputs(SHAPES["ragged"], torch.float32)
    with torch.cuda.device(0):
        assert_same(everything(*(tensor.to("cuda:1") for tensor in inputs)), everything(*inputs))
