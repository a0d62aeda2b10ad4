"""Each transform of a ragged batch, checked sketch by sketch against the oracle (METHOD 1, 2, 3 and 8).

The random numbers of a key are recovered with probes: batches of the same shape whose results reveal them.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch import transform
from tests.drawings import Strokes, sketches_with_offsets, stroke3_of
from tests.oracle import layout

FloatArray = npt.NDArray[np.float64]

keys = st.integers(-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class Ragged:
    """A batch of sketches given as offsets."""

    sketches: list[Strokes]
    first_key: int = 0

    @property
    def lengths(self) -> Tensor:
        return torch.tensor([len(stroke) for strokes in self.sketches for stroke in strokes])

    @property
    def stroke_offsets(self) -> Tensor:
        return offsets_from_lengths(torch.tensor([len(strokes) for strokes in self.sketches]))

    @property
    def point_offsets(self) -> Tensor:
        return offsets_from_lengths(self.lengths)[self.stroke_offsets]

    @property
    def key(self) -> Tensor:
        return torch.tensor(self.first_key) + torch.arange(len(self.sketches))

    @property
    def rows(self) -> list[FloatArray]:
        """Stroke-3 rows of each sketch, float64 [N, 3], normalised by a scale of 7."""
        return [layout.normalise(stroke3_of(strokes), 7.0) for strokes in self.sketches]

    @property
    def points(self) -> Tensor:
        """Absolute points, float64 [P, 2]."""
        return torch.from_numpy(np.concatenate([layout.absolute(rows) for rows in self.rows]))

    def split_points(self, points: Tensor) -> list[FloatArray]:
        return [part.numpy() for part in points.split(self.point_offsets.diff().tolist())]


batches = st.builds(Ragged, sketches_with_offsets(300), keys)
even = Ragged([[[(1, 1)] * 12] * 3] * 3000)  # 36 points a sketch


def factors_of(batch: Ragged, amount: float) -> FloatArray:
    """Return the factors of `random_scale`, float64 [B, 2]."""
    ones = torch.ones(int(batch.point_offsets[-1]), 2, dtype=torch.float64)
    scaled = transform.random_scale(ones, batch.point_offsets, batch.key, amount)
    return scaled[batch.point_offsets[:-1]].numpy()


def dropped_by(batch: Ragged, probability: float) -> list[list[bool]]:
    """Return which points of each sketch `drop_points` drops."""
    place = torch.arange(int(batch.point_offsets[-1]), dtype=torch.float64)
    probe = torch.stack([place, place], dim=1)
    kept, _ = transform.drop_points(probe, batch.lengths, batch.stroke_offsets, batch.key, probability)
    # A kept point has the coordinates of the last dropped point after it.
    first_of_run = torch.cat([torch.zeros(1), kept[:-1, 0] + 1]).long()
    dropped = torch.ones(len(place), dtype=torch.bool)
    dropped[first_of_run] = False
    return [part.tolist() for part in dropped.split(batch.point_offsets.diff().tolist())]


def noise_of(batch: Ragged) -> list[FloatArray]:
    """Return e of METHOD 3 for the strokes of each sketch, float64 [strokes, 2]."""
    # All points at (1, 0): together with the origin, the larger side of the box is 1.
    probe = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(int(batch.point_offsets[-1]), 1)
    moved = transform.disturb(probe, batch.lengths, batch.stroke_offsets, batch.key, 1.0) - probe
    first_points = moved[offsets_from_lengths(batch.lengths)[:-1]]
    return [part.numpy() for part in first_points.split(batch.stroke_offsets.diff().tolist())]


def most_correlation(table: FloatArray) -> float:
    """Return the largest absolute correlation between two different columns."""
    return float(np.abs(np.triu(np.corrcoef(table.T), 1)).max())


@given(sketches_with_offsets(2500), st.floats(0.5, 200))
def test_absolute_coordinates(sketches: list[Strokes], scale: float) -> None:
    batch = Ragged(sketches)
    stroke3s = [stroke3_of(strokes) for strokes in sketches]
    offsets = torch.from_numpy(np.concatenate(stroke3s)[:, :2])
    found = transform.absolute_coordinates(offsets, batch.point_offsets, scale)
    assert found.dtype == torch.float32
    expected = np.concatenate([layout.absolute(layout.normalise(stroke3, scale)) for stroke3 in stroke3s])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9 * 1000 * len(expected) / scale)


def test_absolute_coordinates_are_exact_at_the_end_of_a_long_batch() -> None:
    offsets = torch.tensor([[1000, -1000]] * 300_000 + [[3, 4]], dtype=torch.int16)
    found = transform.absolute_coordinates(offsets, torch.tensor([0, 300_000, 300_001]), 8.0)
    assert found[-2:].tolist() == [[300_000 * 125.0, -300_000 * 125.0], [0.375, 0.5]]


@given(batches, st.floats(0.01, 0.99))
def test_random_scale_scales_each_sketch_by_two_factors(batch: Ragged, amount: float) -> None:
    found = transform.random_scale(batch.points, batch.point_offsets, batch.key, amount)
    factors = factors_of(batch, amount)
    assert (np.abs(factors - 1) <= amount + 1e-6).all()
    parts = batch.split_points(found)
    for part, rows, (factor_x, factor_y) in zip(parts, batch.rows, factors, strict=True):
        expected = layout.absolute(layout.augment(rows, (factor_x, factor_y), [False] * len(rows)))
        np.testing.assert_allclose(part, expected, rtol=1e-9, atol=1e-9)


def test_scale_factors_are_uniform_and_independent() -> None:
    factors = factors_of(even, 0.1)
    number = len(factors)
    for axis in factors.T:
        assert axis.min() == pytest.approx(0.9, abs=0.001)
        assert axis.max() == pytest.approx(1.1, abs=0.001)
        assert axis.mean() == pytest.approx(1, abs=4 * 0.2 / math.sqrt(12 * number))
        assert axis.std() == pytest.approx(0.2 / math.sqrt(12), rel=0.05)
    assert most_correlation(factors) < 4 / math.sqrt(number)


@given(batches, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_drop_points_gives_the_offsets_of_the_dropped_to_the_kept(batch: Ragged, probability: float) -> None:
    found, lengths = transform.drop_points(batch.points, batch.lengths, batch.stroke_offsets, batch.key, probability)
    points, stroke_lengths = [], []
    for rows, dropped in zip(batch.rows, dropped_by(batch, probability), strict=True):
        if probability in (0.0, 1.0):
            # Probability 1 drops every point that may be dropped, probability 0 none.
            assert dropped == [answer and probability == 1 for answer in layout.may_drop(rows)]
        kept = layout.augment(rows, (1.0, 1.0), dropped)  # which raises if a point is dropped that may not be
        points.append(layout.absolute(kept))
        stroke_lengths += np.diff(np.flatnonzero(kept[:, 2]), prepend=-1).tolist()
    np.testing.assert_allclose(found, np.concatenate(points), rtol=1e-9, atol=1e-9)
    assert lengths.tolist() == stroke_lengths


def test_inner_points_are_dropped_independently_with_the_probability() -> None:
    dropped = np.array(dropped_by(even, 0.1)).reshape(-1, 12)
    # Never a stroke's first three points or its last.
    assert not dropped[:, [0, 1, 2, 11]].any()
    inner = dropped[:, 3:11].astype(np.float64)
    assert inner.mean() == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / inner.size))
    assert np.abs(inner.mean(0) - 0.1).max() < 5 * math.sqrt(0.09 / len(inner))
    assert most_correlation(inner.reshape(3000, 24)) < 5 / math.sqrt(3000)


@given(batches, st.sampled_from([0.1, 0.3, 2.0]))
def test_disturb_moves_strokes_by_the_size_of_their_sketch(batch: Ragged, scale: float) -> None:
    found = batch.split_points(transform.disturb(batch.points, batch.lengths, batch.stroke_offsets, batch.key, scale))
    clean = batch.split_points(batch.points)
    for strokes, points, moved, noise in zip(batch.sketches, clean, found, noise_of(batch), strict=True):
        ends = np.cumsum([len(stroke) for stroke in strokes])[:-1]
        expected = layout.disturb(np.split(points, ends), noise, scale)
        np.testing.assert_allclose(moved, np.concatenate(expected), rtol=1e-9, atol=1e-9 * np.abs(points).max())
        # The first stroke stays; the others keep their shape and do move.
        np.testing.assert_array_equal(noise[0], [0, 0])
        assert (noise[1:] != 0).all()
        for before, after in zip(np.split(points, ends), np.split(moved, ends), strict=True):
            shape, shape_after = before - before[0], after - after[0]
            np.testing.assert_allclose(shape_after, shape, atol=1e-9 * (1 + np.abs(points).max()))


def test_disturbance_is_normal_and_independent() -> None:
    noise = np.array(noise_of(even))[:, 1:].reshape(3000, 4)
    assert noise.mean() == pytest.approx(0, abs=4 / math.sqrt(noise.size))
    assert noise.var() == pytest.approx(1, abs=4 * math.sqrt(2 / noise.size))
    assert (noise**4).mean() == pytest.approx(3, abs=4 * math.sqrt(96 / noise.size))
    assert most_correlation(noise) < 4 / math.sqrt(3000)


@given(batches, st.one_of(st.none(), st.integers(1, 10)))
def test_split_nodes(batch: Ragged, max_node_points: int | None) -> None:
    nodes, sketch_nodes = transform.split_nodes(batch.lengths, batch.stroke_offsets, max_node_points)
    of_sketches = [
        layout.split_nodes([len(stroke) for stroke in strokes], max_node_points) for strokes in batch.sketches
    ]
    assert nodes.dtype == sketch_nodes.dtype == torch.int64
    assert nodes.diff().tolist() == [length for lengths in of_sketches for length in lengths]
    assert sketch_nodes.diff().tolist() == [len(lengths) for lengths in of_sketches]
    assert (int(nodes[0]), int(sketch_nodes[0])) == (0, 0)
