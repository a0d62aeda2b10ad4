"""Stroke-3 rows of many drawings at once, and what forms of drawings have in common (METHOD 1)."""

import hashlib
import itertools

import numpy as np
import numpy.typing as npt

from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.sketch.rejects import UnfitError
from sgloc.sketch.simplify import SPACING, align, simplify

# The longest of 32,430 real drawings is 36,000 pixels long; simplifying may take the square of the length.
RAW_POINTS_PER_POINT = 20
Strokes = tuple[bytes, bytes, list[int]]
"""Each point's x and y, stroke after stroke, a byte each, and how many points each stroke has."""

# Where an array operation costs less for each point than Python does; what keeps one drawing keeps all of its array.
_MOST_POINTS = 2**13


class Pending:
    """Drawings in 0..255 whose rows are not made yet, and rejects among them, in the order of their file.

    The rows of many drawings are made together, because many small arrays are most of what a drawing would cost.

    Args:
        location: the file that they stand in.
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._clear()

    def _clear(self) -> None:
        self._outcomes: list[tuple[str, int, bool, int] | Reject] = []
        self._xs: list[bytes] = []
        self._ys: list[bytes] = []
        self._stroke_lengths: list[int] = []
        self._num_points = 0

    @property
    def is_full(self) -> bool:
        """Whether the drawings are enough to be finished together."""
        return self._num_points >= _MOST_POINTS or len(self._outcomes) >= _MOST_POINTS

    def add(
        self, category: str, key_id: int, recognized: bool, xs: bytes, ys: bytes, stroke_lengths: list[int]
    ) -> None:
        """Take a drawing; `xs` and `ys` hold each point's coordinates, stroke after stroke, a byte each."""
        self._outcomes.append((category, key_id, recognized, len(xs)))
        self._xs.append(xs)
        self._ys.append(ys)
        self._stroke_lengths += stroke_lengths
        self._num_points += len(xs)

    def reject(self, place: str, error: UnfitError) -> None:
        """Take a drawing that is not fit."""
        self._outcomes.append(Reject(self._location, place, error.reason, error.detail))

    def finish(self) -> list[Drawing | Reject]:
        """Hand out all that was taken since the last time; the arrays of the drawings share their memory."""
        points = np.frombuffer(b"".join(self._xs + self._ys), dtype=np.uint8).reshape(2, -1).T
        lengths = [len(xs) for xs in self._xs]
        starts = list(itertools.accumulate(lengths[:-1], initial=0)) if lengths else []
        rows = np.zeros((len(points), 3), dtype=np.int16)
        rows[:, :2] = points
        rows[1:, :2] -= points[:-1]
        rows[starts, :2] = points[starts]
        rows[np.cumsum(self._stroke_lengths, dtype=np.int64) - 1, 2] = 1
        finished: list[Drawing | Reject] = []
        start = 0
        for outcome in self._outcomes:
            if isinstance(outcome, Reject):
                finished.append(outcome)
            else:
                category, key_id, recognized, length = outcome
                finished.append(Drawing(category, key_id, recognized, rows[start : start + length]))
                start += length
        self._clear()
        return finished


def derived_key(text: bytes) -> int:
    """The key_id of a drawing that has none, from what tells it from all others."""
    return int.from_bytes(hashlib.blake2b(text).digest()[:8], "big")


def simplified(strokes: list[npt.NDArray[np.float64]], max_points: int) -> Strokes:
    """Simplify a raw drawing by QuickDraw's recipe, provided that it is neither odd nor unreasonably long.

    Args:
        strokes: float64 [n, 2] each, absolute (x, y) in any unit.
        max_points: the most points when simplified.

    Raises:
        UnfitError: if it has too many points, or a coordinate that is not finite.
    """
    most, num_points = RAW_POINTS_PER_POINT * max_points, sum(map(len, strokes))
    if num_points > most:
        raise UnfitError("too_many_points", f"{num_points} points, where {most} are simplified")
    try:
        aligned = align(strokes)
    except DataError as error:
        raise UnfitError("not_finite", str(error)) from None
    resampled = sum(float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in aligned) / SPACING
    if resampled > most:
        raise UnfitError("too_many_points", f"{resampled:.0f} points when resampled, where {most} are simplified")
    polylines = simplify(strokes)
    points = np.concatenate(polylines)
    if len(points) > max_points:
        raise UnfitError("too_many_points", f"{len(points)} points, where {max_points} are taken")
    # QuickDraw's recipe ends in 0..255, so that a byte holds each.
    as_bytes = points.astype(np.uint8)
    return as_bytes[:, 0].tobytes(), as_bytes[:, 1].tobytes(), [len(line) for line in polylines]
