"""Drawings as pictures: one drawing as an SVG, many drawings side by side as a PNG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import fsspec
import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox

_Alignment = Literal["left", "center", "right"]
Float64Array = npt.NDArray[np.float64]
Polylines = Sequence[npt.NDArray[np.integer | np.floating]]

# How much larger than its first row's drawing a gallery column's frame may grow to show the other rows.
_FRAME_GROWTH = 1.6

# Sizes in pixels.
_MARGIN = 16
_CELL_PADDING = 9
_CLIP_PADDING = 3
_LINE_WIDTH = 1.9
_BLOCK_GAP = 17
_HEADER_HEIGHT = 36
_CAPTION_HEIGHT = 20
_GAP = 10
_LEGEND_DASH = 14

_LEGEND_STROKES = 8
_LEGEND_WORDS = ("first stroke", "later")

# matplotlib carries this font, so that a gallery looks the same on every machine.
_FONT = "DejaVu Sans"
_TITLE_FONT = FontProperties(family=_FONT, size=16, weight="bold")
_LABEL_FONT = FontProperties(family=_FONT, size=13)
_CAPTION_FONT = FontProperties(family=_FONT, size=11)
_INK = "#111111"
_TEXT_COLOR = "#333333"
_RULE_COLOR = "#c8c8c8"


@dataclass(frozen=True)
class GalleryRow:
    """What one row of a gallery shows.

    Attributes:
        label: what stands at the left of the row.
        drawings: each a sequence of strokes, int or float [n, 2] arrays of absolute (x, y) in any unit, y downwards.
    """

    label: str
    drawings: Sequence[Polylines]


@dataclass(frozen=True)
class _Frame:
    """The square of the plane that a picture shows.

    Attributes:
        center: float64 [2], in the drawing's unit.
        side: in the drawing's unit.
    """

    center: Float64Array
    side: float

    @staticmethod
    def around(low: Float64Array, high: Float64Array) -> "_Frame":
        # A single dot has no extent; any side shows it in the middle, this one without overflow.
        return _Frame((low + high) / 2, max(float((high - low).max()), float(np.finfo(np.float32).tiny)))

    def to_pixels(self, points: Float64Array, center: Float64Array, side: float) -> Float64Array:
        """Map points [n, 2] of the plane to the square of pixels with this center [2] and side."""
        return (points - self.center) * (side / self.side) + center


def _checked(polylines: Polylines, where: str) -> list[Float64Array]:
    """Return the strokes as float64 [n, 2] arrays, or raise ValueError saying which cannot be drawn."""
    strokes = []
    for index, polyline in enumerate(polylines):
        points = np.asarray(polyline, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise ValueError(f"stroke {index} of {where} has shape {points.shape}; give [n, 2] with n at least 1")
        if not (np.abs(points) <= np.finfo(np.float32).max).all():
            raise ValueError(f"stroke {index} of {where} has a coordinate that is not finite in 32 bits; leave it out")
        strokes.append(points)
    return strokes


def _bounds(strokes: Sequence[Float64Array]) -> tuple[Float64Array, Float64Array]:
    """Return the least and the greatest (x, y), each [2], of at least one stroke."""
    points = np.concatenate(strokes)
    return points.min(axis=0), points.max(axis=0)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def to_svg(polylines: Polylines, *, size: int = 256, stroke_width: float = 3.0) -> str:
    """Return one drawing as a self-contained SVG: black round-capped strokes on a white square, fitted with a margin.

    Args:
        polylines: one int or float [n, 2] array of absolute (x, y) a stroke, n >= 1, in any unit, y pointing down; a
            stroke that does not move is a dot. No stroke at all gives the white square alone.
        size: the square's side, in pixels.
        stroke_width: in pixels.

    Raises:
        ValueError: if a stroke has no point, another shape than [n, 2] or a coordinate that is not finite, or if
            `stroke_width` is not positive or leaves no room for the drawing.
    """
    room = size - 2 * (size / 16 + stroke_width / 2)
    if not (stroke_width > 0 and room > 0):
        raise ValueError(f"stroke_width={stroke_width} does not fit size={size}; give one above 0 and below 7/8 of it")
    strokes = _checked(polylines, "the drawing")
    elements = []
    if strokes:
        frame = _Frame.around(*_bounds(strokes))
        for stroke in strokes:
            pixels = frame.to_pixels(stroke, np.full(2, size / 2), room)
            points = [(_number(x), _number(y)) for x, y in pixels.tolist()]
            if len(set(points)) == 1:
                # Renderers disagree on whether a line of no length has caps.
                x, y = points[0]
                radius = _number(stroke_width / 2)
                elements.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="black" stroke="none"/>\n')
            else:
                elements.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in points)}"/>\n')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {size} {size}">\n'
        f'<rect width="{size}" height="{size}" fill="white"/>\n'
        f'<g fill="none" stroke="black" stroke-width="{_number(stroke_width)}"'
        ' stroke-linecap="round" stroke-linejoin="round">\n' + "".join(elements) + "</g>\n</svg>\n"
    )


def write_svg(polylines: Polylines, path: str, *, size: int = 256, stroke_width: float = 3.0) -> None:
    """Write what `to_svg` returns to a local path or any fsspec URL, and raise what it raises."""
    svg = to_svg(polylines, size=size, stroke_width=stroke_width)
    with fsspec.open(path, "wb") as file:
        file.write(svg.encode())


def _shared_frame(drawings: Sequence[list[Float64Array]]) -> _Frame | None:
    """Return the frame for one column of a gallery's block, or None if none of its drawings has a stroke.

    It holds all rows as far as they stay near the first; a redrawn stroke that has flown away does not shrink the
    column to specks, it is cut off at the cell's edge.
    """
    boxes = [_bounds(strokes) for strokes in drawings if strokes]
    if not boxes:
        return None
    low = np.min([box[0] for box in boxes], axis=0)
    high = np.max([box[1] for box in boxes], axis=0)
    for first_low, first_high in boxes:
        reach = _FRAME_GROWTH * (first_high - first_low).max() / 2
        # An empty drawing or a lone dot says nothing about how large the frame should be; the next row may.
        if reach > 0:
            center = (first_low + first_high) / 2
            return _Frame.around(np.maximum(low, center - reach), np.minimum(high, center + reach))
    return _Frame.around(low, high)


def _stroke_colors(num_strokes: int) -> Float64Array:
    """Return RGBA colours [num_strokes, 4], dark to bright; a stroke's depends on its index alone.

    The first few strokes lie far apart, the later ones ever closer; the palette's bright end, which white swallows,
    is never reached.
    """
    positions = 0.8 * (1 - np.exp(-np.arange(num_strokes) / 3.5))
    return np.asarray(matplotlib.colormaps["plasma"](positions), dtype=np.float64)


def _text_width(text: str, font: FontProperties) -> int:
    renderer = RendererAgg(1, 1, 72)  # type: ignore[no-untyped-call]
    return int(renderer.get_text_width_height_descent(text, font, ismath=False)[0]) + 1  # type: ignore[no-untyped-call]


def _shortened(text: str, font: FontProperties, width: float) -> str:
    """Return the text, cut and closed with an ellipsis where it is wider than `width`."""
    short = text
    for end in range(len(text), 0, -1):
        if _text_width(short, font) <= width:
            break
        short = text[: end - 1].rstrip() + "…"
    return short


class _Page:
    """A white figure whose unit is the pixel, from the top left corner, y pointing down."""

    def __init__(self, width: int, height: int) -> None:
        # At 72 dots an inch a point is a pixel, in font sizes and line widths too.
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="white")
        self._height = height
        self._transform = Affine2D().scale(1, -1).translate(0, height)

    def text(self, x: float, y: float, text: str, font: FontProperties, align: _Alignment) -> None:
        artist = Text(x, y, text, color=_TEXT_COLOR, fontproperties=font, usetex=False, parse_math=False)
        artist.set(horizontalalignment=align, verticalalignment="center_baseline", transform=self._transform)
        self._figure.add_artist(artist)

    def rule(self, left: float, right: float, y: float) -> None:
        self._figure.add_artist(
            Line2D([left, right], [y, y], color=_RULE_COLOR, linewidth=1, transform=self._transform)
        )

    def strokes(self, strokes: Sequence[Float64Array], colors: Float64Array | str, clip: Bbox) -> None:
        """Draw strokes, float64 [n, 2] arrays in pixels, cut off at the box `clip`, in pixels."""
        # Nothing is drawn of a line of no length; this much makes a dot of it and is not seen elsewhere.
        lines = [np.concatenate([stroke, stroke[-1:] + np.array([0.01, 0])]) for stroke in strokes]
        collection = LineCollection(lines, colors=colors, linewidths=_LINE_WIDTH, antialiaseds=True)
        # Snapped to whole pixels, a stroke would change its shape with its place.
        collection.set(capstyle="round", joinstyle="round", snap=False, transform=self._transform)
        collection.set_clip_box(clip.transformed(self._transform))
        self._figure.add_artist(collection)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        FigureCanvasAgg(self._figure).print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
        return buffer.getvalue()


@dataclass(frozen=True)
class _Grid:
    """Where the cells of a gallery stand; every length is in pixels.

    Attributes:
        num_rows: rows of a block.
        num_columns: columns of a block.
        num_drawings: drawings of a row, over all blocks.
        cell_size: side of a cell.
        left: left edge of the first column.
        top: upper edge of the first block.
        caption_height: height of the captions over a block; 0 without captions.
    """

    num_rows: int
    num_columns: int
    num_drawings: int
    cell_size: int
    left: int
    top: int
    caption_height: int

    @property
    def num_blocks(self) -> int:
        return -(-self.num_drawings // self.num_columns)

    @property
    def right(self) -> int:
        return self.left + self.num_columns * self.cell_size

    @property
    def bottom(self) -> int:
        return self.block_top(self.num_blocks) - _BLOCK_GAP

    def block_top(self, block: int) -> int:
        return self.top + block * (self.caption_height + self.num_rows * self.cell_size + _BLOCK_GAP)

    def cell_center(self, row: int, drawing: int) -> tuple[float, float]:
        block, column = divmod(drawing, self.num_columns)
        x = self.left + (column + 0.5) * self.cell_size
        return x, self.block_top(block) + self.caption_height + (row + 0.5) * self.cell_size


def _legend_width() -> int:
    words = sum(_text_width(word, _CAPTION_FONT) for word in _LEGEND_WORDS)
    return words + _LEGEND_STROKES * _LEGEND_DASH + 2 * _GAP


def _draw_legend(page: _Page, right: float, y: float) -> None:
    left = right - _legend_width()
    page.text(left, y, _LEGEND_WORDS[0], _CAPTION_FONT, "left")
    page.text(right, y, _LEGEND_WORDS[1], _CAPTION_FONT, "right")
    first = left + _text_width(_LEGEND_WORDS[0], _CAPTION_FONT) + _GAP
    starts = first + _LEGEND_DASH * np.arange(_LEGEND_STROKES)
    dashes = [np.array([[start + 2, y], [start + _LEGEND_DASH - 3, y]]) for start in starts]
    page.strokes(dashes, _stroke_colors(_LEGEND_STROKES), Bbox.from_extents(left, y - 4, right, y + 4))


def _start_page(grid: _Grid, title: str | None, color_by_order: bool) -> _Page:
    """Return a page wide enough for the grid and for the title and legend, which stand on it."""
    title_width = _text_width(title, _TITLE_FONT) + 2 * _GAP if title else 0
    right = max(grid.right, _MARGIN + title_width + (_legend_width() if color_by_order else 0))
    page = _Page(right + _MARGIN, grid.bottom + _MARGIN)
    y = _MARGIN + _HEADER_HEIGHT / 3
    if title:
        page.text(_MARGIN, y, title, _TITLE_FONT, "left")
    if color_by_order:
        _draw_legend(page, right, y)
    return page


def _draw_labels(page: _Page, grid: _Grid, labels: Sequence[str], captions: Sequence[str] | None) -> None:
    """Write the rows' labels and the drawings' captions, and draw the rules between the blocks."""
    for block in range(grid.num_blocks):
        if block > 0:
            page.rule(_MARGIN, grid.right, grid.block_top(block) - (_BLOCK_GAP + 1) / 2)
        for row, label in enumerate(labels):
            y = grid.cell_center(row, block * grid.num_columns)[1]
            page.text(grid.left - _GAP, y, label, _LABEL_FONT, "right")
    for drawing, caption in enumerate(captions or ()):
        x, y = grid.cell_center(0, drawing)
        short = _shortened(caption, _CAPTION_FONT, grid.cell_size - 2 * _CLIP_PADDING)
        page.text(x, y - (grid.cell_size + _CAPTION_HEIGHT) / 2, short, _CAPTION_FONT, "center")


def _draw_column(
    page: _Page, grid: _Grid, drawing: int, versions: Sequence[list[Float64Array]], color_by_order: bool
) -> None:
    """Draw the versions of one drawing, a list of strokes for each row, below each other in one frame."""
    frame = _shared_frame(versions)
    if frame is None:
        return
    reach = grid.cell_size / 2 - _CLIP_PADDING
    for row, strokes in enumerate(versions):
        x, y = grid.cell_center(row, drawing)
        pixels = [frame.to_pixels(stroke, np.array([x, y]), grid.cell_size - 2 * _CELL_PADDING) for stroke in strokes]
        colors = _stroke_colors(len(strokes)) if color_by_order else _INK
        page.strokes(pixels, colors, Bbox.from_extents(x - reach, y - reach, x + reach, y + reach))


def _checked_rows(rows: Sequence[GalleryRow], captions: Sequence[str] | None) -> list[list[list[Float64Array]]]:
    """Return the strokes by row and drawing, or raise ValueError if the rows do not make a gallery."""
    lengths = [len(row.drawings) for row in rows]
    if not lengths or 0 in lengths:
        raise ValueError("a gallery needs at least one row, and a row at least one drawing; give some")
    if len(set(lengths)) > 1:
        counts = ", ".join(f'"{row.label}" {length}' for row, length in zip(rows, lengths, strict=True))
        raise ValueError(f"the rows of a gallery differ in their number of drawings ({counts}); give all the same")
    if captions is not None and len(captions) != lengths[0]:
        raise ValueError(f"{len(captions)} captions do not fit {lengths[0]} drawings a row; give one for each drawing")
    return [
        [_checked(drawing, f'drawing {index} of row "{row.label}"') for index, drawing in enumerate(row.drawings)]
        for row in rows
    ]


def write_gallery(
    rows: Sequence[GalleryRow],
    path: str,
    *,
    columns: int = 16,
    cell_size: int = 108,
    title: str | None = None,
    captions: Sequence[str] | None = None,
    color_by_order: bool = True,
) -> None:
    """Write many drawings as one PNG, the versions of each below each other; the same input gives the same bytes.

    More drawings than columns wrap into blocks, each of which shows all rows. The cells of a block's column share one
    frame, so that a stroke out of place is seen out of place: it holds all rows, but is at most 1.6 times as large as
    the first row's drawing, and what lies outside the cell is cut off.

    Args:
        rows: at least one, all with the same number of drawings, at least one.
        path: a local path or any fsspec URL.
        columns: the most drawings side by side.
        cell_size: side of a drawing's cell, in pixels.
        title: what stands at the top.
        captions: one for each drawing of a row, such as its category; shortened where the cell is too narrow.
        color_by_order: colour the strokes from dark to bright in drawing order, the same colour being the same stroke
            index in every cell of every gallery; black otherwise.

    Raises:
        ValueError: if the rows are none, empty or of unequal length, the captions are not one for each drawing,
            `columns` is below 1 or `cell_size` below 32, or a stroke has no point, another shape than [n, 2] or a
            coordinate that is not finite.
    """
    if columns < 1 or cell_size < 32:
        raise ValueError(f"columns={columns} and cell_size={cell_size} are too small; give at least 1 and 32")
    strokes = _checked_rows(rows, captions)
    grid = _Grid(
        num_rows=len(rows),
        num_columns=min(columns, len(strokes[0])),
        num_drawings=len(strokes[0]),
        cell_size=cell_size,
        left=_MARGIN + max(_text_width(row.label, _LABEL_FONT) for row in rows) + _GAP,
        top=_MARGIN + (_HEADER_HEIGHT if title or color_by_order else 0),
        caption_height=_CAPTION_HEIGHT if captions else 0,
    )
    page = _start_page(grid, title, color_by_order)
    _draw_labels(page, grid, [row.label for row in rows], captions)
    for drawing, versions in enumerate(zip(*strokes, strict=True)):
        _draw_column(page, grid, drawing, versions, color_by_order)
    png = page.png()
    with fsspec.open(path, "wb") as file:
        file.write(png)
