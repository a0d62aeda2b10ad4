"""The randomly drawn benchmark batch has the statistics of real drawings."""

import dataclasses

import numpy as np
import pytest
import torch

from sgloc.bench.drawn import LONGEST_POINTS, draw_batch, draw_long_sketch
from sgloc.data.batch import PackedBatch, Preparation, concatenate


def points_of_sketches(packed: PackedBatch) -> np.ndarray:
    starts = np.cumsum(packed.num_strokes) - packed.num_strokes
    return np.add.reduceat(packed.stroke_lengths, starts)


@pytest.mark.parametrize("seed", range(5))
def test_a_hundred_sketches_are_those_of_the_issue(seed: int) -> None:
    packed = draw_batch(100, seed)
    num_points = points_of_sketches(packed)
    assert num_points.mean() == pytest.approx(48, rel=0.03)
    assert packed.num_strokes.mean() == pytest.approx(6, rel=0.03)
    assert (num_points.max(), packed.num_strokes.max()) == (LONGEST_POINTS, 29)
    assert LONGEST_POINTS == 163
    # Statistics of 25,000 real drawings: standard deviations 25 (points of a drawing), 3.9 (strokes of a drawing) and
    # 8.4 (points of a stroke); correlation of points and strokes 0.62.
    assert num_points.std() == pytest.approx(25, rel=0.1)
    assert packed.num_strokes.std() == pytest.approx(3.9, rel=0.25)
    assert packed.stroke_lengths.std() == pytest.approx(8.4, rel=0.25)
    assert np.corrcoef(num_points, packed.num_strokes)[0, 1] == pytest.approx(0.62, abs=0.2)


def test_a_larger_batch_keeps_the_means_and_reaches_further_into_the_tail() -> None:
    packed = draw_batch(1024, 0)
    num_points = points_of_sketches(packed)
    assert num_points.mean() == pytest.approx(48, rel=0.03)
    assert packed.num_strokes.mean() == pytest.approx(6, rel=0.03)
    assert num_points.max() > 300
    assert packed.num_strokes.max() > 40


@pytest.mark.parametrize("num_sketches", [1, 2, 7, 100])
def test_every_batch_is_one_that_the_preparation_takes(num_sketches: int) -> None:
    packed = draw_batch(num_sketches, 3)
    assert len(packed) == num_sketches
    assert len(packed.stroke_lengths) == packed.num_strokes.sum()
    assert packed.num_points == packed.stroke_lengths.sum()
    assert packed.num_strokes.min() >= 1
    assert packed.stroke_lengths.min() >= 2
    sketches = Preparation(scale=1.0, seed=0)(packed, torch.device("cpu"))
    assert len(sketches) == num_sketches
    # Coordinates are absolute, so this checks that all strokes are on the canvas.
    assert float(sketches.points.min()) >= 0
    assert float(sketches.points.max()) <= 255


def test_a_batch_is_a_function_of_its_size_and_seed() -> None:
    for field in dataclasses.fields(PackedBatch):
        one, again, other = (getattr(draw_batch(20, seed), field.name) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert field.name in ("category", "epoch") or not np.array_equal(one, other)


def test_a_long_sketch_has_strokes_of_ordinary_lengths_and_stands_behind_the_batch() -> None:
    batch = draw_batch(10, 0)
    longer = concatenate([batch, draw_long_sketch(1000, 0)])
    assert len(longer) == 11
    assert points_of_sketches(longer).tolist() == [*points_of_sketches(batch), 1000]
    assert 5 < 1000 / longer.num_strokes[-1] < 12
    assert longer.stroke_lengths[-longer.num_strokes[-1] :].max() < 100
    np.testing.assert_array_equal(longer.offsets[: batch.num_points], batch.offsets)
