"""The reader of pickled arrays: pickles it accepts, and pickles it refuses."""

import io
import os
import pickle
import random
import struct
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sgloc.data.formats.safe_pickle import RestrictedUnpickler, load_object_array
from sgloc.errors import DataError
from tests.fuzzing import times
from tests.pickles import (
    BUILD,
    STOP,
    object_array,
    pickle_of_python2,
    pickled_array_of_python2,
    text_of_python2,
    to_npy,
    to_pickle,
)

Arrays = list[npt.NDArray[Any]]


def load(pickled: bytes, length: int = 1) -> Arrays:
    return load_object_array(io.BytesIO(to_npy(pickled, length)), "train of cat.npz")


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


array_lists = st.lists(
    hnp.arrays(
        dtype=st.sampled_from(["<i2", ">i2", "i1", "<i4", "<i8", "<u2", "<f4", "<f8"]),
        shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9),
        elements={"allow_nan": False},
    ),
    max_size=5,
)


@given(array_lists, st.sampled_from([2, 3, 4, 5]))
def test_reads_every_protocol(arrays: Arrays, protocol: int) -> None:
    assert_same(load(to_pickle(arrays, protocol), len(arrays)), arrays)


@given(array_lists)
def test_reads_what_numpy_saves(arrays: Arrays) -> None:
    stream = io.BytesIO()
    np.save(stream, object_array(arrays), allow_pickle=True)
    stream.seek(0)
    assert_same(load_object_array(stream, "name"), arrays)


@pytest.mark.parametrize("protocol", [2, 3])
def test_reads_the_module_names_of_numpy_1(protocol: int) -> None:
    arrays: Arrays = [
        np.arange(6, dtype=np.int16).reshape(2, 3),
        np.asfortranarray([[1, 2, 0], [3, 4, 1]], dtype=np.int16),
    ]
    pickled = to_pickle(arrays, protocol)
    assert b"numpy._core.multiarray" in pickled
    assert_same(load(pickled.replace(b"numpy._core.", b"numpy.core."), 2), arrays)


@given(st.lists(hnp.arrays(np.int16, st.tuples(st.integers(0, 90), st.just(3))), max_size=4))
def test_reads_the_strings_of_python_2(arrays: Arrays) -> None:
    assert_same(load(pickle_of_python2(arrays), len(arrays)), arrays)


def test_reads_a_header_of_python_2() -> None:
    array = np.array([[1, -2, 1]], dtype=np.int16)
    data = to_npy(pickle_of_python2([array]), 1)
    with_long = data.replace(b"(1,), } ", b"(1L,), }")
    assert with_long != data
    assert_same(load_object_array(io.BytesIO(with_long), "name"), [array])


