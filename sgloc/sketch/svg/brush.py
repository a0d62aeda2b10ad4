"""Centre lines of brush strokes: long thin fills, as drawn by pressure-sensitive pens.

The outline of such a fill runs along one side of the stroke and back along the other. Starting somewhere in the middle,
two points walk outwards in step, one on each side, until they meet at the tip; likewise towards the other end. The
centre line lies half way between them. Strokes that cross themselves work too, because the walk follows the outline and
not the area. For a ring, the points walk all the way round its two outlines.
"""

import math

import numpy as np
import numpy.typing as npt

from sgloc.sketch.simplify import points_along, ramer_douglas_peucker

Polyline = npt.NDArray[np.float64]

# Smallest ratio of a centre line's length to the stroke's width, for strokes and for rings; the width is the 95 %
# quantile.
_SLENDER, _SLENDER_RING = 4.0, 10.0
# The same ratio estimated from area and perimeter; a rectangle of sides 1 and 4 has 6.25, a square 4, a disc 3.1.
_MAYBE_SLENDER = 5.5
# Tolerance for simplifying a centre line, in mean stroke widths.
_SMOOTH = 0.05
# Largest gap of an outline that counts as closed, as a share of its larger side.
_CLOSED = 1e-3
# Outlines of one shape; pens produce fewer.
_MOST_OUTLINES = 500
_FEWEST_PLACES, _MOST_PLACES, _RING_PLACES = 48, 6000, 256
# Number of starting points tried for a walk; and the sine of the smallest angle between an edge and the line across.
_TRIES, _SINE = 8, 0.7


def centre_lines(outlines: list[Polyline]) -> list[Polyline] | None:
    """Find the centre lines of a filled shape, if it is long and thin.

    Args:
        outlines: the polygons of the shape, [n, 2] each; an open one, whose last point differs from its first, was not
            drawn by a pen.

    Returns:
        One line [m, 2] per outline, or one for a ring of two; None if any part of the shape is not long and thin.
    """
    outlines = [outline for outline in outlines if np.ptp(outline, axis=0).any()]
    if any(np.abs(outline[0] - outline[-1]).max() > _CLOSED * np.ptp(outline, axis=0).max() for outline in outlines):
        return None
    if len(outlines) == 2:
        ring = _ring_line(*sorted(outlines, key=lambda outline: -abs(signed_area(outline))))
        if ring is not None:
            return [ring]
    if len(outlines) > _MOST_OUTLINES or _has_hole(outlines):
        return None
    lines = []
    for outline in outlines:
        line = _pen_line(outline)
        if line is None:
            return None
        lines.append(line)
    return lines or None


def signed_area(polygon: Polyline) -> float:
    """Compute the area of a polygon, counting parts enclosed twice twice; negative if anticlockwise, y downwards."""
    x, y = (polygon - polygon[0]).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _has_hole(outlines: list[Polyline]) -> bool:
    """Return whether an outline may lie inside another, so that the area between them is no stroke of one outline."""
    boxes = np.array([(*outline.min(0), *outline.max(0)) for outline in outlines]).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, 2:]
    is_inside = (low[:, None] >= low).all(2) & (high[:, None] <= high).all(2)
    return bool(is_inside.sum() > len(boxes))


def _resampled(polygon: Polyline, count: int) -> Polyline:
    """Place `count` points at equal distances along a closed polygon."""
    closed = np.concatenate([polygon, polygon[:1]])
    return points_along(closed, lambda length: np.arange(count) / count * length)


def _pen_line(outline: Polyline) -> Polyline | None:
    """Find the centre line of one outline; return None if it is not long and thin."""
    perimeter = float(np.hypot(*np.diff(outline, axis=0, append=outline[:1]).T).sum())
    area = abs(signed_area(outline))
    if area == 0 or perimeter**2 / (4 * area) < _MAYBE_SLENDER:
        return None
    count = int(np.clip(4 * perimeter**2 / (4 * area), _FEWEST_PLACES, _MOST_PLACES))
    points = _resampled(outline, count)
    around = np.arange(count)
    walks = []
    for left, right in _opposite_points(points, signed_area(outline) > 0):
        # Towards the end ahead of the left point, and towards the one behind it.
        ahead = _walk(points[(left + around) % count], points[(right - around) % count], (right - left) % count - 1)
        behind = _walk(points[(left - around) % count], points[(right + around) % count], (left - right) % count - 1)
        one, other = (np.concatenate([back[:0:-1], on]) for back, on in zip(behind, ahead, strict=True))
        walks.append((one, other))
    if not walks:
        return None
    # A walk that goes wrong pairs points of different limbs, which are farther apart.
    one, other = min(walks, key=lambda sides: float(((sides[0] - sides[1]) ** 2).sum(1).mean()))
    line = _line_between(one, other, area)
    if line is None:
        return None
    # Pens start an outline where the stroke starts.
    near, far = (math.dist(line[end], outline[0]) for end in (0, -1))
    return line if near <= far else line[::-1]


