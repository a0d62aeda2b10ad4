"""Safe reading of pickled arrays: nothing in the file is executed (DESIGN contract 7).

A pickle is a program. `RestrictedUnpickler` resolves only the names that its caller allows. `load_object_array` allows
only stand-ins for numpy's array reconstruction, which check their arguments before building an array.
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

# The opcodes in numpy's pickles of protocols 2 to 5. Sets and dictionaries are excluded for two reasons: hashing tuples
# nested so that each holds the next one twice takes exponential time, and without dictionaries BUILD cannot set
# attributes.
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
    """An unpickler that resolves only an explicit list of names.

    Args:
        stream: stream of the pickle.
        allowed: maps each (module, name) that the pickle may refer to, as it spells them, to the object to use.
        encoding: encoding of strings written by Python 2, as for `pickle.Unpickler`.

    Raises:
        DataError: from ``load``, if the pickle refers to any other name. Other exceptions that `pickle.Unpickler`
            raises for damaged pickles propagate.
    """

    def __init__(self, stream: IO[bytes], allowed: Mapping[tuple[str, str], Any], encoding: str = "ASCII") -> None:
        super().__init__(stream, encoding=encoding)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a name in the pickle; called by `pickle.Unpickler`."""
        if (module, name) not in self._allowed:
            # Truncated, because the file controls the length of the name.
            raise DataError(f"the pickle refers to {f'{module}.{name}'[:100]!r}, which is not allowed")
        return self._allowed[module, name]


def load_object_array(stream: IO[bytes], name: str) -> list[npt.NDArray[Any]]:
    """Read a .npy stream that holds a one-dimensional object array of number arrays, written by Python 2 or 3.

    Args:
        stream: .npy stream; read to its end.
        name: name of the stream for error messages.

    Returns:
        The integer or floating-point arrays, of any shape; they may be read-only and share memory.

    Raises:
        DataError: if the stream is damaged or holds another kind of array, or its pickle holds anything but arrays.
    """
    try:
        content = io.BytesIO(stream.read())
        length = _read_object_header(content)
        pickled = content.read()
        _check_opcodes(pickled)
        allowed = _array_reconstruction(len(pickled))
        outer = RestrictedUnpickler(io.BytesIO(pickled), allowed, encoding="latin1").load()
        return _arrays_of(outer, length)
    # Catch everything, since the unpickler may raise almost any exception for a damaged pickle, and the stream for a
    # damaged archive.
    except Exception as error:
        raise DataError(
            f"{name} is not a valid object array of number arrays ({error!s:.300}); download or write it again"
        ) from error


def _read_object_header(content: io.BytesIO) -> int:
    """Read a .npy header and return the length that it declares."""
    version = np.lib.format.read_magic(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"its .npy version is {version}; supported are (1, 0) and (2, 0)")
    with warnings.catch_warnings():
        # numpy advises rewriting files written by Python 2, which is no option for published files.
        warnings.simplefilter("ignore")
        shape, _, dtype = readers[version](content)
    if dtype != np.dtype(object) or len(shape) != 1:
        raise DataError(f"it holds {dtype!s:.100} of shape {shape!s:.100}, not a one-dimensional object array")
    return int(shape[0])


def _check_opcodes(pickled: bytes) -> None:
    """Refuse pickles on which the unpickler itself would need unbounded memory or time, or read past the end."""
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
            raise DataError(f"the pickle uses the opcode {opcode.name}{after}, which pickled arrays never contain")
        # The unpickler allocates its memo up to the largest index.
        if opcode.name == "LONG_BINPUT" and isinstance(argument, int) and argument > len(pickled):
            raise DataError(f"the pickle asks for a memo of {argument} entries, more than its number of bytes")


@dataclass(slots=True)
class _Budget:
    """The number of bytes that may still be decoded, which stops a pickle that decodes one string over and over."""

    left: int

    def encode(self, text: object, encoding: object = "latin1") -> bytes:
        """Convert text to the bytes that it represents in a pickle of Python 2 or of protocol 2."""
        if not isinstance(text, str) or encoding != "latin1":
            raise DataError("the pickle encodes something other than latin1 text")
        self.left -= len(text)
        if self.left < 0:
            raise DataError("the pickle unpacks to more bytes than it has")
        return text.encode("latin1")


