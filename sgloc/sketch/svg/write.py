"""Writer of strokes as SVG."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Pen width and margin of a drawing that keeps its coordinates, as shares of its larger side.
_PEN, _MARGIN = 0.012, 0.06
# Margin of a drawing fitted into a square, as a share of the square's side.
_FITTED_MARGIN = 1 / 16


def to_svg(
    strokes: Sequence[npt.NDArray[np.integer | np.floating]], *, size: int | None = None, stroke_width: float = 3.0
) -> str:
    """Render a drawing as a self-contained SVG: black round-capped strokes on white.

    Args:
        strokes: one int or float [n, 2] array of absolute (x, y) per stroke, n >= 1, in any unit, y downwards; a stroke
            that does not move is a dot. Without strokes the image is white.
        size: side in pixels of a square into which the drawing is fitted with a margin; None keeps its coordinates and
            sets the view box around them.
        stroke_width: stroke width of a fitted drawing, in pixels; otherwise the width is a fixed share of the drawing's
            side.

    Raises:
        ValueError: if a stroke has no point, a shape other than [n, 2] or a coordinate that is not finite, or if
            `stroke_width` is not positive or leaves no room for the drawing.
    """
    lines = checked(strokes, "the drawing")
    points = np.concatenate([*lines, np.zeros((0 if lines else 1, 2))])
    low, high = points.min(0), points.max(0)
    # A single dot has no extent; any side shows it in the centre, and this one does not overflow.
    side = max(float((high - low).max()), float(np.finfo(np.float32).tiny))
    if size is None:
        side = float((high - low).max()) or 1.0
        box = [*(low - side * _MARGIN), *(high - low + 2 * side * _MARGIN)]
        pen, digits = side * _PEN, max(1, 3 - math.floor(math.log10(side)))
        dot, attributes = side * 1e-3, ""
    else:
        room = size - 2 * (size * _FITTED_MARGIN + stroke_width / 2)
        if not (stroke_width > 0 and room > 0):
            raise ValueError(
                f"stroke_width={stroke_width} does not fit size={size}; use a width above 0 and below 7/8 of the size"
            )
        lines = [(line - (low + high) / 2) * (room / side) + size / 2 for line in lines]
        box, pen, digits, dot = [0, 0, size, size], stroke_width, 2, 0.01
        attributes = f' width="{size}" height="{size}"'

    def text(*values: float, separator: str = " ") -> str:
        return separator.join(f"{value:.{digits}f}".rstrip("0").rstrip(".") for value in values)

    def polyline(line: npt.NDArray[np.float64]) -> str:
        places = [text(x, y, separator=",") for x, y in line.tolist()]
        if len(set(places)) == 1:
            # Renderers disagree on whether a line of zero length has caps.
            places = [places[0], text(line[0, 0] + dot, line[0, 1], separator=",")]
        return f'<polyline points="{" ".join(places)}"/>\n'

    x, y, width, height = map(text, box)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg"{attributes} viewBox="{x} {y} {width} {height}">\n'
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="white"/>\n'
        f'<g fill="none" stroke="black" stroke-width="{text(pen)}" stroke-linecap="round" stroke-linejoin="round">\n'
        f"{''.join(map(polyline, lines))}</g>\n</svg>\n"
    )


def checked(polylines: Sequence[npt.NDArray[np.integer | np.floating]], where: str) -> list[npt.NDArray[np.float64]]:
    """Convert strokes to float64 [n, 2] arrays and check that they can be drawn.

    Args:
        polylines: the strokes.
        where: name of the drawing, for the error message.

    Raises:
        ValueError: if a stroke has no point, a shape other than [n, 2], or a coordinate that is not finite.
    """
    strokes = []
    for index, polyline in enumerate(polylines):
        points = np.asarray(polyline, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise ValueError(f"stroke {index} of {where} has shape {points.shape}; expected [n, 2] with n at least 1")
        if not (np.abs(points) <= np.finfo(np.float32).max).all():
            raise ValueError(f"stroke {index} of {where} has a coordinate that is not finite in float32; leave it out")
        strokes.append(points)
    return strokes
