"""Hand-made pickles and .npy files as Python 2 and 3 write them."""

import io
import pickle
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FALSE, TRUE, NONE, BUILD, REDUCE, STOP = b"\x89", b"\x88", b"N", b"b", b"R", b"."


def to_npy(pickled: bytes, length: int) -> bytes:
    """Return a .npy file of a one-dimensional object array of this length with the given pickle."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (length,)})
    return stream.getvalue() + pickled


def object_array(items: Sequence[Any]) -> npt.NDArray[Any]:
    """Return a one-dimensional object array, even if all items are arrays of the same shape."""
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array


def to_pickle(items: Sequence[Any], protocol: int) -> bytes:
    """Return a pickled object array."""
    return pickle.dumps(object_array(items), protocol=protocol)


def integer(value: int) -> bytes:
    """Return the opcodes that push an integer."""
    return b"J" + struct.pack("<i", value)


def text_of_python2(value: bytes) -> bytes:
    """Return the opcodes that push a Python 2 string."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def pickled_array_of_python2(shape: tuple[int, ...], code: bytes, order: bytes, data: bytes) -> bytes:
    """Return one array as cPickle of Python 2 wrote it with protocol 2, without memo opcodes."""
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
    """Return an object array of int16 arrays as Python 2 pickled it."""
    items = [
        pickled_array_of_python2(array.shape, b"i2", b"<", text_of_python2(array.astype("<i2").tobytes()))
        for array in arrays
    ]
    return b"\x80\x02" + pickled_array_of_python2((len(arrays),), b"O8", b"|", b"](" + b"".join(items) + b"e") + STOP
