"""12,900 malformed files: only DataError is raised, and every drawing is either accepted or rejected."""

import contextlib
import io
import json
import random
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sgloc.data.formats.form import read_drawings
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing
from sgloc.sketch.rejects import MAX_DETAIL, REASONS
from tests.drawings import make_drawings, write_binary, write_ndjson, write_npz, write_npz_of_python2, write_raw_ndjson
from tests.fuzzing import examples, times
from tests.pickles import object_array

Mutate = Callable[[bytes, random.Random], bytes]

MOST_POINTS = 40
PLACES = {".ndjson": r"\d+", ".npz": r"(train|valid|test)\[\d+\]", ".bin": r"record \d+ at byte \d+"}


def num_lines(data: bytes) -> int:
    """Return the number of lines, or of entries if the file is a single array."""
    with contextlib.suppress(ValueError):
        found = orjson.loads(data)
        if isinstance(found, list) and found and isinstance(found[0], dict):
            return len(found)
    return data.count(b"\n") + (data != b"" and not data.endswith(b"\n"))


def num_records(data: bytes) -> int:
    """Return the number of records of a binary file, including a truncated one at the end."""
    position = number = 0
    while position < len(data):
        number += 1
        (num_strokes,) = struct.unpack("<H", data[position + 15 : position + 17].ljust(2, b"\0"))
        position += 17
        while num_strokes and position < len(data):
            (num_points,) = struct.unpack("<H", data[position : position + 2].ljust(2, b"\0"))
            position += 2 + 2 * num_points
            num_strokes -= 1
    return number


def num_entries(data: bytes) -> int:
    """Return the number of entries of an npz file according to the headers of its arrays."""
    number = 0
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for split in ("train", "valid", "test"):
            header = re.search(rb"'shape': *\((\d+)L?,\)", archive.read(f"{split}.npy"))
            assert header is not None
            number += int(header[1])
    return number


COUNTERS: dict[str, Callable[[bytes], int]] = {".ndjson": num_lines, ".npz": num_entries, ".bin": num_records}


def read(path: Path, data: bytes) -> Counter[str]:
    """Read data as a file, check every outcome, and return the number of outcomes of each kind."""
    path.write_bytes(data)
    outcomes: Counter[str] = Counter()
    try:
        for outcome in read_drawings(str(path), max_points=MOST_POINTS):
            if isinstance(outcome, Drawing):
                outcomes["accepted"] += 1
                assert outcome.category.isprintable()
                assert 0 <= outcome.key_id < 2**64
                assert isinstance(outcome.recognized, bool)
                assert outcome.stroke3.dtype == np.int16
                assert outcome.stroke3.shape == (len(outcome.stroke3), 3)
                assert 1 <= len(outcome.stroke3) <= MOST_POINTS
                assert outcome.stroke3[-1, 2] == 1
                if path.suffix != ".npz":
                    absolute = np.cumsum(outcome.stroke3[:, :2], axis=0)
                    assert absolute.min() >= 0
                    assert absolute.max() <= 255
            else:
                outcomes[outcome.reason] += 1
                assert outcome.reason in REASONS
                assert re.fullmatch(PLACES[path.suffix], outcome.place)
                assert 0 < len(outcome.detail) <= MAX_DETAIL
                assert outcome.source == str(path)
    except DataError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert refusal.startswith((str(path), *(f"{split} of {path}" for split in ("train", "valid", "test"))))
        return Counter(refused=1)
    assert outcomes.total() == COUNTERS[path.suffix](data)
    return outcomes


def write_simplified(path: Path) -> None:
    write_ndjson(path, make_drawings(3))


def write_raw(path: Path) -> None:
    write_raw_ndjson(path, make_drawings(3), scale=3.7, shift=(100.25, -3.0))


def write_bin(path: Path) -> None:
    write_binary(path, make_drawings(6))


def write_npz3(path: Path) -> None:
    write_npz(path, train=[drawing.stroke3.astype(np.float32) for drawing in make_drawings(3)])


def write_npz2(path: Path) -> None:
    write_npz_of_python2(path, train=[drawing.stroke3 for drawing in make_drawings(3)])


# Parts of a line: strings and booleans, numbers, lists of numbers, strokes, drawings, brackets.
JSON_PARTS = [rb'"[^"]*"|true|false', rb"[\d.-]+", rb"\[[^\[\]]*\]", rb"\[(\[[^\[\]]*\](, )?)+\]"]
JSON_PARTS += [rb"\[\[\[.*\]\]\]", rb"[\[\]]"]
OTHER_PARTS = [b"-1", b"256", b"0.5", b"1" * 30, b"1e400", b"NaN", b"true", b"null", b"[]", b"[7]", b"]", b'"x"', b'""']
OTHER_PARTS += [b"{}", b"\n", b"[[], []]", b"[[], [], []]", json.dumps([[0] * 41] * 2).encode()]


def swap_parts(data: bytes, generator: random.Random) -> bytes:
    """Replace a part of a line with something else, so that it usually stays valid JSON."""
    part = generator.choice(list(re.finditer(generator.choice(JSON_PARTS), data)))
    return data[: part.start()] + generator.choice(OTHER_PARTS) + data[part.end() :]


