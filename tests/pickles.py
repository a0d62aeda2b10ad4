"""Pickles and .npy files as Python 2 and 3 write them, made by hand."""

import io
import pickle
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FALSE, TRUE, NONE, BUILD, REDUCE, STOP = b"\x89", b"\x88", b"N", b"b", b"R", b"."


def to_npy(pickled: bytes, length: int) -> bytes:
    """A .npy file of a one-dimensional object array of that length, whose pickle is given."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (length,)})
    return stream.getvalue() + pickled


def object_array(items: Sequence[Any]) -> npt.NDArray[Any]:
    """A one-dimensional object array, even of items that are arrays of one shape."""
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array


def to_pickle(items: Sequence[Any], protocol: int) -> bytes:
    """A pickled object array."""
    return pickle.dumps(object_array(items), protocol=protocol)


def integer(value: int) -> bytes:
    """What pushes an integer."""
    return b"J" + struct.pack("<i", value)


def text_of_python2(value: bytes) -> bytes:
    """What pushes a string of Python 2."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def pickled_array_of_python2(shape: tuple[int, ...], code: bytes, order: bytes, data: bytes) -> bytes:
    """One array as cPickle of Python 2 wrote it with protocol 2, less its memo."""
    minus_one = integer(-1)
    return b"".join(
        [
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n",
            integer(0) + b"\x85" + text_of_python2(b"b") + b"\x87" + REDUCE,
            b"(" + integer(1) + b"(" + b"".join(map(integer, shape)) + b"t",
            b"cnumpy\ndtype\n" + text_of_python2(code) + integer(0) + integer(1) + b"\x87" + REDUCE,
            b"(" + integer(3) + text_of_python2(order) + NONE * 3 + minus_one * 2 + integer(0) + b"t" + BUILD,
            FALSE + data + b"t" + BUILD,
        ]
    )


def pickle_of_python2(arrays: Sequence[npt.NDArray[Any]]) -> bytes:
    """An object array of int16 arrays as Python 2 pickled it."""
    items = [
        pickled_array_of_python2(array.shape, b"i2", b"<", text_of_python2(array.astype("<i2").tobytes()))
        for array in arrays
    ]
    return b"\x80\x02" + pickled_array_of_python2((len(arrays),), b"O8", b"|", b"](" + b"".join(items) + b"e") + STOP
