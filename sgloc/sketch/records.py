"""Drawings in JSON: a drawing a line, or all in one array, in any encoding of Unicode.

The builder of shards and the reader of a user's own drawings both take files apart with it.
"""

import codecs
import io
import itertools
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from json import detect_encoding
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from sgloc.sketch.rejects import UnfitError, shown

MAX_LINE_BYTES = 4 * 2**20
# The longest array that is read as one; a longer one is taken for lines.
MAX_ARRAY_BYTES = 64 * 2**20
_PIECE_BYTES = 2**16


class Columns(NamedTuple):
    """A drawing's coordinates, stroke after stroke; what they are is not looked at yet.

    Attributes:
        xs: of all points.
        ys: of all points.
        lengths: points of each stroke, at least 1.
        is_timed: whether each stroke had a third list, of times, as raw drawings do.
    """

    xs: list[Any]
    ys: list[Any]
    lengths: list[int]
    is_timed: bool


def decoded(stream: io.BufferedReader) -> io.BufferedReader:
    """A stream's text as UTF-8 without a byte order mark, told by how it begins.

    Raises:
        UnicodeDecodeError: while reading, if a stream of UTF-16 or UTF-32 ends within a character.
    """
    start = stream.peek(4)[:4]
    encoding: str = detect_encoding(start)
    if encoding.endswith(("le", "be")):
        # Without a mark, the zeros of characters of ASCII tell.
        text = start.decode(encoding, "replace")
        encoding = encoding if text.isascii() and text[0] in "{[" else "utf-8"
    if encoding.startswith("utf-8"):
        stream.read(len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0)
        return stream
    # A lone surrogate stays one, for the line that has it to fail.
    characters = codecs.iterdecode(_pieces(stream), encoding, "surrogatepass")
    return io.BufferedReader(_Pieces(codecs.iterencode(characters, "utf-8", "surrogatepass")), _PIECE_BYTES)


class _Pieces(io.RawIOBase):
    """A stream of the bytes that an iterator gives piece by piece."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._pieces, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _pieces(stream: io.BufferedReader) -> Iterator[bytes]:
    return iter(partial(stream.read, _PIECE_BYTES), b"")


def read_records(stream: io.BufferedReader) -> Iterator[Any]:
    """What a file's lines hold; or, where all of the file is one array with an object first, the array's entries.

    Args:
        stream: of UTF-8 without a byte order mark, see `decoded`.

    Yields:
        Of each line or entry the value, or an UnfitError for what is none.
    """
    if stream.peek(64)[:64].lstrip().startswith(b"["):
        start = stream.read(MAX_ARRAY_BYTES + 1)
        found = None
        with suppress(ValueError):
            found = orjson.loads(start) if len(start) <= MAX_ARRAY_BYTES else None
        if isinstance(found, list) and found and isinstance(found[0], dict):
            yield from found
            return
        stream = io.BufferedReader(_Pieces(itertools.chain([start], _pieces(stream))))
    yield from map(_parse_line, _bounded_lines(stream))


def _bounded_lines(stream: io.BufferedReader) -> Iterator[bytes]:
    """A file's lines; of one that is too long, only the first MAX_LINE_BYTES + 1 bytes."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        yield line


def _parse_line(line: bytes) -> Any:
    """The value of a line, or the UnfitError that says why there is none."""
    if len(line) > MAX_LINE_BYTES:
        return UnfitError("line_too_long", f"more than {MAX_LINE_BYTES} bytes")
    try:
        return orjson.loads(line)
    except ValueError as error:
        if not line.strip():
            return UnfitError("blank_line", "nothing but white space")
        try:
            line.decode()
        except UnicodeDecodeError as decode_error:
            return UnfitError("not_utf8", str(decode_error))
        return UnfitError("malformed_json", str(error))


def parse_columns(strokes: Any) -> Columns:
    """Take apart a drawing as QuickDraw writes it: of each stroke a list of xs, one of ys and perhaps one of times.

    Raises:
        UnfitError: if it is not that.
    """
    if type(strokes) is not list:
        raise UnfitError("wrong_shape", f"the drawing is {shown(strokes)}, not a list of strokes")
    if not strokes:
        raise UnfitError("empty_drawing", "no stroke")
    num_lists = 3 if type(strokes[0]) is list and len(strokes[0]) == 3 else 2
    xs: list[Any] = []
    ys: list[Any] = []
    lengths: list[int] = []
    for index, stroke in enumerate(strokes):
        if type(stroke) is not list or list(map(type, stroke)) != [list] * num_lists:
            lists = "xs, one of ys" if num_lists == 2 else "xs, one of ys, one of times"
            raise UnfitError("wrong_shape", f"stroke {index} is {shown(stroke)}, not a list of {lists}")
        length = len(stroke[0])
        if len(stroke[1]) != length or len(stroke[-1]) != length:
            found = " and ".join(str(len(column)) for column in stroke)
            raise UnfitError("unequal_lengths", f"the lists of stroke {index} have {found} entries")
        if not length:
            raise UnfitError("empty_stroke", f"stroke {index} has no point")
        xs += stroke[0]
        ys += stroke[1]
        lengths.append(length)
    return Columns(xs, ys, lengths, num_lists == 3)


def parse_points(strokes: Any) -> Columns:
    """Take apart a drawing as people write it: of each stroke a list of points [x, y].

    Raises:
        UnfitError: if it is not that.
    """
    if type(strokes) is not list:
        raise UnfitError("wrong_shape", f"the drawing is {shown(strokes)}, not a list of strokes")
    for index, stroke in enumerate(strokes):
        if type(stroke) is not list or any(type(point) is not list or len(point) != 2 for point in stroke):
            raise UnfitError("wrong_shape", f"stroke {index} is {shown(stroke)}, not a list of points [x, y]")
    return parse_columns([[[x for x, _ in stroke], [y for _, y in stroke]] for stroke in strokes])


def strokes_of(columns: Columns) -> list[npt.NDArray[np.float64]]:
    """A drawing's strokes, float64 [n, 2] each, from columns of numbers."""
    points = np.array([columns.xs, columns.ys], dtype=np.float64).T
    return np.split(points, np.cumsum(columns.lengths)[:-1])


def refuse_non_numbers(*columns: list[Any]) -> None:
    """Raise an UnfitError if a coordinate is not a number; to Python, JSON's true would be one."""
    for column in columns:
        if not set(map(type, column)) <= {int, float}:
            odd = next(value for value in column if type(value) not in (int, float))
            raise UnfitError("not_a_number", f"{shown(odd)} among the coordinates")
