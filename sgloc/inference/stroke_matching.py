"""A sketch's own strokes moved to where a redrawing of it has them.

The decoder draws strokes in the order in which they were drawn, though it may leave some out or add some. So strokes
are matched in order, by shape, and each matched one is moved rigidly onto its match; METHOD 3's first stroke stays.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sgloc.sketch.simplify import points_along

Float64Array = npt.NDArray[np.float64]
Strokes = Sequence[npt.NDArray[np.floating]]

# Points by which shapes are compared.
_NUM_SAMPLES = 16
# What it costs, in sketch sizes, to move a matched stroke by one sketch size, and to leave a stroke without a match.
_MOVE_COST = 0.5
_UNMATCHED_COST = 0.15


def resampled(stroke: npt.NDArray[np.floating], count: int = _NUM_SAMPLES) -> Float64Array:
    """Points [count, 2] at equal distances along a stroke [n, 2]."""
    return points_along(stroke, lambda length: np.linspace(0, length, count))


def placing_moves(strokes: Strokes, redrawn: Strokes) -> Float64Array:
    """How far each stroke is to be moved, [S, 2] in the strokes' units; 0 for the first and for one without a match.

    Args:
        strokes: [n, 2] arrays of absolute (x, y), in the order drawn; at least one.
        redrawn: likewise; may be none.
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
    """The pairs of the cheapest matching of rows and columns of [S, R] that keeps both orders."""
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
    """The strokes where they belong, each [n, 2], moved by `placing_moves`."""
    return [stroke + move for stroke, move in zip(strokes, placing_moves(strokes, redrawn), strict=True)]
