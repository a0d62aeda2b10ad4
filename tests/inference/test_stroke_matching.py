"""Moving a sketch's own strokes to their places in a redrawing."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgloc.inference import stroke_matching as placing
from sgloc.inference.stroke_matching import placed, placing_moves, resampled

BODY = np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 60.0], [0.0, 60.0], [0.0, 0.0]])
WHEEL = np.array([[np.cos(t), np.sin(t)] for t in np.linspace(0, 6.28, 12)]) * 12
LIGHT = np.array([[0.0, 0.0], [0.0, -20.0]])
CAR = [BODY, WHEEL + np.array((20, 70)), WHEEL + np.array((80, 70)), LIGHT + np.array((50, 0))]


def test_points_at_equal_distances() -> None:
    line = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(resampled(line, 5), [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]])
    np.testing.assert_array_equal(resampled(np.array([[2.0, 5.0]]), 3), [[2, 5]] * 3)


def test_misplaced_strokes_go_where_the_redrawing_has_them() -> None:
    moved = [CAR[0], CAR[1] + np.array((30, -20)), CAR[2] + np.array((-15, 25)), CAR[3] + np.array((10, 10))]
    # Redrawn with other points and at a slightly different size.
    redrawn = [resampled(stroke, 30) * 1.02 for stroke in CAR]
    for result, stroke, before in zip(placed(moved, redrawn), CAR, moved, strict=True):
        assert np.abs(result - stroke).max() < 3
        # The strokes move rigidly.
        np.testing.assert_allclose(np.diff(result, axis=0), np.diff(before, axis=0), atol=1e-12)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_a_stroke_that_is_not_redrawn_stays(missing: int) -> None:
    moved = [CAR[0], *(stroke + np.array((20, 10)) for stroke in CAR[1:])]
    redrawn = [stroke for number, stroke in enumerate(CAR) if number != missing]
    moves = placing_moves(moved, redrawn)
    # The two wheels are identical, so either may count as the missing one.
    stays = np.flatnonzero(~moves.any(1))
    assert set(stays) in ({0, missing}, {0, 1} if missing == 2 else {0, 2}, {0, missing})
    assert len(stays) == 2


def test_a_stroke_too_many_moves_nothing() -> None:
    extra = np.array([[0.0, 0.0], [40.0, 40.0], [0.0, 80.0], [40.0, 120.0]])
    moved = [CAR[0], *(stroke + np.array((5, -5)) for stroke in CAR[1:])]
    np.testing.assert_allclose(placing_moves(moved, [CAR[0], extra, *CAR[1:]]), [[0, 0], *[[-5, 5]] * 3], atol=1e-9)


def test_nothing_drawn_moves_nothing_and_the_first_stroke_stays() -> None:
    assert not placing_moves(CAR, []).any()
    assert not placing_moves(CAR[:1], [CAR[0] + 50]).any()
    assert not placing_moves(CAR, [stroke + 50 for stroke in CAR])[0].any()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32))
def test_the_matching_is_the_cheapest_that_keeps_both_orders(num_rows: int, num_columns: int, seed: int) -> None:
    cost = np.random.default_rng(seed).uniform(0, 0.5, (num_rows, num_columns))

    def price(pairs: list[tuple[int, int]]) -> float:
        return float(
            sum(cost[pair] for pair in pairs) + placing._UNMATCHED_COST * (num_rows + num_columns - 2 * len(pairs))
        )

    every = [
        list(zip(rows, columns, strict=True))
        for size in range(min(num_rows, num_columns) + 1)
        for rows in itertools.combinations(range(num_rows), size)
        for columns in itertools.combinations(range(num_columns), size)
    ]
    found = placing._match(cost)
    assert sorted(found) in every
    assert price(found) == pytest.approx(min(map(price, every)))
