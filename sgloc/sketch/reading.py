"""Reads the drawings of a user's own file: SVG, ndjson or JSON."""

import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sgloc.errors import DataError
from sgloc.sketch.records import decoded, parse_columns, parse_points, read_records, refuse_non_numbers, strokes_of
from sgloc.sketch.rejects import UnfitError
from sgloc.sketch.svg.limits import MOST_POINTS, UnreadableError
from sgloc.sketch.svg.reader import read_svg
from sgloc.storage import open_file, retry

logger = logging.getLogger(__name__)

Polylines = list[npt.NDArray[np.float64]]

_MOST_BYTES = 20 * 2**20
# Of JSON, whose values take ten times the room of their text.
_MOST_COMMAS, _MOST_LINES = 500_000, 200_000
# The longest drawing, measured along its strokes and in its larger side; simplifying takes the square of it.
_MOST_LENGTH = 1000
_FORMS = "an .svg, .svgz, .ndjson or .json file"
_GZIP = b"\x1f\x8b"
_SHAPE = 'give {"drawing": [[xs, ys], ...]}, or a list of strokes, each a list of points [x, y]'


class OwnFile(NamedTuple):
    """What a user's file holds.

    Attributes:
        drawings: each with a name and its strokes, float64 [n, 2] of absolute (x, y), y downwards.
        notes: what was left out of the file or read otherwise than it stands there, such as "3 texts were left out".
    """

    drawings: list[tuple[str, Polylines]]
    notes: list[str]


def read_own(location: str) -> list[tuple[str, Polylines]]:
    """The drawings of a file, as `read_own_file` has them; its notes are logged."""
    found = read_own_file(location)
    if found.notes:
        logger.warning("of %s, %s", location, "; ".join(found.notes))
    return found.drawings


def read_own_file(location: str) -> OwnFile:
    """Read a user's file.

    An SVG is one drawing, its strokes as `sgloc.sketch.svg.reader.read_svg` finds them. An .ndjson file has a drawing
    a line, or all in one array: objects as QuickDraw has them, {"drawing": [[xs, ys], ...]}, of which nothing but the
    drawing is needed, or lists of strokes, each a list of points [x, y]. A .json file is one such object or list, or an
    array of such objects. All may be packed by gzip.

    Args:
        location: path or URL.

    Raises:
        DataError: if it cannot be read, is none of these, or is larger than any drawing; it says where.
    """
    name = PurePosixPath(location)
    stem, suffix = name.stem, name.suffix.lower()
    if suffix == ".gz":
        stem, suffix = PurePosixPath(stem).stem, PurePosixPath(stem).suffix.lower()
    if suffix not in (".svg", ".svgz", ".ndjson", ".json"):
        raise DataError(f"{location} is no drawing that can be read; give {_FORMS}")
    content = _read(location)
    if suffix in (".svg", ".svgz"):
        try:
            strokes, notes = read_svg(content)
        except UnreadableError as error:
            raise DataError(f"{location} {error}") from error
        return OwnFile([(stem, _checked(strokes, location))], notes)
    drawings = list(_read_json(content, location, is_whole=suffix == ".json"))
    if len(drawings) == 1:
        return OwnFile([(stem, drawings[0])], [])
    return OwnFile([(f"{stem}-{number:04d}", drawing) for number, drawing in enumerate(drawings, start=1)], [])


def _read(location: str) -> bytes:
    """A file's content, unpacked."""

    def read() -> Any:
        with open_file(location) as file:
            return file.read(_MOST_BYTES + 1)

    try:
        content: bytes = retry(read, location)
    except IsADirectoryError as error:
        raise DataError(f"{location} is a folder; give {_FORMS}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{location} cannot be read ({error}); check the path and its permissions") from error
    try:
        if content.startswith(_GZIP):
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{location} cannot be unpacked ({error}); save it or fetch it again") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{location} has more than {_MOST_BYTES:,} bytes; give a smaller drawing")
    return content


def _read_json(content: bytes, location: str, *, is_whole: bool) -> Iterator[Polylines]:
    """The drawings of JSON; of a file that is one value as a whole, or of one a line."""
    try:
        text = decoded(io.BufferedReader(io.BytesIO(content))).read()
    except UnicodeDecodeError as error:
        raise DataError(f"{location} is not text ({error}); give {_FORMS}") from error
    if not text.strip():
        raise DataError(f"{location} is empty; give {_FORMS}")
    # A line's length is bounded, but not their number; what may be one value is bounded as a whole.
    most = _MOST_COMMAS if is_whole or text.lstrip().startswith(b"[") else _MOST_BYTES
    if text.count(b",") > most or (not is_whole and text.count(b"\n") > _MOST_LINES):
        raise DataError(
            f"{location} has more than {_MOST_COMMAS:,} commas or {_MOST_LINES:,} lines; give fewer drawings"
        )
    # Without its line ends, what is one value as a whole is one line.
    text = text.replace(b"\n", b" ").replace(b"\r", b" ") if is_whole else text
    for number, record in enumerate(read_records(io.BufferedReader(io.BytesIO(text))), start=1):
        if isinstance(record, UnfitError) and record.reason == "blank_line":
            continue
        where = location if is_whole and number == 1 else f"drawing {number} of {location}"
        yield _parse(record, where)


def _parse(record: Any, where: str) -> Polylines:
    """The strokes of what stands in a line or entry."""
    try:
        if isinstance(record, UnfitError):
            raise record
        if isinstance(record, dict):
            if "drawing" not in record:
                raise UnfitError("missing_field", "no drawing")
            columns = parse_columns(record["drawing"])
        else:
            columns = parse_points(record)
        refuse_non_numbers(columns.xs, columns.ys)
    except UnfitError as error:
        reason = error.reason.replace("_", " ")
        raise DataError(f"{where} cannot be read as a drawing ({reason}: {error.detail}); {_SHAPE}") from error
    if len(columns.xs) > MOST_POINTS:
        raise DataError(f"{where} has more than {MOST_POINTS:,} points; simplify it first")
    return _checked(strokes_of(columns), where)


def _checked(strokes: Polylines, where: str) -> Polylines:
    """Strokes, if they are of numbers and no longer than any drawing."""
    for number, stroke in enumerate(strokes, start=1):
        if not (np.abs(stroke) < 1e9).all():
            raise DataError(f"stroke {number} of {where} has a coordinate that is not finite or beyond 1e9")
    side = float(np.ptp(np.concatenate(strokes), axis=0).max())
    length = sum(float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in strokes)
    if length > _MOST_LENGTH * side:
        raise DataError(f"{where} is more than {_MOST_LENGTH:,} times as long as it is large; simplify it first")
    return strokes
