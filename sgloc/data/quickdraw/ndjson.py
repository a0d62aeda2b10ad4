"""Reads simplified and raw ndjson files: a drawing a line (METHOD 1)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson

from sgloc.data.quickdraw.files import open_unpacked, reading
from sgloc.data.quickdraw.rejects import UnfitError, shown
from sgloc.data.quickdraw.rows import Pending
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Reject
from sgloc.sketch.simplify import SPACING, align, simplify

MAX_LINE_BYTES = 4 * 2**20
MAX_WORD_LENGTH = 128
# The longest of 32,430 real drawings is 36,000 pixels long; simplifying may take the square of the length.
RAW_POINTS_PER_POINT = 20
_SIMPLIFIED, _RAW = 2, 3
_Strokes = tuple[bytes, bytes, list[int]]


def read_ndjson(location: str, *, word: str | None, max_points: int) -> Iterator[Drawing | Reject]:
    """Read an ndjson file; each line's form is told by its strokes.

    Simplified strokes are two lists, xs and ys, of integers in 0..255. Raw strokes are three, xs, ys and times, of
    numbers on any canvas; they are simplified by QuickDraw's recipe, the times ignored.

    Args:
        location: a local path or any fsspec URL; unpacked if it ends in .gz.
        word: what every drawing must show; None takes any.
        max_points: the most points of a drawing. A raw drawing that has RAW_POINTS_PER_POINT times as many, or would
            have when resampled, is rejected before it is simplified.

    Yields:
        One Drawing or Reject a line, in order. A Reject's place is the line's number from 1.

    Raises:
        DataError: if the file is missing, unreadable, damaged, empty, or an error page; drawings shortly before a
            damage are then not handed out.
    """
    pending = Pending(location)
    number = 0
    for number, line in enumerate(_bounded_lines(location), start=1):
        try:
            record = _parse_line(line)
            category = _parse_word(record["word"], word)
            recognized = record.get("recognized", True)
            if recognized is not True and recognized is not False:
                raise UnfitError("bad_recognized", shown(recognized))
            pending.add(category, _parse_key_id(record["key_id"]), recognized, *_parse(record["drawing"], max_points))
        except UnfitError as error:
            pending.reject(str(number), error)
        if pending.is_full:
            yield from pending.finish()
    yield from pending.finish()
    if number == 0:
        raise DataError(f"{location} is empty; fetch it again")


def _bounded_lines(location: str) -> Iterator[bytes]:
    """Read a file's lines; of one that is too long, only the first MAX_LINE_BYTES + 1 bytes."""
    with reading(location), open_unpacked(location) as stream:
        if stream.peek(1)[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise DataError(f"{location} is not an ndjson file: it starts with '<'; is it an error page?")
        while line := stream.readline(MAX_LINE_BYTES + 1):
            rest = line
            while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_LINE_BYTES + 1)
            yield line


def _parse_line(line: bytes) -> dict[str, Any]:
    """Parse one line, or raise UnfitError."""
    if len(line) > MAX_LINE_BYTES:
        raise UnfitError("line_too_long", f"more than {MAX_LINE_BYTES} bytes")
    try:
        record = orjson.loads(line)
    except ValueError as error:
        if not line.strip():
            raise UnfitError("blank_line", "nothing but white space") from None
        try:
            line.decode()
        except UnicodeDecodeError as decode_error:
            raise UnfitError("not_utf8", str(decode_error)) from None
        raise UnfitError("malformed_json", str(error)) from None
    if not isinstance(record, dict):
        raise UnfitError("malformed_json", f"not an object but {shown(record)}")
    if missing := [name for name in ("word", "key_id", "drawing") if name not in record]:
        raise UnfitError("missing_field", ", ".join(missing))
    return record


def _parse_word(value: Any, wanted: str | None) -> str:
    # A word is written to text files, a line each; and a block gives each of its words the room of the longest.
    if not isinstance(value, str) or not 0 < len(value) <= MAX_WORD_LENGTH or not value.isprintable():
        raise UnfitError("bad_word", shown(value))
    if wanted is not None and value != wanted:
        raise UnfitError("wrong_word", f"{shown(value)}, where {wanted!r} is wanted")
    return value


