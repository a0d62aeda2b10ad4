"""Matching a sketch's own strokes with those of its redrawing, and moving them there.

The decoder redraws strokes in their original order, but may omit or add some. Strokes are therefore matched in order,
by shape and position; each matched stroke is moved rigidly onto its match. The first stroke stays (METHOD 3).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sgloc.sketch.simplify import points_along

Float64Array = npt.NDArray[np.float64]
Strokes = Sequence[npt.NDArray[np.floating]]

# Number of points at which two shapes are compared.
_NUM_SAMPLES = 16
# Costs, in sketch sizes, of moving a matched stroke by one sketch size and of leaving a stroke unmatched.
_MOVE_COST = 0.5
_UNMATCHED_COST = 0.15


def resampled(stroke: npt.NDArray[np.floating], count: int = _NUM_SAMPLES) -> Float64Array:
    """Return points [count, 2] at equal distances along a stroke [n, 2]."""
    return points_along(stroke, lambda length: np.linspace(0, length, count))


def placing_moves(strokes: Strokes, redrawn: Strokes) -> Float64Array:
    """Compute the displacement of each stroke, [S, 2] in the strokes' units; 0 for the first and for unmatched ones.

    Args:
        strokes: [n, 2] arrays of absolute (x, y), in drawing order; at least one.
        redrawn: the strokes of the redrawing, in the same form; may be empty.
    """
    moves = np.zeros((len(strokes), 2))
    if not redrawn or len(strokes) == 1:
        return moves
    own, other = (np.stack([resampled(stroke) for stroke in many]) for many in (strokes, redrawn))
    wanted = other.mean(1)[None] - own.mean(1)[:, None]  # [S, R, 2]
    size = max(float(np.ptp(np.concatenate(strokes), axis=0).max()), np.finfo(np.float64).tiny)
    difference = (other - other.mean(1, keepdims=True))[None] - (own - own.mean(1, keepdims=True))[:, None]
    shape_cost = np.sqrt(np.square(difference).sum(3).mean(2)) / size
    cost = shape_cost + _MOVE_COST * np.hypot(wanted[..., 0], wanted[..., 1]) / size
    for i, j in _match(cost):
        moves[i] = wanted[i, j]
    moves[0] = 0
    return moves


def _match(cost: Float64Array) -> list[tuple[int, int]]:
    """Return the pairs of the cheapest order-preserving matching between rows and columns of [S, R]."""
    num_rows, num_columns = cost.shape
    total = np.zeros((num_rows + 1, num_columns + 1))
    total[:, 0] = _UNMATCHED_COST * np.arange(num_rows + 1)
    total[0] = _UNMATCHED_COST * np.arange(num_columns + 1)
    for i in range(1, num_rows + 1):
        for j in range(1, num_columns + 1):
            unmatched = min(total[i - 1, j], total[i, j - 1]) + _UNMATCHED_COST
            total[i, j] = min(total[i - 1, j - 1] + cost[i - 1, j - 1], unmatched)
    pairs = []
    i, j = num_rows, num_columns
    while i and j:
        if total[i, j] == total[i - 1, j - 1] + cost[i - 1, j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif total[i, j] == total[i - 1, j] + _UNMATCHED_COST:
            i -= 1
        else:
            j -= 1
    return pairs


def placed(strokes: Strokes, redrawn: Strokes) -> list[Float64Array]:
    """Return the strokes, each [n, 2], moved by `placing_moves`."""
    return [stroke + move for stroke, move in zip(strokes, placing_moves(strokes, redrawn), strict=True)]
