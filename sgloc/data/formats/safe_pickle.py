"""Reads pickled arrays without running anything that the file brings along (DESIGN contract 7).

A pickle is a program. `RestrictedUnpickler` lets it name only what its caller lists; `load_object_array` lists nothing
but stand-ins of numpy's array reconstruction, which build the arrays themselves, after checking their arguments.
"""

import io
import math
import pickle
import pickletools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sgloc.errors import DataError

# What numpy's pickles of protocols 2 to 5 consist of. Sets and dictionaries are not among it: hashing a tuple that
# holds another twice, that another twice, and so on, takes forever, and BUILD sets attributes only from a dictionary.
# fmt: off
_OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
    "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
    "SHORT_BINSTRING", "BINSTRING", "SHORT_BINUNICODE", "BINUNICODE",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "MARK", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
})
# fmt: on
_NUMBER_CODES = frozenset({"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_OBJECT_CODES = frozenset({"O", "O4", "O8"})
_NDARRAY = "numpy.ndarray"
_MAX_DIMENSIONS = 32


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that can name only the objects it was given.

    Args:
        stream: where the pickle is read from.
        allowed: what the pickle may name: from (module, name), as the pickle spells them, to what stands for it.
        encoding: how strings that Python 2 wrote are decoded, as `pickle.Unpickler` takes it.

    Raises:
        DataError: from ``load``, if the pickle names anything else. Whatever else `pickle.Unpickler` raises for a
            damaged pickle passes through.
    """

    def __init__(self, stream: IO[bytes], allowed: Mapping[tuple[str, str], Any], encoding: str = "ASCII") -> None:
        super().__init__(stream, encoding=encoding)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Look up what the pickle names; called by `pickle.Unpickler`."""
        if (module, name) not in self._allowed:
            # Cut, because the file chooses how long the name is.
            raise DataError(f"the pickle refers to {f'{module}.{name}'[:100]!r}, which is not allowed in it")
        return self._allowed[module, name]


def load_object_array(stream: IO[bytes], name: str) -> list[npt.NDArray[Any]]:
    """Read a .npy stream that holds a one-dimensional object array of number arrays, written by Python 2 or 3.

    Args:
        stream: the .npy stream, read to its end.
        name: what to call it in an error.

    Returns:
        The arrays, of any shape, integer or floating, some perhaps read-only and sharing memory.

    Raises:
        DataError: if the stream is damaged, holds another kind of array, or its pickle holds anything but arrays.
    """
    try:
        content = io.BytesIO(stream.read())
        length = _read_object_header(content)
        pickled = content.read()
        _check_opcodes(pickled)
        allowed = _array_reconstruction(len(pickled))
        outer = RestrictedUnpickler(io.BytesIO(pickled), allowed, encoding="latin1").load()
        return _arrays_of(outer, length)
    # A damaged pickle makes the unpickler, and a damaged archive makes its stream, raise almost anything.
    except Exception as error:
        raise DataError(
            f"{name} is not a sound object array of number arrays ({error!s:.300}); fetch or write it again"
        ) from error


def _read_object_header(content: io.BytesIO) -> int:
    """Read a .npy header and return the length that it declares."""
    version = np.lib.format.read_magic(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"its .npy version is {version}, where (1, 0) or (2, 0) is needed")
    with warnings.catch_warnings():
        # numpy advises to write again what Python 2 wrote; published files are what they are.
        warnings.simplefilter("ignore")
        shape, _, dtype = readers[version](content)
    if dtype != np.dtype(object) or len(shape) != 1:
        raise DataError(f"it holds {dtype!s:.100} of shape {shape!s:.100}, not a one-dimensional object array")
    return int(shape[0])


def _check_opcodes(pickled: bytes) -> None:
    """Refuse what would make the unpickler itself take memory or time without bound, or run past the end."""
    texts = ("", "")
    named = ""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            named = str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            named = ".".join(texts)
        elif isinstance(argument, str):
            texts = (texts[1], argument)
        if opcode.name not in _OPCODES:
            after = f" after {named[:100]!r}" if named else ""
            raise DataError(f"the pickle uses the instruction {opcode.name}{after}, which no pickled array does")
        # The unpickler makes its memo as long as the greatest index.
        if opcode.name == "LONG_BINPUT" and isinstance(argument, int) and argument > len(pickled):
            raise DataError(f"the pickle asks for a memo of {argument} entries, more than it has bytes")


@dataclass(slots=True)
class _Budget:
    """The bytes that may still be decoded; a file that has one string decoded again and again runs out of them."""

    left: int

    def encode(self, text: object, encoding: object = "latin1") -> bytes:
        """Turn the text that stands for bytes in a pickle of Python 2, or of protocol 2, into these bytes."""
        if not isinstance(text, str) or encoding != "latin1":
            raise DataError("the pickle encodes something other than latin1 text")
        self.left -= len(text)
        if self.left < 0:
            raise DataError("the pickle unpacks to more bytes than it has")
        return text.encode("latin1")


@dataclass(slots=True)
class _Dtype:
    """Stands for numpy.dtype."""

    code: str
    byte_order: str = "|"

    def __setstate__(self, state: Any) -> None:
        _, byte_order, subarray, names, fields, *_ = state
        if byte_order not in ("<", ">", "|", "=") or (subarray, names, fields) != (None, None, None):
            raise DataError("the pickle holds a structured dtype")
        self.byte_order = byte_order


@dataclass(slots=True)
class _Array:
    """Stands for numpy.ndarray; `content` is a number array, or the list of what an object array holds."""

    budget: _Budget
    content: npt.NDArray[Any] | list[Any] = field(default_factory=list)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if isinstance(dtype, _Dtype) and dtype.code in _OBJECT_CODES:
            if not isinstance(data, list):
                raise DataError("the pickle holds an object array without a list of its objects")
            self.content = data
        else:
            buffer = data if isinstance(data, bytes | bytearray) else self.budget.encode(data)
            self.content = _number_array(buffer, dtype, shape, "F" if is_fortran else "C")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _number_array(buffer: object, dtype: object, shape: object, order: object) -> npt.NDArray[Any]:
    """View bytes as an array, provided that they are exactly as many as the shape needs."""
    if not isinstance(dtype, _Dtype) or dtype.code not in _NUMBER_CODES:
        raise DataError("the pickle holds an array of something other than numbers")
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise DataError("the pickle holds an array whose shape is not made of sizes")
    if not isinstance(buffer, bytes | bytearray) or order not in ("C", "F"):
        raise DataError("the pickle holds an array without its bytes")
    number_type = np.dtype(dtype.byte_order + dtype.code)
    if len(buffer) != math.prod(shape) * number_type.itemsize:
        raise DataError(f"the pickle holds an array whose {len(buffer)} bytes are not as many as its shape needs")
    return np.ndarray(shape, number_type, buffer, order="F" if order == "F" else "C")


def _array_reconstruction(num_bytes: int) -> dict[tuple[str, str], Any]:
    """Make everything that a pickled array may name; anew for each pickle, as its parts share one budget of bytes."""
    budget = _Budget(num_bytes)

    def reconstruct(array_type: object, _shape: object, _type_code: object) -> _Array:
        if array_type != _NDARRAY:
            raise DataError("the pickle reconstructs something other than an array")
        return _Array(budget)

    def view_buffer(buffer: object, dtype: object, shape: object, order: object) -> _Array:
        return _Array(budget, _number_array(buffer, dtype, shape, order))

    def make_dtype(code: object, _align: object, _copy: object) -> _Dtype:
        if not isinstance(code, str) or code not in _NUMBER_CODES | _OBJECT_CODES:
            raise DataError("the pickle holds a dtype other than object, integer and floating")
        return _Dtype(code)

    def empty_bytes() -> bytes:
        return b""

    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): make_dtype,
        # Protocol 2 has no bytes: Python 3 writes them as encoded text, and those of length zero as a call of bytes.
        ("_codecs", "encode"): budget.encode,
        ("__builtin__", "bytes"): empty_bytes,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = reconstruct
        allowed[f"{core}.numeric", "_frombuffer"] = view_buffer
    return allowed


def _arrays_of(outer: object, length: int) -> list[npt.NDArray[Any]]:
    """Take the number arrays out of the unpickled object array."""
    if not isinstance(outer, _Array) or not isinstance(outer.content, list) or len(outer.content) != length:
        raise DataError(f"its pickle is not an object array of length {length}, as its header says")
    arrays: list[npt.NDArray[Any]] = []
    for index, item in enumerate(outer.content):
        if not isinstance(item, _Array) or not isinstance(item.content, np.ndarray):
            raise DataError(f"its entry {index} is not an array of numbers")
        arrays.append(item.content)
    return arrays
