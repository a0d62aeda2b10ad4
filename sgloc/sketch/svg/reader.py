"""Reads the strokes of an SVG."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sgloc.sketch.svg.brush import centre_lines, signed_area
from sgloc.sketch.svg.paths import flattened
from sgloc.sketch.svg.rough import without_second_passes
from sgloc.sketch.svg.scene import Painted, read_scene
from sgloc.sketch.svg.tree import UnreadableError, parse_tree

Polylines = list[npt.NDArray[np.float64]]

MOST_POINTS = 20_000
# How far a polyline may stray from its curve, as a share of the drawing's larger side: a sixteenth of a pixel of
# QuickDraw's canvas.
_TOLERANCE = 1 / 4000
# A rectangle that leaves no more of the page than this share is its background.
_PAGE_SLACK = 0.02
_MOST_SIZE = 1e12
_PLURALS = {
    "shape inside definitions": "shapes inside definitions",
    "transform that cannot be read": "transforms that cannot be read",
    "copy of what is not in the file": "copies of what is not in the file",
    "end of a broken path": "ends of broken paths",
    "set of arrowheads": "sets of arrowheads",
    "second pass of a hand-drawn line": "second passes of hand-drawn lines",
}


def read_svg(content: bytes) -> tuple[Polylines, list[str]]:
    """The strokes of an SVG, in the order in which they are painted.

    A shape with a visible stroke is a stroke, and each of its lifts of the pen begins another. A long thin fill
    without one is a brush stroke, and becomes the line along its middle. Any other fill is left out, unless there is
    nothing else; then the outlines of the fills are the strokes.

    Args:
        content: the file, unpacked.

    Returns:
        The strokes, float64 [n, 2] of absolute (x, y) in pixels, y downwards; and notes on what was left out of the
        file or read otherwise than it stands there, such as "3 texts were left out".

    Raises:
        UnreadableError: if it is no SVG, shows nothing, or is larger than any drawing.
    """
    # Numbers too large to compute with are refused in the end, all at once.
    with np.errstate(all="ignore"):
        scene = read_scene(parse_tree(content))
        points = np.concatenate([chain for shape in scene.shapes for chain in shape.chains] or [np.zeros((0, 2))])
        if not (np.abs(points) < _MOST_SIZE).all():
            raise UnreadableError(f"has a coordinate that is not finite or beyond {_MOST_SIZE:.0e}; correct it")
        tolerance = (float(np.ptp(points, axis=0).max()) if len(points) else 0.0) * _TOLERANCE or 1.0
        strokes, fills, num_brushes = _strokes(scene.shapes, tolerance, scene.left_out)
        page = scene.page or _box(points)
    notes = []
    others = _without_page(fills, page)
    if strokes or others:
        scene.left_out["page background"] += len(fills) - len(others)
        fills = others
    if num_brushes == 1:
        notes.append("1 brush stroke became the line along its middle")
    elif num_brushes:
        notes.append(f"{num_brushes:,} brush strokes became the lines along their middles")
    if strokes:
        scene.left_out["filled shape"] += len(fills)
    elif fills:
        _refuse_many(sum(len(chain) // 3 + 1 for shape in scene.shapes for chain in shape.chains))
        strokes = [outline for fill in fills for outline in fill]
        notes.append("nothing in it is drawn as a line, so the outlines of its filled shapes were taken")
    left_out = [_counted(name, count) for name, count in sorted(scene.left_out.items()) if count]
    if not strokes:
        found = f", but {', '.join(left_out)}" if left_out else ""
        raise UnreadableError(f"holds no stroke{found}; draw lines with a pen or a pencil, and save it as plain SVG")
    if left_out:
        notes.append(f"{', '.join(left_out)} {'was' if sum(scene.left_out.values()) == 1 else 'were'} left out")
    return strokes, notes


def _box(points: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    """The corner, width and height of the box around points; all 0 if there are none."""
    x, y, width, height = (*points.min(0), *np.ptp(points, axis=0)) if len(points) else (0.0, 0.0, 0.0, 0.0)
    return float(x), float(y), float(width), float(height)


def _without_page(fills: list[Polylines], page: tuple[float, float, float, float]) -> list[Polylines]:
    """The fills without the rectangles that cover the page, given by its corner, width and height."""
    x, y, width, height = page
    slack = np.array((width, height)) * _PAGE_SLACK
    corner, opposite = np.array((x, y)) + slack, np.array((x + width, y + height)) - slack
    rest = []
    for fill in fills:
        points = np.concatenate(fill)
        low, high = points.min(0), points.max(0)
        covers = bool((low <= corner).all() and (high >= opposite).all())
        if not (covers and abs(signed_area(fill[0])) >= (1 - _PAGE_SLACK) * np.prod(high - low)):
            rest.append(fill)
    return rest


def _counted(name: str, count: int) -> str:
    return f"1 {name}" if count == 1 else f"{count:,} {_PLURALS.get(name, f'{name}s')}"


def _strokes(
    shapes: Sequence[Painted], tolerance: float, left_out: Counter[str]
) -> tuple[Polylines, list[Polylines], int]:
    """The strokes of shapes, the outlines of those that are only filled, and how many brush strokes there are."""
    strokes: Polylines = []
    fills: list[Polylines] = []
    num_points = num_brushes = 0
    for shape in shapes:
        lines = [flattened(chain, tolerance) for chain in shape.chains]
        if shape.is_stroked:
            chains, num_repeated = without_second_passes(shape.chains, shape.stroke_width)
            left_out["second pass of a hand-drawn line"] += num_repeated
            num_points += sum(len(chain) // 3 + 1 for chain in chains)
            strokes += [flattened(chain, tolerance) for chain in chains]
        else:
            middles = centre_lines(lines)
            if middles is None:
                fills.append(lines)
            else:
                num_brushes += len(middles)
                num_points += sum(map(len, middles))
                strokes += middles
        _refuse_many(num_points)
    return strokes, fills, num_brushes


def _refuse_many(num_points: int) -> None:
    if num_points > MOST_POINTS:
        raise UnreadableError(f"has more than {MOST_POINTS:,} points and curves; simplify it first")
