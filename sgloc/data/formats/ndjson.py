"""Reader of simplified and raw ndjson files, with one drawing per line or all drawings in one array (METHOD 1)."""

from collections.abc import Iterator
from typing import Any

from sgloc.data.formats.files import open_unpacked
from sgloc.data.formats.form import Form
from sgloc.data.formats.rows import ByteDrawing, Outcome, Strokes, derived_key, simplified
from sgloc.errors import DataError
from sgloc.sketch.records import decoded, parse_columns, read_records, refuse_non_numbers, strokes_of
from sgloc.sketch.rejects import UnfitError, shown
from sgloc.storage import reading

MAX_WORD_LENGTH = 128


def read_ndjson(location: str, category: str, word: str | None, max_points: int) -> Iterator[Outcome]:
    """Read an ndjson file, detecting whether each drawing is simplified or raw from its strokes.

    A simplified stroke is two lists, xs and ys, of integers in 0..255. A raw stroke is three lists, xs, ys and times,
    of numbers on any canvas; raw drawings are simplified by QuickDraw's recipe, and their times are ignored. Two lists
    of floats are a raw stroke without times, except that a drawing whose floats are all integers in 0..255 is a
    simplified one.

    People's own drawings have neither word nor key_id. Their category is the file's, and their key_id is derived from
    the category, their position in the file and their strokes.

    Args:
        location: local path or fsspec URL; decompressed if it ends in .gz. The encoding is UTF-8 unless a byte order
            mark says otherwise.
        category: category that the file is named after.
        word: the only category accepted; None accepts any.
        max_points: maximum number of points in a drawing. A raw drawing is rejected before simplification if it has
            more than RAW_POINTS_PER_POINT times as many points, or would have after resampling.

    Yields:
        One outcome per line or array entry, in order. Its place is its number, from 1.

    Raises:
        DataError: if the file is missing, unreadable, damaged, empty or an error page. Drawings shortly before the
            damage may then be lost.
    """
    number = 0
    for number, record in enumerate(_records(location), start=1):
        try:
            is_own = _check_fields(record)
            shows = _parse_word(category if is_own else record["word"], word)
            recognized = record.get("recognized", True)
            if recognized is not True and recognized is not False:
                raise UnfitError("bad_recognized", shown(recognized))
            key_id = 0 if is_own else _parse_key_id(record["key_id"])
            strokes = _parse(record["drawing"], max_points)
            if is_own:
                key_id = derived_key(f"{category}/{number}/".encode() + strokes.xs + strokes.ys)
        except UnfitError as error:
            yield str(number), error
        else:
            yield str(number), ByteDrawing(shows, key_id, recognized, strokes)
    if number == 0:
        raise DataError(f"{location} is empty; download it again")


def _records(location: str) -> Iterator[Any]:
    """Yield the content of each line or array entry, or an UnfitError in its place."""
    with reading(location), open_unpacked(location) as stream:
        text = decoded(stream)
        if text.peek(1)[:1000].lstrip().startswith(b"<"):
            raise DataError(f"{location} is not an ndjson file: it starts with '<'; is it an error page?")
        yield from read_records(text)


def _check_fields(record: Any) -> bool:
    """Raise an UnfitError unless a record is an object with all fields; return whether it is a person's own drawing."""
    if isinstance(record, UnfitError):
        raise record
    if not isinstance(record, dict):
        raise UnfitError("malformed_json", f"{shown(record)} is not an object")
    missing = [name for name in ("word", "key_id", "drawing") if name not in record]
    is_own = missing == ["word", "key_id"]
    if missing and not is_own:
        raise UnfitError("missing_field", ", ".join(missing))
    return is_own


def _parse_word(value: Any, wanted: str | None) -> str:
    # Words must be printable because they are written to text files, one per line, and short because a block stores all
    # its words at the width of the longest.
    if not isinstance(value, str) or not 0 < len(value) <= MAX_WORD_LENGTH or not value.isprintable():
        raise UnfitError("bad_word", shown(value))
    if wanted is not None and value != wanted:
        raise UnfitError("wrong_word", f"{shown(value)} instead of {wanted!r}")
    return value


def _parse_key_id(value: Any) -> int:
    """Parse a number below 2**64, which QuickDraw writes as a string."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(2**64)):
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**64:
        raise UnfitError("bad_key_id", shown(value))
    return value


def _parse(strokes: Any, max_points: int) -> Strokes:
    """Parse the strokes of a simplified or raw drawing."""
    columns = parse_columns(strokes)
    xs, ys, lengths, is_timed = columns
    if is_timed or set(map(type, xs)) != {int} or set(map(type, ys)) != {int}:
        refuse_non_numbers(xs, ys)
        if is_timed or not all(0 <= value <= 255 and value == int(value) for value in xs + ys):
            return simplified(strokes_of(columns), max_points)
        xs, ys = list(map(int, xs)), list(map(int, ys))
    if len(xs) > max_points:
        raise UnfitError("too_many_points", f"{len(xs)} points; the limit is {max_points}")
    try:
        return Strokes(bytes(xs), bytes(ys), lengths)
    except ValueError:
        found = f"coordinates from {min(xs + ys)} to {max(xs + ys)}"
        raise UnfitError("out_of_range", f"{found}; the range is 0 to 255") from None


FORM = Form(
    what="ndjson",
    endings=(".ndjson", ".ndjson.gz"),
    begins=lambda head: head.lstrip().startswith(b"{"),
    read=read_ndjson,
    public={"simplified": "full/simplified", "raw": "full/raw"},
)
