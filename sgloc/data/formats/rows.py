"""Stroke-3 rows of many drawings at once, and what forms of drawings have in common (METHOD 1)."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.sketch.rejects import UnfitError
from sgloc.sketch.simplify import SPACING, align, simplify

# The longest of 32,430 real drawings is 36,000 pixels long; simplifying may take the square of the length.
RAW_POINTS_PER_POINT = 20
# Where an array operation costs less for each point than Python does; what keeps one drawing keeps all of its array.
_MOST_POINTS = 2**13


class Strokes(NamedTuple):
    """The strokes of a drawing in 0..255.

    Attributes:
        xs: of each point, stroke after stroke, a byte each.
        ys: likewise.
        lengths: how many points each stroke has.
    """

    xs: bytes
    ys: bytes
    lengths: list[int]


class ByteDrawing(NamedTuple):
    """A drawing in 0..255 whose rows are not made yet; see `Drawing`."""

    category: str
    key_id: int
    recognized: bool
    strokes: Strokes


Outcome = tuple[str, Drawing | ByteDrawing | UnfitError]
"""A place in a file, as `Reject` has it, and the drawing that stands there or why it is not taken."""


def finished(location: str, outcomes: Iterable[Outcome]) -> Iterator[Drawing | Reject]:
    """Drawings and rejects of a file. The rows of many drawings are made together, because many small arrays are most
    of what a drawing would cost; the arrays of these drawings share their memory."""
    waiting: list[Drawing | ByteDrawing | Reject] = []
    num_points = 0
    for place, outcome in outcomes:
        if isinstance(outcome, UnfitError):
            waiting.append(Reject(location, place, outcome.reason, outcome.detail))
        else:
            waiting.append(outcome)
        num_points += len(outcome.strokes.xs) if isinstance(outcome, ByteDrawing) else 0
        if num_points >= _MOST_POINTS or len(waiting) >= _MOST_POINTS:
            yield from _with_rows(waiting)
            waiting, num_points = [], 0
    yield from _with_rows(waiting)


def _with_rows(waiting: list[Drawing | ByteDrawing | Reject]) -> Iterator[Drawing | Reject]:
    strokes = [outcome.strokes for outcome in waiting if isinstance(outcome, ByteDrawing)]
    coordinates = b"".join([one.xs for one in strokes] + [one.ys for one in strokes])
    points = np.frombuffer(coordinates, dtype=np.uint8).reshape(2, -1).T
    stops = np.cumsum([0, *(len(one.xs) for one in strokes)])
    rows = np.zeros((len(points), 3), dtype=np.int16)
    rows[:, :2] = points
    rows[1:, :2] -= points[:-1]
    rows[stops[:-1], :2] = points[stops[:-1]]
    rows[np.cumsum([length for one in strokes for length in one.lengths], dtype=np.int64) - 1, 2] = 1
    places = itertools.pairwise(stops.tolist())
    for outcome in waiting:
        if isinstance(outcome, ByteDrawing):
            yield Drawing(outcome.category, outcome.key_id, outcome.recognized, rows[slice(*next(places))])
        else:
            yield outcome


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
    return Strokes(as_bytes[:, 0].tobytes(), as_bytes[:, 1].tobytes(), [len(line) for line in polylines])
