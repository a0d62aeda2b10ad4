"""A ragged batch with the statistics of real drawings, for benchmarks without shards.

A batch of 100 sketches has 48 points and 6 strokes per sketch on average, and at most 163 and 29. These are the
averages of a batch from all 345 QuickDraw categories, and the maxima that one such batch in ten reaches. Larger batches
reach further into the tail.
"""

import numpy as np
import numpy.typing as npt

from sgloc.data.batch import PackedBatch

# Points of the longest sketch in a drawn batch of 100.
LONGEST_POINTS = 163
_CANVAS = 255
LEAST_STROKE = 2
_POINTS_IN_STROKE = 8

# Quantile functions: cumulative shares of the sketches, and the value at each share; interpolated linearly.
POINT_QUANTILES = (
    (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0),
    (4.0, 10.0, 17.0, 22.0, 31.0, 45.0, 60.0, 76.0, 89.0, 110.0, 132.0, float(LONGEST_POINTS), 230.0, 540.0),
)
STROKE_QUANTILES = (
    (0.0, 0.08, 0.16, 0.29, 0.41, 0.51, 0.6, 0.68, 0.76, 0.89, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0),
    (1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 11.5, 14.0, 18.0, 22.0, 29.0, 40.0, 74.0),
)
# Quantile function of a stroke's larger side, as a share of the canvas.
_SIDE_QUANTILES = ((0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0), (0.01, 0.06, 0.12, 0.25, 0.5, 0.85, 1.0))
# Correlation between a sketch's number of points and its number of strokes.
POINTS_FOLLOW_STROKES = 0.72
# Shape of the gamma distribution of the strokes' shares of a sketch's points. Below 1, because a few strokes often have
# most of the points.
STROKE_SHAPE = 0.75
# Standard deviation of the turning angle between consecutive segments of a stroke, in radians.
_TURN = 0.6

IntArray = npt.NDArray[np.int64]


def draw_batch(num_sketches: int, seed: int) -> PackedBatch:
    """Draw a batch, as a pure function of the arguments.

    Args:
        num_sketches: B, at least 1.
        seed: seed of the strokes' shapes and positions, and of the assignment of lengths to sketches.
    """
    generator = np.random.default_rng(seed)
    # Evenly spaced quantiles give the batch exactly these statistics, not merely in expectation.
    shares = (np.arange(num_sketches) + 0.5) / num_sketches
    strokes = np.rint(np.interp(shares, *STROKE_QUANTILES)).astype(np.int64)
    points = np.rint(np.interp(shares, *POINT_QUANTILES)).astype(np.int64)
    normal = generator.standard_normal((2, num_sketches))
    blended = POINTS_FOLLOW_STROKES * normal[0] + (1 - POINTS_FOLLOW_STROKES**2) ** 0.5 * normal[1]
    num_strokes = strokes[np.argsort(np.argsort(normal[0]))]
    num_points = np.maximum(points[np.argsort(np.argsort(blended))], LEAST_STROKE * num_strokes)
    return _pack(num_points, num_strokes, generator)


def draw_long_sketch(num_points: int, seed: int) -> PackedBatch:
    """Draw a batch of one sketch with `num_points` points, at least 8, in strokes of ordinary length."""
    num_strokes = np.array([num_points // _POINTS_IN_STROKE])
    return _pack(np.array([num_points]), num_strokes, np.random.default_rng(seed))


def _pack(num_points: IntArray, num_strokes: IntArray, generator: np.random.Generator) -> PackedBatch:
    """Draw sketches with the given numbers of points and strokes, int64 [B] each."""
    numbers = zip(num_points.tolist(), num_strokes.tolist(), strict=True)
    stroke_lengths = np.concatenate([_stroke_lengths(*number, generator) for number in numbers])
    positions = np.concatenate([_stroke(length, generator) for length in stroke_lengths.tolist()])
    offsets = np.diff(positions, axis=0, prepend=0)
    first_points = (np.cumsum(num_points) - num_points)[1:]
    offsets[first_points] = positions[first_points]
    num_sketches = len(num_points)
    return PackedBatch(
        offsets=offsets.astype(np.int16),
        stroke_lengths=stroke_lengths.astype(np.int32),
        num_strokes=num_strokes.astype(np.int32),
        category=np.zeros(num_sketches, dtype=np.int32),
        key_id=generator.integers(2**63, size=num_sketches).astype(np.uint64),
        epoch=np.zeros(num_sketches, dtype=np.int64),
    )


def _stroke_lengths(num_points: int, num_strokes: int, generator: np.random.Generator) -> IntArray:
    """Return each stroke's number of points: the minimum of two, plus a gamma-distributed share of the rest."""
    parts = np.cumsum(generator.standard_gamma(STROKE_SHAPE, num_strokes))
    ends = np.rint(parts / parts[-1] * (num_points - LEAST_STROKE * num_strokes)).astype(np.int64)
    lengths: IntArray = np.diff(ends, prepend=0) + LEAST_STROKE
    return lengths


def _stroke(length: int, generator: np.random.Generator) -> IntArray:
    """Return the absolute (x, y) of a winding stroke at a random place on the canvas, int64 [length, 2]."""
    heading = generator.uniform(0, 2 * np.pi) + np.cumsum(_TURN * generator.standard_normal(length - 1))
    segments = np.stack([np.cos(heading), np.sin(heading)], axis=1) * generator.standard_exponential((length - 1, 1))
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(segments, axis=0)])
    path -= path.min(0)
    path *= _CANVAS * np.interp(generator.uniform(), *_SIDE_QUANTILES) / path.max()
    corner: npt.NDArray[np.float64] = generator.uniform(0, _CANVAS - path.max(0))
    return np.rint(path + corner).astype(np.int64)
