"""Brush strokes: long thin fills, as pressure-sensitive pens leave them, and the lines along their middles.

A pen that draws a filled outline goes along one side of the stroke and back along the other. From a place in the middle
two points walk outwards, one on each side, in step with each other, until they meet at the tip; and likewise to the
other end. Half way between the two lies the centre line. So strokes that cross themselves are followed, since it is the
outline that is walked and not the area. Of a ring both outlines are walked, all the way round.
"""

import math

import numpy as np
import numpy.typing as npt

from sgloc.sketch.simplify import points_along, ramer_douglas_peucker

Polyline = npt.NDArray[np.float64]

# A centre line is at least so many times as long as its stroke is wide at its widest, but for the widest twentieth; and
# a ring so many times as long as it is wide.
_SLENDER, _SLENDER_RING = 4.0, 10.0
# The same, estimated from area and perimeter: a rectangle of sides 1 and 4 has 6.25, a square 4, a disc 3.1.
_MAYBE_SLENDER = 5.5
# How far a centre line may stray to have fewer points, in its mean widths.
_SMOOTH = 0.05
# The gap of an outline that counts as closed, as a share of its larger side.
_CLOSED = 1e-3
# Of one shape; no pen leaves more.
_MOST_OUTLINES = 500
_FEWEST_PLACES, _MOST_PLACES, _RING_PLACES = 48, 6000, 256
# From how many of them a walk is tried; and the sine of the least angle between an edge and the way across.
_TRIES, _SINE = 8, 0.7


def centre_lines(outlines: list[Polyline]) -> list[Polyline] | None:
    """The centre lines of a filled shape, if it is long and thin.

    Args:
        outlines: its polygons, [n, 2] each; an open one, whose last point is not its first, was not drawn by a pen.

    Returns:
        One line [m, 2] for each outline, or one for a ring of two; None where any part of the shape is not thin.
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
    """The area that a polygon goes round, what it goes round twice counted twice; negative if anticlockwise."""
    x, y = (polygon - polygon[0]).T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _has_hole(outlines: list[Polyline]) -> bool:
    """Whether an outline may lie inside another: what is between them is then no stroke of one outline."""
    boxes = np.array([(*outline.min(0), *outline.max(0)) for outline in outlines]).reshape(-1, 4)
    low, high = boxes[:, :2], boxes[:, 2:]
    is_inside = (low[:, None] >= low).all(2) & (high[:, None] <= high).all(2)
    return bool(is_inside.sum() > len(boxes))


def _resampled(polygon: Polyline, count: int) -> Polyline:
    """A number of points at equal distances along a closed polygon."""
    closed = np.concatenate([polygon, polygon[:1]])
    return points_along(closed, lambda length: np.arange(count) / count * length)


def _pen_line(outline: Polyline) -> Polyline | None:
    """The centre line of one outline; None where it is not long and thin."""
    perimeter = float(np.hypot(*np.diff(outline, axis=0, append=outline[:1]).T).sum())
    area = abs(signed_area(outline))
    if area == 0 or perimeter**2 / (4 * area) < _MAYBE_SLENDER:
        return None
    count = int(np.clip(4 * perimeter**2 / (4 * area), _FEWEST_PLACES, _MOST_PLACES))
    points = _resampled(outline, count)
    around = np.arange(count)
    walks = []
    for left, right in _opposite_points(points, signed_area(outline) > 0):
        # To the end that lies ahead of the left point, and to the one behind it.
        ahead = _walk(points[(left + around) % count], points[(right - around) % count], (right - left) % count - 1)
        behind = _walk(points[(left - around) % count], points[(right + around) % count], (left - right) % count - 1)
        one, other = (np.concatenate([back[:0:-1], on]) for back, on in zip(behind, ahead, strict=True))
        walks.append((one, other))
    if not walks:
        return None
    # A walk that lost its way takes places of different limbs for opposite.
    one, other = min(walks, key=lambda sides: float(((sides[0] - sides[1]) ** 2).sum(1).mean()))
    line = _line_between(one, other, area)
    if line is None:
        return None
    # Pens begin an outline where the stroke begins.
    near, far = (math.dist(line[end], outline[0]) for end in (0, -1))
    return line if near <= far else line[::-1]


def _opposite_points(points: Polyline, is_clockwise: bool) -> list[tuple[int, int]]:
    """Some pairs of points on both sides of a stroke, each the nearest across its inside with an edge that runs back.

    Args:
        points: of the outline, at equal distances.
        is_clockwise: whether the inside is on the right of who follows them, y downwards.
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
    """Opposite points of two lines, [num_steps + 1, 2] each, by steps along the one or the other, as they stay near.

    Args:
        one: points at equal distances, the first opposite the other's first.
        other: the same.
        num_steps: along both.
    """
    ones, others = one.tolist(), other.tolist()
    here, there = 0, 0
    places = [(here, there)]
    for _ in range(num_steps):
        is_other_done, is_one_done = there + 1 == len(others), here + 1 == len(ones)
        if is_other_done or (
            not is_one_done and math.dist(ones[here + 1], others[there]) <= math.dist(ones[here], others[there + 1])
        ):
            here += 1
        else:
            there += 1
        places.append((here, there))
    first, second = np.array(places).T
    return one[first], other[second]


def _line_between(one: Polyline, other: Polyline, area: float, slender: float = _SLENDER) -> Polyline | None:
    """The centre line between opposite points, if the stroke is slender and fills the area that it should."""
    middles, widths = (one + other) / 2, np.hypot(*(one - other).T)
    steps = np.hypot(*np.diff(middles, axis=0).T)
    length = float(steps.sum())
    covered = float((steps * (widths[1:] + widths[:-1]) / 2).sum())
    is_slender = length > 0 and length >= slender * float(np.quantile(widths, 0.95))
    if not (is_slender and 0.6 * covered < area < 1.4 * covered):
        return None
    return ramer_douglas_peucker(middles, _SMOOTH * covered / length)


def _ring_line(outer: Polyline, inner: Polyline) -> Polyline | None:
    """The closed centre line between two outlines, if they are a thin ring."""
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
