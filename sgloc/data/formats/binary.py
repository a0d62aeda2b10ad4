"""Reader of QuickDraw's binary files (METHOD 1)."""

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
    """Read a binary file: a sequence of records, each a header and strokes, without separators.

    Countries and timestamps are discarded. Since nothing marks the start of a record, a truncated record and everything
    after it become a single Reject.

    Args:
        location: local path or fsspec URL; decompressed if it ends in .gz.
        category: category of every drawing.
        max_points: maximum number of points in a drawing.

    Yields:
        One outcome per record, in order. Its place is, for example, "record 17 at byte 2048": the record's number, from
        1, and its start in the decompressed file.

    Raises:
        DataError: if the file is missing, unreadable, damaged, empty or text. Drawings shortly before the damage may
            then be lost.
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
        raise DataError(f"{location} is empty; download it again")


class _Record(NamedTuple):
    """A record as stored in the file.

    Attributes:
        header: the header's bytes; fewer than a full header if the file ends within it.
        xs: the x coordinates of each stroke, one byte per point; strokes beyond the maximum number of points are left
            out.
        ys: the y coordinates, likewise.
        num_points: number of points of all strokes.
        num_bytes: size of the record, or of what the file holds of it.
        is_whole: whether the record is complete.
    """

    header: bytes
    xs: list[bytes]
    ys: list[bytes]
    num_points: int
    num_bytes: int
    is_whole: bool


def _records(location: str, max_points: int) -> Iterator[_Record]:
    """Split a file into records; only the last one may be truncated."""
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
                # Keep reading strokes beyond the limit, because that is the only way to find the next record.
                if num_points <= max_points:
                    xs.append(points[:length])
                    ys.append(points[length:])
            yield _Record(start, xs, ys, num_points, num_bytes, is_whole)
            start = read(_HEADER.size)


def _check(record: _Record, max_points: int) -> tuple[int, bool]:
    """Return a record's key_id and recognized, or raise UnfitError."""
    if not record.is_whole:
        raise UnfitError("truncated_record", f"the file ends {record.num_bytes} bytes into the record")
    key_id, country, recognized, _, num_strokes = _HEADER.unpack(record.header)
    # Lost bytes shift everything read after them; an impossible country code often reveals this.
    if country != bytes(2) and not (country.isascii() and country.decode("ascii").isprintable()):
        raise UnfitError("bad_country", repr(country))
    if recognized not in (0, 1):
        raise UnfitError("bad_recognized", str(recognized))
    if num_strokes == 0:
        raise UnfitError("empty_drawing", "no stroke")
    if b"" in record.xs:
        raise UnfitError("empty_stroke", f"stroke {record.xs.index(b'')} has no point")
    if record.num_points > max_points:
        raise UnfitError("too_many_points", f"{record.num_points} points; the limit is {max_points}")
    return key_id, recognized == 1


FORM = Form(
    what="a binary file of drawings",
    endings=(".bin", ".bin.gz"),
    begins=lambda head: bool(head) and not is_text(head),
    read=lambda location, category, _, max_points: read_binary(location, category, max_points=max_points),
    is_named=True,
    public={"binary": "full/binary"},
    reasons={
        "bad_country": "binary: a country that is neither two bytes of printable ASCII nor two zero bytes",
        "truncated_record": "binary: the file ends within a record; the rest of the file counts as one drawing",
    },
)
