"""The reader of ndjson files: lines it accepts or rejects, files it refuses; simplified drawings."""

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgloc.data.formats.form import read_drawings
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject, polylines_to_stroke3
from sgloc.sketch.records import MAX_LINE_BYTES
from tests.drawings import stroke3_to_polylines
from tests.ndjson import STROKE3, drawings_of, line, only_reject, read_bytes, record

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
        ({"word": "a" * 129}, "bad_word", "aaa"),
        ({"word": "\ud800"}, "malformed_json", "surrogate"),
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
        ({"drawing": [[[1], [1]], [[1, 2], [1]]]}, "unequal_lengths", "stroke 1 have 2 and 1 entries"),
        ({"drawing": [[]]}, "wrong_shape", "stroke 0 is []"),
        ({"drawing": [[[], []]]}, "empty_stroke", "stroke 0"),
        ({"drawing": [[[1], [True]]]}, "not_a_number", "True"),
        ({"drawing": [[[1.5], [True]]]}, "not_a_number", "True"),
        ({"drawing": [[["1"], [1]]]}, "not_a_number", "'1'"),
        ({"drawing": [[[[1]], [1]]]}, "not_a_number", "[1]"),
        ({"drawing": [[[float("nan")], [1]]]}, "malformed_json", "column"),
        ({"drawing": [[[256], [1]]]}, "out_of_range", "1 to 256"),
        ({"drawing": [[[3], [-1]]]}, "out_of_range", "-1 to 3"),
        ({"drawing": [[[1e308, -1e308], [1, 2.5]]]}, "not_finite", "not finite"),
        ({"drawing": [[[2**63], [1]]]}, "out_of_range", "1 to 9223372036854775808"),
        ({"drawing": [[list(range(256)) * 40] * 2]}, "too_many_points", "10240 points"),
    ],
    ids=[
        "key-id-null",
        "key-id-text-negative",
        "key-id-negative",
        "key-id-true",
        "key-id-float",
        "key-id-5000-digits",
        "key-id-too-large",
        "key-id-other-digits",
        "word-number",
        "word-empty",
        "word-too-long",
        "word-surrogate",
        "word-two-lines",
        "recognized-text",
        "drawing-object",
        "drawing-empty",
        "stroke-number",
        "xs-number",
        "ys-number",
        "stroke-text",
        "xs-text",
        "stroke-of-three",
        "unequal-lengths",
        "stroke-empty",
        "no-point",
        "true",
        "true-among-floats",
        "digit-as-text",
        "nested-too-deep",
        "nan",
        "too-large",
        "negative",
        "no-finite-size",
        "larger-than-int64",
        "too-many-points",
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
        (b'{"word": ', "malformed_json", "column"),
        (b"[1, 2]\n", "malformed_json", "[1, 2]"),
        (b"[" * 100_000, "malformed_json", "depth"),
        (b"1e400", "malformed_json", "infinity"),
        (b"[" * 1000 + b"]" * 1000, "malformed_json", "not an object"),
        (b"9" * 5000, "malformed_json", "infinity"),
        (b'"\xe9"\n', "not_utf8", "0xe9"),
        (b'{"word": "cat", "drawing": []}', "missing_field", "key_id"),
        (b"{}", "missing_field", "word, key_id, drawing"),
    ],
    ids=[
        "newline",
        "white-space",
        "spaces",
        "cut-off",
        "list",
        "deep-and-cut-off",
        "infinity",
        "deep",
        "5000-digits",
        "latin-1",
        "no-key-id",
        "no-field",
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


@pytest.mark.parametrize(
    ("end", "num_lines"),
    [(b"", 2), (b"\n", 2), (b"\r\n", 2), (b"\n\n", 3)],
    ids=["nothing", "newline", "crlf", "two-newlines"],
)
def test_counts_the_last_line_once(tmp_path: Path, end: bytes, num_lines: int) -> None:
    outcomes = read_bytes(tmp_path, line() + line()[:-1] + end)
    assert len(outcomes) == num_lines
    assert [type(outcome) for outcome in outcomes[:2]] == [Drawing, Drawing]


def test_recognized_is_true_where_it_is_not_said(tmp_path: Path) -> None:
    fields = {name: value for name, value in record().items() if name != "recognized"}
    (drawing,) = drawings_of(read_bytes(tmp_path, json.dumps(fields).encode()))
    assert drawing.recognized


def test_reads_gzip(tmp_path: Path) -> None:
    outcomes = read_bytes(tmp_path, gzip.compress(line() + b"\n", mtime=0), "cat.ndjson.gz")
    assert [type(outcome) for outcome in outcomes] == [Drawing, Reject]


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("cat.ndjson", b"", "is empty"),
        ("cat.ndjson.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("cat.ndjson", b"<html>404</html>", "is not an ndjson file: it starts with '<'; is it an error page"),
        ("cat.ndjson", b"\xef\xbb\xbf\r\n <?xml version='1.0'?>", "is it an error page"),
        ("cat.ndjson.gz", gzip.compress(b"<html>404</html>", mtime=0), "is it an error page"),
        (
            "cat.ndjson.gz",
            gzip.compress(bytes(2**27), mtime=0),
            r"decompresses to \d+ bytes from \d+, which is implausible",
        ),
        ("cat.ndjson.gz", line(), r"cannot be read \(BadGzipFile"),
        ("cat.ndjson.gz", gzip.compress(line() * 50, mtime=0)[:-9], r"cannot be read \(EOFError"),
        ("cat.txt", line(), r"cat.txt does not end in .bin, .bin.gz, .ndjson, .*json or .json.gz"),
    ],
    ids=[
        "empty",
        "gzip-of-nothing",
        "page",
        "xml-after-a-mark",
        "gzip-of-a-page",
        "gzip-bomb",
        "not-gzip",
        "gzip-cut-off",
        "text",
    ],
)
def test_refuses_a_file(tmp_path: Path, name: str, data: bytes, fault: str) -> None:
    with pytest.raises(DataError, match=fault) as caught:
        read_bytes(tmp_path, data, name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "DataError" not in str(caught.value)


@pytest.mark.parametrize("name", ["cat.ndjson", "cat.ndjson.gz", "cat.npz", "cat.bin", "cat.bin.gz"])
def test_refuses_what_is_no_readable_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} does not exist"):
        list(read_drawings(str(tmp_path / name)))
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=f"{name} cannot be read .*[Ii]s a directory"):
        list(read_drawings(str(tmp_path / name)))
    with pytest.raises(DataError, match=r"cannot be opened .*Protocol not known"):
        list(read_drawings(f"nowhere://{name}"))


