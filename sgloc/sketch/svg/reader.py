"""Reader of strokes from an SVG."""

import numpy as np
import numpy.typing as npt

from sgloc.sketch.svg.brush import centre_lines, signed_area
from sgloc.sketch.svg.limits import Limits, UnreadableError
from sgloc.sketch.svg.paths import flattened
from sgloc.sketch.svg.rough import without_second_passes
from sgloc.sketch.svg.scene import Scene, read_scene

Polylines = list[npt.NDArray[np.float64]]

# Largest distance of a polyline from its curve, as a share of the drawing's larger side: a sixteenth of a pixel on
# QuickDraw's canvas.
_TOLERANCE = 1 / 4000
# A rectangle counts as page background if it leaves at most this share of the page uncovered on each side.
_PAGE_SLACK = 0.02
_MOST_SIZE = 1e12
_PLURALS = {
    "brush stroke was replaced by its centre line": "brush strokes were replaced by their centre lines",
    "shape inside definitions": "shapes inside definitions",
    "transform with invalid syntax": "transforms with invalid syntax",
    "copy of an element not in the file": "copies of elements not in the file",
    "end of a malformed path": "ends of malformed paths",
    "set of arrowheads": "sets of arrowheads",
    "second pass of a hand-drawn line": "second passes of hand-drawn lines",
}


def read_svg(content: bytes) -> tuple[Polylines, list[str]]:
    """Read the strokes of an SVG, in painting order.

    A shape with a visible outline is a stroke, or several if its path lifts the pen. A long thin fill without an
    outline is a brush stroke, and is replaced by its centre line. Other fills are left out, unless the file contains
    nothing else; then the outlines of the fills become the strokes.

    Args:
        content: the decompressed file.

    Returns:
        The strokes, float64 [n, 2] of absolute (x, y) in pixels, y downwards; and notes on what was left out of the
        file or changed on reading, such as "3 texts were left out".

    Raises:
        UnreadableError: if the file is not an SVG, contains no strokes, or exceeds a limit.
    """
    limits = Limits()
    # Overflows are ignored here, because one check below rejects all numbers that are too large.
    with np.errstate(all="ignore"):
        scene = read_scene(content, limits)
        points = np.concatenate([chain for shape in scene.shapes for chain in shape.chains] or [np.zeros((1, 2))])
        if not (np.abs(points) < _MOST_SIZE).all():
            raise UnreadableError(f"has a coordinate that is not finite or exceeds {_MOST_SIZE:.0e}; correct it")
        low, size = points.min(0), np.ptp(points, axis=0)
        strokes, fills, num_brushes = _strokes(scene, float(size.max()) * _TOLERANCE or 1.0, limits)
        others = [fill for fill in fills if not _is_page(fill, *(scene.page or (*low, *size)))]
    notes = []
    if strokes or others:
        scene.left_out["page background"] += len(fills) - len(others)
        fills = others
    if num_brushes:
        notes.append(_counted("brush stroke was replaced by its centre line", num_brushes))
    if strokes:
        scene.left_out["filled shape"] += len(fills)
    elif fills:
        limits.count("point of strokes", sum(len(chain) // 3 + 1 for shape in scene.shapes for chain in shape.chains))
        strokes = [outline for fill in fills for outline in fill]
        notes.append("the file has no lines, so the outlines of its filled shapes were used as strokes")
    left_out = ", ".join(_counted(name, count) for name, count in sorted(scene.left_out.items()) if count)
    if not strokes:
        found = f", but {left_out}" if left_out else ""
        raise UnreadableError(f"contains no strokes{found}; draw lines with a pen or pencil, and save it as plain SVG")
    if left_out:
        notes.append(f"{left_out} {'was' if scene.left_out.total() == 1 else 'were'} left out")
    return strokes, notes


def _strokes(scene: Scene, tolerance: float, limits: Limits) -> tuple[Polylines, list[Polylines], int]:
    """Return the strokes, the outlines of shapes that are only filled, and the number of brush strokes."""
    strokes: Polylines = []
    fills: list[Polylines] = []
    num_brushes = 0
    for shape in scene.shapes:
        if shape.is_stroked:
            chains, num_repeated = without_second_passes(shape.chains, shape.stroke_width)
            scene.left_out["second pass of a hand-drawn line"] += num_repeated
            limits.count("point of strokes", sum(len(chain) // 3 + 1 for chain in chains))
            strokes += [flattened(chain, tolerance) for chain in chains]
            continue
        outlines = [flattened(chain, tolerance) for chain in shape.chains]
        middles = centre_lines(outlines)
        if middles is None:
            fills.append(outlines)
        else:
            num_brushes += len(middles)
            limits.count("point of strokes", sum(map(len, middles)))
            strokes += middles
    return strokes, fills, num_brushes


def _is_page(fill: Polylines, x: float, y: float, width: float, height: float) -> bool:
    """Return whether a fill is a rectangle that covers the page, given by the page's corner, width and height."""
    points = np.concatenate(fill)
    low, high = points.min(0), points.max(0)
    slack = np.array((width, height)) * _PAGE_SLACK
    covers = (low <= np.array((x, y)) + slack).all() and (high >= np.array((x + width, y + height)) - slack).all()
    return bool(covers and abs(signed_area(fill[0])) >= (1 - _PAGE_SLACK) * np.prod(high - low))


def _counted(name: str, count: int) -> str:
    return f"1 {name}" if count == 1 else f"{count:,} {_PLURALS.get(name, f'{name}s')}"
