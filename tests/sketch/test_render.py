import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.image import imread

from sgloc.sketch.render import draw_gallery
from tests.sketch.lines import BROKEN_DRAWINGS, LINE, SQUARE, TRIANGLE

CELL = 60
MARGIN = 16  # white pixels around a gallery

Array = npt.NDArray[np.float64]
Polylines = Sequence[npt.NDArray[np.integer | np.floating]]


def gallery(
    *rows: Sequence[Polylines],
    labels: Sequence[str] | None = None,
    columns: int = 16,
    captions: Sequence[str] | None = None,
    color_by_order: bool = False,
) -> bytes:
    labelled = list(zip(labels or [""] * len(rows), rows, strict=True))
    return draw_gallery(labelled, columns=columns, cell_size=CELL, captions=captions, color_by_order=color_by_order)


def decode(png: bytes) -> Array:
    return np.asarray(imread(io.BytesIO(png)), dtype=np.float64)[..., :3]


def cells(image: Array, num_rows: int, num_columns: int) -> Array:
    """Return the cells [rows, columns, CELL, CELL, 3] of a gallery of one block."""
    height, width = num_rows * CELL, num_columns * CELL
    bottom, right = image.shape[0] - MARGIN, image.shape[1] - MARGIN
    block = image[bottom - height : bottom, right - width : right]
    return block.reshape(num_rows, CELL, num_columns, CELL, 3).swapaxes(1, 2)


def ink(image: Array) -> npt.NDArray[np.bool_]:
    dark: npt.NDArray[np.bool_] = image.min(axis=-1) < 0.6
    return dark


def ink_box(image: Array) -> Array:
    """Return the ink's left, top, right and bottom pixel [4]."""
    y, x = np.nonzero(ink(image))
    return np.array([x.min(), y.min(), x.max(), y.max()], dtype=np.float64)


def test_gallery_grows_by_cells() -> None:
    one = decode(gallery([[SQUARE]])).shape
    assert one[0] == CELL + 2 * MARGIN
    row = decode(gallery([[SQUARE]] * 3)).shape
    assert (row[0] - one[0], row[1] - one[1]) == (0, 2 * CELL)
    column = decode(gallery(*[[[SQUARE]]] * 3)).shape
    assert (column[0] - one[0], column[1] - one[1]) == (2 * CELL, 0)
    labelled = decode(gallery([[SQUARE]], labels=["reorganized"])).shape
    assert labelled[0] == one[0]
    assert labelled[1] > one[1] + 50


def test_gallery_wraps_into_blocks_that_show_all_rows() -> None:
    drawings: list[Polylines] = [[], [], [], [SQUARE], []]
    image = decode(gallery(drawings, drawings, columns=3))
    narrow = decode(gallery(drawings[:3], drawings[:3]))
    assert image.shape[1] == narrow.shape[1]
    gap = image.shape[0] - 2 * MARGIN - 4 * CELL
    assert 0 < gap < CELL
    left = image.shape[1] - MARGIN - 3 * CELL
    second_block = MARGIN + 2 * CELL + gap
    marked = ink(image)
    for row in range(2):
        top = second_block + row * CELL
        assert marked[top : top + CELL, left : left + CELL].any()
        marked[top : top + CELL, left : left + CELL] = False
    assert not marked.any()
    assert (image[MARGIN + 2 * CELL : second_block].min(axis=(0, 2)) < 1).sum() > 3 * CELL - 1  # the rule


def test_gallery_rows_share_the_frame_of_their_column() -> None:
    shifted = SQUARE + np.array([25, -10])
    image = cells(decode(gallery([[SQUARE], [TRIANGLE]], [[shifted], [TRIANGLE]])), 2, 2)
    first, second = ink_box(image[0, 0]), ink_box(image[1, 0])
    side = first[2] - first[0]
    np.testing.assert_allclose(second - first, side * np.array([0.25, -0.1, 0.25, -0.1]), atol=1.5)
    # Both drawings fit: the frame is 1.25 sides wide, with equal padding on the left and the right.
    assert first[0] == pytest.approx(CELL - 1 - second[2], abs=1.5)
    # Each column has its own frame.
    np.testing.assert_array_equal(image[0, 1], image[1, 1])


def test_gallery_points_y_down() -> None:
    image = cells(decode(gallery([[TRIANGLE]])), 1, 1)[0, 0]
    half = CELL // 2
    assert ink(image[:half]).sum() > ink(image[half:]).sum()


@pytest.mark.parametrize("far", [1e30, -1e30])
def test_gallery_frame_tolerates_outliers_and_cuts_them_off(far: float) -> None:
    runaway = np.array([[50.0, 50.0], [far, 50.0], [50.0, far], [50.0, 50.0]])
    calm = cells(decode(gallery([[SQUARE], []], [[SQUARE], []], [[SQUARE], []])), 3, 2)
    wild = cells(decode(gallery([[SQUARE], []], [[runaway], []], [[SQUARE], []])), 3, 2)
    before, after = ink_box(calm[0, 0]), ink_box(wild[0, 0])
    assert (before[2] - before[0]) / (after[2] - after[0]) == pytest.approx(1.3, abs=0.08)  # grown on one side alone
    assert ink(wild[1, 0]).any()
    np.testing.assert_array_equal(wild[0, 0], wild[2, 0])
    assert (wild[:, 1] == 1).all()


