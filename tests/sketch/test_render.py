import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import fsspec
import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.image import imread

from sgloc.sketch.render import GalleryRow, Polylines, to_svg, write_gallery, write_svg

SVG = "{http://www.w3.org/2000/svg}"
CELL = 60
MARGIN = 16  # white pixels around a gallery

Array = npt.NDArray[np.float64]

SQUARE = np.array([[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]])
TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.8], [0.0, 0.0]])
LINE = np.array([[0, 50], [100, 50]])
BROKEN_DRAWINGS = [
    pytest.param([LINE, np.array([[0.0, np.nan]])], "stroke 1 .*finite", id="nan"),
    pytest.param([LINE, np.array([[np.inf, 0.0]])], "stroke 1 .*finite", id="infinite"),
    pytest.param([LINE, np.array([[0.0, 1e300]])], "stroke 1 .*finite", id="overflowing"),
    pytest.param([LINE, np.zeros((0, 2))], "stroke 1 .*shape", id="no point"),
    pytest.param([LINE, np.zeros((4, 3))], "stroke 1 .*shape", id="stroke-3"),
    pytest.param([LINE, np.zeros(2)], "stroke 1 .*shape", id="flat"),
]

drawings = st.lists(
    st.integers(1, 6).flatmap(lambda length: arrays(np.int64, (length, 2), elements=st.integers(-1000, 1000))),
    min_size=1,
    max_size=5,
)


def svg_strokes(svg: str) -> list[Array]:
    group = ElementTree.fromstring(svg).find(f"{SVG}g")
    assert group is not None
    strokes = []
    for element in group:
        if element.tag == f"{SVG}circle":
            strokes.append(np.array([[float(element.attrib["cx"]), float(element.attrib["cy"])]]))
        else:
            assert element.tag == f"{SVG}polyline"
            strokes.append(np.array([point.split(",") for point in element.attrib["points"].split()], dtype=float))
    return strokes


@given(drawings, st.integers(16, 1000), st.floats(1e-3, 1e3))
def test_svg_is_the_drawing_scaled_uniformly_and_centred(drawing: list[Array], size: int, unit: float) -> None:
    strokes = svg_strokes(to_svg([stroke * unit for stroke in drawing], size=size, stroke_width=2))
    assert len(strokes) == len(drawing)
    found = np.concatenate([np.broadcast_to(s, d.shape) for s, d in zip(strokes, drawing, strict=True)])
    original = np.concatenate(drawing)
    center = (original.min(axis=0) + original.max(axis=0)) / 2
    room = size - 2 * (size / 16 + 1)
    scale = room / max(np.ptp(original, axis=0).max(), 1)
    # A stroke shorter than a hundredth of a pixel is a dot, at its first point.
    np.testing.assert_allclose(found, (original - center) * scale + size / 2, atol=0.02)


