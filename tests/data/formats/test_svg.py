"""Building shards from folders of a user's own drawings: SVG and JSON, one folder per category."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

import sgloc.data.formats
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.formats.form import endings, forms, read_drawings
from sgloc.data.formats.sources import SourceFile, find_sources
from sgloc.data.manifest import load_manifest
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.sketch.rejects import REASONS
from tests.builds import folder_bytes, read_back
from tests.drawings import stroke3_to_polylines

NAMESPACE = 'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 800"'


def svg(number: int, more: str = "") -> str:
    """Return a drawing of two strokes in the style of TU-Berlin's files: curves in groups."""
    curve = f'<path d="M{100 + number} 100c0 {50 + number} 200 0 300 300"/>'
    return (
        f'<svg {NAMESPACE}><g fill="none" stroke="black">{curve}<path d="M50 700L750 {600 - number}"/>{more}</g></svg>'
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two categories of forty SVGs each, and one category of JSON files."""
    for category in ("alarm clock", "cat"):
        (tmp_path / "drawn" / category).mkdir(parents=True)
        for number in range(40):
            (tmp_path / "drawn" / category / f"{number}.svg").write_text(svg(number))
    (tmp_path / "drawn" / "dog").mkdir()
    strokes = [[[[0, 0], [100, number + 1]], [[50, 50], [60, 90]]] for number in range(3)]
    for number, drawing in enumerate(strokes):
        (tmp_path / "drawn" / "dog" / f"{number}.json").write_text(json.dumps(drawing))
    many = [{"drawing": [[[0, 100], [0, number]]]} for number in range(1, 8)]
    (tmp_path / "drawn" / "dog" / "many.json").write_text(json.dumps(many))
    return tmp_path / "drawn"


def test_subfolders_are_the_categories(folder: Path, tmp_path: Path) -> None:
    manifest = build_shards(str(folder), str(tmp_path / "out"))
    assert manifest.categories == ["alarm clock", "cat", "dog"]
    assert {source.name: source.num_accepted for source in manifest.sources} == {
        "alarm clock/*.svg": 40,
        "cat/*.svg": 40,
        "dog/*.json": 10,
    }
    assert (manifest.num_read, manifest.num_accepted, manifest.rejected) == (90, 90, {})
    # QuickDraw's licence does not apply to them.
    assert manifest.licence == ""
    # Simplified like QuickDraw's own drawings.
    (category, _, rows) = read_back(str(tmp_path / "out"), manifest, "train")[0]
    polylines = stroke3_to_polylines(np.array(rows, dtype=np.int16))
    assert (category, len(polylines)) == ("alarm clock", 2)
    points = np.concatenate(polylines)
    assert (points.min(), points.max()) == (0, 255)


def test_the_folder_itself_may_be_the_category(folder: Path) -> None:
    assert find_sources(str(folder / "cat")) == [SourceFile(f"{folder}/cat/*.svg", "cat")]
    assert find_sources(str(folder / "cat" / "7.svg")) == [SourceFile(f"{folder}/cat/7.svg", "cat")]
    (drawing,) = read_drawings(f"{folder}/cat/7.svg")
    assert isinstance(drawing, Drawing)
    assert drawing.category == "cat"


def test_where_the_files_lie_does_not_matter(folder: Path, tmp_path: Path) -> None:
    build_shards(str(folder), str(tmp_path / "one"))
    fsspec.filesystem("memory").put(str(folder), f"{tmp_path}/elsewhere", recursive=True)
    build_shards(f"memory://{tmp_path}/elsewhere", str(tmp_path / "two"))
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


def test_what_is_left_out_or_cannot_be_read_is_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "3.svg").write_text(svg(3, "<text>no</text><image/>"))
    (folder / "cat" / "4.svg").write_text("<svg")
    (folder / "dog" / "0.json").write_text("{}")
    manifest = build_shards(str(folder), str(tmp_path / "out"))
    assert manifest.num_read == 90 + manifest.rejected["left_out"]
    assert manifest.rejected["unreadable"] == 2
    rejects = [json.loads(line) for line in (tmp_path / "out" / "rejects.ndjson").read_text().splitlines()]
    assert {reject["place"] for reject in rejects} == {"3.svg", "4.svg", "0.json"}
    assert any("text" in reject["detail"] for reject in rejects if reject["reason"] == "left_out")


def test_a_drawing_given_twice_is_taken_once(folder: Path, tmp_path: Path) -> None:
    # 0.svg has a known name and known strokes: a duplicate. 1.svg has a known name but other strokes: a new drawing.
    (tmp_path / "more" / "cat").mkdir(parents=True)
    (tmp_path / "more" / "cat" / "0.svg").write_text(svg(0))
    (tmp_path / "more" / "cat" / "1.svg").write_text(svg(300))
    manifest = build_shards([str(folder), str(tmp_path / "more")], str(tmp_path / "out"))
    assert manifest.rejected == {"duplicate_key_id": 1}
    assert manifest.num_accepted == 91


def test_files_of_categories_come_before_folders(folder: Path) -> None:
    # Other files and folders next to QuickDraw's files, such as notes, are not drawings.
    (folder / "cat.ndjson").write_text("")
    (folder / "about.json").write_text("{}")
    assert [source.location for source in find_sources(str(folder))] == [str(folder / "cat.ndjson")]


def test_shards_below_a_folder_are_no_drawings(folder: Path, tiny_shards: str) -> None:
    (folder / "out").symlink_to(tiny_shards)
    with pytest.raises(DataError, match="out already holds shards"):
        find_sources(str(folder))


def test_our_own_ndjson_shows_what_its_file_is_named_after(tmp_path: Path) -> None:
    lines = [json.dumps({"drawing": [[[0, number], [9, 7]]]}) for number in (3, 4, 3)]
    (tmp_path / "cat.ndjson").write_text("\n".join([*lines, '{"word": "dog", "drawing": [[[0], [1]]]}']))
    found = list(read_drawings(str(tmp_path / "cat.ndjson")))
    drawings = [outcome for outcome in found if isinstance(outcome, Drawing)]
    assert [drawing.category for drawing in drawings] == ["cat"] * 3
    assert len({drawing.key_id for drawing in drawings}) == 3
    (reject,) = (outcome for outcome in found if isinstance(outcome, Reject))
    assert (reject.reason, reject.detail) == ("missing_field", "key_id")


FORM_OF_ONE_FILE = '''
"""Dots: one drawing per line, as two numbers."""
from sgloc.data.formats.form import Form
from sgloc.data.formats.rows import ByteDrawing, Strokes, derived_key
from sgloc.sketch.rejects import UnfitError


def read(location, category, word, max_points):
    with open(location) as lines:
        for number, line in enumerate(lines):
            try:
                x, y = map(int, line.split())
            except ValueError:
                yield str(number), UnfitError("no_dot", line)
            else:
                key_id = derived_key(f"{category}/{number}".encode())
                yield str(number), ByteDrawing(category, key_id, True, Strokes(bytes([x]), bytes([y]), [1]))


FORM = Form(
    "dots", (".dots",), lambda head: True, read, is_named=True, reasons={"no_dot": "a line that is not two numbers"}
)
'''


def test_a_form_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "forms").mkdir()
    (tmp_path / "forms" / "dots.py").write_text(FORM_OF_ONE_FILE)
    monkeypatch.setattr(sgloc.data.formats, "__path__", [*sgloc.data.formats.__path__, str(tmp_path / "forms")])
    for cached in (forms, endings):
        cached.cache_clear()
    try:
        (tmp_path / "cat.dots").write_text("".join(f"{number} 7\n" for number in range(200)) + "seven\n")
        manifest = build_shards(str(tmp_path), str(tmp_path / "out"), BuildOptions(per_category=0))
        assert (manifest.num_accepted, manifest.rejected) == (200, {"no_dot": 1})
        assert load_manifest(str(tmp_path / "out")) == manifest
    finally:
        monkeypatch.undo()
        REASONS.pop("no_dot", None)
        for cached in (forms, endings):
            cached.cache_clear()