def test_gallery_frame_comes_from_the_first_row_that_has_a_size() -> None:
    dot = np.array([[50, 50]])
    alone = cells(decode(gallery([[SQUARE]])), 1, 1)[0, 0]
    image = cells(decode(gallery([[]], [[dot]], [[SQUARE]])), 3, 1)
    np.testing.assert_array_equal(image[2, 0], alone)
    assert ink_box(image[1, 0]).mean() == pytest.approx((CELL - 1) / 2, abs=1)
    assert (image[0] == 1).all()


def test_gallery_of_dots_alone_shows_them() -> None:
    lone, empty = cells(decode(gallery([[np.array([[7.5, -2.5]])], []])), 1, 2)[0]
    box = ink_box(lone)
    assert (box[2:] - box[:2]).max() <= 3
    assert box.mean() == pytest.approx((CELL - 1) / 2, abs=1)
    assert (empty == 1).all()


def test_gallery_colors_strokes_by_order() -> None:
    lines = [np.array([[0, y], [100, y]]) for y in range(0, 101, 20)]
    empty: list[Polylines] = [[], [], []]  # make the grid wider than the legend
    forward, backward, black = (
        cells(decode(gallery([drawing, *empty], color_by_order=colored)), 1, 4)[0, 0]
        for drawing, colored in ((lines, True), (lines[::-1], True), (lines, False))
    )
    column = CELL // 2
    inked = np.flatnonzero(ink(black)[:, column])
    bands = np.split(inked, np.flatnonzero(np.diff(inked) > 1) + 1)
    assert len(bands) == len(lines)
    centers = [band[black[band, column, 0].argmin()] for band in bands]
    colors = forward[centers, column]
    luminance = colors @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()
    assert (np.ptp(black, axis=-1) == 0).all()
    # The colour depends only on the index of a stroke, not on the number of strokes or their positions.
    np.testing.assert_allclose(backward[centers[::-1], column], colors, atol=0.06)
    fewer = cells(decode(gallery([lines, *empty], [lines[:2], *empty], color_by_order=True)), 2, 4)
    np.testing.assert_array_equal(fewer[1, 0, : centers[1] + 2], fewer[0, 0, : centers[1] + 2])


def test_gallery_colors_are_legible_on_white() -> None:
    image = decode(gallery([[LINE] * 40, [], [], []], color_by_order=True))
    last = cells(image, 1, 4)[0, 0, :, CELL // 2] @ np.array([0.2126, 0.7152, 0.0722])
    assert 0.5 < last.min() < 0.7


def test_gallery_is_deterministic_and_knows_no_settings() -> None:
    def make() -> bytes:
        return gallery([[SQUARE, LINE]], [[TRIANGLE]], labels=["a", "b"], captions=["d"], color_by_order=True)

    png = make()
    assert make() == png
    with matplotlib.rc_context():
        matplotlib.rcParams["figure.facecolor"] = matplotlib.rcParams["text.color"] = "red"
        matplotlib.rcParams["font.family"] = "monospace"
        matplotlib.rcParams["lines.antialiased"] = matplotlib.rcParams["path.snap"] = False
        matplotlib.rcParams["text.usetex"] = True
        assert make() == png
    assert not re.search(b"tEXt|iTXt|tIME", png)


def test_gallery_captions_stay_in_their_column() -> None:
    drawings: list[Polylines] = [[], []]
    image = decode(gallery(drawings, captions=["The Great Wall of China", ""]))
    strip = ink(image[: -MARGIN - CELL])
    middle = image.shape[1] - MARGIN - CELL
    assert strip[:, middle - CELL : middle].any()
    assert not strip[:, middle:].any()
    assert not strip[:, : middle - CELL].any()
    full = decode(gallery(drawings, captions=["cat", ""]))
    assert ink(full).sum() < strip.sum()


def test_gallery_takes_its_words_literally() -> None:
    label = r"50$ \frac$ " + "and a long label " * 3
    image = decode(gallery([[SQUARE]], labels=[label], captions=[label], color_by_order=True))
    assert image.shape[1] > 300
    assert (image[:, -MARGIN:] == 1).all()


def test_gallery_of_many_drawings_is_small() -> None:
    generator = np.random.default_rng(0)
    drawings = [[generator.normal(size=(12, 2)).cumsum(axis=0) for _ in range(5)] for _ in range(64)]
    png = gallery(drawings, drawings, drawings, labels=["original", "disturbed", "redrawn"], color_by_order=True)
    assert len(png) < 2_000_000
    assert decode(png).shape[0] > 12 * CELL


@pytest.mark.parametrize(("drawing", "message"), BROKEN_DRAWINGS)
def test_gallery_refuses_a_drawing_and_says_which(drawing: Polylines, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".*", 'of drawing 1 of row "redrawn" .*')):
        gallery([[SQUARE], [SQUARE]], [[SQUARE], drawing], labels=["original", "redrawn"])


def test_gallery_refuses_rows_that_do_not_fit_together() -> None:
    with pytest.raises(ValueError, match='"a" 1, "b" 2'):
        gallery([[SQUARE]], [[SQUARE], [SQUARE]], labels=["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        gallery()
    with pytest.raises(ValueError, match="at least one"):
        gallery([[SQUARE]], [])
    with pytest.raises(ValueError, match="2 captions"):
        gallery([[SQUARE]], captions=["cat", "dog"])
    with pytest.raises(ValueError, match="columns=0"):
        gallery([[SQUARE]], columns=0)