def change_bytes(data: bytes, generator: random.Random) -> bytes:
    """Change a few bytes after the header of a .npy file, so that it usually stays a valid pickle."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 2)):
        changed[generator.randrange(128, len(changed))] = generator.randrange(256)
    return bytes(changed)


NDJSON_REASONS = {"blank_line", "malformed_json", "missing_field", "bad_word", "bad_key_id", "bad_recognized"}
NDJSON_REASONS |= {"wrong_shape", "unequal_lengths", "empty_drawing", "empty_stroke"}
BINARY_REASONS = {"bad_country", "bad_recognized", "empty_drawing", "empty_stroke", "too_many_points"}


@pytest.mark.fuzz
@pytest.mark.parametrize(
    ("write", "suffix", "reasons"),
    [
        (write_simplified, ".ndjson", NDJSON_REASONS | {"not_a_number", "out_of_range", "too_many_points", "not_utf8"}),
        (write_raw, ".ndjson", NDJSON_REASONS | {"not_a_number", "not_utf8"}),
        (write_bin, ".bin", BINARY_REASONS | {"truncated_record"}),
        (write_npz3, ".npz", {"refused"}),
        (write_npz2, ".npz", {"refused"}),
    ],
)
def test_mutated_files(
    tmp_path: Path,
    mutate: Mutate,
    generator: random.Random,
    write: Callable[[Path], None],
    suffix: str,
    reasons: set[str],
) -> None:
    path = tmp_path / f"cat{suffix}"
    write(path)
    original = path.read_bytes()
    outcomes: Counter[str] = Counter()
    for round_number in range(times(2000)):
        change = swap_parts if suffix == ".ndjson" and round_number % 2 else mutate
        outcomes += read(path, change(original, generator))
    assert outcomes["accepted"] > 40
    assert reasons <= set(outcomes)


@pytest.mark.fuzz
def test_mutated_arrays(tmp_path: Path, mutate: Mutate, generator: random.Random) -> None:
    """Mutate arrays in an intact archive, so that the changes reach the unpickler and the checks of rows."""
    path = tmp_path / "cat.npz"
    outcomes: Counter[str] = Counter()
    for write in (write_npz3, write_npz2):
        write(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        for round_number in range(times(1000)):
            change = change_bytes if round_number % 2 else mutate
            stream = io.BytesIO()
            with zipfile.ZipFile(stream, "w") as archive:
                for name, content in (members | {"train.npy": change(members["train.npy"], generator)}).items():
                    archive.writestr(name, content)
            outcomes += read(path, stream.getvalue())
    assert outcomes["accepted"] > 400
    assert {"refused", "bad_pen", "wrong_dtype", "offset_too_large"} <= set(outcomes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
numbers = st.integers(0, 255) | st.integers() | st.floats() | json_values
columns = st.lists(st.integers(0, 255), min_size=1, max_size=3) | st.lists(numbers, max_size=3)
strokes = st.lists(columns, min_size=2, max_size=3) | st.lists(columns, max_size=4) | json_values
records = st.fixed_dictionaries(
    {"drawing": st.lists(strokes, max_size=3) | json_values},
    optional={
        "word": st.just("cat") | json_values,
        "key_id": st.integers(0, 2**64).map(str) | json_values,
        "recognized": st.booleans() | json_values,
    },
)
lines = (records | json_values).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30)


# A value with so many parts that showing a little of each once took more than 400 characters.
BROAD = {str(number): [["abcdefg"] * 6] * 6 for number in range(4)}


@example([json.dumps({"word": "cat", "key_id": "1", "drawing": [BROAD]}).encode()])
@given(st.lists(lines, min_size=1, max_size=6))
@examples(300)
def test_made_ndjson(tmp_path: Path, data: list[bytes]) -> None:
    read(tmp_path / "cat.ndjson", b"\n".join(data))


headers = st.tuples(
    st.integers(0, 2**64 - 1), st.binary(min_size=2, max_size=2), st.integers(-2, 2), st.integers(0, 3)
).map(lambda fields: struct.pack("<Q2sbIH", *fields[:3], 0, fields[3]))
binary_strokes = st.integers(0, 30).flatmap(
    lambda length: st.binary(min_size=2 * length, max_size=2 * length).map(
        lambda points: struct.pack("<H", len(points) // 2) + points
    )
)


@given(st.lists(headers | binary_strokes | st.binary(max_size=40), min_size=1, max_size=12).map(b"".join))
@examples(300)
def test_made_binary(tmp_path: Path, data: bytes) -> None:
    read(tmp_path / "cat.bin", data)


arrays = hnp.arrays(
    dtype=st.sampled_from(["<i2", ">i4", "u8", "f4", "f8", "i1"]),
    shape=st.tuples(st.integers(0, 3), st.just(3)) | hnp.array_shapes(max_dims=3, max_side=4),
) | st.lists(st.tuples(st.integers(-(2**15), 2**15), st.integers(-9, 9), st.integers(0, 1)), min_size=1).map(
    lambda rows: np.array([*rows, (0, 0, 1)])
)
entries = st.lists(arrays, max_size=4) | st.lists(arrays | json_values, max_size=2)


@given(st.lists(entries, min_size=3, max_size=3))
@examples(300)
def test_made_npz(tmp_path: Path, splits: list[list[Any]]) -> None:
    stream = io.BytesIO()
    train, valid, test = map(object_array, splits)
    np.savez(stream, allow_pickle=True, train=train, valid=valid, test=test)
    read(tmp_path / "cat.npz", stream.getvalue())
