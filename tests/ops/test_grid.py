"""The grid operations: values against the reference loops, gradients, and rejected inputs."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sgloc import ops
from sgloc.ops.ragged import group_index, local_index, offsets_from_lengths, segment_sum
from tests.ops import reference
from tests.ops.reference import SHAPES, make_points, make_rows

# A small integer lattice, so that many boxes touch, coincide or have no extent.
coordinates = st.integers(-3, 3)
strokes = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=4)
batches = st.lists(st.lists(strokes, max_size=5), max_size=4)

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
RAGGED = SHAPES["ragged"]


def flatten(batch: list[list[list[tuple[int, int]]]]) -> tuple[Tensor, Tensor, Tensor]:
    points = [point for sketch in batch for stroke in sketch for point in stroke]
    stroke_lengths = [len(stroke) for sketch in batch for stroke in sketch]
    num_strokes = [len(sketch) for sketch in batch]
    return (
        torch.tensor(points, dtype=torch.float32).view(-1, 2),
        offsets_from_lengths(torch.tensor(stroke_lengths, dtype=torch.int64)),
        offsets_from_lengths(torch.tensor(num_strokes, dtype=torch.int64)),
    )


def adjacency_of(num_nodes: list[int]) -> tuple[Tensor, Tensor]:
    points, node_offsets, sketch_offsets = make_points(num_nodes)
    return ops.node_adjacency(points, node_offsets, sketch_offsets), sketch_offsets


@given(batches)
def test_boxes_and_adjacency_equal_the_loops(batch: list[list[list[tuple[int, int]]]]) -> None:
    points, node_offsets, sketch_offsets = flatten(batch)
    boxes = ops.node_boxes(points, node_offsets)
    assert boxes.tolist() == reference.node_boxes(points, node_offsets).tolist()
    expected = reference.grid_adjacency(boxes, sketch_offsets)
    for adjacency in (
        ops.grid_adjacency(boxes, sketch_offsets),
        ops.node_adjacency(points, node_offsets, sketch_offsets),
    ):
        torch.testing.assert_close(adjacency, expected, rtol=0, atol=0)


@given(batches, st.integers(0, 4))
def test_aggregation_sums_over_the_neighbours_in_each_graph(
    batch: list[list[list[tuple[int, int]]]], width: int
) -> None:
    points, node_offsets, sketch_offsets = flatten(batch)
    adjacency = ops.node_adjacency(points, node_offsets, sketch_offsets)
    embeddings = make_rows(len(node_offsets) - 1, width, dtype=torch.float64)
    expected = reference.grid_aggregate(adjacency, embeddings, sketch_offsets)
    torch.testing.assert_close(ops.grid_aggregate(adjacency, embeddings, sketch_offsets), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_nodes", SHAPES.values(), ids=SHAPES.keys())
def test_every_type_and_shape_forward_and_backward(num_nodes: list[int], dtype: torch.dtype) -> None:
    points, node_offsets, sketch_offsets = make_points(num_nodes, dtype)
    boxes = ops.node_boxes(points, node_offsets)
    expected_boxes = reference.node_boxes(points, node_offsets)
    torch.testing.assert_close(boxes, expected_boxes.to(dtype), rtol=0, atol=0)
    adjacency = ops.node_adjacency(points, node_offsets, sketch_offsets)
    expected_adjacency = reference.grid_adjacency(expected_boxes, sketch_offsets)
    torch.testing.assert_close(adjacency, expected_adjacency, rtol=0, atol=0)
    torch.testing.assert_close(ops.grid_adjacency(boxes, sketch_offsets), expected_adjacency, rtol=0, atol=0)
    embeddings = make_rows(sum(num_nodes), 7, dtype=dtype).requires_grad_()
    sums = ops.grid_aggregate(adjacency, embeddings, sketch_offsets)
    torch.testing.assert_close(sums, reference.grid_aggregate(adjacency, embeddings, sketch_offsets).to(dtype))
    gradient = make_rows(*sums.shape, dtype=dtype)
    (found,) = torch.autograd.grad(sums, embeddings, gradient)
    torch.testing.assert_close(
        found, reference.grid_aggregate_transposed(adjacency, gradient, sketch_offsets).to(dtype)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_summed_in_float32(dtype: torch.dtype) -> None:
    # 1,000 nodes in one place, each a neighbour of all: a sum of ones in a half type would stop at 256 or 2048.
    number = 1000
    adjacency = ops.grid_adjacency(torch.zeros(number, 4), torch.tensor([0, number]))
    embeddings = torch.full((number, 3), 1 + 2**-7, dtype=dtype, requires_grad=True)
    sums = ops.grid_aggregate(adjacency, embeddings, torch.tensor([0, number]))
    assert sums.unique().tolist() == [0, float(torch.tensor(number * (1 + 2**-7), dtype=dtype))]
    sums.backward(torch.full_like(sums, 1 + 2**-7))
    assert embeddings.grad is not None
    assert embeddings.grad.unique().tolist() == [float(torch.tensor(number * (1 + 2**-7), dtype=dtype))]


def test_a_stroke_around_another_marks_eight_cells_and_itself_the_centre() -> None:
    boxes = torch.tensor([[1.0, 2.0, 1.0, 2.0], [0.0, 3.0, 0.0, 3.0]])
    adjacency = ops.grid_adjacency(boxes, torch.tensor([0, 2]))[0]
    centre, outer = 1 << 4, 0b111101111
    assert adjacency.tolist() == [[centre, outer], [centre, centre]]


def test_padding_holds_no_relation() -> None:
    adjacency = ops.grid_adjacency(torch.zeros(3, 4), torch.tensor([0, 1, 3]))
    assert adjacency[0].tolist() == [[1 << 4, 0], [0, 0]]


def test_inputs_may_have_any_strides() -> None:
    points, node_offsets, sketch_offsets = make_points(RAGGED)
    adjacency, embeddings = ops.node_adjacency(points, node_offsets, sketch_offsets), make_rows(sum(RAGGED), 3)

    def strided(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(2, dim=-1)[..., ::2]

    boxes = ops.node_boxes(strided(points), strided(node_offsets))
    assert torch.equal(boxes, ops.node_boxes(points, node_offsets))
    assert torch.equal(ops.grid_adjacency(strided(boxes), strided(sketch_offsets)), adjacency)
    assert torch.equal(ops.node_adjacency(strided(points), strided(node_offsets), strided(sketch_offsets)), adjacency)
    mirrored = adjacency.mT.contiguous().mT
    leaf = embeddings.clone().requires_grad_()
    expected = ops.grid_aggregate(adjacency, leaf, sketch_offsets)
    assert torch.equal(ops.grid_aggregate(mirrored, strided(embeddings), strided(sketch_offsets)), expected)
    (transposed,) = torch.autograd.grad(expected, leaf, strided(torch.ones_like(expected)), retain_graph=True)
    (of_expanded,) = torch.autograd.grad(expected.sum(), leaf)
    assert torch.equal(transposed, of_expanded)


def test_aggregation_has_the_right_gradients() -> None:
    adjacency, sketch_offsets = adjacency_of(RAGGED)
    embeddings = make_rows(sum(RAGGED), 2, dtype=torch.float64).requires_grad_()

    def aggregate(rows: Tensor) -> Tensor:
        return ops.grid_aggregate(adjacency, rows, sketch_offsets)

    assert torch.autograd.gradcheck(aggregate, (embeddings,))
    # A sum is linear; a nonlinear function of it is needed for a second gradient.
    assert torch.autograd.gradgradcheck(lambda rows: aggregate(rows).sin(), (embeddings,))


def test_boxes_have_the_right_gradient() -> None:
    points, node_offsets, _ = make_points(RAGGED)
    distinct = make_rows(*points.shape, dtype=torch.float64).requires_grad_()

    def boxes(rows: Tensor) -> Tensor:
        return ops.node_boxes(rows, node_offsets)

    assert torch.autograd.gradcheck(boxes, (distinct,))
    assert torch.autograd.gradgradcheck(lambda rows: boxes(rows).sin(), (distinct,))


def test_points_that_attain_a_bound_share_its_gradient_evenly() -> None:
    points = torch.tensor([[0.0, 5.0], [0.0, 1.0], [3.0, 1.0], [2.0, 1.0], [7.0, 7.0]], requires_grad=True)
    boxes = ops.node_boxes(points, torch.tensor([0, 4, 5]))
    boxes.backward(torch.tensor([[2.0, 4.0, 12.0, 8.0], [1.0, 2.0, 3.0, 4.0]]))
    assert points.grad is not None
    # The single point of the second node attains all four bounds.
    assert points.grad.tolist() == [[1.0, 8.0], [1.0, 4.0], [4.0, 4.0], [0.0, 4.0], [3.0, 7.0]]


def test_the_adjacency_has_no_gradient() -> None:
    points, node_offsets, sketch_offsets = make_points(RAGGED)
    points.requires_grad_()
    boxes = ops.node_boxes(points, node_offsets)
    assert boxes.requires_grad
    assert not ops.grid_adjacency(boxes, sketch_offsets).requires_grad
    assert not ops.node_adjacency(points, node_offsets, sketch_offsets).requires_grad


POINTS, NODE_OFFSETS, SKETCH_OFFSETS = torch.zeros(4, 2), torch.tensor([0, 1, 4]), torch.tensor([0, 2])
BOXES, ADJACENCY, EMBEDDINGS = torch.zeros(2, 4), torch.zeros(1, 2, 2, dtype=torch.int16), torch.zeros(2, 3)
ELSEWHERE = torch.empty(2, dtype=torch.int64, device="meta")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.node_boxes(POINTS.long(), NODE_OFFSETS),
            r"points must be floating \[rows, 2\], not int64 \[4, 2\]",
        ),
        (lambda: ops.node_boxes(torch.zeros(4, 3), NODE_OFFSETS), r"points must be .*, not float32 \[4, 3\]"),
        (lambda: ops.node_boxes(POINTS, NODE_OFFSETS.int()), r"node_offsets must be int64 .*, not int32 \[3\]"),
        (lambda: ops.node_boxes(POINTS, NODE_OFFSETS[:0]), r"node_offsets must be int64 .*, not int64 \[0\]"),
        (lambda: ops.node_boxes(POINTS, ELSEWHERE), "node_offsets must be on cpu .*, not on meta"),
        (lambda: ops.grid_adjacency(POINTS, SKETCH_OFFSETS), r"boxes must be floating \[rows, 4\]"),
        (lambda: ops.grid_adjacency(BOXES, SKETCH_OFFSETS[None]), "sketch_offsets must be int64"),
        (lambda: ops.node_adjacency(POINTS[0], NODE_OFFSETS, SKETCH_OFFSETS), "points must be floating"),
        (lambda: ops.node_adjacency(POINTS, NODE_OFFSETS[0], SKETCH_OFFSETS), "node_offsets must be int64"),
        (lambda: ops.node_adjacency(POINTS, NODE_OFFSETS, ELSEWHERE), "sketch_offsets must be .* not on meta"),
        (lambda: ops.grid_aggregate(ADJACENCY, EMBEDDINGS[0], SKETCH_OFFSETS), r"embeddings .* \[rows, columns\]"),
        (lambda: ops.grid_aggregate(ADJACENCY, EMBEDDINGS, SKETCH_OFFSETS.float()), "sketch_offsets must be int64"),
        (lambda: ops.grid_aggregate(ADJACENCY.int(), EMBEDDINGS, SKETCH_OFFSETS), r"int16 \[1, M, M\] .* not int32"),
        (lambda: ops.grid_aggregate(ADJACENCY[0], EMBEDDINGS, SKETCH_OFFSETS), "adjacency must be int16"),
        (lambda: ops.grid_aggregate(ADJACENCY[:, 1:], EMBEDDINGS, SKETCH_OFFSETS), "adjacency must be int16"),
        (lambda: ops.grid_aggregate(ADJACENCY, EMBEDDINGS, NODE_OFFSETS), "adjacency must be .* for 2 sketches"),
        (lambda: ops.grid_aggregate(ADJACENCY.to("meta"), EMBEDDINGS, SKETCH_OFFSETS), "adjacency .* not on meta"),
    ],
    ids=[
        "points-int64",
        "points-of-three",
        "node-offsets-int32",
        "node-offsets-empty",
        "node-offsets-on-meta",
        "boxes-of-two",
        "sketch-offsets-of-two-dimensions",
        "points-of-one-dimension",
        "node-offsets-a-number",
        "sketch-offsets-on-meta",
        "embeddings-of-one-dimension",
        "sketch-offsets-float",
        "adjacency-int32",
        "adjacency-of-two-dimensions",
        "adjacency-not-square",
        "adjacency-of-other-sketches",
        "adjacency-on-meta",
    ],
)
def test_a_tensor_of_another_shape_type_or_device_is_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_ragged_indices_agree_with_a_loop(lengths: list[int]) -> None:
    offsets = offsets_from_lengths(torch.tensor(lengths))
    assert offsets.tolist() == [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    for num_rows in (None, sum(lengths)):
        groups = [group for group, length in enumerate(lengths) for _ in range(length)]
        assert group_index(offsets, num_rows).tolist() == groups
        assert local_index(offsets, num_rows).tolist() == [place for length in lengths for place in range(length)]
    rows = torch.arange(2.0 * sum(lengths)).view(-1, 2)
    sums = segment_sum(rows, offsets)
    for group, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        assert sums[group].tolist() == rows[start:stop].sum(0).tolist()
