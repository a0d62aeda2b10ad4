"""The grid operations as registered PyTorch operators: schemas, gradients, tracing and export."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from sgloc import ops
from sgloc.ops.ragged import segment_sum
from tests.ops.reference import SHAPES, make_points, make_rows
from tests.patience import PATIENCE

Arguments = tuple[Tensor | bool, ...]


def grid_adjacency(num_nodes: list[int], dtype: torch.dtype) -> Arguments:
    points, node_offsets, sketch_offsets = make_points(num_nodes, dtype)
    return ops.node_boxes(points, node_offsets), sketch_offsets


def grid_aggregate(num_nodes: list[int], dtype: torch.dtype) -> Arguments:
    points, node_offsets, sketch_offsets = make_points(num_nodes)
    embeddings = make_rows(sum(num_nodes), 3, dtype=dtype).requires_grad_()
    return embeddings, ops.node_adjacency(points, node_offsets, sketch_offsets), sketch_offsets, False


def grid_aggregate_transposed(num_nodes: list[int], dtype: torch.dtype) -> Arguments:
    embeddings, adjacency, sketch_offsets, _ = grid_aggregate(num_nodes, dtype)
    assert isinstance(embeddings, Tensor)
    sums = make_rows(ops.NUM_CELLS, *embeddings.shape, dtype=dtype).requires_grad_()
    return sums, adjacency, sketch_offsets, True


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_nodes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("arguments", [grid_adjacency, grid_aggregate, grid_aggregate_transposed])
def test_every_operator_passes_opcheck(
    arguments: Callable[[list[int], torch.dtype], Arguments], num_nodes: list[int], dtype: torch.dtype
) -> None:
    operator = getattr(torch.ops.sgloc, arguments.__name__.removesuffix("_transposed")).default
    results = torch.library.opcheck(operator, arguments(num_nodes, dtype))
    assert set(results.values()) == {"SUCCESS"}


class Graphs(nn.Module):
    """A trainable module that uses every public operation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(make_rows(ops.NUM_CELLS, 4, 4))

    def forward(self, points: Tensor, node_offsets: Tensor, embeddings: Tensor, sketch_offsets: Tensor) -> Tensor:
        boxes = ops.node_boxes(points, node_offsets)
        adjacency = ops.grid_adjacency(boxes, sketch_offsets)
        of_points = ops.node_adjacency(points, node_offsets, sketch_offsets)
        sums = ops.grid_aggregate(adjacency, embeddings, sketch_offsets) @ self.weight
        others = ops.grid_aggregate(of_points, embeddings, sketch_offsets)
        sketches = segment_sum((sums.relu() + others).sum(0), sketch_offsets)
        return torch.cat([sketches.flatten(), boxes.flatten()])


EXPECTED_CALLS = {"grid_adjacency": 2, "grid_aggregate": 2}


def graph_inputs(num_nodes: list[int]) -> tuple[Tensor, ...]:
    points, node_offsets, sketch_offsets = make_points(num_nodes)
    embeddings = make_rows(sum(num_nodes), 4)
    return points.requires_grad_(), node_offsets, embeddings.requires_grad_(), sketch_offsets


def calls_in(graph: torch.fx.Graph) -> dict[str, int]:
    """Count the calls of each sgloc operator in a graph."""
    targets = [str(node.target).split(".") for node in graph.nodes if node.op == "call_function"]
    names = [parts[1] for parts in targets if parts[0] == "sgloc"]
    return {name: names.count(name) for name in names}


@pytest.fixture
def _sizes_from_data() -> Iterator[None]:
    # From torch 2.10 on, fullgraph=True implies this.
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        yield


@pytest.mark.usefixtures("_sizes_from_data")
def test_compiled_code_holds_each_operation_as_one_node() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep_graph(module: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(module)
        return module

    model = Graphs()
    torch.compile(model, backend=keep_graph, fullgraph=True)(*graph_inputs([2, 3]))
    assert [calls_in(module.graph) for module in graphs] == [EXPECTED_CALLS]


@pytest.mark.slow
@pytest.mark.usefixtures("_sizes_from_data")
def test_compiled_code_gives_the_same_values_and_gradients_for_any_batch() -> None:
    model = Graphs()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for num_nodes in ([2, 3], SHAPES["ragged"], SHAPES["beyond a tile"]):
        inputs = graph_inputs(num_nodes)
        leaves = [*model.parameters(), inputs[0], inputs[2]]
        expected, found = model(*inputs), compiled(*inputs)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            torch.autograd.grad(found.square().sum(), leaves), torch.autograd.grad(expected.square().sum(), leaves)
        )


def test_an_exported_program_holds_each_operation_as_one_node_and_takes_any_batch() -> None:
    names = ("points", "node_offsets", "embeddings", "sketch_offsets")
    dynamic = {name: {0: torch.export.Dim.AUTO} for name in names}
    model = Graphs()
    program = torch.export.export(model, graph_inputs([2, 3]), dynamic_shapes=dynamic)
    assert calls_in(program.graph) == EXPECTED_CALLS
    other = graph_inputs(SHAPES["ragged"])
    torch.testing.assert_close(program.module()(*other), model(*other))


def test_triton_is_not_imported_before_a_cuda_tensor_needs_it() -> None:
    program = "import sys, sgloc.ops; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)
