"""Byte order marks, encodings, arrays and floats in the ndjson files of other programs."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.sketch.records import MAX_LINE_BYTES
from tests.ndjson import STROKE3, STROKES, drawings_of, line, read_bytes, record

TWO = line() + line(word="dog", key_id="7")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xef\xbb\xbf" + TWO, id="utf-8 with a mark"),
        pytest.param(TWO.decode().encode("utf-16"), id="utf-16"),
        pytest.param(b"\xfe\xff" + TWO.decode().encode("utf-16-be"), id="utf-16 big-endian"),
        pytest.param(TWO.decode().encode("utf-16-le"), id="utf-16 without a mark"),
        pytest.param(TWO.decode().encode("utf-32"), id="utf-32"),
        pytest.param(b"[" + TWO.strip().replace(b"\n", b",") + b"]", id="array"),
        pytest.param(
            b"\xef\xbb\xbf " + json.dumps(list(map(json.loads, TWO.splitlines())), indent=1).encode(), id="spread"
        ),
        pytest.param(("[" + TWO.decode().strip().replace("\n", ",") + "]").encode("utf-16"), id="array in utf-16"),
    ],
)
@pytest.mark.parametrize("name", ["cat.ndjson", "cat.ndjson.gz"])
def test_reads_what_programs_write(tmp_path: Path, data: bytes, name: str) -> None:
    packed = gzip.compress(data, mtime=0) if name.endswith("gz") else data
    cat, dog = drawings_of(read_bytes(tmp_path, packed, name))
    assert (cat.category, dog.category, dog.key_id) == ("cat", "dog", 7)
    assert cat.stroke3.tolist() == dog.stroke3.tolist() == STROKE3


def test_entries_of_an_array_are_rejected_one_by_one(tmp_path: Path) -> None:
    outcomes = read_bytes(tmp_path, json.dumps([record(), 3, record(key_id=-1), record()]).encode())
    assert [type(outcome) for outcome in outcomes] == [Drawing, Reject, Reject, Drawing]
    rejects = [(one.place, one.reason) for one in outcomes if isinstance(one, Reject)]
    assert rejects == [("2", "malformed_json"), ("3", "bad_key_id")]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" + line() + line(), id="no array"),
        pytest.param(b"[[1], [2]]\n" + line(), id="two values"),
        pytest.param(b'[{"a": ' + b" " * (MAX_LINE_BYTES - 40) + b"3\n" + line(), id="long"),
    ],
)
def test_a_line_that_begins_like_an_array_costs_itself_only(tmp_path: Path, data: bytes) -> None:
    rejected, taken = read_bytes(tmp_path, data)
    assert isinstance(rejected, Reject)
    assert (rejected.place, rejected.reason) == ("1", "malformed_json")
    assert isinstance(taken, Drawing)


def test_a_file_that_ends_within_a_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .*UnicodeDecodeError"):
        read_bytes(tmp_path, line().decode().encode("utf-16")[:-1])


def test_a_lone_surrogate_costs_its_line_only(tmp_path: Path) -> None:
    data = line() + line(word="q").replace(b"q", b"?") + line()
    bad = data.decode().encode("utf-16-le").replace(b'"\0?\0"\0', b'"\0\x00\xd8"\0')
    taken, rejected, last = read_bytes(tmp_path, bad)
    assert isinstance(rejected, Reject)
    assert rejected.reason == "not_utf8"
    assert isinstance(taken, Drawing)
    assert isinstance(last, Drawing)


def test_whole_floats_are_simplified_drawings(tmp_path: Path) -> None:
    floats = [[[float(number) for number in numbers] for numbers in stroke] for stroke in STROKES]
    (drawing,) = drawings_of(read_bytes(tmp_path, line(drawing=floats)))
    assert drawing.stroke3.tolist() == STROKE3


@pytest.mark.parametrize("factor", [0.1, 4.0], ids=["small", "large"])
def test_other_floats_are_raw_drawings_without_times(tmp_path: Path, factor: float) -> None:
    strokes: list[list[list[float]]] = [[[0.5, 600 * factor], [0, 255.25 * factor]], [[7], [9]]]
    timed = [[xs, ys, [0.0] * len(xs)] for xs, ys in strokes]
    plain, raw = drawings_of(read_bytes(tmp_path, line(drawing=strokes) + line(drawing=timed)))
    assert plain.stroke3.tolist() == raw.stroke3.tolist()
    assert int(np.abs(plain.stroke3[:, :2]).max()) == 255