def _parse_key_id(value: Any) -> int:
    """Take a number below 2**64, which QuickDraw writes as a string."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(2**64)):
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**64:
        raise UnfitError("bad_key_id", shown(value))
    return value


def _parse(strokes: Any, max_points: int) -> _Strokes:
    """Take a drawing's strokes of either form: their xs and ys, a byte each, and how many each stroke has."""
    if type(strokes) is not list:
        raise UnfitError("wrong_shape", f"the drawing is {shown(strokes)}, not a list of strokes")
    if not strokes:
        raise UnfitError("empty_drawing", "no stroke")
    form = _RAW if type(strokes[0]) is list and len(strokes[0]) == _RAW else _SIMPLIFIED
    xs: list[Any] = []
    ys: list[Any] = []
    lengths: list[int] = []
    for index, stroke in enumerate(strokes):
        if type(stroke) is not list or list(map(type, stroke)) != [list] * form:
            columns = "xs, one of ys" if form == _SIMPLIFIED else "xs, one of ys, one of times"
            raise UnfitError("wrong_shape", f"stroke {index} is {shown(stroke)}, not a list of {columns}")
        length = len(stroke[0])
        if len(stroke[1]) != length or len(stroke[-1]) != length:
            found = " and ".join(str(len(column)) for column in stroke)
            raise UnfitError("unequal_lengths", f"the lists of stroke {index} have {found} entries")
        if not length:
            raise UnfitError("empty_stroke", f"stroke {index} has no point")
        xs += stroke[0]
        ys += stroke[1]
        lengths.append(length)
    if form == _RAW:
        return _simplify(xs, ys, lengths, max_points)
    if len(xs) > max_points:
        raise UnfitError("too_many_points", f"{len(xs)} points, where {max_points} are taken")
    return *_to_bytes(xs, ys), lengths


def _to_bytes(xs: list[Any], ys: list[Any]) -> tuple[bytes, bytes]:
    """Take integers in 0..255, a byte each."""
    # Not isinstance: JSON's true is an int to Python.
    if set(map(type, xs)) != {int} or set(map(type, ys)) != {int}:
        odd = next(value for value in xs + ys if type(value) is not int)
        raise UnfitError("not_integer", f"{shown(odd)} among the coordinates")
    try:
        return bytes(xs), bytes(ys)
    except ValueError:
        found = f"coordinates from {min(xs + ys)} to {max(xs + ys)}"
        raise UnfitError("out_of_range", f"{found}, where 0 to 255 are possible") from None


def _simplify(xs: list[Any], ys: list[Any], lengths: list[int], max_points: int) -> _Strokes:
    """Simplify a raw drawing, provided that it is neither odd nor unreasonably long."""
    if not set(map(type, xs + ys)) <= {int, float}:
        odd = next(value for value in xs + ys if type(value) not in (int, float))
        raise UnfitError("not_a_number", f"{shown(odd)} among the coordinates")
    most = RAW_POINTS_PER_POINT * max_points
    if len(xs) > most:
        raise UnfitError("too_many_points", f"{len(xs)} points, where {most} are simplified")
    points = np.array([xs, ys], dtype=np.float64).T
    strokes = np.split(points, np.cumsum(lengths)[:-1])
    try:
        aligned = align(strokes)
    except DataError as error:
        raise UnfitError("not_finite", str(error)) from None
    resampled = sum(float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in aligned) / SPACING
    if resampled > most:
        raise UnfitError("too_many_points", f"{resampled:.0f} points when resampled, where {most} are simplified")
    polylines = simplify(strokes)
    simplified = np.concatenate(polylines)
    if len(simplified) > max_points:
        raise UnfitError("too_many_points", f"{len(simplified)} points, where {max_points} are taken")
    # QuickDraw's recipe ends in 0..255, so that a byte holds each.
    as_bytes = simplified.astype(np.uint8)
    return as_bytes[:, 0].tobytes(), as_bytes[:, 1].tobytes(), [len(line) for line in polylines]
