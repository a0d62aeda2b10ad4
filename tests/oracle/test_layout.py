"""The layout oracle against cases computed by hand from METHOD 1 to 4 and the augmentation of METHOD 8."""

import numpy as np
import numpy.typing as npt
import pytest

from . import layout

FloatArray = npt.NDArray[np.float64]


def test_normalise_clips_to_a_thousand_and_divides() -> None:
    rows = layout.normalise(np.array([[1500, -1001, 0], [-10, 1000, 1]]), 10.0)
    assert rows.tolist() == [[100.0, -100.0, 0.0], [-1.0, 100.0, 1.0]]


def test_stroke5_is_absolute_and_ends_with_the_end_row() -> None:
    rows = np.array([[1.0, 2.0, 0.0], [3.0, -5.0, 1.0], [-4.0, 3.0, 1.0]])
    assert layout.stroke5(rows).tolist() == [
        [1.0, 2.0, 1.0, 0.0, 0.0],
        [4.0, -3.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 1.0],
    ]


@pytest.mark.parametrize(
    ("max_node_points", "expected"),
    [(None, [7, 1, 3, 6]), (3, [3, 3, 1, 1, 3, 3, 3]), (1, [1] * 17), (7, [7, 1, 3, 6])],
)
def test_split_nodes_never_crosses_strokes(max_node_points: int | None, expected: list[int]) -> None:
    assert layout.split_nodes([7, 1, 3, 6], max_node_points) == expected


def test_disturb_moves_by_the_larger_side_of_the_box_with_the_origin() -> None:
    strokes = [np.array([[2.0, 3.0], [4.0, 3.0]]), np.array([[3.0, 5.0], [3.0, 4.0]])]
    # The box would be 2 by 2 without the origin; with it, it is 4 by 5.
    moved = layout.disturb(strokes, np.array([[9.0, 9.0], [1.0, -2.0]]), 0.1)
    np.testing.assert_allclose(moved[0], strokes[0])
    np.testing.assert_allclose(moved[1], [[3.5, 4.0], [3.5, 3.0]])


def test_translate_by_hand() -> None:
    # In source units, x spans 0 to 100 and y spans -10 to 50; the scale is 10.
    clean = [np.array([[1.0, -1.0], [10.0, 5.0]])]
    moved = [np.array([[1.5, 0.0]])]
    # The first limits of u are -0.8 * 24 and -0.8 * (-10 + 24); the second are 0.8 * (24 - 100) and 0.8 * (24 - 50).
    np.testing.assert_allclose(layout.translate(moved, clean, (0.0, 0.0), 10.0)[0], [[1.5 - 1.92, -1.12]])
    np.testing.assert_allclose(layout.translate(moved, clean, (1.0, 1.0), 10.0)[0], [[1.5 - 6.08, -2.08]])
    np.testing.assert_allclose(layout.translate(moved, clean, (0.5, 0.25), 10.0)[0], [[1.5 - 4.0, -1.36]])


def test_node_box_orders_x_before_y() -> None:
    assert layout.node_box(np.array([[1.0, 7.0], [-2.0, 9.0], [0.0, 8.0]])) == (-2.0, 1.0, 7.0, 9.0)


SQUARE = (0.0, 10.0, 0.0, 10.0)


@pytest.mark.parametrize(
    ("other", "columns"),
    [
        (SQUARE, ["000", "010", "000"]),
        ((2.0, 3.0, 2.0, 3.0), ["000", "010", "000"]),
        ((-1.0, 11.0, -1.0, 11.0), ["111", "101", "111"]),
        ((-5.0, -1.0, 4.0, 6.0), ["010", "000", "000"]),  # to its left
        ((4.0, 6.0, -5.0, -1.0), ["000", "100", "000"]),  # above it, where y is smaller
        ((-1.0, 11.0, 4.0, 6.0), ["010", "010", "010"]),  # a bar across
        ((-1.0, 5.0, -1.0, 11.0), ["111", "111", "000"]),
        ((10.0, 11.0, 11.0, 12.0), ["000", "001", "001"]),  # an edge belongs to the middle
    ],
)
def test_relation_is_the_perimeter_of_the_covered_cells(other: layout.Box, columns: list[str]) -> None:
    assert layout.relation(SQUARE, other) == [[int(cell) for cell in column] for column in columns]


def test_adjacency_packs_cell_u_v_into_bit_3u_plus_v() -> None:
    around = (-1.0, 11.0, -1.0, 11.0)
    left = (-5.0, -2.0, 4.0, 6.0)
    centre, ring = 1 << 4, 0b111101111
    # Seen from `left`, both other boxes are in the rightmost column and extend beyond the middle row on both sides.
    right_side = 0b111 << 6
    left_middle = 1 << 1
    assert layout.adjacency([SQUARE, around, left]) == [
        [centre, ring, left_middle],
        [centre, centre, left_middle],
        [right_side, right_side, centre],
    ]


def stroke3_of(lengths: list[int]) -> FloatArray:
    rows = [[10.0 * n + k, 1.0, float(k == length - 1)] for n, length in enumerate(lengths) for k in range(length)]
    return np.array(rows)


def test_may_drop_keeps_the_first_three_and_the_last_of_each_stroke() -> None:
    answers = layout.may_drop(stroke3_of([1, 4, 5, 7]))
    assert answers == [False] + [False] * 4 + [False] * 3 + [True, False] + [False] * 3 + [True] * 3 + [False]


def test_augment_adds_a_dropped_offset_to_the_kept_point_before() -> None:
    rows = layout.augment(stroke3_of([6]), (2.0, 3.0), [False, False, False, True, True, False])
    assert rows.tolist() == [[0.0, 3.0, 0.0], [2.0, 3.0, 0.0], [18.0, 9.0, 0.0], [10.0, 3.0, 1.0]]


def test_augment_refuses_to_drop_a_protected_point() -> None:
    with pytest.raises(ValueError, match="never dropped"):
        layout.augment(stroke3_of([4]), (1.0, 1.0), [False, False, True, False])