def _opposite_points(points: Polyline, is_clockwise: bool) -> list[tuple[int, int]]:
    """Find some pairs of opposite points on the two sides of a stroke.

    The opposite of a point is the nearest one across the inside whose edge runs in the other direction.

    Args:
        points: points of the outline at equal distances.
        is_clockwise: whether the inside is to the right when following the points, y downwards.
    """
    along = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    along /= np.maximum(np.hypot(*along.T), 1e-300)[:, None]
    starts = (np.arange(_TRIES) * 2 + 1) * len(points) // (2 * _TRIES)
    across = points - points[starts][:, None]
    distances = np.hypot(*across.transpose(2, 0, 1))
    x, y = along[starts][:, None].transpose(2, 0, 1)
    inwards = (x * across[..., 1] - y * across[..., 0]) * (1 if is_clockwise else -1)
    runs_back = along[starts] @ along.T < -_SINE
    distances[~(runs_back & (inwards > _SINE * distances))] = np.inf
    nearest = distances.argmin(1)
    found = np.isfinite(distances[np.arange(_TRIES), nearest])
    return [(int(start), int(other)) for start, other in zip(starts[found], nearest[found], strict=True)]


def _walk(one: Polyline, other: Polyline, num_steps: int) -> tuple[Polyline, Polyline]:
    """Walk along two lines in step; each step advances on the line that keeps the two points closer.

    Args:
        one: points at equal distances; the first is opposite the first of `other`.
        other: the points of the other line, likewise.
        num_steps: total number of steps on both lines.

    Returns:
        Opposite points of the two lines, [num_steps + 1, 2] each.
    """
    # The distance of complex numbers is computed several times as fast as that of pairs.
    ones, others = ((side[:, 0] + 1j * side[:, 1]).tolist() for side in (one, other))
    last_one, last_other = len(ones) - 1, len(others) - 1
    here, there = 0, 0
    places = [(here, there)]
    for _ in range(num_steps):
        if there == last_other or (
            here < last_one and abs(ones[here + 1] - others[there]) <= abs(ones[here] - others[there + 1])
        ):
            here += 1
        else:
            there += 1
        places.append((here, there))
    first, second = np.array(places).T
    return one[first], other[second]


def _line_between(one: Polyline, other: Polyline, area: float, slender: float = _SLENDER) -> Polyline | None:
    """Return the centre line between opposite points, or None if the stroke is not slender or its area is wrong."""
    middles, widths = (one + other) / 2, np.hypot(*(one - other).T)
    steps = np.hypot(*np.diff(middles, axis=0).T)
    length = float(steps.sum())
    covered = float((steps * (widths[1:] + widths[:-1]) / 2).sum())
    is_slender = length > 0 and length >= slender * float(np.quantile(widths, 0.95))
    if not (is_slender and 0.6 * covered < area < 1.4 * covered):
        return None
    return ramer_douglas_peucker(middles, _SMOOTH * covered / length)


def _ring_line(outer: Polyline, inner: Polyline) -> Polyline | None:
    """Return the closed centre line between two outlines, or None if they do not form a thin ring."""
    area, hole = abs(signed_area(outer)), abs(signed_area(inner))
    low, high = outer.min(0), outer.max(0)
    if hole == 0 or not ((inner >= low).all() and (inner <= high).all()):
        return None
    if (signed_area(outer) > 0) != (signed_area(inner) > 0):
        inner = inner[::-1]
    outside, inside = _resampled(outer, _RING_PLACES), _resampled(inner, _RING_PLACES)
    start = int(np.hypot(*(inside - outside[0]).T).argmin())
    around = np.arange(_RING_PLACES + 1)
    sides = outside[around % _RING_PLACES], inside[(start + around) % _RING_PLACES]
    return _line_between(*_walk(*sides, 2 * _RING_PLACES), area - hole, _SLENDER_RING)
