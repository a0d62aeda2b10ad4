"""What the readers of QuickDraw drawings take, reject and refuse."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgloc.data.quickdraw import MAX_LINE_BYTES, find_sources, read_drawings, read_simplified
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject, polylines_to_stroke3, stroke3_to_polylines

REAL = Path(__file__).parents[2].parent / "shared/data/quickdraw-simplified"
STROKES = [[[0, 10, 10], [0, 0, 255]], [[7], [9]]]
STROKE3 = [[0, 0, 0], [10, 0, 0], [0, 255, 1], [-3, -246, 1]]

fresh_files = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def record(**changes: Any) -> dict[str, Any]:
    return {"word": "cat", "key_id": "4525909186969600", "recognized": False, "drawing": STROKES} | changes


def line(**changes: Any) -> bytes:
    return json.dumps(record(**changes)).encode() + b"\n"


def read_bytes(folder: Path, data: bytes, name: str = "cat.ndjson") -> list[Drawing | Reject]:
    path = folder / name
    path.write_bytes(data)
    return list(read_drawings(str(path)))


def drawings_of(outcomes: list[Drawing | Reject]) -> list[Drawing]:
    assert all(isinstance(outcome, Drawing) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Drawing)]


def only_reject(outcomes: list[Drawing | Reject]) -> Reject:
    (outcome,) = outcomes
    assert isinstance(outcome, Reject)
    return outcome


coordinates = st.integers(0, 255)
strokes_lists = st.lists(
    st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=6).map(np.array), min_size=1, max_size=5
)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=9).filter(str.isprintable)


def test_reads_a_simplified_line(tmp_path: Path) -> None:
    (drawing,) = drawings_of(read_bytes(tmp_path, line()))
    assert (drawing.category, drawing.key_id, drawing.recognized) == ("cat", 4525909186969600, False)
    assert drawing.split is None
    assert drawing.stroke3.dtype == np.int16
    assert drawing.stroke3.tolist() == STROKE3


@given(st.lists(st.tuples(words, st.integers(0, 2**64 - 1), st.booleans(), strokes_lists), min_size=1, max_size=5))
@fresh_files
def test_simplified_round_trip(tmp_path: Path, drawings: list[tuple[str, int, bool, Any]]) -> None:
    data = b"".join(
        line(word=word, key_id=str(key_id), recognized=recognized, drawing=[points.T.tolist() for points in polylines])
        for word, key_id, recognized, polylines in drawings
    )
    found = drawings_of(read_bytes(tmp_path, data))
    assert len(found) == len(drawings)
    for drawing, (word, key_id, recognized, polylines) in zip(found, drawings, strict=True):
        assert (drawing.category, drawing.key_id, drawing.recognized) == (word, key_id, recognized)
        np.testing.assert_array_equal(drawing.stroke3, polylines_to_stroke3(polylines))
        for points, original in zip(stroke3_to_polylines(drawing.stroke3), polylines, strict=True):
            np.testing.assert_array_equal(points, original)


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"key_id": None}, "bad_key_id", "None"),
        ({"key_id": "-1"}, "bad_key_id", "-1"),
        ({"key_id": -1}, "bad_key_id", "-1"),
        ({"key_id": True}, "bad_key_id", "True"),
        ({"key_id": 1.0}, "bad_key_id", "1.0"),
        ({"key_id": "1" * 5000}, "bad_key_id", "111"),
        ({"key_id": str(2**64)}, "bad_key_id", str(2**64)),
        ({"key_id": "\u0663"}, "bad_key_id", "\u0663"),
        ({"word": 3}, "bad_word", "3"),
        ({"word": ""}, "bad_word", "''"),
        ({"word": "\ud800"}, "bad_word", "ud800"),
        ({"word": "a\nb"}, "bad_word", "a"),
        ({"recognized": "yes"}, "bad_recognized", "yes"),
        ({"drawing": {}}, "wrong_shape", "{}"),
        ({"drawing": []}, "empty_drawing", "no stroke"),
        ({"drawing": [3]}, "wrong_shape", "stroke 0 is 3"),
        ({"drawing": [[3, [1]]]}, "wrong_shape", "stroke 0 is [3, [1]]"),
        ({"drawing": [[[1], 3]]}, "wrong_shape", "stroke 0 is [[1], 3]"),
        ({"drawing": ["xy"]}, "wrong_shape", "stroke 0 is 'xy'"),
        ({"drawing": [["x", "y"]]}, "wrong_shape", "stroke 0"),
        ({"drawing": [[[1], [1]], [[1], [1], [0]]]}, "wrong_shape", "stroke 1"),
        ({"drawing": [[[1], [1]], [[1, 2], [1]]]}, "unequal_lengths", "stroke 1 has 2 xs and 1 ys"),
        ({"drawing": [[[], []]]}, "empty_stroke", "stroke 0"),
        ({"drawing": [[[1.0], [1]]]}, "not_integer", "1.0"),
        ({"drawing": [[[1], [True]]]}, "not_integer", "True"),
        ({"drawing": [[["1"], [1]]]}, "not_integer", "'1'"),
        ({"drawing": [[[[1]], [1]]]}, "not_integer", "[1]"),
        ({"drawing": [[[float("nan")], [1]]]}, "not_integer", "nan"),
        ({"drawing": [[[256], [1]]]}, "out_of_range", "1 to 256"),
        ({"drawing": [[[3], [-1]]]}, "out_of_range", "-1 to 3"),
        ({"drawing": [[[10**30], [1]]]}, "out_of_range", "1 to 1000"),
    ],
)
def test_rejects_a_record(tmp_path: Path, changes: dict[str, Any], reason: str, detail: str) -> None:
    accepted, outcome, last = read_bytes(tmp_path, line() + line(**changes) + line())
    assert isinstance(accepted, Drawing)
    assert isinstance(last, Drawing)
    assert isinstance(outcome, Reject)
    assert (outcome.source, outcome.place, outcome.reason) == (str(tmp_path / "cat.ndjson"), "2", reason)
    assert detail in outcome.detail
    assert len(outcome.detail) < 300


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"\n", "blank_line", "white space"),
        (b" \t\r\n", "blank_line", "white space"),
        (b"  ", "blank_line", "white space"),
        (b"<html>", "malformed_json", "column 1"),
        (b'{"word": ', "malformed_json", "column"),
        (b"[1, 2]\n", "malformed_json", "[1, 2]"),
        (b"[" * 100_000, "malformed_json", "recursion"),
        (b"9" * 5000, "malformed_json", "4300 digits"),
        (b'"\xe9"\n', "not_utf8", "0xe9"),
        (b"\xef\xbb\xbf" + line(), "malformed_json", "BOM"),
        (b'{"word": "cat", "drawing": []}', "missing_field", "key_id"),
        (b"{}", "missing_field", "word, key_id, drawing"),
    ],
)
def test_rejects_a_line(tmp_path: Path, data: bytes, reason: str, detail: str) -> None:
    outcome = only_reject(read_bytes(tmp_path, data))
    assert (outcome.place, outcome.reason) == ("1", reason)
    assert detail in outcome.detail


@pytest.mark.parametrize("excess", [1, MAX_LINE_BYTES, 2 * MAX_LINE_BYTES + 1])
def test_passes_over_a_long_line(tmp_path: Path, excess: int) -> None:
    padding = MAX_LINE_BYTES + excess - len(line())
    long_line = line()[:-1] + b" " * padding + b"\n"
    assert len(long_line) == MAX_LINE_BYTES + excess
    before, rejected, after, last = read_bytes(tmp_path, line() + long_line + line() + long_line[:-1])
    assert isinstance(before, Drawing)
    assert isinstance(after, Drawing)
    assert isinstance(rejected, Reject)
    assert (rejected.place, rejected.reason) == ("2", "line_too_long")
    assert isinstance(last, Drawing if excess == 1 else Reject)


def test_a_line_of_the_greatest_length_is_read(tmp_path: Path) -> None:
    assert len(drawings_of(read_bytes(tmp_path, line()[:-1] + b" " * (MAX_LINE_BYTES - len(line())) + b"\n"))) == 1


@pytest.mark.parametrize(("end", "num_lines"), [(b"", 2), (b"\n", 2), (b"\r\n", 2), (b"\n\n", 3)])
def test_counts_the_last_line_once(tmp_path: Path, end: bytes, num_lines: int) -> None:
    outcomes = read_bytes(tmp_path, line() + line()[:-1] + end)
    assert len(outcomes) == num_lines
    assert [type(outcome) for outcome in outcomes[:2]] == [Drawing, Drawing]


def test_recognized_is_true_where_it_is_not_said(tmp_path: Path) -> None:
    fields = {name: value for name, value in record().items() if name != "recognized"}
    (drawing,) = drawings_of(read_bytes(tmp_path, json.dumps(fields).encode()))
    assert drawing.recognized


def test_reads_gzip(tmp_path: Path) -> None:
    outcomes = read_bytes(tmp_path, gzip.compress(line() + b"\n"), "cat.ndjson.gz")
    assert [type(outcome) for outcome in outcomes] == [Drawing, Reject]


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("cat.ndjson", b"", "is empty"),
        ("cat.ndjson.gz", gzip.compress(b""), "is empty"),
        ("cat.ndjson.gz", line(), r"cannot be read \(BadGzipFile"),
        ("cat.ndjson.gz", gzip.compress(line() * 50)[:-9], r"cannot be read \(EOFError"),
        ("cat.npz", b"", "is empty"),
        (
            "cat.npz",
            b"<html>404</html>",
            "is not an npz file: it does not start with the zip magic bytes; is it an error",
        ),
        ("cat.npz", b"PK\x03\x04" + bytes(100), r"cannot be read \(BadZipFile"),
        ("cat.txt", line(), r"cat.txt does not end in .ndjson, .ndjson.gz or .npz"),
    ],
)
def test_refuses_a_file(tmp_path: Path, name: str, data: bytes, fault: str) -> None:
    with pytest.raises(DataError, match=fault) as caught:
        read_bytes(tmp_path, data, name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "DataError" not in str(caught.value)


@pytest.mark.parametrize("name", ["cat.ndjson", "cat.ndjson.gz", "cat.npz"])
def test_refuses_what_is_no_readable_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} does not exist"):
        list(read_drawings(str(tmp_path / name)))
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=f"{name} cannot be read .IsADirectoryError"):
        list(read_drawings(str(tmp_path / name)))
    with pytest.raises(DataError, match=r"cannot be read .*Protocol not known"):
        list(read_drawings(f"nowhere://{name}"))


def test_mutated_ndjson_loses_nothing(tmp_path: Path, mutate: Callable[[bytes, random.Random], bytes]) -> None:
    generator = random.Random(0)
    original = line() + line(word="dog") + b"\n" + line(drawing=STROKES[:1])
    num_accepted = num_rejected = 0
    for _ in range(500):
        data = mutate(original, generator)
        outcomes = read_bytes(tmp_path, data)
        assert len(outcomes) == data.count(b"\n") + (not data.endswith(b"\n"))
        num_accepted += sum(isinstance(outcome, Drawing) for outcome in outcomes)
        num_rejected += sum(isinstance(outcome, Reject) for outcome in outcomes)
    assert num_accepted > 400
    assert num_rejected > 1000


def test_finds_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["b.ndjson", "a.ndjson.gz", "c [1].npz"]
    for name in [*names, "notes.txt", "d.bin"]:
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "e.npz").touch()
    a, b, c = (str(tmp_path / name) for name in sorted(names))
    assert find_sources(str(tmp_path)) == [a, b, c]
    assert find_sources(c) == [c]
    (tmp_path / "brackets [1]").mkdir()
    (tmp_path / "brackets [1]" / "f.npz").touch()
    assert find_sources(str(tmp_path / "brackets [1]")) == [str(tmp_path / "brackets [1]" / "f.npz")]
    assert find_sources([c, str(tmp_path), b]) == [a, b, c]
    assert find_sources(str(tmp_path / "*.ndjson*")) == [a, b]
    assert find_sources(str(tmp_path / "**" / "*.npz")) == [
        str(tmp_path / "below" / "e.npz"),
        str(tmp_path / "brackets [1]" / "f.npz"),
        c,
    ]
    assert find_sources(f"file://{tmp_path}/b.ndjson") == [b]
    monkeypatch.chdir(tmp_path)
    assert find_sources(["b.ndjson", str(tmp_path / "b.ndjson")]) == [b]


def test_finds_and_reads_urls(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    entries = np.empty(1, dtype=object)
    entries[0] = np.array(STROKE3, dtype=np.int16)
    np.savez(tmp_path / "dog.npz", train=entries, valid=entries, test=entries)
    try:
        memory.pipe({"/quickdraw/cat.ndjson": line() * 2, "/quickdraw/dog.npz": (tmp_path / "dog.npz").read_bytes()})
        assert find_sources("memory://quickdraw") == ["memory:///quickdraw/cat.ndjson", "memory:///quickdraw/dog.npz"]
        assert find_sources("memory://quickdraw/*.npz") == ["memory:///quickdraw/dog.npz"]
        assert find_sources("memory://quickdraw/cat.ndjson") == ["memory://quickdraw/cat.ndjson"]
        found = [
            drawing for url in find_sources("memory://quickdraw") for drawing in drawings_of([*read_drawings(url)])
        ]
        assert [drawing.category for drawing in found] == ["cat", "cat", "dog", "dog", "dog"]
    finally:
        memory.rm("/quickdraw", recursive=True)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (lambda folder: [], "no source of drawings was given"),
        (lambda folder: "", "no source of drawings was given"),
        (lambda folder: str(folder / "cat.npz"), "cat.npz does not exist"),
        (lambda folder: str(folder / "nowhere"), "nowhere does not exist"),
        (lambda folder: str(folder / "notes.txt"), r"notes.txt does not end in .ndjson, .ndjson.gz or .npz"),
        (lambda folder: str(folder), r"has no file that ends in .ndjson, .ndjson.gz or .npz"),
        (lambda folder: [str(folder / "*")], r"\* has no match that ends in .ndjson, .ndjson.gz or .npz"),
        (lambda folder: "nowhere://cat.npz", "cannot be read .*Protocol not known"),
    ],
)
def test_finds_nothing(tmp_path: Path, source: Callable[[Path], Any], fault: str) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=fault):
        find_sources(source(tmp_path))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real drawings are not at {REAL}")
def test_reads_every_real_drawing() -> None:
    num_lines = num_accepted = 0
    for path in find_sources(str(REAL)):
        num_lines += Path(path).read_bytes().count(b"\n")
        found = drawings_of(list(read_simplified(path)))
        num_accepted += len(found)
        assert {drawing.category for drawing in found} == {Path(path).stem}
    assert num_accepted == num_lines == 32_430
