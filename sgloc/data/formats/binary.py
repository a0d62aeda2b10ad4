"""Reads QuickDraw's binary files (METHOD 1)."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from sgloc.data.formats.files import open_unpacked
from sgloc.data.formats.form import Form, is_text
from sgloc.data.formats.rows import ByteDrawing, Outcome, Strokes
from sgloc.errors import DataError
from sgloc.sketch.rejects import UnfitError
from sgloc.storage import reading

# key_id, country, recognized, timestamp, number of strokes.
_HEADER = struct.Struct("<Q2sbIH")


def read_binary(location: str, category: str, *, max_points: int) -> Iterator[Outcome]:
    """Read a binary file: records of a header and strokes, one after another with nothing between.

    Countries and timestamps are not kept. Nothing marks where a record starts, so that from a record that is cut off
    to the file's end all is one Reject.

    Args:
        location: a local path or any fsspec URL; unpacked if it ends in .gz.
        category: what every drawing shows.
        max_points: the most points of a drawing.

    Yields:
        One outcome a record, in order. Its place is like "record 17 at byte 2048", the record's number
        from 1 and where it starts (unpacked).

    Raises:
        DataError: if the file is missing, unreadable, damaged, empty, or text; drawings shortly before a damage are
            then not handed out.
    """
    number = offset = 0
    for number, record in enumerate(_records(location, max_points), start=1):
        place = f"record {number} at byte {offset}"
        try:
            key_id, recognized = _check(record, max_points)
        except UnfitError as error:
            yield place, error
        else:
            strokes = Strokes(b"".join(record.xs), b"".join(record.ys), list(map(len, record.xs)))
            yield place, ByteDrawing(category, key_id, recognized, strokes)
        offset += record.num_bytes
    if number == 0:
        raise DataError(f"{location} is empty; fetch it again")


class _Record(NamedTuple):
    """A record as it stands in the file.

    Attributes:
        header: its first bytes; fewer than a header has where the file ends.
        xs: of each stroke, a byte a point; no more of them where the drawing has too many points.
        ys: likewise.
        num_points: of all strokes.
        num_bytes: from its start to its end, or to the file's.
        is_whole: whether all of it is there.
    """

    header: bytes
    xs: list[bytes]
    ys: list[bytes]
    num_points: int
    num_bytes: int
    is_whole: bool


def _records(location: str, max_points: int) -> Iterator[_Record]:
    """Split a file into records; only the last may be cut off."""
    with reading(location), open_unpacked(location) as stream:
        read = stream.read
        if (start := read(_HEADER.size)) and is_text(start):
            raise DataError(f"{location} is not a binary file of drawings: it starts with text; is it an error page?")
        while start:
            xs: list[bytes] = []
            ys: list[bytes] = []
            num_points, num_bytes = 0, len(start)
            is_whole = len(start) == _HEADER.size
            for _ in range(_HEADER.unpack(start)[-1] if is_whole else 0):
                count = read(2)
                length = int.from_bytes(count, "little")
                points = read(2 * length)
                num_bytes += len(count) + len(points)
                if len(count) < 2 or len(points) < 2 * length:
                    is_whole = False
                    break
                num_points += length
                # Read on, since only so the next record is found.
                if num_points <= max_points:
                    xs.append(points[:length])
                    ys.append(points[length:])
            yield _Record(start, xs, ys, num_points, num_bytes, is_whole)
            start = read(_HEADER.size)


def _check(record: _Record, max_points: int) -> tuple[int, bool]:
    """Take a record's key_id and recognized, or raise UnfitError."""
    if not record.is_whole:
        raise UnfitError("truncated_record", f"the file ends {record.num_bytes} bytes into the record")
    key_id, country, recognized, _, num_strokes = _HEADER.unpack(record.header)
    # Where bytes are lost, what follows is read at the wrong places; a country such as no country has often tells it.
    if country != bytes(2) and not (country.isascii() and country.decode("ascii").isprintable()):
        raise UnfitError("bad_country", repr(country))
    if recognized not in (0, 1):
        raise UnfitError("bad_recognized", str(recognized))
    if num_strokes == 0:
        raise UnfitError("empty_drawing", "no stroke")
    if b"" in record.xs:
        raise UnfitError("empty_stroke", f"stroke {record.xs.index(b'')} has no point")
    if record.num_points > max_points:
        raise UnfitError("too_many_points", f"{record.num_points} points, where {max_points} are taken")
    return key_id, recognized == 1


FORM = Form(
    what="a binary file of drawings",
    endings=(".bin", ".bin.gz"),
    begins=lambda head: bool(head) and not is_text(head),
    read=lambda location, category, _, max_points: read_binary(location, category, max_points=max_points),
    is_named=True,
    public={"binary": "full/binary"},
    reasons={
        "bad_country": "binary: its country is not two bytes of printable ASCII, or of zeros",
        "truncated_record": "binary: the file ends within a record, so that this is all that is left of it",
    },
)