def test_takes_the_wanted_word_only(tmp_path: Path) -> None:
    (tmp_path / "cat.ndjson").write_bytes(line() + line(word="dog") + line(word=3) + line())
    one, other, odd, last = read_drawings(str(tmp_path / "cat.ndjson"), word="cat")
    assert isinstance(one, Drawing)
    assert isinstance(last, Drawing)
    assert isinstance(other, Reject)
    assert (other.place, other.reason, other.detail) == ("2", "wrong_word", "'dog' instead of 'cat'")
    assert isinstance(odd, Reject)
    assert odd.reason == "bad_word"


def test_most_points_are_still_taken(tmp_path: Path) -> None:
    data = line(drawing=[[[0] * 4, [1] * 4], [[2], [3]]])
    (tmp_path / "cat.ndjson").write_bytes(data)
    (taken,) = read_drawings(str(tmp_path / "cat.ndjson"), max_points=5)
    assert isinstance(taken, Drawing)
    (rejected,) = read_drawings(str(tmp_path / "cat.ndjson"), max_points=4)
    assert isinstance(rejected, Reject)
    assert (rejected.reason, rejected.detail) == ("too_many_points", "5 points; the limit is 4")


def test_of_a_key_given_twice_the_last_holds(tmp_path: Path) -> None:
    (drawing,) = drawings_of(read_bytes(tmp_path, line()[:-2] + b', "word": "dog"}\n'))
    assert drawing.category == "dog"


def test_order_is_kept_over_many_drawings_and_rejects(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    expected: list[int | None] = [
        None if generator.random() < 0.3 else int(number) for number in generator.integers(0, 2**60, 9000)
    ]
    data = b"".join(
        line(key_id=key_id, drawing=[[[index % 256, 3], [index // 256, 4]]]) if key_id is not None else b"\n"
        for index, key_id in enumerate(expected)
    )
    found = read_bytes(tmp_path, data)
    assert [None if isinstance(outcome, Reject) else outcome.key_id for outcome in found] == expected
    for index, outcome in enumerate(found):
        if isinstance(outcome, Drawing):
            assert outcome.stroke3.tolist() == [
                [index % 256, index // 256, 0],
                [3 - index % 256, 4 - index // 256, 1],
            ]
        else:
            assert outcome.place == str(index + 1)


def test_drawings_do_not_share_what_may_be_changed(tmp_path: Path) -> None:
    one, other = drawings_of(read_bytes(tmp_path, line() * 2))
    one.stroke3[:] = 7
    assert other.stroke3.tolist() == STROKE3


def test_reads_from_any_file_system() -> None:
    memory = fsspec.filesystem("memory")
    try:
        memory.pipe({"/quickdraw/cat.ndjson": line() * 2, "/quickdraw/cat.ndjson.gz": gzip.compress(line(), mtime=0)})
        assert len(drawings_of([*read_drawings("memory://quickdraw/cat.ndjson")])) == 2
        assert len(drawings_of([*read_drawings("memory://quickdraw/cat.ndjson.gz")])) == 1
    finally:
        memory.rm("/quickdraw", recursive=True)
