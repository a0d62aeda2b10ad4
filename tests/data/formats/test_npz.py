"""The reader of sketch-rnn npz files: entries it accepts or rejects, files it refuses."""

import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgloc.data.formats.form import read_drawings
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject
from tests.pickles import object_array

SPLITS = ("train", "valid", "test")
STROKE3 = [[0, 0, 0], [10, 0, 0], [0, 255, 1], [-3, -246, 1]]


def to_npz(path: Path, train: list[Any], valid: list[Any] | None = None, test: list[Any] | None = None) -> str:
    np.savez_compressed(path, train=object_array(train), valid=object_array(valid or []), test=object_array(test or []))
    return str(path)


def read_bytes(folder: Path, data: bytes) -> list[Drawing | Reject]:
    path = folder / "cat.npz"
    path.write_bytes(data)
    return list(read_drawings(str(path)))


def drawings_of(outcomes: list[Drawing | Reject]) -> list[Drawing]:
    assert all(isinstance(outcome, Drawing) for outcome in outcomes)
    return [outcome for outcome in outcomes if isinstance(outcome, Drawing)]


stroke3s = st.lists(
    st.tuples(st.integers(-32768, 32767), st.integers(-32768, 32767), st.integers(0, 1)), max_size=20
).map(lambda rows: np.array([*rows, (1, -1, 1)], dtype=np.int16))


def test_reads_npz(tmp_path: Path) -> None:
    rows = np.array(STROKE3, dtype=np.int16)
    path = to_npz(tmp_path / "The Great Wall of China.npz", [rows, rows[2:]], [rows], [rows.astype(np.float32)])
    found = drawings_of(list(read_drawings(path)))
    assert [drawing.split for drawing in found] == ["train", "train", "valid", "test"]
    assert {drawing.category for drawing in found} == {"The Great Wall of China"}
    assert all(drawing.recognized for drawing in found)
    digest = hashlib.blake2b(b"The Great Wall of China/train/1").digest()
    assert found[1].key_id.to_bytes(8, "big") == digest[:8]
    assert len({drawing.key_id for drawing in found}) == 4
    assert found[3].stroke3.dtype == np.int16
    assert found[3].stroke3.tolist() == STROKE3


@given(
    st.lists(stroke3s, max_size=4), st.lists(stroke3s, max_size=3), st.sampled_from(["<i2", ">i2", "i8", "f4", "f8"])
)
def test_npz_round_trip(tmp_path: Path, train: list[Any], test: list[Any], dtype: str) -> None:
    path = to_npz(tmp_path / "cat.npz", [rows.astype(dtype) for rows in train], [], test)
    found = drawings_of(list(read_drawings(path)))
    assert [drawing.split for drawing in found] == ["train"] * len(train) + ["test"] * len(test)
    for drawing, rows in zip(found, [*train, *test], strict=True):
        assert drawing.stroke3.dtype == np.int16
        np.testing.assert_array_equal(drawing.stroke3, rows)


@pytest.mark.parametrize(
    ("rows", "reason", "detail"),
    [
        (np.zeros(3, dtype=np.int16), "wrong_shape", "(3,)"),
        (np.zeros((3, 5), dtype=np.int16), "wrong_shape", "(3, 5)"),
        (np.zeros((0, 3), dtype=np.int16), "empty_drawing", "no row"),
        (np.ones((10_001, 3), dtype=np.int16), "too_many_points", "10001 points"),
        (np.array([[np.nan, 0, 1]]), "not_finite", "float64"),
        (np.array([[0, np.inf, 1]], dtype=np.float32), "not_finite", "float32"),
        (np.array([[0.5, 0, 1]]), "wrong_dtype", "float64"),
        (np.array([[32768, 0, 1]]), "offset_too_large", "32768"),
        (np.array([[-32769.0, 0, 1]]), "offset_too_large", "-32769"),
        (np.array([[2**64 - 1, 0, 1]], dtype=np.uint64), "offset_too_large", str(2**64 - 1)),
        (np.array([[0, 0, 2], [0, 0, 1]]), "bad_pen", "1 to 2"),
        (np.array([[0, 0, -1], [0, 0, 1]]), "bad_pen", "-1 to 1"),
        (np.array([[0, 0, 1], [0, 0, 0]]), "open_last_stroke", "0"),
    ],
)
def test_rejects_an_entry(tmp_path: Path, rows: npt.NDArray[Any], reason: str, detail: str) -> None:
    good = np.array(STROKE3, dtype=np.int16)
    outcomes = list(read_drawings(to_npz(tmp_path / "cat.npz", [good], [], [good, rows, good])))
    assert [type(outcome) for outcome in outcomes] == [Drawing, Drawing, Reject, Drawing]
    outcome = outcomes[2]
    assert isinstance(outcome, Reject)
    assert (outcome.source, outcome.place, outcome.reason) == (str(tmp_path / "cat.npz"), "test[1]", reason)
    assert detail in outcome.detail


