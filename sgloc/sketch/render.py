"""Galleries: many drawings side by side in one PNG."""

import io
from collections.abc import Sequence
from typing import Literal

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Bbox

from sgloc.sketch.svg.write import checked

_Alignment = Literal["left", "center", "right"]
Float64Array = npt.NDArray[np.float64]
# A label and the row's drawings, each a sequence of strokes.
Row = tuple[str, Sequence[Sequence[npt.NDArray[np.integer | np.floating]]]]

# Largest size of a column's frame, relative to the drawing in its first row; it grows to show the other rows.
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

# matplotlib ships this font, so a gallery looks the same on every machine.
_FONT = "DejaVu Sans"
_LABEL_FONT = FontProperties(family=_FONT, size=13)
_CAPTION_FONT = FontProperties(family=_FONT, size=11)
_INK = "#111111"
_TEXT_COLOR = "#333333"
_RULE_COLOR = "#c8c8c8"


def _frame(drawings: Sequence[list[Float64Array]]) -> tuple[Float64Array, float] | None:
    """Choose the square of the plane that one column of a block shows: its centre [2] and side, in the drawings' unit.

    The square contains all rows that stay near the first. A redrawn stroke far outside is cut off at the cell's edge
    instead of shrinking the column to specks.

    Returns:
        None if no drawing has a stroke.
    """
    boxes = [(points.min(0), points.max(0)) for points in (np.concatenate(strokes) for strokes in drawings if strokes)]
    if not boxes:
        return None
    low, high = np.min([box[0] for box in boxes], axis=0), np.max([box[1] for box in boxes], axis=0)
    # An empty drawing or a single dot gives no size for the frame; use the first row that does.
    sized = next((box for box in boxes if (box[1] > box[0]).any()), None)
    if sized is not None:
        center, reach = (sized[0] + sized[1]) / 2, _FRAME_GROWTH * (sized[1] - sized[0]).max() / 2
        low, high = np.maximum(low, center - reach), np.minimum(high, center + reach)
    # A single dot has no extent; any side shows it in the centre, and this one does not overflow.
    return (low + high) / 2, max(float((high - low).max()), float(np.finfo(np.float32).tiny))


def _stroke_colors(num_strokes: int) -> Float64Array:
    """Return RGBA colours [num_strokes, 4], dark to bright; a stroke's colour depends on its index alone.

    The first few colours are far apart, later ones ever closer. The bright end of the palette, invisible on white, is
    never reached.
    """
    positions = 0.8 * (1 - np.exp(-np.arange(num_strokes) / 3.5))
    return np.asarray(matplotlib.colormaps["plasma"](positions), dtype=np.float64)


def _text_width(text: str, font: FontProperties) -> int:
    renderer = RendererAgg(1, 1, 72)  # type: ignore[no-untyped-call]
    return int(renderer.get_text_width_height_descent(text, font, ismath=False)[0]) + 1  # type: ignore[no-untyped-call]


def _shortened(text: str, font: FontProperties, width: float) -> str:
    """Return the text, truncated with an ellipsis if it is wider than `width`."""
    short = text
    for end in range(len(text), 0, -1):
        if _text_width(short, font) <= width:
            break
        short = text[: end - 1].rstrip() + "…"
    return short


