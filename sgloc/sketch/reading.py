"""Reader for a user's own drawings in SVG, ndjson or JSON files."""

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
# Limits for JSON, whose parsed values take ten times the memory of their text.
_MOST_COMMAS, _MOST_LINES = 500_000, 200_000
# Largest total stroke length of a drawing, in units of its larger side; simplification is quadratic in it.
_MOST_LENGTH = 1000
_FORMS = "an .svg, .svgz, .ndjson or .json file"
_GZIP = b"\x1f\x8b"
_SHAPE = 'expected {"drawing": [[xs, ys], ...]} or a list of strokes, each a list of points [x, y]'


class OwnFile(NamedTuple):
    """The content of a user's file.

    Attributes:
        drawings: name and strokes of each drawing; a stroke is float64 [n, 2] of absolute (x, y), y downwards.
        notes: what was left out of the file or changed on reading, such as "3 texts were left out".
    """

    drawings: list[tuple[str, Polylines]]
    notes: list[str]


def read_own(location: str) -> list[tuple[str, Polylines]]:
    """Return the drawings of a file, read by `read_own_file`, and log its notes."""
    found = read_own_file(location)
    if found.notes:
        logger.warning("%s: %s", location, "; ".join(found.notes))
    return found.drawings


def read_own_file(location: str) -> OwnFile:
    """Read the drawings of a user's file.

    An SVG is one drawing; `sgloc.sketch.svg.reader.read_svg` describes its strokes. An .ndjson file has one drawing per
    line, or all in one array. A drawing is a QuickDraw object {"drawing": [[xs, ys], ...]}, in which other fields are
    optional, or a list of strokes, each a list of points [x, y]. A .json file is one such object or list, or an array
    of such objects. All files may be gzipped.

    Args:
        location: path or URL.

    Raises:
        DataError: if the file cannot be read, has an unsupported format, or exceeds the limits; the message says where.
    """
    name = PurePosixPath(location)
    stem, suffix = name.stem, name.suffix.lower()
    if suffix == ".gz":
        stem, suffix = PurePosixPath(stem).stem, PurePosixPath(stem).suffix.lower()
    if suffix not in (".svg", ".svgz", ".ndjson", ".json"):
        raise DataError(f"{location} is not a supported drawing file; use {_FORMS}")
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
    """Read a file, decompressing it if necessary."""

    def read() -> Any:
        with open_file(location) as file:
            return file.read(_MOST_BYTES + 1)

    try:
        content: bytes = retry(read, location)
    except IsADirectoryError as error:
        raise DataError(f"{location} is a folder; use {_FORMS}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{location} cannot be read ({error}); check the path and its permissions") from error
    try:
        if content.startswith(_GZIP):
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{location} cannot be decompressed ({error}); save or download it again") from error
    if len(content) > _MOST_BYTES:
        raise DataError(f"{location} has more than {_MOST_BYTES:,} bytes; use a smaller drawing")
    return content


def _read_json(content: bytes, location: str, *, is_whole: bool) -> Iterator[Polylines]:
    """Yield the drawings of a JSON file: of one value if `is_whole`, else of one value per line."""
    try:
        text = decoded(io.BufferedReader(io.BytesIO(content))).read()
    except UnicodeDecodeError as error:
        raise DataError(f"{location} is not text ({error}); use {_FORMS}") from error
    if not text.strip():
        raise DataError(f"{location} is empty; use {_FORMS}")
    # `read_records` bounds the length of a line; a text that may be a single value is bounded as a whole here.
    most = _MOST_COMMAS if is_whole or text.lstrip().startswith(b"[") else _MOST_BYTES
    if text.count(b",") > most or (not is_whole and text.count(b"\n") > _MOST_LINES):
        raise DataError(
            f"{location} has more than {_MOST_COMMAS:,} commas or {_MOST_LINES:,} lines; use a file with fewer drawings"
        )
    # Without line ends, a file of one value is one line.
    text = text.replace(b"\n", b" ").replace(b"\r", b" ") if is_whole else text
    for number, record in enumerate(read_records(io.BufferedReader(io.BytesIO(text))), start=1):
        if isinstance(record, UnfitError) and record.reason == "blank_line":
            continue
        where = location if is_whole and number == 1 else f"drawing {number} of {location}"
        yield _parse(record, where)


def _parse(record: Any, where: str) -> Polylines:
    """Return the strokes of one line or array entry."""
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
    """Return the strokes unchanged; raise a DataError if a coordinate or the total length is out of bounds."""
    for number, stroke in enumerate(strokes, start=1):
        if not (np.abs(stroke) < 1e9).all():
            raise DataError(
                f"stroke {number} of {where} has a coordinate that is not finite or exceeds 1e9; correct it"
            )
    side = float(np.ptp(np.concatenate(strokes), axis=0).max())
    length = sum(float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in strokes)
    if length > _MOST_LENGTH * side:
        raise DataError(
            f"{where} has strokes more than {_MOST_LENGTH:,} times as long as the drawing is large; simplify it first"
        )
    return strokes
