"""QuickDraw's simplification: alignment, resampling, Ramer-Douglas-Peucker, and the three together."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgloc.errors import DataError
from sgloc.sketch.simplify import align, ramer_douglas_peucker, resample, simplify

Points = npt.NDArray[np.float64]

seeds = st.integers(0, 2**32 - 1)


def random_stroke(seed: int, num_points: int, side: float = 100.0) -> Points:
    return np.random.default_rng(seed).uniform(0, side, (num_points, 2))


def distance_to_line(point: Points, start: Points, end: Points) -> float:
    (x, y), (start_x, start_y), (end_x, end_y) = (place.tolist() for place in (point, start, end))
    length = math.hypot(end_x - start_x, end_y - start_y)
    if length == 0:
        return math.hypot(x - start_x, y - start_y)
    return float(abs((end_x - start_x) * (y - start_y) - (end_y - start_y) * (x - start_x)) / length)


def recursive_ramer_douglas_peucker(points: list[Points], epsilon: float) -> list[Points]:
    """The recursive textbook version of the algorithm."""
    if len(points) < 3:
        return points
    distances = [distance_to_line(point, points[0], points[-1]) for point in points[1:-1]]
    if max(distances) <= epsilon:
        return [points[0], points[-1]]
    middle = 1 + distances.index(max(distances))
    left = recursive_ramer_douglas_peucker(points[: middle + 1], epsilon)
    return left[:-1] + recursive_ramer_douglas_peucker(points[middle:], epsilon)


class TestAlign:
    def test_moves_to_the_top_left_and_scales_both_axes_alike(self) -> None:
        first, second = align([np.array([[10.0, 5.0], [30.0, 15.0]]), np.array([[20.0, 10.0]])])
        np.testing.assert_allclose(first, [[0.0, 0.0], [255.0, 127.5]])
        np.testing.assert_allclose(second, [[127.5, 63.75]])

    @given(seeds, st.floats(1e-300, 1e300))
    def test_larger_side_is_the_canvas_whatever_the_unit(self, seed: int, unit: float) -> None:
        points = np.concatenate(align([random_stroke(seed, 5, 1.0) * unit, random_stroke(seed + 1, 3, 1.0) * unit]))
        np.testing.assert_allclose(points.min(axis=0), 0, atol=1e-9)
        assert points.max() == pytest.approx(255)

    @pytest.mark.parametrize("strokes", [[], [np.zeros((2, 2)), np.zeros((0, 2))]])
    def test_refuses_what_has_no_points(self, strokes: list[Points]) -> None:
        with pytest.raises(DataError, match="at least one"):
            align(strokes)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_refuses_coordinates_that_are_not_finite(self, bad: float) -> None:
        with pytest.raises(DataError, match="not finite"):
            align([np.array([[0.0, 1.0], [bad, 2.0]])])

    def test_refuses_a_width_beyond_float64(self) -> None:
        with pytest.raises(DataError, match="not finite"):
            align([np.array([[-1.7e308, 0.0], [1.7e308, 0.0]])])


class TestResample:
    @given(seeds, st.integers(2, 12), st.floats(0.3, 5.0))
    def test_points_lie_on_the_stroke_at_equal_distances_along_it(
        self, seed: int, num_points: int, spacing: float
    ) -> None:
        stroke = random_stroke(seed, num_points, 30.0)
        lengths = np.hypot(*np.diff(stroke, axis=0).T)
        points = resample(stroke, spacing)
        np.testing.assert_allclose(points[[0, -1]], stroke[[0, -1]], atol=1e-9)
        assert len(points) == math.ceil(lengths.sum() / spacing) + 1
        for index, point in enumerate(points[:-1]):
            left = index * spacing
            segment = 0
            while left > lengths[segment]:
                left -= lengths[segment]
                segment += 1
            direction = (stroke[segment + 1] - stroke[segment]) / lengths[segment]
            np.testing.assert_allclose(point, stroke[segment] + left * direction, atol=1e-7)

    def test_last_distance_may_be_shorter(self) -> None:
        points = resample(np.array([[0.0, 0.0], [0.0, 2.5]]), 1.0)
        np.testing.assert_allclose(points, [[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 2.5]])

    def test_pauses_of_the_pen_leave_no_trace(self) -> None:
        moving = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
        np.testing.assert_array_equal(resample(np.repeat(moving, 3, axis=0), 0.7), resample(moving, 0.7))

    @pytest.mark.parametrize(("num_points", "num_kept"), [(1, 1), (2, 2), (5, 2)])
    def test_a_dot_stays_a_dot(self, num_points: int, num_kept: int) -> None:
        np.testing.assert_array_equal(resample(np.full((num_points, 2), 7.0)), np.full((num_kept, 2), 7.0))


class TestRamerDouglasPeucker:
    @given(seeds, st.integers(1, 60), st.floats(0.0, 60.0), st.booleans())
    def test_equals_the_recursive_definition(self, seed: int, num_points: int, epsilon: float, closed: bool) -> None:
        stroke = random_stroke(seed, num_points)
        if closed:
            stroke[-1] = stroke[0]
        expected = recursive_ramer_douglas_peucker(list(stroke), epsilon)
        np.testing.assert_array_equal(ramer_douglas_peucker(stroke, epsilon), np.array(expected))

    def test_a_point_at_exactly_epsilon_goes(self) -> None:
        stroke = np.array([[0.0, 0.0], [5.0, 2.0], [10.0, 0.0]])
        assert len(ramer_douglas_peucker(stroke, 2.0)) == 2
        assert len(ramer_douglas_peucker(stroke, 1.999)) == 3

    def test_distance_is_to_the_line_not_the_segment(self) -> None:
        overshoot = np.array([[0.0, 0.0], [20.0, 0.0], [10.0, 0.0]])
        np.testing.assert_array_equal(ramer_douglas_peucker(overshoot, 2.0), overshoot[[0, 2]])

    def test_a_deep_stroke_meets_no_recursion_limit(self) -> None:
        # Each tooth is higher than all before it, so each recursion step splits off only the last points of its run.
        places = np.arange(3000)
        stroke = np.stack([places, np.where(places % 2, 1.0, -1.0) * places**2], axis=1).astype(np.float64)
        assert len(ramer_douglas_peucker(stroke, 0.5)) == 3000


class TestSimplify:
    @given(seeds, st.lists(st.integers(1, 20), min_size=1, max_size=6))
    def test_integers_from_0_to_255_and_no_stroke_lost(self, seed: int, counts: list[int]) -> None:
        strokes = [random_stroke(seed + index, count, 900.0) for index, count in enumerate(counts)]
        simplified = simplify(strokes)
        assert len(simplified) == len(strokes)
        for before, after in zip(align(strokes), simplified, strict=True):
            assert after.dtype == np.int64
            assert after.min() >= 0
            assert after.max() <= 255
            np.testing.assert_array_equal(after[[0, -1]], np.rint(before[[0, -1]]))

    @given(seeds, st.integers(-500, 500), st.integers(-8, 8))
    def test_neither_place_nor_unit_of_the_canvas_matters(self, seed: int, shift: int, power: int) -> None:
        strokes = [np.rint(random_stroke(seed + index, 6)) for index in range(3)]
        moved = [(stroke + shift) * 2.0**power for stroke in strokes]
        for one, other in zip(simplify(strokes), simplify(moved), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_a_straight_wobbly_line_becomes_two_points_and_a_corner_stays(self) -> None:
        x = np.linspace(0, 510, 200)
        line = np.stack([x, 1.8 * np.sin(x)], axis=1)
        corner = np.array([[0.0, 0.0], [510.0, 0.0], [510.0, 255.0]])
        assert [len(stroke) for stroke in simplify([line, corner])] == [2, 3]

    def test_a_drawing_that_is_one_point_stays_at_the_origin(self) -> None:
        (dot,) = simplify([np.array([[12.5, -3.0]])])
        np.testing.assert_array_equal(dot, [[0, 0]])
