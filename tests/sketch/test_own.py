"""A user's own drawing: what is read of it, and what is told of one that cannot be."""

import itertools
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from sgloc.errors import DataError
from sgloc.sketch.own import read_own, svg_in_place

SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="400" height="300" viewBox="0 0 200 150">
<defs><linearGradient id="g"/></defs><text x="1" y="2">no stroke</text>
<g transform="translate(10,10)"><path d="M0 0 L 5 5 M 70 70 L 90 90 L 70 90 z"/>
<polyline points="0,0 10,5 20,0"/></g><line x1="1" y1="2" x2="30" y2="40"/>
<path d="M 0 50 C 0 100 100 100 100 50"/><circle cx="50" cy="50" r="10"/></svg>"""


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_an_svg_is_its_shapes(tmp_path: Path) -> None:
    told: list[str] = []
    location = write(tmp_path, "my drawing.svg", SVG)
    ((name, strokes),) = read_own(location, told.append)
    assert told == [f"1 texts and images of {location} are no strokes and left out"]
    assert name == "my drawing"
    # Two pixels a unit, and a path that lifts the pen is two strokes.
    expected = [
        [[20, 20], [30, 30]],
        [[160, 160], [200, 200], [160, 200], [160, 160]],
        [[20, 20], [40, 30], [60, 20]],
        [[2, 4], [60, 80]],
    ]
    for stroke, points in zip(strokes[:4], expected, strict=True):
        np.testing.assert_allclose(stroke, points)
    curve, circle = strokes[4:]
    t = np.linspace(0, 1, 17)[:, None]
    corners = 2 * np.array([[0, 50], [0, 100], [100, 100], [100, 50]])
    bezier = (
        (1 - t) ** 3 * corners[0]
        + 3 * (1 - t) ** 2 * t * corners[1]
        + 3 * (1 - t) * t**2 * corners[2]
        + t**3 * corners[3]
    )
    np.testing.assert_allclose(curve, bezier)
    np.testing.assert_allclose(np.hypot(*(circle - 100).T), 20, atol=1e-6)
    np.testing.assert_allclose(circle[0], circle[-1], atol=1e-6)


def test_json_and_ndjson(tmp_path: Path) -> None:
    quickdraw = {"word": "cat", "drawing": [[[0, 5, 9], [1, 2, 3]], [[7.5], [8]]]}
    expected = [[[0, 1], [5, 2], [9, 3]], [[7.5, 8]]]
    timed = {"drawing": [[[0, 5, 9], [1, 2, 3], [0, 10, 20]], [[7.5], [8], [30]]]}
    plain = json.dumps(expected)
    for name, text in (("a.json", json.dumps(quickdraw)), ("b.json", json.dumps(timed)), ("c.json", plain)):
        ((_, strokes),) = read_own(write(tmp_path, name, text), pytest.fail)
        assert [stroke.tolist() for stroke in strokes] == expected
    read = read_own(write(tmp_path, "many.ndjson", f"{json.dumps(quickdraw)}\n\n{json.dumps(timed)}\n"), pytest.fail)
    assert [name for name, _ in read] == ["many-0001", "many-0002"]
    assert all([stroke.tolist() for stroke in strokes] == expected for _, strokes in read)
    # From anywhere.
    assert len(read_own(f"file://{tmp_path}/many.ndjson", pytest.fail)) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.png", "", "is none of what can be read"),
        ("missing.svg", None, "cannot be read"),
        ("a.svg", "<svg", "is no SVG that can be read"),
        ("a.svg", "", "is no SVG that can be read"),
        ("a.svg", '<svg xmlns="http://www.w3.org/2000/svg"/>', "holds no stroke"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "{}", "holds no drawing"),
        ("a.json", "[]", "holds no stroke"),
        ("a.json", "7", "holds no drawing"),
        ("a.json", '[["a"]]', "holds no drawing"),
        ("a.json", "[[1, 2]]", r"stroke 1 of .* is not a list of points"),
        ("a.json", "[[[1, 2, 3]]]", r"stroke 1 of .* is not a list of points"),
        ("a.json", "[[[1, 2]], []]", r"stroke 2 of .* is not a list of points"),
        ("a.json", "[[[1, NaN]]]", "coordinate that is not finite"),
        ("a.json", '{"drawing": [[[1, 2], [3]]]}', "holds no drawing"),
        ("a.json", json.dumps([[[0, 0]] * 20_001]), "more than 20,000 points"),
        ("a.ndjson", "\n", "is empty"),
        ("a.ndjson", '{"drawing": [[[1], [3]]]}\n{}\n', r"line 2 of .*a\.ndjson holds no drawing"),
    ],
    ids=[
        "png",
        "missing",
        "svg-cut-off",
        "svg-empty",
        "svg-without-stroke",
        "json-cut-off",
        "object",
        "list",
        "number",
        "text-as-point",
        "stroke-of-numbers",
        "point-of-three",
        "stroke-empty",
        "nan",
        "columns-of-one-dimension",
        "too-many-points",
        "ndjson-empty",
        "ndjson-second-line",
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    location = str(tmp_path / name) if text is None else write(tmp_path, name, text)
    with pytest.raises(DataError, match=message):
        read_own(location, pytest.fail)


def test_entities_that_explode_do_no_harm(tmp_path: Path) -> None:
    names = [f"e{number}" for number in range(12)]
    entities = "".join(f'<!ENTITY {one} "{f"&{before};" * 10}">' for before, one in itertools.pairwise(names))
    bomb = f'<!DOCTYPE svg [<!ENTITY e0 "xxxxxxxxxx">{entities}]><svg><title>&{names[-1]};</title></svg>'
    with pytest.raises(DataError):
        read_own(write(tmp_path, "bomb.svg", bomb), pytest.fail)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_an_svg_in_place_can_be_read_again(tmp_path: Path, factor: float) -> None:
    strokes = [np.array([[10.0, 20], [30, 25], [70, 90]]) * factor, np.array([[50.0, 50.0]]) * factor]
    text = svg_in_place(strokes)
    root = ElementTree.fromstring(text)
    x, y, width, height = map(float, root.attrib["viewBox"].split())
    assert x < 10 * factor < 70 * factor < x + width
    assert y < 20 * factor < 90 * factor < y + height
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    found = [np.array([pair.split(",") for pair in line.attrib["points"].split()], dtype=float) for line in lines]
    np.testing.assert_allclose(found[0], strokes[0], atol=1e-3 * factor)
    np.testing.assert_allclose(found[1][0], strokes[1][0], atol=1e-3 * factor)
    # A dot is seen.
    assert np.ptp(found[1], axis=0).max() > 0
