"""Writing strokes as SVG, fitted into a square or in their own coordinates."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sgloc.sketch.svg.write import to_svg
from tests.sketch.lines import BROKEN_DRAWINGS, LINE, SQUARE

SVG = "{http://www.w3.org/2000/svg}"

Array = npt.NDArray[np.float64]

drawings = st.lists(
    st.integers(1, 6).flatmap(lambda length: arrays(np.int64, (length, 2), elements=st.integers(-1000, 1000))),
    min_size=1,
    max_size=5,
)


def svg_strokes(svg: str) -> list[Array]:
    group = ElementTree.fromstring(svg).find(f"{SVG}g")
    assert group is not None
    assert all(element.tag == f"{SVG}polyline" for element in group)
    lines = [element.attrib["points"].split() for element in group]
    return [np.array([point.split(",") for point in line], dtype=float) for line in lines]


def as_long(found: Array, stroke: Array) -> Array:
    """Return the stroke as found, or, for a dot, written as two adjacent points, its first point repeated."""
    return found if len(found) == len(stroke) else np.broadcast_to(found[:1], stroke.shape)


@given(drawings, st.integers(16, 1000), st.floats(1e-3, 1e3))
def test_svg_is_the_drawing_scaled_uniformly_and_centred(drawing: list[Array], size: int, unit: float) -> None:
    strokes = svg_strokes(to_svg([stroke * unit for stroke in drawing], size=size, stroke_width=2))
    assert len(strokes) == len(drawing)
    found = np.concatenate([as_long(s, d) for s, d in zip(strokes, drawing, strict=True)])
    original = np.concatenate(drawing)
    center = (original.min(axis=0) + original.max(axis=0)) / 2
    room = size - 2 * (size / 16 + 1)
    scale = room / max(np.ptp(original, axis=0).max(), 1)
    np.testing.assert_allclose(found, (original - center) * scale + size / 2, atol=0.02)


@given(drawings)
def test_svg_numbers_have_at_most_two_decimals(drawing: list[Array]) -> None:
    numbers = re.findall(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?", "".join(to_svg(drawing, size=256).split("<g")[1:]))
    assert numbers
    assert all(re.fullmatch(r"\d+(\.\d?[1-9])?", number) for number in numbers)


def test_svg_is_a_white_square_with_black_round_capped_strokes() -> None:
    root = ElementTree.fromstring(to_svg([SQUARE, LINE], size=100, stroke_width=2.5))
    assert root.attrib == {"width": "100", "height": "100", "viewBox": "0 0 100 100"}
    background, group = root
    assert background.attrib == {"x": "0", "y": "0", "width": "100", "height": "100", "fill": "white"}
    assert group.attrib["stroke"] == "black"
    assert group.attrib["fill"] == "none"
    assert group.attrib["stroke-linecap"] == "round"
    assert group.attrib["stroke-width"] == "2.5"
    assert [element.tag for element in group] == [f"{SVG}polyline"] * 2


@pytest.mark.parametrize("dot", [[[50, 50]], [[50, 50], [50, 50]]], ids=["one point", "two equal points"])
def test_svg_of_a_stroke_that_does_not_move_is_a_dot(dot: list[list[int]]) -> None:
    # Renderers disagree on the caps of a line without length, so a dot is written with a small length.
    _, found = svg_strokes(to_svg([SQUARE, np.array(dot)], size=100, stroke_width=3))
    assert found.tolist() == [[50, 50], [50.01, 50]]


def test_svg_of_a_lone_dot_shows_it_in_the_middle() -> None:
    (dot,) = svg_strokes(to_svg([np.array([[7e20, -3e-20]])], size=64))
    assert dot.tolist() == [[32, 32], [32.01, 32]]


def test_svg_of_no_stroke_is_white() -> None:
    assert svg_strokes(to_svg([], size=256)) == []
    assert ElementTree.fromstring(to_svg([], size=40)).attrib["viewBox"] == "0 0 40 40"


@pytest.mark.parametrize("size", [None, 256], ids=["in place", "fitted"])
def test_svg_does_not_depend_on_the_number_type(size: int | None) -> None:
    drawing: list[npt.NDArray[np.integer | np.floating]] = [SQUARE.astype(np.float32), LINE.astype(np.uint8)]
    assert to_svg([SQUARE, LINE], size=size) == to_svg(drawing, size=size)


@pytest.mark.parametrize("size", [None, 256], ids=["in place", "fitted"])
@pytest.mark.parametrize(("drawing", "message"), BROKEN_DRAWINGS)
def test_svg_refuses(drawing: list[Array], message: str, size: int | None) -> None:
    with pytest.raises(ValueError, match=message):
        to_svg(drawing, size=size)


@pytest.mark.parametrize("stroke_width", [0, -1, 56, np.nan])
def test_svg_refuses_a_stroke_width_that_does_not_fit(stroke_width: float) -> None:
    with pytest.raises(ValueError, match="stroke_width"):
        to_svg([LINE], size=64, stroke_width=stroke_width)


@given(drawings, st.floats(1e-3, 1e6))
def test_svg_in_place_keeps_coordinates(drawing: list[Array], unit: float) -> None:
    given = [stroke * unit for stroke in drawing]
    svg = to_svg(given)
    side = np.ptp(np.concatenate(given), axis=0).max() or 1.0
    for found, stroke in zip(svg_strokes(svg), given, strict=True):
        np.testing.assert_allclose(as_long(found, stroke), stroke, atol=1e-2 * side)
    x, y, width, height = map(float, ElementTree.fromstring(svg).attrib["viewBox"].split())
    low, high = np.concatenate(given).min(0), np.concatenate(given).max(0)
    assert (np.array([x, y]) < low).all()
    assert (np.array([x + width, y + height]) > high).all()