class _Page:
    """A white figure with a grid of cells, in blocks stacked vertically.

    Coordinates are pixels from the top left corner, y downwards.
    """

    def __init__(self, rows: Sequence[Row], columns: int, cell_size: int, has_captions: bool, has_legend: bool) -> None:
        self.num_columns = min(columns, len(rows[0][1]))
        self.num_blocks = -(-len(rows[0][1]) // self.num_columns)
        self.cell_size = cell_size
        self.left = _MARGIN + max(_text_width(label, _LABEL_FONT) for label, _ in rows) + _GAP
        self.right = self.left + self.num_columns * cell_size
        self.top = _MARGIN + (_HEADER_HEIGHT if has_legend else 0)
        self.caption_height = _CAPTION_HEIGHT if has_captions else 0
        self.block_height = self.caption_height + len(rows) * cell_size + _BLOCK_GAP
        self.legend_left = max(self.right - _legend_width(), _MARGIN)
        width = _MARGIN + (max(self.right, self.legend_left + _legend_width()) if has_legend else self.right)
        height = self.top + self.num_blocks * self.block_height - _BLOCK_GAP + _MARGIN
        # At 72 dpi a point is a pixel, in font sizes and line widths too.
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="white")
        self._transform = Affine2D().scale(1, -1).translate(0, height)

    def cell_center(self, row: int, drawing: int) -> tuple[float, float]:
        block, column = divmod(drawing, self.num_columns)
        top = self.top + block * self.block_height + self.caption_height
        return self.left + (column + 0.5) * self.cell_size, top + (row + 0.5) * self.cell_size

    def text(self, x: float, y: float, text: str, font: FontProperties, align: _Alignment) -> None:
        artist = Text(x, y, text, color=_TEXT_COLOR, fontproperties=font, usetex=False, parse_math=False)
        artist.set(horizontalalignment=align, verticalalignment="center_baseline", transform=self._transform)
        self._figure.add_artist(artist)

    def strokes(
        self, strokes: Sequence[Float64Array], colors: Float64Array | str, clip: Bbox, width: float = _LINE_WIDTH
    ) -> None:
        """Draw strokes, float64 [n, 2] arrays in pixels, clipped to the box `clip`, in pixels."""
        # matplotlib draws nothing for a line of zero length; this extension makes it a dot, and is invisible otherwise.
        lines = [np.concatenate([stroke, stroke[-1:] + np.array([0.01, 0])]) for stroke in strokes]
        collection = LineCollection(lines, colors=colors, linewidths=width, antialiaseds=True)
        # No snapping to whole pixels, which would make a stroke's shape depend on its position.
        collection.set(capstyle="round", joinstyle="round", snap=False, transform=self._transform)
        collection.set_clip_box(clip.transformed(self._transform))
        self._figure.add_artist(collection)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        FigureCanvasAgg(self._figure).print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
        return buffer.getvalue()


def _legend_width() -> int:
    words = sum(_text_width(word, _CAPTION_FONT) for word in _LEGEND_WORDS)
    return words + _LEGEND_STROKES * _LEGEND_DASH + 2 * _GAP


def _draw_legend(page: _Page) -> None:
    left, right, y = page.legend_left, page.legend_left + _legend_width(), _MARGIN + _HEADER_HEIGHT / 3
    page.text(left, y, _LEGEND_WORDS[0], _CAPTION_FONT, "left")
    page.text(right, y, _LEGEND_WORDS[1], _CAPTION_FONT, "right")
    first = left + _text_width(_LEGEND_WORDS[0], _CAPTION_FONT) + _GAP
    starts = first + _LEGEND_DASH * np.arange(_LEGEND_STROKES)
    dashes = [np.array([[start + 2, y], [start + _LEGEND_DASH - 3, y]]) for start in starts]
    page.strokes(dashes, _stroke_colors(_LEGEND_STROKES), Bbox.from_extents(left, y - 4, right, y + 4))


def _draw_labels(page: _Page, labels: Sequence[str], captions: Sequence[str]) -> None:
    """Draw row labels, drawing captions, and the rules between blocks."""
    for block in range(page.num_blocks):
        if block > 0:
            y = page.top + block * page.block_height - _BLOCK_GAP / 2
            rule = Bbox.from_extents(_MARGIN, y - 0.5, page.right, y + 0.5)
            page.strokes([np.array([[_MARGIN, y], [page.right, y]])], _RULE_COLOR, rule, 1)
        for row, label in enumerate(labels):
            y = page.cell_center(row, block * page.num_columns)[1]
            page.text(page.left - _GAP, y, label, _LABEL_FONT, "right")
    for drawing, caption in enumerate(captions):
        x, y = page.cell_center(0, drawing)
        short = _shortened(caption, _CAPTION_FONT, page.cell_size - 2 * _CLIP_PADDING)
        page.text(x, y - (page.cell_size + _CAPTION_HEIGHT) / 2, short, _CAPTION_FONT, "center")


