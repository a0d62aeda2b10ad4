"""Parsing of drawings in JSON: one drawing per line, or all in one array, in any Unicode encoding.

Shared by the shard builder and the reader of a user's own drawings.
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
# The longest text parsed as one array; a longer one is parsed line by line.
MAX_ARRAY_BYTES = 64 * 2**20
_PIECE_BYTES = 2**16


class Columns(NamedTuple):
    """The coordinates of a drawing, concatenated over strokes; their types are not checked yet.

    Attributes:
        xs: x of all points.
        ys: y of all points.
        lengths: number of points in each stroke, at least 1.
        is_timed: whether each stroke had a third list with times, as in raw drawings.
    """

    xs: list[Any]
    ys: list[Any]
    lengths: list[int]
    is_timed: bool


def decoded(stream: io.BufferedReader) -> io.BufferedReader:
    """Detect a stream's encoding from its first bytes and convert it to UTF-8 without a byte order mark.

    Raises:
        UnicodeDecodeError: while reading, if a UTF-16 or UTF-32 stream ends within a character.
    """
    start = stream.peek(4)[:4]
    encoding: str = detect_encoding(start)
    if encoding.endswith(("le", "be")):
        # Without a byte order mark, UTF-16 and UTF-32 show in the zero bytes of ASCII characters.
        text = start.decode(encoding, "replace")
        encoding = encoding if text.isascii() and text[0] in "{[" else "utf-8"
    if encoding.startswith("utf-8"):
        stream.read(len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0)
        return stream
    # Lone surrogates pass, so that only the line that contains one fails.
    characters = codecs.iterdecode(_pieces(stream), encoding, "surrogatepass")
    return io.BufferedReader(_Pieces(codecs.iterencode(characters, "utf-8", "surrogatepass")), _PIECE_BYTES)


class _Pieces(io.RawIOBase):
    """A raw stream over an iterator of byte strings."""

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
    """Yield the JSON values of a file's lines, or the entries if the file is one array that starts with an object.

    Args:
        stream: UTF-8 without a byte order mark, see `decoded`.

    Yields:
        For each line or entry its value, or an UnfitError if it cannot be parsed.
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
    """Yield a file's lines, each cut to its first MAX_LINE_BYTES + 1 bytes."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES + 1)
        yield line


def _parse_line(line: bytes) -> Any:
    """Return the value of a line, or an UnfitError with the reason why it has none."""
    if len(line) > MAX_LINE_BYTES:
        return UnfitError("line_too_long", f"more than {MAX_LINE_BYTES} bytes")
    try:
        return orjson.loads(line)
    except ValueError as error:
        if not line.strip():
            return UnfitError("blank_line", "only white space")
        try:
            line.decode()
        except UnicodeDecodeError as decode_error:
            return UnfitError("not_utf8", str(decode_error))
        return UnfitError("malformed_json", str(error))


def parse_columns(strokes: Any) -> Columns:
    """Parse a drawing as QuickDraw writes it: per stroke a list of xs, a list of ys and optionally a list of times.

    Raises:
        UnfitError: if the value has another structure.
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
            lists = "xs and one of ys" if num_lists == 2 else "xs, one of ys and one of times"
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
    """Parse a drawing as people write it: per stroke a list of points [x, y].

    Raises:
        UnfitError: if the value has another structure.
    """
    if type(strokes) is not list:
        raise UnfitError("wrong_shape", f"the drawing is {shown(strokes)}, not a list of strokes")
    for index, stroke in enumerate(strokes):
        if type(stroke) is not list or any(type(point) is not list or len(point) != 2 for point in stroke):
            raise UnfitError("wrong_shape", f"stroke {index} is {shown(stroke)}, not a list of points [x, y]")
    return parse_columns([[[x for x, _ in stroke], [y for _, y in stroke]] for stroke in strokes])


def strokes_of(columns: Columns) -> list[npt.NDArray[np.float64]]:
    """Return a drawing's strokes, float64 [n, 2] each, from columns of numbers."""
    points = np.array([columns.xs, columns.ys], dtype=np.float64).T
    return np.split(points, np.cumsum(columns.lengths)[:-1])


def refuse_non_numbers(*columns: list[Any]) -> None:
    """Raise an UnfitError if a coordinate is not a number. JSON's true is rejected too, although bool is an int."""
    for column in columns:
        if not set(map(type, column)) <= {int, float}:
            odd = next(value for value in column if type(value) not in (int, float))
            raise UnfitError("not_a_number", f"{shown(odd)} among the coordinates")
