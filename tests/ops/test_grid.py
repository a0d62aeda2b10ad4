"""The grid operations against a literal oracle that goes pair by pair, and their gradients."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sgloc import ops
from sgloc.ops.ragged import group_index, local_index, offsets_from_lengths, segment_sum
from tests.oracle import layout

# A small integer lattice: boxes that touch, coincide and have no extent are the rule, not the exception.
coordinates = st.integers(-3, 3)
strokes = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=4)
batches = st.lists(st.lists(strokes, min_size=1, max_size=5), min_size=1, max_size=4)


def flatten(batch: list[list[list[tuple[int, int]]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    points = torch.tensor([point for sketch in batch for stroke in sketch for point in stroke], dtype=torch.float32)
    node_offsets = offsets_from_lengths(torch.tensor([len(stroke) for sketch in batch for stroke in sketch]))
    return points, node_offsets, offsets_from_lengths(torch.tensor([len(sketch) for sketch in batch]))


@given(batches)
def test_boxes_and_adjacency_equal_the_oracle(batch: list[list[list[tuple[int, int]]]]) -> None:
    points, node_offsets, sketch_offsets = flatten(batch)
    boxes = ops.node_boxes(points, node_offsets)
    expected_boxes = [layout.node_box(np.array(stroke, dtype=np.float64)) for sketch in batch for stroke in sketch]
    assert boxes.tolist() == [list(box) for box in expected_boxes]
    adjacency = ops.grid_adjacency(boxes, sketch_offsets)
    most = max(len(sketch) for sketch in batch)
    assert adjacency.dtype == torch.int16
    assert adjacency.shape == (len(batch), most, most)
    for sketch, (start, stop) in enumerate(zip(sketch_offsets[:-1].tolist(), sketch_offsets[1:].tolist(), strict=True)):
        expected = np.zeros((most, most), dtype=np.int64)
        size = stop - start
        expected[:size, :size] = layout.adjacency(expected_boxes[start:stop])
        assert adjacency[sketch].tolist() == expected.tolist()


def test_a_stroke_around_another_marks_eight_cells_and_itself_the_centre() -> None:
    boxes = torch.tensor([[1.0, 2.0, 1.0, 2.0], [0.0, 3.0, 0.0, 3.0]])
    adjacency = ops.grid_adjacency(boxes, torch.tensor([0, 2]))[0]
    centre, outer = 1 << 4, 0b111101111
    assert adjacency.tolist() == [[centre, outer], [centre, centre]]


@settings(deadline=None)
@given(batches, st.integers(0, 2**32 - 1))
def test_aggregation_sums_over_the_neighbours_in_each_graph(
    batch: list[list[list[tuple[int, int]]]], seed: int
) -> None:
    points, node_offsets, sketch_offsets = flatten(batch)
    adjacency = ops.grid_adjacency(ops.node_boxes(points, node_offsets), sketch_offsets)
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(len(node_offsets) - 1, 3, generator=generator, dtype=torch.float64)
    result = ops.grid_aggregate(adjacency, embeddings, sketch_offsets)
    assert result.shape == (ops.NUM_CELLS, *embeddings.shape)
    for k in range(ops.NUM_CELLS):
        for sketch, (start, stop) in enumerate(
            zip(sketch_offsets[:-1].tolist(), sketch_offsets[1:].tolist(), strict=True)
        ):
            for i in range(start, stop):
                expected = torch.zeros(3, dtype=torch.float64)
                for j in range(start, stop):
                    if int(adjacency[sketch, i - start, j - start]) >> k & 1:
                        expected += embeddings[j]
                torch.testing.assert_close(result[k, i], expected)


def test_aggregation_has_the_right_gradient() -> None:
    points, node_offsets, sketch_offsets = flatten([[[(0, 0), (1, 1)], [(1, 0)], [(-1, 2), (3, -1)]], [[(0, 0)]]])
    adjacency = ops.grid_adjacency(ops.node_boxes(points, node_offsets), sketch_offsets)
    embeddings = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda rows: ops.grid_aggregate(adjacency, rows, sketch_offsets), (embeddings,))


def test_padding_holds_no_relation_and_gives_nothing() -> None:
    _, _, sketch_offsets = flatten([[[(0, 0)]], [[(0, 0)], [(5, 5)]]])
    adjacency = ops.grid_adjacency(torch.zeros(3, 4), sketch_offsets)
    assert adjacency[0].tolist() == [[1 << 4, 0], [0, 0]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_ragged_indices_agree_with_a_loop(lengths: list[int]) -> None:
    offsets = offsets_from_lengths(torch.tensor(lengths))
    assert offsets.tolist() == [sum(lengths[:index]) for index in range(len(lengths) + 1)]
    assert group_index(offsets).tolist() == [group for group, length in enumerate(lengths) for _ in range(length)]
    assert local_index(offsets).tolist() == [place for length in lengths for place in range(length)]
    rows = torch.arange(2.0 * sum(lengths)).view(-1, 2)
    sums = segment_sum(rows, offsets)
    for group, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        assert sums[group].tolist() == rows[start:stop].sum(0).tolist()