def _draw_column(page: _Page, drawing: int, versions: Sequence[list[Float64Array]], color_by_order: bool) -> None:
    """Draw the versions of one drawing, a list of strokes per row, below each other in one shared frame."""
    frame = _frame(versions)
    if frame is None:
        return
    center, side = frame
    reach, scale = page.cell_size / 2 - _CLIP_PADDING, (page.cell_size - 2 * _CELL_PADDING) / side
    for row, strokes in enumerate(versions):
        x, y = page.cell_center(row, drawing)
        pixels = [(stroke - center) * scale + np.array([x, y]) for stroke in strokes]
        colors = _stroke_colors(len(strokes)) if color_by_order else _INK
        page.strokes(pixels, colors, Bbox.from_extents(x - reach, y - reach, x + reach, y + reach))


def _checked_rows(rows: Sequence[Row], captions: Sequence[str] | None) -> list[list[list[Float64Array]]]:
    """Return the strokes by row and drawing; raise a ValueError if rows or captions are inconsistent."""
    lengths = {len(drawings) for _, drawings in rows}
    if not lengths or 0 in lengths:
        raise ValueError("a gallery needs at least one row, and every row at least one drawing")
    if len(lengths) > 1:
        counts = ", ".join(f'"{label}" {len(drawings)}' for label, drawings in rows)
        raise ValueError(
            f"the rows of a gallery differ in their number of drawings ({counts}); give every row the same number"
        )
    if captions is not None and {len(captions)} != lengths:
        raise ValueError(f"{len(captions)} captions do not match {len(rows[0][1])} drawings per row; pass one for each")
    return [
        [checked(drawing, f'drawing {index} of row "{label}"') for index, drawing in enumerate(drawings)]
        for label, drawings in rows
    ]


def draw_gallery(
    rows: Sequence[Row],
    *,
    columns: int = 16,
    cell_size: int = 108,
    captions: Sequence[str] | None = None,
    color_by_order: bool = True,
) -> bytes:
    """Render drawings as one PNG, with the versions of each below each other; the same input gives the same bytes.

    If there are more drawings than columns, they wrap into blocks, each of which shows all rows. The cells of a block's
    column share one frame, so that a displaced stroke appears displaced. The frame grows to contain all rows, up to 1.6
    times the size of the first row's drawing; strokes are clipped to the cell.

    Args:
        rows: label and drawings of each row; at least one row, all with the same number of drawings, at least one. A
            drawing is a sequence of strokes, int or float [n, 2] arrays of absolute (x, y) in any unit, y downwards.
        columns: largest number of drawings side by side.
        cell_size: side of a drawing's cell, in pixels.
        captions: one for each drawing of a row, such as its category; truncated where the cell is too narrow.
        color_by_order: whether to colour strokes from dark to bright in drawing order, with the same colour for the
            same stroke index in every cell of every gallery; otherwise they are black.

    Raises:
        ValueError: if there are no rows, rows are empty or unequal in length, the number of captions is wrong,
            `columns` is below 1 or `cell_size` below 32, or a stroke has no point, a shape other than [n, 2] or a
            coordinate that is not finite.
    """
    if columns < 1 or cell_size < 32:
        raise ValueError(f"columns={columns} and cell_size={cell_size} are too small; use at least 1 and 32")
    strokes = _checked_rows(rows, captions)
    page = _Page(rows, columns, cell_size, bool(captions), color_by_order)
    if color_by_order:
        _draw_legend(page)
    _draw_labels(page, [label for label, _ in rows], captions or ())
    for drawing, versions in enumerate(zip(*strokes, strict=True)):
        _draw_column(page, drawing, versions, color_by_order)
    return page.png()