@given(drawings)
def test_svg_numbers_have_at_most_two_decimals(drawing: list[Array]) -> None:
    numbers = re.findall(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?", "".join(to_svg(drawing).split("<g")[1:]))
    assert numbers
    assert all(re.fullmatch(r"\d+(\.\d?[1-9])?", number) for number in numbers)


def test_svg_is_a_white_square_with_black_round_capped_strokes() -> None:
    root = ElementTree.fromstring(to_svg([SQUARE, LINE], size=100, stroke_width=2.5))
    assert root.attrib == {"width": "100", "height": "100", "viewBox": "0 0 100 100"}
    background, group = root
    assert background.attrib == {"width": "100", "height": "100", "fill": "white"}
    assert group.attrib["stroke"] == "black"
    assert group.attrib["fill"] == "none"
    assert group.attrib["stroke-linecap"] == "round"
    assert group.attrib["stroke-width"] == "2.5"
    assert [element.tag for element in group] == [f"{SVG}polyline"] * 2


@pytest.mark.parametrize("dot", [[[50, 50]], [[50, 50], [50, 50]]], ids=["one point", "two equal points"])
def test_svg_of_a_stroke_that_does_not_move_is_a_dot(dot: list[list[int]]) -> None:
    group = ElementTree.fromstring(to_svg([SQUARE, np.array(dot)], size=100, stroke_width=3)).find(f"{SVG}g")
    assert group is not None
    assert group[1].tag == f"{SVG}circle"
    assert group[1].attrib == {"cx": "50", "cy": "50", "r": "1.5", "fill": "black", "stroke": "none"}


def test_svg_of_a_lone_dot_shows_it_in_the_middle() -> None:
    (dot,) = svg_strokes(to_svg([np.array([[7e20, -3e-20]])], size=64))
    assert dot.tolist() == [[32, 32]]


def test_svg_of_no_stroke_is_white() -> None:
    assert svg_strokes(to_svg([])) == []
    assert ElementTree.fromstring(to_svg([], size=40)).attrib["viewBox"] == "0 0 40 40"


def test_svg_does_not_depend_on_the_number_type() -> None:
    assert to_svg([SQUARE, LINE]) == to_svg([SQUARE.astype(np.float32), LINE.astype(np.uint8)])


@pytest.mark.parametrize(("drawing", "message"), BROKEN_DRAWINGS)
def test_svg_refuses(drawing: Polylines, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_svg(drawing)


@pytest.mark.parametrize("stroke_width", [0, -1, 56, np.nan])
def test_svg_refuses_a_stroke_width_that_does_not_fit(stroke_width: float) -> None:
    with pytest.raises(ValueError, match="stroke_width"):
        to_svg([LINE], size=64, stroke_width=stroke_width)


def test_write_svg_writes_to_a_path_and_a_url(tmp_path: Path) -> None:
    write_svg([SQUARE], str(tmp_path / "square.svg"), size=99, stroke_width=4)
    assert (tmp_path / "square.svg").read_text() == to_svg([SQUARE], size=99, stroke_width=4)
    write_svg([SQUARE], "memory://test_render/square.svg")
    assert fsspec.filesystem("memory").cat("/test_render/square.svg").decode() == to_svg([SQUARE])


def gallery(
    *rows: Sequence[Polylines],
    labels: Sequence[str] | None = None,
    columns: int = 16,
    title: str | None = None,
    captions: Sequence[str] | None = None,
    color_by_order: bool = False,
) -> bytes:
    path = "memory://test_render/gallery.png"
    write_gallery(
        [GalleryRow(label, row) for label, row in zip(labels or [""] * len(rows), rows, strict=True)],
        path,
        columns=columns,
        cell_size=CELL,
        title=title,
        captions=captions,
        color_by_order=color_by_order,
    )
    content = fsspec.filesystem("memory").cat(path)
    assert isinstance(content, bytes)
    return content


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
    # Both fit: the frame is 1.25 sides wide and the cell's padding is the same on the left and the right.
    assert first[0] == pytest.approx(CELL - 1 - second[2], abs=1.5)
    # The other column has its own frame.
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
    # A stroke's colour is told by its index, however many strokes there are and wherever they lie.
    np.testing.assert_allclose(backward[centers[::-1], column], colors, atol=0.06)
    fewer = cells(decode(gallery([lines, *empty], [lines[:2], *empty], color_by_order=True)), 2, 4)
    np.testing.assert_array_equal(fewer[1, 0, : centers[1] + 2], fewer[0, 0, : centers[1] + 2])


def test_gallery_colors_are_legible_on_white() -> None:
    image = decode(gallery([[LINE] * 40, [], [], []], color_by_order=True))
    last = cells(image, 1, 4)[0, 0, :, CELL // 2] @ np.array([0.2126, 0.7152, 0.0722])
    assert 0.5 < last.min() < 0.7


def test_gallery_is_deterministic_and_knows_no_settings() -> None:
    def make() -> bytes:
        return gallery(
            [[SQUARE, LINE]], [[TRIANGLE]], labels=["a", "b"], title="c", captions=["d"], color_by_order=True
        )

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


def test_gallery_has_room_for_its_title_and_takes_it_literally() -> None:
    title = r"50$ \frac$ " + "and a long title " * 3
    image = decode(gallery([[SQUARE]], title=title, color_by_order=True))
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
