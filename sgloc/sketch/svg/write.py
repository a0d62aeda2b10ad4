"""Writes strokes as an SVG."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Width of the pen, and margin, as a share of the drawing's larger side.
_PEN, _MARGIN = 0.012, 0.06


def svg_in_place(strokes: Sequence[npt.NDArray[np.floating]], background: str = "white") -> str:
    """Strokes as an SVG in their own coordinates, its view box around them.

    Args:
        strokes: [n, 2] of absolute (x, y) each, at least one.
        background: of the page.
    """
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    side = float((high - low).max()) or 1.0
    (x, y), (width, height) = low - side * _MARGIN, (high - low) + 2 * side * _MARGIN
    digits = max(0, 3 - math.floor(math.log10(side)))

    def number(value: float) -> str:
        return f"{value:.{digits}f}"

    lines = []
    for stroke in strokes:
        # A line of no length is a dot only where the pen is round, and renderers disagree even then.
        path = stroke if np.ptp(stroke, axis=0).any() else np.stack([stroke[0], stroke[0] + [side * 1e-3, 0]])
        corners = " ".join(f"{number(px)},{number(py)}" for px, py in path.tolist())
        lines.append(f'<polyline points="{corners}"/>\n')
    box = " ".join(map(number, (x, y, width, height)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">\n'
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" '
        f'fill="{background}"/>\n<g fill="none" stroke="black" stroke-width="{number(side * _PEN)}" '
        f'stroke-linecap="round" stroke-linejoin="round">\n{"".join(lines)}</g>\n</svg>\n'
    )