@dataclass(slots=True)
class _Dtype:
    """Stand-in for numpy.dtype."""

    code: str
    byte_order: str = "|"

    def __setstate__(self, state: Any) -> None:
        _, byte_order, subarray, names, fields, *_ = state
        if byte_order not in ("<", ">", "|", "=") or (subarray, names, fields) != (None, None, None):
            raise DataError("the pickle holds a structured dtype")
        self.byte_order = byte_order


@dataclass(slots=True)
class _Array:
    """Stand-in for numpy.ndarray; `content` is a number array, or the list of an object array's elements."""

    budget: _Budget
    content: npt.NDArray[Any] | list[Any] = field(default_factory=list)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, data = state
        if isinstance(dtype, _Dtype) and dtype.code in _OBJECT_CODES:
            if not isinstance(data, list):
                raise DataError("the pickle holds an object array without a list of its elements")
            self.content = data
        else:
            buffer = data if isinstance(data, bytes | bytearray) else self.budget.encode(data)
            self.content = _number_array(buffer, dtype, shape, "F" if is_fortran else "C")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _number_array(buffer: object, dtype: object, shape: object, order: object) -> npt.NDArray[Any]:
    """View bytes as an array, provided that their number matches the shape."""
    if not isinstance(dtype, _Dtype) or dtype.code not in _NUMBER_CODES:
        raise DataError("the pickle holds an array of something other than numbers")
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, shape)):
        raise DataError("the pickle holds an array whose shape is not a tuple of sizes")
    if not isinstance(buffer, bytes | bytearray) or order not in ("C", "F"):
        raise DataError("the pickle holds an array without its bytes")
    number_type = np.dtype(dtype.byte_order + dtype.code)
    if len(buffer) != math.prod(shape) * number_type.itemsize:
        raise DataError(f"the pickle holds an array whose {len(buffer)} bytes do not match its shape")
    return np.ndarray(shape, number_type, buffer, order="F" if order == "F" else "C")


def _array_reconstruction(num_bytes: int) -> dict[tuple[str, str], Any]:
    """Return the names that a pickled array may refer to; call it once per pickle, because they share a byte budget."""
    budget = _Budget(num_bytes)

    def reconstruct(array_type: object, _shape: object, _type_code: object) -> _Array:
        if array_type != _NDARRAY:
            raise DataError("the pickle reconstructs something other than an array")
        return _Array(budget)

    def view_buffer(buffer: object, dtype: object, shape: object, order: object) -> _Array:
        return _Array(budget, _number_array(buffer, dtype, shape, order))

    def make_dtype(code: object, _align: object, _copy: object) -> _Dtype:
        if not isinstance(code, str) or code not in _NUMBER_CODES | _OBJECT_CODES:
            raise DataError("the pickle holds a dtype other than object, integer or floating point")
        return _Dtype(code)

    def empty_bytes() -> bytes:
        return b""

    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _NDARRAY,
        ("numpy", "dtype"): make_dtype,
        # Protocol 2 has no bytes type: Python 3 writes bytes as encoded text, and empty bytes as a call of bytes().
        ("_codecs", "encode"): budget.encode,
        ("__builtin__", "bytes"): empty_bytes,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = reconstruct
        allowed[f"{core}.numeric", "_frombuffer"] = view_buffer
    return allowed


def _arrays_of(outer: object, length: int) -> list[npt.NDArray[Any]]:
    """Return the number arrays in the unpickled object array."""
    if not isinstance(outer, _Array) or not isinstance(outer.content, list) or len(outer.content) != length:
        raise DataError(f"its pickle is not an object array of length {length}, as its header declares")
    arrays: list[npt.NDArray[Any]] = []
    for index, item in enumerate(outer.content):
        if not isinstance(item, _Array) or not isinstance(item.content, np.ndarray):
            raise DataError(f"its entry {index} is not an array of numbers")
        arrays.append(item.content)
    return arrays
