"""Batched conversion to stroke-3 rows, and helpers shared by the drawing formats (METHOD 1)."""

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

# Bound the size of raw drawings, because simplifying may take time quadratic in the length. The longest of 32,430 real
# drawings is 36,000 pixels long.
RAW_POINTS_PER_POINT = 20
# Points converted together: enough that array operations cost less per point than the surrounding Python code, but not
# more, because keeping any one drawing keeps the whole array in memory.
_MOST_POINTS = 2**13


class Strokes(NamedTuple):
    """The strokes of a drawing with coordinates in 0..255.

    Attributes:
        xs: x coordinates of all points, stroke after stroke, one byte each.
        ys: y coordinates, likewise.
        lengths: number of points in each stroke.
    """

    xs: bytes
    ys: bytes
    lengths: list[int]


class ByteDrawing(NamedTuple):
    """A drawing with coordinates in 0..255, not yet converted to rows; see `Drawing`."""

    category: str
    key_id: int
    recognized: bool
    strokes: Strokes


Outcome = tuple[str, Drawing | ByteDrawing | UnfitError]
"""A place in a file, as in `Reject`, with the drawing found there or the reason for rejecting it."""


def finished(location: str, outcomes: Iterable[Outcome]) -> Iterator[Drawing | Reject]:
    """Convert a file's outcomes to drawings and rejects.

    The rows of many drawings are computed together, because creating small arrays would dominate the cost per drawing.
    The arrays of these drawings share memory.
    """
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
    """Derive a key_id for a drawing without one from bytes that identify it uniquely."""
    return int.from_bytes(hashlib.blake2b(text).digest()[:8], "big")


def simplified(strokes: list[npt.NDArray[np.float64]], max_points: int) -> Strokes:
    """Simplify a raw drawing by QuickDraw's recipe, after checking that its coordinates are finite and its length sane.

    Args:
        strokes: one array per stroke, float64 [n, 2], absolute (x, y) in any unit.
        max_points: maximum number of points after simplification.

    Raises:
        UnfitError: if the drawing has too many points or a non-finite coordinate.
    """
    most, num_points = RAW_POINTS_PER_POINT * max_points, sum(map(len, strokes))
    if num_points > most:
        raise UnfitError("too_many_points", f"{num_points} points before simplification; the limit is {most}")
    try:
        aligned = align(strokes)
    except DataError as error:
        raise UnfitError("not_finite", str(error)) from None
    resampled = sum(float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in aligned) / SPACING
    if resampled > most:
        raise UnfitError("too_many_points", f"{resampled:.0f} points after resampling; the limit is {most}")
    polylines = simplify(strokes)
    points = np.concatenate(polylines)
    if len(points) > max_points:
        raise UnfitError("too_many_points", f"{len(points)} points; the limit is {max_points}")
    # QuickDraw's recipe scales coordinates to 0..255, so that each fits in a byte.
    as_bytes = points.astype(np.uint8)
    return Strokes(as_bytes[:, 0].tobytes(), as_bytes[:, 1].tobytes(), [len(line) for line in polylines])
