"""Geometry helpers: the outline that a pen draws, and distances to a polyline."""

from typing import Any

import numpy as np


def outline_of(way: Any, widths: Any) -> Any:
    """Return the outline of a pen of these widths along a path: left side, tip, right side back, other tip."""
    along = np.gradient(way, axis=0)
    along /= np.hypot(*along.T)[:, None]
    side = np.stack([-along[:, 1], along[:, 0]], axis=1) * widths[:, None] / 2
    angles = np.linspace(0, np.pi, 8)[1:-1, None]
    tips = [
        way[end] + sign * (side[end] * np.cos(angles) + [side[end, 1], -side[end, 0]] * np.sin(angles))
        for end, sign in ((-1, 1), (0, -1))
    ]
    outline = np.concatenate([way + side, tips[0], (way - side)[::-1], tips[1]])
    return np.concatenate([outline, outline[:1]])


def distances(points: Any, line: Any) -> Any:
    """Return the distance of each of the points [n, 2] from a polyline [m, 2], m > 1."""
    starts, along = line[:-1], np.diff(line, axis=0)
    share = (((points[:, None] - starts) * along).sum(2) / np.maximum((along**2).sum(1), 1e-300)).clip(0, 1)
    return np.hypot(*(points[:, None] - starts - share[..., None] * along).transpose(2, 0, 1)).min(1)


def farthest(points: Any, line: Any) -> float:
    """Return the largest distance of the points from a polyline."""
    return float(distances(points, line).max())
