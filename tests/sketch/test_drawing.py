"""Conversion between the two representations of a drawing: polylines and stroke-3."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgloc.sketch.drawing import polylines_to_stroke3
from tests.drawings import Strokes, sketches_with_offsets, stroke3_of, stroke3_to_polylines
from tests.oracle import layout

point = st.tuples(st.integers(-16000, 16000), st.integers(-16000, 16000))
drawings = st.lists(st.lists(point, min_size=1, max_size=9), min_size=1, max_size=5)


def test_stroke3_of_a_drawing_worked_out_by_hand() -> None:
    polylines = [np.array([[5, 7], [6, 9]]), np.array([[0, 0]]), np.array([[255, 3], [254, 3], [254, 4]])]
    stroke3 = polylines_to_stroke3(polylines)
    assert stroke3.dtype == np.int16
    assert stroke3.tolist() == [[5, 7, 0], [1, 2, 1], [-6, -9, 1], [255, 3, 0], [-1, 0, 0], [0, 1, 1]]


@given(drawings)
def test_polylines_come_back(polylines: list[list[tuple[int, int]]]) -> None:
    back = stroke3_to_polylines(polylines_to_stroke3([np.array(line) for line in polylines]))
    assert [[tuple(row) for row in line.tolist()] for line in back] == polylines


@given(sketches_with_offsets(3000))
def test_stroke3_comes_back(sketches: list[Strokes]) -> None:
    for strokes in sketches:
        stroke3 = stroke3_of(strokes)
        polylines = stroke3_to_polylines(stroke3)
        assert [len(line) for line in polylines] == [len(stroke) for stroke in strokes]
        np.testing.assert_array_equal(np.concatenate(polylines), layout.absolute(stroke3.astype(np.float64)))
        np.testing.assert_array_equal(polylines_to_stroke3(polylines), stroke3)


def test_points_may_leave_16_bits_where_offsets_do_not() -> None:
    stroke3 = stroke3_of([[(32767, -32767)] * 4])
    (polyline,) = stroke3_to_polylines(stroke3)
    assert polyline[-1].tolist() == [4 * 32767, -4 * 32767]
    np.testing.assert_array_equal(polylines_to_stroke3([polyline]), stroke3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_any_integers_are_taken(dtype: type[np.integer]) -> None:
    # Differences of unsigned numbers must not wrap.
    assert polylines_to_stroke3([np.array([[200, 9], [3, 10]], dtype=dtype)]).tolist() == [[200, 9, 0], [-197, 1, 1]]


@pytest.mark.parametrize(
    "polylines", [[], [np.zeros((0, 2), dtype=int)], [np.zeros((1, 2), dtype=int), np.zeros((0, 2), dtype=int)]]
)
def test_a_drawing_without_points_is_refused(polylines: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="at least one stroke, and every stroke at least one point"):
        polylines_to_stroke3(polylines)


@pytest.mark.parametrize("polyline", [[[32768, 0]], [[0, 0], [-20000, 5], [20000, 5]], [[0, -32769]]])
def test_an_offset_beyond_16_bits_is_refused(polyline: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"an offset of \d+ does not fit in 16 bits"):
        polylines_to_stroke3([np.array(polyline)])
