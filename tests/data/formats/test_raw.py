"""The reader of raw drawings, which simplifies them."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgloc.data.formats.form import read_drawings
from sgloc.sketch.drawing import Drawing, Reject, polylines_to_stroke3
from sgloc.sketch.simplify import simplify
from tests.fuzzing import examples

STROKES = [[[10.5, 510, 520.5], [100, 100.25, 355.0], [0, 16, 33]], [[10.5], [200], [512.5]]]


def read_strokes(folder: Path, *drawings: Any, **options: Any) -> list[Drawing | Reject]:
    lines = [json.dumps({"word": "cat", "key_id": "1", "recognized": True, "drawing": strokes}) for strokes in drawings]
    (folder / "cat.ndjson").write_text("\n".join(lines))
    return list(read_drawings(str(folder / "cat.ndjson"), **options))


numbers = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)
strokes_lists = st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), min_size=1, max_size=4)


@given(strokes_lists)
@examples(60)
def test_is_simplified_by_the_recipe(tmp_path: Path, points: list[list[tuple[float, float]]]) -> None:
    strokes = [[[x for x, _ in stroke], [y for _, y in stroke], [0.5] * len(stroke)] for stroke in points]
    (drawing,) = read_strokes(tmp_path, strokes)
    assert isinstance(drawing, Drawing)
    expected = polylines_to_stroke3(simplify([np.array(stroke, dtype=np.float64) for stroke in points]))
    np.testing.assert_array_equal(drawing.stroke3, expected)


def test_reads_a_raw_drawing_by_hand(tmp_path: Path) -> None:
    (drawing,) = read_strokes(tmp_path, STROKES)
    assert isinstance(drawing, Drawing)
    # 510 wide and 255 high, so it is halved: the corner at (510, 100) moves to (250, 0).
    absolute = np.cumsum(drawing.stroke3[:, :2], axis=0)
    assert absolute[[0, -2, -1]].tolist() == [[0, 0], [255, 128], [0, 50]]
    assert np.abs(absolute - [250, 0]).sum(axis=1).min() <= 1
    assert drawing.stroke3[-2:, 2].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("strokes", "reason", "detail"),
    [
        (
            [STROKES[0], [[1], [2]]],
            "wrong_shape",
            "stroke 1 is [[1], [2]], not a list of xs, one of ys and one of times",
        ),
        ([[[1], [2]], STROKES[0]], "wrong_shape", "stroke 1 is"),
        ([[[1], [2], [3], [4]]], "wrong_shape", "stroke 0 is"),
        ([[[1], [2], None]], "wrong_shape", "stroke 0 is"),
        ([[[1, 2], [2, 1], [3]]], "unequal_lengths", "stroke 0 have 2 and 2 and 1 entries"),
        ([[[1, 2], [2], [3, 1]]], "unequal_lengths", "stroke 0 have 2 and 1 and 2 entries"),
        ([STROKES[0], [[], [], []]], "empty_stroke", "stroke 1 has no point"),
        ([[["1"], [2], [3]]], "not_a_number", "'1'"),
        ([[[1], [True], [3]]], "not_a_number", "True"),
        ([[[None], [1], [3]]], "not_a_number", "None"),
        ([[[1.7e308, -1.7e308], [1, 1], [3, 3]]], "not_finite", "width or height"),
        (
            [[[0] * 200_001, [1] * 200_001, [0] * 200_001]],
            "too_many_points",
            "200001 points before simplification; the limit is 200000",
        ),
        ([[[0, 1] * 400, [1] * 800, [0] * 800]], "too_many_points", "203745 points after resampling"),
        ([[[0, 1e308] * 4, [1] * 8, [0] * 8]], None, ""),
    ],
)
def test_rejects_a_raw_drawing(tmp_path: Path, strokes: Any, reason: str | None, detail: str) -> None:
    before, outcome, after = read_strokes(tmp_path, STROKES, strokes, STROKES)
    assert isinstance(before, Drawing)
    assert isinstance(after, Drawing)
    if reason is None:
        assert isinstance(outcome, Drawing)
    else:
        assert isinstance(outcome, Reject)
        assert (outcome.place, outcome.reason) == ("2", reason)
        assert detail in outcome.detail


@pytest.mark.parametrize("times", [["0", None, {}], [0, float(2**70), -1]])
def test_times_may_be_anything(tmp_path: Path, times: list[Any]) -> None:
    one, other = read_strokes(tmp_path, [STROKES[0]], [[*STROKES[0][:2], times]])
    assert isinstance(one, Drawing)
    assert isinstance(other, Drawing)
    np.testing.assert_array_equal(one.stroke3, other.stroke3)


def test_points_are_counted_when_simplified(tmp_path: Path) -> None:
    straight = [[list(range(900)), [0] * 900, [0] * 900]]
    (drawing,) = read_strokes(tmp_path, straight, max_points=50)
    assert isinstance(drawing, Drawing)
    assert len(drawing.stroke3) == 2
    generator = random.Random(0)
    wild = [[[generator.random() for _ in range(12)], [generator.random() for _ in range(12)], [0] * 12]]
    (taken,) = read_strokes(tmp_path, wild, max_points=120)
    assert isinstance(taken, Drawing)
    dots = [[[index], [index], [0]] for index in range(121)]
    (rejected,) = read_strokes(tmp_path, dots, max_points=120)
    assert isinstance(rejected, Reject)
    assert (rejected.reason, rejected.detail) == ("too_many_points", "121 points; the limit is 120")


def test_forms_may_follow_one_another(tmp_path: Path) -> None:
    raw, simplified = read_strokes(tmp_path, STROKES, [[[0, 255], [0, 127]], [[0], [50]]])
    assert isinstance(raw, Drawing)
    assert isinstance(simplified, Drawing)
    assert simplified.stroke3.tolist() == [[0, 0, 0], [255, 127, 1], [-255, -77, 1]]
