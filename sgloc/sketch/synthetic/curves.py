"""The geometry of synthetic drawings: exact curves, and frames that position one part relative to another.

A drawing is planned in an arbitrary unit, x to the right and y downwards. Angles are in degrees, clockwise on the page:
0 is right, 90 is down, -90 is up.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Number = TypeVar("Number", float, npt.NDArray[np.float64])
Curve = npt.NDArray[np.float64]
"""float64 [n, 2], absolute (x, y) of one pen movement, in the drawing's unit."""


@dataclass(frozen=True)
class Frame:
    """A box with its inscribed ellipse, used as the coordinate system of a part.

    Attributes:
        x, y: the centre, in the drawing's unit.
        half_width, half_height: half the extent along the frame's own axes, in the drawing's unit.
        tilt: rotation of the frame about its centre, in degrees.
    """

    x: float
    y: float
    half_width: float
    half_height: float
    tilt: float = 0.0

    def at(self, u: Number, v: Number) -> tuple[Number, Number]:
        """Return the point at u half widths and v half heights from the centre; the corners are at +-1."""
        cosine, sine = np.cos(np.radians(self.tilt)), np.sin(np.radians(self.tilt))
        along, across = u * self.half_width, v * self.half_height
        return self.x + cosine * along - sine * across, self.y + sine * along + cosine * across

    def rim(self, angle: Number, reach: Number | float = 1.0) -> tuple[Number, Number]:
        """Return the point of the ellipse at an angle from the frame's x axis, or `reach` times as far out."""
        return self.at(reach * np.cos(np.radians(angle)), reach * np.sin(np.radians(angle)))

    def inside(self, u: float, v: float, width: float, height: float) -> "Frame":
        """Return a frame centred at (u, v) in this one, with `width` and `height` times this one's sides."""
        return Frame(*self.at(u, v), width * self.half_width, height * self.half_height, self.tilt)

    def dot(self, u: float, v: float, radius: float) -> "Frame":
        """Return an upright square frame centred at (u, v) in this one; half its side is `radius` drawing units."""
        return Frame(*self.at(u, v), radius, radius)

    def path(self, *places: Point) -> list[Point]:
        """Return the points at several (u, v)."""
        return [self.at(u, v) for u, v in places]


def line(*points: Point, softness: float = 0.06) -> Curve:
    """Draw straight lines from point to point, cutting each corner twice at `softness` (0 to 0.5) of its sides."""
    curve = np.array(points)
    for _ in range(2):
        steps = np.diff(curve, axis=0)
        cuts = np.stack([curve[:-1] + softness * steps, curve[1:] - softness * steps], axis=1).reshape(-1, 2)
        curve = np.concatenate([curve[:1], cuts[1:-1], curve[-1:]])
    return curve


def swing(*points: Point, num_between: int = 8) -> Curve:
    """Draw a smooth curve through points (a Catmull-Rom spline) with `num_between` curve points per segment."""
    inner = np.array(points)
    padded = np.concatenate([2 * inner[:1] - inner[1:2], inner, 2 * inner[-1:] - inner[-2:-1]])
    before, start, end, after = (padded[offset : len(inner) - 1 + offset, None] for offset in range(4))
    t = np.linspace(0, 1, num_between, endpoint=False)[:, None]
    spline = start + 0.5 * t * (
        end - before + t * (2 * before - 5 * start + 4 * end - after + t * (3 * (start - end) + after - before))
    )
    return np.concatenate([spline.reshape(-1, 2), inner[-1:]])


def spiral(center: Point, radius: float, num_turns: float) -> Curve:
    """Draw a spiral that winds inwards from `radius` to a fifth of it, starting at the left."""
    angles = np.linspace(180, 180 + 360 * num_turns, round(16 * num_turns))
    return np.stack(Frame(*center, radius, radius).rim(angles, np.linspace(1, 0.2, len(angles))), axis=1)


def zigzag(start: Point, end: Point, height: float, num_teeth: int) -> Curve:
    """Draw teeth of height `height` to the left of the line from `start` to `end`."""
    along = np.array(end) - np.array(start)
    aside = np.array([along[1], -along[0]]) / np.hypot(*along)
    step = np.arange(2 * num_teeth + 1)[:, None]
    return line(*(np.array(start) + step / (2 * num_teeth) * along + height * (step % 2) * aside))
