"""Brush strokes: long thin fills, as pressure-sensitive pens leave them, and the lines along their middles.

A pen that draws a filled outline goes along one side of the stroke and back along the other. From a place in the middle
two points walk outwards, one on each side, in step with each other, until they meet at the tip; and likewise to the
other end. Half way between the two lies the centre line. So strokes that cross themselves are followed, since it is the
outline that is walked and not the area.
"""

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
_FEWEST_PLACES, _MOST_PLACES = 48, 6000
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
    best: tuple[float, Polyline, npt.NDArray[np.float64]] | None = None
    for pair in _opposite_points(points, signed_area(outline) > 0):
        left, right = (points[side] for side in _walk(points, *pair))
        widths = np.hypot(*(left - right).T)
        # A walk that lost its way takes places of different limbs for opposite.
        if best is None or float((widths**2).mean()) < best[0]:
            best = (float((widths**2).mean()), (left + right) / 2, widths)
    line = None if best is None else _checked(best[1], best[2], area)
    if line is None:
        return None
    # Pens begin an outline where the stroke begins.
    near, far = (float(np.hypot(*(line[end] - outline[0]))) for end in (0, -1))
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


def _walk(points: Polyline, left: int, right: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of opposite points from one end of a stroke to the other, found from a pair in its middle.

    Args:
        points: of the outline, at equal distances.
        left: index of a point.
        right: index of the one opposite.
    """
    count = len(points)
    xs, ys = points.T.tolist()
    right += (left - right) // count * count
    # Now left - count < right <= left: from right up to left lies one end, from left up to right + count the other.
    ends = []
    for first, second, step in ((left, right + count, 1), (left, right, -1)):
        pairs: list[tuple[int, int]] = []
        while abs(second - first) > 1:
            ahead, behind = (first + step) % count, (second - step) % count
            here, there = first % count, second % count
            one = (xs[ahead] - xs[there]) ** 2 + (ys[ahead] - ys[there]) ** 2
            other = (xs[here] - xs[behind]) ** 2 + (ys[here] - ys[behind]) ** 2
            first, second = (first + step, second) if one <= other else (first, second - step)
            pairs.append((first, second))
        ends.append(pairs)
    found = np.array(ends[1][::-1] + [(left, right)] + ends[0], dtype=np.int64) % count
    return found[:, 0], found[:, 1]


def _checked(
    middles: Polyline, widths: npt.NDArray[np.float64], area: float, slender: float = _SLENDER
) -> Polyline | None:
    """A centre line, if the stroke is slender everywhere and it fills the area that it should."""
    steps = np.hypot(*np.diff(middles, axis=0).T)
    length = float(steps.sum())
    if length == 0:
        return None
    covered = float((steps * (widths[1:] + widths[:-1]) / 2).sum())
    is_slender = length >= slender * float(np.quantile(widths, 0.95))
    if not (is_slender and 0.6 < area / covered < 1.4):
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
    count = 256
    outside, inside = _resampled(outer, count), _resampled(inner, count)
    start = int(np.hypot(*(inside - outside[0]).T).argmin())
    inside = np.roll(inside, -start, axis=0)
    one, other = 0, 0
    pairs = [(0, 0)]
    while one < count or other < count:
        gaps = [
            np.inf
            if first > count or second > count
            else float(np.hypot(*(outside[first % count] - inside[second % count])))
            for first, second in ((one + 1, other), (one, other + 1))
        ]
        one, other = (one + 1, other) if gaps[0] <= gaps[1] else (one, other + 1)
        pairs.append((one, other))
    left, right = np.array(pairs).T % count
    middles = (outside[left] + inside[right]) / 2
    return _checked(middles, np.hypot(*(outside[left] - inside[right]).T), area - hole, _SLENDER_RING)
