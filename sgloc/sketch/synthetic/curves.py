"""The geometry that drawings are made of: exact curves, and frames that say where a part sits on another.

A drawing is planned in a unit of its own choosing, x to the right and y down. Angles are in degrees, clockwise as one
looks at the page: 0 is right, 90 is down, -90 is up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Curve = npt.NDArray[np.float64]
"""float64 [n, 2], the absolute (x, y) of what one movement of the pen draws, in the drawing's unit."""


@dataclass(frozen=True)
class Frame:
    """A box, and the ellipse inscribed in it, in which parts have their places.

    Attributes:
        x, y: the centre, in the drawing's unit.
        half_width, half_height: half the extent along the frame's own axes, in the drawing's unit.
        tilt: degrees by which the frame is turned about its centre.
    """

    x: float
    y: float
    half_width: float
    half_height: float
    tilt: float = 0.0

    def at(self, u: float, v: float) -> Point:
        """Return the point at u half widths and v half heights from the centre; the corners are at +-1."""
        cosine, sine = np.cos(np.radians(self.tilt)), np.sin(np.radians(self.tilt))
        along, across = u * self.half_width, v * self.half_height
        return float(self.x + cosine * along - sine * across), float(self.y + sine * along + cosine * across)

    def rim(self, angle: float, reach: float = 1.0) -> Point:
        """Return the point of the ellipse at an angle from the frame's own right, or `reach` times as far out."""
        return self.at(reach * float(np.cos(np.radians(angle))), reach * float(np.sin(np.radians(angle))))

    def inside(self, u: float, v: float, width: float, height: float) -> "Frame":
        """Return a frame centred at (u, v) of this one whose sides are `width` and `height` times this one's."""
        return Frame(*self.at(u, v), width * self.half_width, height * self.half_height, self.tilt)

    def dot(self, u: float, v: float, radius: float) -> "Frame":
        """Return an upright frame centred at (u, v) of this one, square, its half side in the drawing's unit."""
        return Frame(*self.at(u, v), radius, radius)

    def path(self, *places: Point) -> list[Point]:
        """Return the points at several (u, v)."""
        return [self.at(u, v) for u, v in places]


def smooth(points: Sequence[Point], num_between: int = 8) -> Curve:
    """Pass smoothly through points (a Catmull-Rom spline), `num_between` curve points from each to the next."""
    inner = np.array(points)
    padded = np.concatenate([2 * inner[:1] - inner[1:2], inner, 2 * inner[-1:] - inner[-2:-1]])
    before, start, end, after = (padded[offset : len(inner) - 1 + offset, None] for offset in range(4))
    t = np.linspace(0, 1, num_between, endpoint=False)[:, None]
    spline = start + 0.5 * t * (
        end - before + t * (2 * before - 5 * start + 4 * end - after + t * (3 * (start - end) + after - before))
    )
    return np.concatenate([spline.reshape(-1, 2), inner[-1:]])


def soften(curve: Curve, amount: float) -> Curve:
    """Cut each corner of a polyline at `amount` (0 to 0.5) of its two sides, and the corners this makes once more."""
    for _ in range(2):
        steps = np.diff(curve, axis=0)
        cuts = np.stack([curve[:-1] + amount * steps, curve[1:] - amount * steps], axis=1).reshape(-1, 2)
        curve = np.concatenate([curve[:1], cuts[1:-1], curve[-1:]])
    return curve


def ellipse(frame: Frame, angles: npt.NDArray[np.float64], reach: npt.NDArray[np.float64] | float = 1.0) -> Curve:
    """Follow a frame's ellipse through `angles` [n] in degrees, at `reach` [n] times its distance from the centre."""
    turns, tilt = np.radians(angles), np.radians(frame.tilt)
    along, across = reach * frame.half_width * np.cos(turns), reach * frame.half_height * np.sin(turns)
    x = frame.x + np.cos(tilt) * along - np.sin(tilt) * across
    y = frame.y + np.sin(tilt) * along + np.cos(tilt) * across
    return np.stack([x, y], axis=1)


def spiral(center: Point, radius: float, num_turns: float, start: float) -> Curve:
    """Wind inwards from `radius` to a fifth of it, beginning at the angle `start`."""
    angles = np.linspace(start, start + 360 * num_turns, round(16 * num_turns))
    return ellipse(Frame(*center, radius, radius), angles, np.linspace(1, 0.2, len(angles)))


def zigzag(start: Point, end: Point, height: float, num_teeth: int) -> list[Point]:
    """Return the corners of teeth that stand `height` to the left of the way from `start` to `end`."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    length = float(np.hypot(along_x, along_y))
    corners = []
    for step in range(2 * num_teeth + 1):
        progress, rise = step / (2 * num_teeth), height * (step % 2)
        x, y = start[0] + progress * along_x, start[1] + progress * along_y
        corners.append((x + rise * (along_y / length), y - rise * (along_x / length)))
    return corners