class Payload:
    """Pickles as a function call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Custom:
    """A class that never occurs in a pickle of arrays."""

    def __init__(self) -> None:
        self.attribute = 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("depth", ["entry", "whole"])
def test_runs_nothing(tmp_path: Path, protocol: int, depth: str) -> None:
    marker = tmp_path / "marker"
    payload = Payload(os.system, f"touch {marker}")
    pickled = to_pickle([payload], protocol) if depth == "entry" else pickle.dumps(payload, protocol=protocol)
    with pytest.raises(DataError, match=r"train of cat.npz.*'posix\.system'"):
        load(pickled)
    assert not marker.exists()
    pickle.loads(pickled)  # noqa: S301
    assert marker.exists(), "the payload has no effect even when it is unpickled"


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("item", "named"),
    [
        (Payload(eval, "1"), r"(__builtin__|builtins)\.eval"),
        (Payload(pickle.loads, pickle.dumps(Payload(os.getcwd))), r"_?pickle\.loads"),
        (Payload(subprocess.Popen, ["true"]), r"(subprocess|commands)\.Popen"),
        (Payload(getattr, "text", "upper"), r"(__builtin__|builtins)\.getattr"),
        (Payload(np.zeros, 10**12), r"numpy\.zeros"),
        (np.int16(3), r"numpy\._core\.multiarray\.scalar"),
        (Custom(), r"Custom"),
        (OrderedDict(key=1), r"collections\.OrderedDict"),
    ],
)
def test_names_what_it_refuses(item: Any, named: str, protocol: int) -> None:
    with pytest.raises(DataError, match=named):
        load(to_pickle([item], protocol))


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (None, "entry 0 is not an array"),
        (3, "entry 0 is not an array"),
        (object_array([np.zeros(3)]), "entry 0 is not an array"),
        (np.zeros(2, dtype=[("x", "i2")]), "numpy.dtype|EMPTY_DICT"),
        (np.array(["text"]), "dtype other than"),
        (np.array([1j]), "dtype other than"),
        # numpy 2.1 pickles the unit in a dictionary.
        (np.array(["2020-01-01"], dtype="M8[D]"), "dtype other than|EMPTY_DICT"),
        ({"key": 1}, "EMPTY_DICT"),
    ],
)
def test_refuses_other_entries(item: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        load(to_pickle([item], 4))


def nested_tuples(depth: int) -> bytes:
    return b"))" + b"\x86" + b"".join(b"q\x00h\x00\x86" for _ in range(depth))


RECONSTRUCT = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n"
ENCODE_A_MEGABYTE = (
    b"c_codecs\nencode\nX" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"X\x06\x00\x00\x00latin1\x86q\x00"
)


@pytest.mark.parametrize(
    ("pickled", "fault"),
    [
        (b"\x80\x02]r\xff\xff\xff\x7f.", "memo of 2147483647 entries"),
        (b"\x80\x05\x8e" + struct.pack("<Q", 2**50) + b"short.", "expected 1125899906842624 bytes"),
        (b"\x80\x02}" + nested_tuples(60) + b"NsN.", "EMPTY_DICT"),
        (
            b"\x80\x02" + pickled_array_of_python2((2**30, 2**30), b"i2", b"<", text_of_python2(b"ab")) + STOP,
            "2 bytes do not match",
        ),
        (b"\x80\x02" + pickled_array_of_python2((2**20,) * 500, b"i2", b"<", text_of_python2(b"")) + STOP, "sizes"),
        (b"\x80\x02" + pickled_array_of_python2((-1,), b"i2", b"<", text_of_python2(b"ab")) + STOP, "sizes"),
        (
            b"\x80\x02" + pickled_array_of_python2((1,), b"O8", b"|", text_of_python2(b"8bytes..")) + STOP,
            "without a list",
        ),
        (b"\x80\x02" + ENCODE_A_MEGABYTE + b"R" + b"c_codecs\nencode\nh\x00R" * 3 + STOP, "more bytes than it has"),
        (RECONSTRUCT + b"](U\x08__name__U\x01xe" + BUILD + STOP, "not a dictionary"),
        (RECONSTRUCT + b"}U\x08__name__U\x01xs" + BUILD + STOP, "EMPTY_DICT"),
        (RECONSTRUCT + b"c_codecs\nencode\nK\x00\x85U\x01b\x87R.", "other than an array"),
        (b"\x80\x02cnumpy\nndarray\n]" + BUILD + STOP, "__dict__|dictionary"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "str"),
        (b"\x80\x02c_codecs\nencode\nX\x00\x00\x00\x00X\x04\x00\x00\x00zlib\x86R.", "latin1"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02NQ.", "BINPERSID"),
        (b"\x80\x02h\x07.", "index 7"),
        (b"c" + b"m" * 10_000 + b"\nname\n.", "mmm'"),
        (b"<html>an error page</html>", "html|opcode"),
        (b"", "exhausted"),
        (STOP, "underflow"),
    ],
    ids=range(21),
)
def test_refuses_hostile_pickles(pickled: bytes, fault: str) -> None:
    with pytest.raises(DataError, match=fault) as caught:
        load(pickled)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "magic"),
        (b"<!DOCTYPE html>", "magic"),
        (b"\x93NUMPY\x03\x00", r"version is \(3, 0\)"),
        (to_npy(pickle_of_python2([]), 10**18), "length 1000000000000000000"),
        (to_npy(pickle_of_python2([]), 0).replace(b"'|O'", b"'i2'"), "int16"),
        (to_npy(pickle_of_python2([]), 0).replace(b"(0,)", b"(),)"), "statement|header"),
        (b"\x93NUMPY\x01\x00\xff\x20" + b"'" + b"a" * 0x20FD + b"'", "not a dictionary"),
        (to_npy(pickle_of_python2([]), 0).replace(b"(0,), } ", b"(0,0), }"), "one-dimensional"),
    ],
    ids=["empty", "page", "version-3", "too-long", "int16", "no-dimension", "no-dictionary", "two-dimensions"],
)
def test_refuses_other_files(data: bytes, fault: str) -> None:
    with pytest.raises(DataError, match=fault) as caught:
        load_object_array(io.BytesIO(data), "train of cat.npz")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_refuses_every_truncation(protocol: int) -> None:
    data = to_npy(to_pickle([np.ones((2, 3), dtype=np.int16)], protocol), 1)
    for length in range(len(data)):
        with pytest.raises(DataError):
            load_object_array(io.BytesIO(data[:length]), "name")


@pytest.mark.fuzz
def test_mutated_files_raise_nothing_else(
    mutate: Callable[[bytes, random.Random], bytes], generator: random.Random
) -> None:
    arrays: Arrays = [np.ones((2, 3), dtype=np.int16), np.zeros((40, 3), dtype=np.float32)]
    originals = [to_npy(to_pickle(arrays, protocol), 2) for protocol in (2, 3, 4, 5)]
    originals.append(to_npy(pickle_of_python2(arrays), 2))
    refused = 0
    for round_number in range(times(1000)):
        data = mutate(originals[round_number % len(originals)], generator)
        try:
            found = load_object_array(io.BytesIO(data), "name")
        except DataError:
            refused += 1
        else:
            assert all(isinstance(array, np.ndarray) and array.dtype.kind in "iuf" for array in found)
    assert 0 < refused < times(1000)


def test_restricted_unpickler_takes_what_it_is_given() -> None:
    pickled = pickle.dumps({"one": OrderedDict(a=1), "two": [2, 3.0]})
    allowed = {("collections", "OrderedDict"): OrderedDict}
    assert RestrictedUnpickler(io.BytesIO(pickled), allowed).load() == {"one": OrderedDict(a=1), "two": [2, 3.0]}
    with pytest.raises(DataError, match=r"'collections\.OrderedDict'"):
        RestrictedUnpickler(io.BytesIO(pickled), {}).load()


def test_restricted_unpickler_decodes_as_told() -> None:
    assert RestrictedUnpickler(io.BytesIO(b"U\x01\xe9."), {}, encoding="latin1").load() == "\xe9"
    assert RestrictedUnpickler(io.BytesIO(b"U\x01\xe9."), {}, encoding="bytes").load() == b"\xe9"
