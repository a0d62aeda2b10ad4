"""A user's own drawing: read from SVG, ndjson or JSON, and written as SVG in its own coordinates."""

import functools
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import ParseError

import fsspec.core
import numpy as np
import numpy.typing as npt

from sgloc.errors import DataError

Polylines = list[npt.NDArray[np.float64]]

_MOST_BYTES = 20 * 2**20
_MOST_POINTS = 20_000
_FORMS = "an SVG, an .ndjson or a .json file"
# Straight pieces that a curve becomes.
_CURVE_PIECES = 16
# Width of the pen, and margin, as a share of the drawing's larger side.
_PEN, _MARGIN = 0.012, 0.06


def read_own(location: str, say: Callable[[str], None]) -> list[tuple[str, Polylines]]:
    """The drawings of a file, each with a name and its strokes: float64 [n, 2] of absolute (x, y), y downwards.

    An SVG is one drawing: every path, line, polyline, polygon, rectangle, circle and ellipse of it a stroke, in the
    order of the file; a path that lifts the pen is several. An .ndjson file has a drawing a line, as QuickDraw has
    them. A .json file is one such object, {"drawing": [[xs, ys], ...]}, or a list of strokes, each a list of points [x,
    y].

    Args:
        location: path or URL.
        say: is told of what an SVG has beside strokes.

    Raises:
        DataError: if it cannot be read or is none of these; it tells where.
    """
    name = PurePosixPath(location)
    readers: dict[str, Callable[[bytes, str], list[Polylines]]] = {
        ".svg": functools.partial(_read_svg, say=say),
        ".ndjson": _read_ndjson,
        ".json": _read_json,
    }
    reader = readers.get(name.suffix.lower())
    if reader is None:
        raise DataError(f"{location} is none of what can be read; give {_FORMS}")
    try:
        with fsspec.open(location, "rb") as file:
            content: bytes = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{location} cannot be read ({error}); give {_FORMS}") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{location} has more than {_MOST_BYTES:,} bytes; give a smaller drawing")
    drawings = reader(content, location)
    if len(drawings) == 1:
        return [(name.stem, drawings[0])]
    return [(f"{name.stem}-{number:04d}", drawing) for number, drawing in enumerate(drawings, start=1)]


def _read_svg(content: bytes, location: str, say: Callable[[str], None]) -> list[Polylines]:
    import svgelements

    try:
        elements = list(svgelements.SVG.parse(io.BytesIO(content), reify=True).elements())
        shapes = [element for element in elements if isinstance(element, svgelements.Shape)]
        num_others = sum(isinstance(element, svgelements.Text | svgelements.Image) for element in elements)
        strokes = [_trace(part) for shape in shapes for part in svgelements.Path(shape).as_subpaths()]
    except (ParseError, ValueError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise DataError(f"{location} is no SVG that can be read ({error}); save it anew as plain SVG") from error
    if num_others:
        say(f"{num_others} texts and images of {location} are no strokes and left out")
    return [_checked([stroke for stroke in strokes if len(stroke)], location)]


def _trace(part: Any) -> npt.NDArray[np.float64]:
    """The points of one run of a path between two lifts of the pen, [n, 2]."""
    import svgelements

    points: list[tuple[float, float]] = []
    for segment in part:
        is_curve = not isinstance(segment, svgelements.Move | svgelements.Line | svgelements.Close)
        if is_curve:
            pieces = (segment.point(number / _CURVE_PIECES) for number in range(1, _CURVE_PIECES + 1))
            points += [(point.x, point.y) for point in pieces]
        elif segment.end is not None:
            points.append((segment.end.x, segment.end.y))
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _read_ndjson(content: bytes, location: str) -> list[Polylines]:
    lines = [(number, line) for number, line in enumerate(content.splitlines(), start=1) if line.strip()]
    if not lines:
        raise DataError(f"{location} is empty; give {_FORMS}")
    return [_parse(line, f"line {number} of {location}") for number, line in lines]


def _read_json(content: bytes, location: str) -> list[Polylines]:
    return [_parse(content, location)]


def _parse(text: bytes, where: str) -> Polylines:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({error})") from error
    is_object = isinstance(found, dict)
    strokes = found.get("drawing") if is_object else found
    try:
        arrays = [np.array(stroke, dtype=np.float64) for stroke in strokes]
        # QuickDraw's strokes are lists of xs, of ys and perhaps of times.
        arrays = [array[:2].T if is_object else array for array in arrays]
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(
            f'{where} holds no drawing; give {{"drawing": [[xs, ys], ...]}}, or a list of strokes, each a list of '
            "points [x, y]"
        ) from error
    return _checked(arrays, where)


def _checked(strokes: Polylines, where: str) -> Polylines:
    if not strokes:
        raise DataError(f"{where} holds no stroke; give a drawing")
    for number, stroke in enumerate(strokes, start=1):
        if stroke.ndim != 2 or stroke.shape[1] != 2 or len(stroke) == 0:
            raise DataError(f"stroke {number} of {where} is not a list of points (x, y)")
        if not (np.abs(stroke) < 1e9).all():
            raise DataError(f"stroke {number} of {where} has a coordinate that is not finite or beyond 1e9")
    if sum(map(len, strokes)) > _MOST_POINTS:
        raise DataError(f"{where} has more than {_MOST_POINTS:,} points; simplify it first")
    return strokes


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
