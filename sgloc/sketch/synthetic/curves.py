"""The geometry that drawings are made of: exact curves, and frames that say where a part sits on another.

A drawing is planned in a unit of its own choosing, x to the right and y down. Angles are in degrees, clockwise as one
looks at the page: 0 is right, 90 is down, -90 is up.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Point = tuple[float, float]
Number = TypeVar("Number", float, npt.NDArray[np.float64])
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

    def at(self, u: Number, v: Number) -> tuple[Number, Number]:
        """Return the point at u half widths and v half heights from the centre; the corners are at +-1."""
        cosine, sine = np.cos(np.radians(self.tilt)), np.sin(np.radians(self.tilt))
        along, across = u * self.half_width, v * self.half_height
        return self.x + cosine * along - sine * across, self.y + sine * along + cosine * across

    def rim(self, angle: Number, reach: Number | float = 1.0) -> tuple[Number, Number]:
        """Return the point of the ellipse at an angle from the frame's own right, or `reach` times as far out."""
        return self.at(reach * np.cos(np.radians(angle)), reach * np.sin(np.radians(angle)))

    def inside(self, u: float, v: float, width: float, height: float) -> "Frame":
        """Return a frame centred at (u, v) of this one whose sides are `width` and `height` times this one's."""
        return Frame(*self.at(u, v), width * self.half_width, height * self.half_height, self.tilt)

    def dot(self, u: float, v: float, radius: float) -> "Frame":
        """Return an upright frame centred at (u, v) of this one, square, its half side in the drawing's unit."""
        return Frame(*self.at(u, v), radius, radius)

    def path(self, *places: Point) -> list[Point]:
        """Return the points at several (u, v)."""
        return [self.at(u, v) for u, v in places]


def line(*points: Point, softness: float = 0.06) -> Curve:
    """Draw straight lines from point to point, each corner cut twice, at `softness` (0 to 0.5) of its sides."""
    curve = np.array(points)
    for _ in range(2):
        steps = np.diff(curve, axis=0)
        cuts = np.stack([curve[:-1] + softness * steps, curve[1:] - softness * steps], axis=1).reshape(-1, 2)
        curve = np.concatenate([curve[:1], cuts[1:-1], curve[-1:]])
    return curve


def swing(*points: Point, num_between: int = 8) -> Curve:
    """Pass smoothly through points (a Catmull-Rom spline), `num_between` curve points from each to the next."""
    inner = np.array(points)
    padded = np.concatenate([2 * inner[:1] - inner[1:2], inner, 2 * inner[-1:] - inner[-2:-1]])
    before, start, end, after = (padded[offset : len(inner) - 1 + offset, None] for offset in range(4))
    t = np.linspace(0, 1, num_between, endpoint=False)[:, None]
    spline = start + 0.5 * t * (
        end - before + t * (2 * before - 5 * start + 4 * end - after + t * (3 * (start - end) + after - before))
    )
    return np.concatenate([spline.reshape(-1, 2), inner[-1:]])


def spiral(center: Point, radius: float, num_turns: float) -> Curve:
    """Wind inwards from `radius` to a fifth of it, beginning at the left."""
    angles = np.linspace(180, 180 + 360 * num_turns, round(16 * num_turns))
    return np.stack(Frame(*center, radius, radius).rim(angles, np.linspace(1, 0.2, len(angles))), axis=1)


def zigzag(start: Point, end: Point, height: float, num_teeth: int) -> Curve:
    """Draw teeth that stand `height` to the left of the way from `start` to `end`."""
    along = np.array(end) - np.array(start)
    aside = np.array([along[1], -along[0]]) / np.hypot(*along)
    step = np.arange(2 * num_teeth + 1)[:, None]
    return line(*(np.array(start) + step / (2 * num_teeth) * along + height * (step % 2) * aside))