@pytest.mark.parametrize("name", [".npz", "\udcff.npz", "a\nb.npz"])
def test_refuses_a_file_not_named_after_a_category(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="is not named after a category"):
        list(read_drawings(to_npz(tmp_path / name, [np.array(STROKE3, dtype=np.int16)])))


def test_a_category_that_is_given_replaces_the_name(tmp_path: Path) -> None:
    rows = np.array(STROKE3, dtype=np.int16)
    named = drawings_of(list(read_drawings(to_npz(tmp_path / "hot dog.npz", [rows, rows]))))
    path = to_npz(tmp_path / "0017-partial.npz", [rows, rows])
    given = drawings_of(list(read_drawings(path, category="hot dog", word="hot dog")))
    assert [(drawing.category, drawing.key_id) for drawing in given] == [
        (drawing.category, drawing.key_id) for drawing in named
    ]
    with pytest.raises(DataError, match="holds drawings of 'cat' instead of 'dog'"):
        read_drawings(path, category="cat", word="dog")


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def npy(array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


EMPTY = npy(object_array([]))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "is empty"),
        (b"<html>404</html>", "is not an npz file: it does not start with the zip magic bytes; is it an error page"),
        (b"PK\x03\x04" + bytes(100), r"cannot be read \(BadZipFile"),
    ],
    ids=["empty", "page", "not-zip"],
)
def test_refuses_a_file(tmp_path: Path, data: bytes, fault: str) -> None:
    with pytest.raises(DataError, match=fault) as caught:
        read_bytes(tmp_path, data)
    assert str(caught.value).startswith(str(tmp_path / "cat.npz"))
    assert "DataError" not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({}, "lacks train, valid, test"),
        ({"train.npy": EMPTY, "test.npy": EMPTY}, "lacks valid"),
        ({"train.npy": EMPTY, "valid.npy": EMPTY, "test.npy": b"\x00" * 10_000_000}, "claims 10000000 bytes for test"),
        (
            {"train.npy": EMPTY, "valid.npy": b"text", "test.npy": EMPTY},
            "valid of .*cat.npz is not a valid object array",
        ),
        ({"train.npy": npy(np.zeros((2, 3))), "valid.npy": EMPTY, "test.npy": EMPTY}, r"float64 of shape \(2, 3\)"),
        ({"train.npy": EMPTY, "valid.npy": EMPTY, "test.npy": npy(object_array([pickle.loads]))}, r"'_pickle\.loads'"),
    ],
)
def test_refuses_an_archive(tmp_path: Path, members: dict[str, bytes], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read_bytes(tmp_path, zip_of(members))


def test_refuses_a_member_of_absurd_size(tmp_path: Path) -> None:
    data = bytearray(zip_of(dict.fromkeys((f"{split}.npy" for split in SPLITS), EMPTY), zipfile.ZIP_STORED))
    directory = data.index(b"PK\x01\x02")
    for offset in (20, 24):
        data[directory + offset : directory + offset + 4] = (3 * 2**30).to_bytes(4, "little")
    with pytest.raises(DataError, match="claims 3221225472 bytes for train"):
        read_bytes(tmp_path, bytes(data))


def test_refuses_every_truncated_archive(tmp_path: Path) -> None:
    data = Path(to_npz(tmp_path / "whole.npz", [np.array(STROKE3, dtype=np.int16)])).read_bytes()
    for length in range(0, len(data), 7):
        with pytest.raises(DataError):
            read_bytes(tmp_path, data[:length])
