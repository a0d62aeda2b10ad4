"""The reader of binary files: records it accepts, records it rejects, files it refuses."""

import gzip
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgloc.data.formats.form import read_drawings
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject, polylines_to_stroke3
from tests.fuzzing import examples

POINTS = [[(0, 0), (10, 0), (10, 255)], [(7, 9)]]
STROKE3 = [[0, 0, 0], [10, 0, 0], [0, 255, 1], [-3, -246, 1]]


def header(
    *, key_id: int = 4525909186969600, country: bytes = b"US", recognized: int = 0, num_strokes: int = 0
) -> bytes:
    return struct.pack("<Q2sbIH", key_id, country, recognized, 1490000000, num_strokes)


def record(strokes: Any = POINTS, **fields: Any) -> bytes:
    body = b"".join(
        struct.pack("<H", len(points)) + bytes(x for x, _ in points) + bytes(y for _, y in points) for points in strokes
    )
    return header(num_strokes=len(strokes), **fields) + body


def read_bytes(folder: Path, data: bytes, name: str = "cat.bin", **options: Any) -> list[Drawing | Reject]:
    path = folder / name
    path.write_bytes(data)
    return list(read_drawings(str(path), **options))


def test_reads_a_record(tmp_path: Path) -> None:
    first, second = read_bytes(tmp_path, record() + record(recognized=1, key_id=2**64 - 1), "hot dog.bin")
    assert isinstance(first, Drawing)
    assert isinstance(second, Drawing)
    assert (first.category, first.key_id, first.recognized, first.split) == ("hot dog", 4525909186969600, False, None)
    assert (second.key_id, second.recognized) == (2**64 - 1, True)
    assert first.stroke3.dtype == np.int16
    assert first.stroke3.tolist() == second.stroke3.tolist() == STROKE3


coordinates = st.integers(0, 255)
polylines = st.lists(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=300), min_size=1, max_size=5)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.booleans(), polylines), min_size=1, max_size=5))
@examples(50)
def test_round_trip(tmp_path: Path, drawings: list[tuple[int, bool, Any]]) -> None:
    data = b"".join(record(strokes, key_id=key_id, recognized=recognized) for key_id, recognized, strokes in drawings)
    found = read_bytes(tmp_path, data)
    for drawing, (key_id, recognized, strokes) in zip(found, drawings, strict=True):
        assert isinstance(drawing, Drawing)
        assert (drawing.key_id, drawing.recognized) == (key_id, recognized)
        np.testing.assert_array_equal(drawing.stroke3, polylines_to_stroke3([np.array(points) for points in strokes]))


@pytest.mark.parametrize(
    ("odd", "reason", "detail"),
    [
        (record([]), "empty_drawing", "no stroke"),
        (record([POINTS[0], [], POINTS[1]]), "empty_stroke", "stroke 1 has no point"),
        (record(recognized=2), "bad_recognized", "2"),
        (record(recognized=-1), "bad_recognized", "-1"),
        (record(country=b"\x80A"), "bad_country", r"b'\x80A'"),
        (record(country=b"A\n"), "bad_country", r"b'A\n'"),
        (record([[(1, 2)] * 6000, [(3, 4)] * 4001]), "too_many_points", "10001 points; the limit is 10000"),
        (record([[(1, 2)] * 65535] * 2), "too_many_points", "131070 points"),
    ],
    ids=[
        "no-stroke",
        "stroke-without-point",
        "recognized-2",
        "recognized-minus-1",
        "country-not-ascii",
        "country-not-printable",
        "10001-points",
        "131070-points",
    ],
)
def test_rejects_a_record_and_reads_on(tmp_path: Path, odd: bytes, reason: str, detail: str) -> None:
    before, outcome, after = read_bytes(tmp_path, record() + odd + record(key_id=7))
    assert isinstance(before, Drawing)
    assert isinstance(outcome, Reject)
    assert isinstance(after, Drawing)
    assert after.key_id == 7
    assert after.stroke3.tolist() == STROKE3
    place = f"record 2 at byte {len(record())}"
    assert (outcome.source, outcome.place, outcome.reason) == (str(tmp_path / "cat.bin"), place, reason)
    assert detail in outcome.detail


@pytest.mark.parametrize(
    "country",
    [b"US", b"zz", b"--", b"A ", b"\0\0"],
    ids=["capitals", "small-letters", "dashes", "letter-and-space", "zeros"],
)
def test_takes_any_country_that_may_be(tmp_path: Path, country: bytes) -> None:
    (drawing,) = read_bytes(tmp_path, record(country=country))
    assert isinstance(drawing, Drawing)


@pytest.mark.parametrize("name", ["cat.bin", "cat.bin.gz"])
def test_what_is_left_of_a_file_that_is_cut_off_is_one_reject(tmp_path: Path, name: str) -> None:
    whole, last = record() * 2, record()
    for length in range(1, len(last)):
        data = whole + last[:length]
        one, other, rest = read_bytes(tmp_path, gzip.compress(data, mtime=0) if name.endswith("gz") else data, name)
        assert isinstance(one, Drawing)
        assert isinstance(other, Drawing)
        assert isinstance(rest, Reject)
        assert (rest.place, rest.reason) == (f"record 3 at byte {len(whole)}", "truncated_record")
        assert rest.detail == f"the file ends {length} bytes into the record"
    (only,) = read_bytes(tmp_path, last[:3])
    assert isinstance(only, Reject)
    assert only.reason == "truncated_record"


def test_a_record_of_any_size_takes_no_memory(tmp_path: Path) -> None:
    giant = header(num_strokes=300) + (b"\xff\xff" + bytes(2 * 65535)) * 300
    path = tmp_path / "cat.bin"
    path.write_bytes(giant + record())
    del giant
    tracemalloc.start()
    try:
        rejected, accepted = read_drawings(str(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(rejected, Reject)
    assert rejected.reason == "too_many_points"
    assert isinstance(accepted, Drawing)
    assert peak < 2e6


def test_most_points_are_still_taken(tmp_path: Path) -> None:
    assert isinstance(read_bytes(tmp_path, record(), max_points=4)[0], Drawing)
    assert isinstance(read_bytes(tmp_path, record(), max_points=3)[0], Reject)


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("cat.bin", b"", "is empty"),
        ("cat.bin", b"<!DOCTYPE html><html>404</html>", "not a binary file of drawings: it starts with text; is it an"),
        ("cat.bin", b'{"error": "not found"}', "it starts with text"),
        ("cat.bin", b"<html>\n", "it starts with text"),
        ("cat.bin.gz", gzip.compress(b"<?xml version='1.0'?>", mtime=0), "it starts with text"),
        ("cat.bin.gz", gzip.compress(record(), mtime=0)[:-4], r"cannot be read \(EOFError"),
        (".bin", record(), "not named after a category"),
    ],
    ids=["empty", "page", "json", "short-page", "gzip-of-a-page", "gzip-cut-off", "no-category"],
)
def test_refuses_a_file(tmp_path: Path, name: str, data: bytes, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read_bytes(tmp_path, data, name)


def test_a_category_that_is_given_replaces_the_name(tmp_path: Path) -> None:
    (drawing,) = read_bytes(tmp_path, record(), "0017.partial.bin", category="cat", word="cat")
    assert isinstance(drawing, Drawing)
    assert drawing.category == "cat"
    with pytest.raises(DataError, match=r"holds drawings of '0017\.partial' instead of 'cat'"):
        read_bytes(tmp_path, record(), "0017.partial.bin", word="cat")
