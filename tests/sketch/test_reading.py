"""Reading a user's own drawing, and the errors for drawings that cannot be read."""

import gzip
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import sgloc
from sgloc.data.formats.form import read_drawings
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing
from sgloc.sketch.reading import read_own
from sgloc.sketch.svg.write import to_svg


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_json_and_ndjson(tmp_path: Path) -> None:
    quickdraw = {"word": "cat", "drawing": [[[0, 5, 9], [1, 2, 3]], [[7.5], [8]]]}
    expected = [[[0, 1], [5, 2], [9, 3]], [[7.5, 8]]]
    timed = {"drawing": [[[0, 5, 9], [1, 2, 3], [0, 10, 20]], [[7.5], [8], [30]]]}
    plain = json.dumps(expected)
    for name, text in (("a.json", json.dumps(quickdraw)), ("b.json", json.dumps(timed)), ("c.json", plain)):
        ((_, strokes),) = read_own(write(tmp_path, name, text))
        assert [stroke.tolist() for stroke in strokes] == expected
    read = read_own(write(tmp_path, "many.ndjson", f"{json.dumps(quickdraw)}\n\n{json.dumps(timed)}\n"))
    assert [name for name, _ in read] == ["many-0001", "many-0002"]
    assert all([stroke.tolist() for stroke in strokes] == expected for _, strokes in read)
    # Any location that fsspec can open works.
    assert len(read_own(f"file://{tmp_path}/many.ndjson")) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("a.png", "", "is not a supported drawing file", id="picture"),
        pytest.param("missing.svg", None, r"cannot be read \(.*\); check the path and its permissions", id="missing"),
        pytest.param("a.svg", "<svg", "is not a readable SVG", id="cut svg"),
        pytest.param("a.svg", "", "is not a readable SVG", id="empty svg"),
        pytest.param("a.svg", "<html></html>", "its root element is not svg", id="page"),
        pytest.param(
            "a.svg", '<svg xmlns="http://www.w3.org/2000/svg"/>', "contains no strokes; ", id="svg of nothing"
        ),
        pytest.param("a.svgz", "<svg></svg>", "contains no strokes", id="svgz that is not packed"),
        pytest.param("a.json", "{", "malformed json", id="cut json"),
        pytest.param("a.json", "{}", "missing field", id="no drawing"),
        pytest.param("a.json", "[]", "empty drawing", id="no stroke"),
        pytest.param("a.json", "7", "wrong shape", id="number"),
        pytest.param("a.json", '[["a"]]', "stroke 0 is .* not a list of points", id="word"),
        pytest.param("a.json", "[[1, 2]]", "stroke 0 is .* not a list of points", id="flat"),
        pytest.param("a.json", "[[[1, 2, 3]]]", "stroke 0 is .* not a list of points", id="three numbers"),
        pytest.param("a.json", "[[[1, 2]], []]", "stroke 1 has no point", id="empty stroke"),
        pytest.param("a.json", "[[[1, true]]]", "not a number: True", id="truth"),
        pytest.param("a.json", "[[[1, NaN]]]", "malformed json", id="not a number"),
        pytest.param("a.json", "[[[1, 1e10]]]", "coordinate that is not finite or exceeds", id="huge"),
        pytest.param("a.json", '{"drawing": [[[1, 2], [3]]]}', "unequal lengths", id="unequal"),
        pytest.param("a.json", json.dumps([[[0, 0]] * 20_001]), "more than 20,000 points", id="many points"),
        pytest.param("a.json", json.dumps([[[0, 0], [0, 9]] * 999]), "as long as the drawing is large", id="long"),
        pytest.param("a.ndjson", "\n", "is empty", id="empty"),
        pytest.param("a.ndjson", '{"drawing": [[[1], [3]]]}\n{}\n', r"drawing 2 of .*a\.ndjson", id="second line"),
        pytest.param("a.json", "[" * 4_000_000, "malformed json", id="deep"),
        pytest.param("a.json", f"[[{'[1,2],' * 300_000}[1,2]]]", "more than 500,000 commas", id="many commas"),
        pytest.param("a.ndjson", "[[[1,2]]]" + "\n" * 9_000_000 + "{}", "or 200,000 lines", id="many lines"),
        pytest.param("a.json.gz", "{}", "cannot be read", id="gz that is not packed"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    location = str(tmp_path / name) if text is None else write(tmp_path, name, text)
    with pytest.raises(DataError, match=message):
        read_own(location)


def test_one_reader_reads_what_shards_are_built_of(tmp_path: Path) -> None:
    lines = [{"word": "cat", "key_id": str(number), "drawing": [[[0, number], [9, 7]]]} for number in (3, 4)]
    expected = [[[[0, 9], [number, 7]]] for number in (3, 4)]
    plain = "\n".join(map(json.dumps, lines))
    for number, (name, content) in enumerate(
        [
            ("a.ndjson", b"\xef\xbb\xbf" + plain.encode()),
            ("a.ndjson", plain.encode("utf-16")),
            ("a.ndjson", json.dumps(lines, indent=1).encode()),
            ("a.json", json.dumps(lines, indent=1).encode("utf-16")),
            ("a.ndjson.gz", gzip.compress(plain.encode(), mtime=0)),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / name).write_bytes(content)
        read = read_own(str(tmp_path / str(number) / name))
        assert [name for name, _ in read] == ["a-0001", "a-0002"]
        assert [[stroke.tolist() for stroke in strokes] for _, strokes in read] == expected
        if "ndjson" in name:
            drawings = list(read_drawings(str(tmp_path / str(number) / name)))
            assert all(isinstance(drawing, Drawing) for drawing in drawings)


@pytest.mark.parametrize("name", ["a.svgz", "a.svg.gz", "A.SVG"])
def test_a_packed_svg_is_read(tmp_path: Path, name: str) -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><path stroke="red" d="M1 2h3v4"/></svg>'
    (tmp_path / name).write_bytes(gzip.compress(svg, mtime=0))
    ((stem, (stroke,)),) = read_own(str(tmp_path / name))
    assert stem.lower() == "a"
    assert stroke.tolist() == [[1, 2], [4, 2], [4, 6]]
    (tmp_path / name).write_bytes(gzip.compress(svg, mtime=0)[:-9])
    with pytest.raises(DataError, match=r"cannot be decompressed .*; save or download it again"):
        read_own(str(tmp_path / name))


def test_a_folder_is_no_drawing(tmp_path: Path) -> None:
    (tmp_path / "a.svg").mkdir()
    with pytest.raises(DataError, match=r"a\.svg is a folder; use an \.svg"):
        read_own(str(tmp_path / "a.svg"))


def test_the_python_api_reads_a_file(tmp_path: Path, logged: list[str]) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><path stroke="red" d="M1 2h3v4"/><text>no</text></svg>'
    ((stroke,),) = sgloc.read_strokes(write(tmp_path, "a.svg", svg))
    assert stroke.tolist() == [[1, 2], [4, 2], [4, 6]]
    assert logged == [f"{tmp_path}/a.svg: 1 text was left out"]
    assert len(sgloc.read_strokes(write(tmp_path, "a.json", "[[[0, 1], [2, 3]], [[4, 5]]]"))[0]) == 2


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_an_to_svg_can_be_read_again(tmp_path: Path, factor: float, logged: list[str]) -> None:
    strokes = [np.array([[10.0, 20], [30, 25], [70, 90]]) * factor, np.array([[50.0, 50.0]]) * factor]
    text = to_svg(strokes)
    root = ElementTree.fromstring(text)
    x, y, width, height = map(float, root.attrib["viewBox"].split())
    assert x < 10 * factor < 70 * factor < x + width
    assert y < 20 * factor < 90 * factor < y + height
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    found = [np.array([pair.split(",") for pair in line.attrib["points"].split()], dtype=float) for line in lines]
    np.testing.assert_allclose(found[0], strokes[0], atol=1e-3 * factor)
    np.testing.assert_allclose(found[1][0], strokes[1][0], atol=1e-3 * factor)
    # A dot is written with an extent, so that it is visible.
    assert np.ptp(found[1], axis=0).max() > 0
    ((_, read),) = read_own(write(tmp_path, "again.svg", text))
    assert [len(stroke) for stroke in read] == [3, 2]
    np.testing.assert_array_equal(read[0], found[0])
    assert logged == [f"{tmp_path}/again.svg: 1 page background was left out"]
