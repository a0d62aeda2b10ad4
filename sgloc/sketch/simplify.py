"""QuickDraw's recipe for simplifying raw drawings (METHOD 1)."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sgloc.errors import DataError

FloatArray = npt.NDArray[np.floating]
Float64Array = npt.NDArray[np.float64]

CANVAS_SIDE = 255.0
SPACING = 1.0
EPSILON = 2.0


def simplify(strokes: Sequence[FloatArray]) -> list[npt.NDArray[np.int64]]:
    """Align, scale, resample and thin out a raw drawing as QuickDraw does (METHOD 1).

    Args:
        strokes: one float [n, 2] array of absolute (x, y) per stroke, n >= 1, in any unit.

    Returns:
        One int64 [m, 2] array per stroke, m >= 1, in pixels from 0 to 255. No stroke is dropped.

    Raises:
        DataError: if there is no stroke, a stroke has no point, or a coordinate is not finite.
    """
    return [
        np.rint(ramer_douglas_peucker(resample(stroke, SPACING), EPSILON)).astype(np.int64) for stroke in align(strokes)
    ]


def align(strokes: Sequence[FloatArray], side: float = CANVAS_SIDE) -> list[Float64Array]:
    """Move a drawing to the top left and scale it uniformly so that its larger side is `side`.

    A drawing that is a single point has no extent to scale; it moves to (0, 0).

    Args:
        strokes: one float [n, 2] array of absolute (x, y) per stroke, n >= 1, in any unit.
        side: length of the larger side of the drawing's bounding box, in the returned unit.

    Returns:
        One float64 [n, 2] array per stroke, with coordinates from 0 to `side`.

    Raises:
        DataError: if there is no stroke, a stroke has no point, or a coordinate is not finite.
    """
    if not strokes or any(len(stroke) == 0 for stroke in strokes):
        raise DataError("a drawing needs at least one stroke, and every stroke at least one point; drop empty strokes")
    points = np.concatenate(strokes, dtype=np.float64)
    top_left = points.min(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        extent = (points.max(axis=0) - top_left).max()
    if not np.isfinite(extent):
        raise DataError("a drawing has a coordinate, or a width or height, that is not finite; leave the drawing out")
    # Divide before multiplying, so that the scale of a very small drawing cannot overflow.
    aligned = (points - top_left) / (extent if extent > 0 else 1.0) * side
    return np.split(aligned, np.cumsum([len(stroke) for stroke in strokes])[:-1])


def resample(stroke: FloatArray, spacing: float = SPACING) -> Float64Array:
    """Place points along a stroke at equal distances, measured along the stroke.

    Args:
        stroke: float [n, 2] absolute (x, y), n >= 1.
        spacing: distance along the stroke from one point to the next, > 0, in the stroke's unit.

    Returns:
        float64 [m, 2]. The first and the last point are kept, so the last distance may be shorter. A dot drawn as
        several equal points becomes two points, as in QuickDraw's own files.
    """
    if (stroke == stroke[0]).all():
        return stroke[:2].astype(np.float64)
    return points_along(stroke, lambda length: np.append(np.arange(0.0, length, spacing), length))


def points_along(line: FloatArray, places_for: Callable[[float], Float64Array]) -> Float64Array:
    """Interpolate points along a line.

    Args:
        line: float [m, 2] absolute (x, y).
        places_for: maps the line's length to the positions of the wanted points along it, [n].

    Returns:
        float64 [n, 2].
    """
    points = line.astype(np.float64)
    places = np.append(0.0, np.cumsum(np.hypot(*np.diff(points, axis=0).T)))
    # Interpolation needs increasing positions; a pausing pen repeats them.
    moved = np.append(True, np.diff(places) > 0)
    wanted = places_for(float(places[-1]))
    return np.stack([np.interp(wanted, places[moved], column) for column in points[moved].T], axis=1)


def ramer_douglas_peucker(stroke: FloatArray, epsilon: float = EPSILON) -> Float64Array:
    """Drop the points that change a stroke by at most `epsilon` (Ramer-Douglas-Peucker).

    Distances are the classic ones, to the infinite line through the two ends of a run, or to the ends themselves where
    they coincide. QuickDraw's files were made this way: they lack turning points beyond the ends of their neighbours'
    segment.

    Args:
        stroke: float [n, 2] absolute (x, y), n >= 1.
        epsilon: largest distance at which a point is dropped, in the stroke's unit.

    Returns:
        float64 [m, 2], a subset of the rows of `stroke` in order, including the first and the last.
    """
    points = stroke.astype(np.float64)
    kept = np.zeros(len(points), dtype=np.bool_)
    kept[[0, -1]] = True
    # A stack instead of recursion, whose depth can reach the number of points.
    runs = [(0, len(points) - 1)]
    while runs:
        first, last = runs.pop()
        if last - first < 2:
            continue
        distances = _distances_to_line(points[first + 1 : last], points[first], points[last])
        farthest = int(distances.argmax())
        if distances[farthest] > epsilon:
            middle = first + 1 + farthest
            kept[middle] = True
            runs += [(first, middle), (middle, last)]
    return points[kept]


def _distances_to_line(points: Float64Array, start: Float64Array, end: Float64Array) -> Float64Array:
    """Compute the distances, float64 [n], of points [n, 2] from the line through `start` and `end` [2].

    If the two are equal, the distances are from that point.
    """
    along_x, along_y = (end - start).tolist()
    length = float(np.hypot(along_x, along_y))
    x, y = (points - start).T
    distances: Float64Array = np.hypot(x, y) if length == 0 else np.abs(x * (along_y / length) - y * (along_x / length))
    return distances
