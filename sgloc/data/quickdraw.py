"""Reads QuickDraw drawings: simplified ndjson and sketch-rnn npz (METHOD 1).

Nothing vanishes (DESIGN contract 8): each line of an ndjson file and each entry of an npz file comes out as a `Drawing`
or as a `Reject`. What concerns a whole file is a `DataError`, raised while the file is read.
"""

import contextlib
import hashlib
import io
import json
import posixpath
import reprlib
import urllib.parse
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
from fsspec.implementations.local import LocalFileSystem

from sgloc.data.safe_pickle import load_object_array
from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing, Int16Array, Reject

ENDINGS = (".ndjson", ".ndjson.gz", ".npz")
SPLITS = ("train", "valid", "test")
MAX_LINE_BYTES = 4 * 2**20
MAX_MEMBER_BYTES = 2 * 2**30
MAX_COMPRESSION_RATIO = 200
_INT16 = np.iinfo(np.int16)


class _UnfitError(Exception):
    """Why a drawing is not taken: a reason and a detail."""


def find_sources(source: str | Sequence[str]) -> list[str]:
    """Find the files that a source stands for.

    Args:
        source: a file, a folder (its files of the known endings, not those of its subfolders) or a glob, local or any
            fsspec URL; or several of them.

    Returns:
        The paths or URLs, sorted, each once; local paths are absolute.

    Raises:
        DataError: if a path does not exist or cannot be listed, a file's ending is unknown, or nothing is found.
    """
    items = [source] if isinstance(source, str) else source
    if not items or not all(items):
        raise DataError(f"no source of drawings was given; name a file or folder of {_endings()}")
    return sorted({path for item in items for path in _expand(item)})


def category_of_file(path: str) -> str:
    """What a file is named after: its name without its ending, or QuickDraw's ".full.npz"; in a URL, unquoted."""
    name = posixpath.basename(path)
    for ending in (*ENDINGS, ".full"):
        name = name.removesuffix(ending)
    return urllib.parse.unquote(name) if "://" in path else name


def read_drawings(path: str) -> Iterator[Drawing | Reject]:
    """Read a file of either form; see `read_simplified` and `read_npz`.

    Raises:
        DataError: if the ending is unknown; while reading, as the two say.
    """
    if path.endswith(".npz"):
        return read_npz(path)
    if path.endswith(ENDINGS):
        return read_simplified(path)
    raise DataError(f"{path} does not end in {_endings()}, the forms of drawings that are read")


def read_simplified(path: str) -> Iterator[Drawing | Reject]:
    """Read a simplified ndjson file: one drawing a line, integer polylines in 0..255 (METHOD 1).

    Args:
        path: a local path or any fsspec URL; decompressed if it ends in .gz.

    Yields:
        One Drawing or Reject a line, in order. A Reject's place is the line's number from 1; its reason is one of
        line_too_long, blank_line, not_utf8, malformed_json, missing_field, bad_word, bad_key_id, bad_recognized,
        empty_drawing, wrong_shape, unequal_lengths, empty_stroke, not_integer, out_of_range.

    Raises:
        DataError: if the file is missing, unreadable, damaged or empty.
    """
    number = 0
    for number, line in enumerate(_bounded_lines(path), start=1):
        try:
            yield _parse_line(line)
        except _UnfitError as error:
            yield Reject(path, str(number), *error.args)
    if number == 0:
        raise DataError(f"{path} is empty; fetch it again")


def read_npz(path: str) -> Iterator[Drawing | Reject]:
    """Read a sketch-rnn npz file: stroke-3 object arrays named train, valid and test (METHOD 1).

    The file is named after the category (`category_of_file`); ``key_id`` is the first 8 bytes, big endian, of the
    BLAKE2b digest of "category/split/index".

    Args:
        path: a local path or any fsspec URL.

    Yields:
        One Drawing or Reject an entry, split after split. A Reject's place is like "train[17]"; its reason is one of
        wrong_shape, empty_drawing, not_finite, wrong_dtype, bad_pen, open_last_stroke, offset_too_large.

    Raises:
        DataError: if the file is missing, unreadable, empty, damaged, not a zip archive, not named after a category,
            lacks a split, holds anything but number arrays, or unpacks to more than it can hold.
    """
    category = category_of_file(path)
    if not category or not category.isprintable():
        raise DataError(f"{path!r} is not named after a category; rename it to what its drawings show")
    for split, arrays in _load_splits(path):
        for index, array in enumerate(arrays):
            try:
                stroke3 = _check_stroke3(array)
            except _UnfitError as error:
                yield Reject(path, f"{split}[{index}]", *error.args)
            else:
                digest = hashlib.blake2b(f"{category}/{split}/{index}".encode()).digest()
                yield Drawing(category, int.from_bytes(digest[:8], "big"), True, stroke3, split)


def _endings() -> str:
    return f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into a DataError; only reading belongs inside."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; check the path") from error
    # Each file system behind fsspec has errors of its own, and zipfile raises almost anything for a damaged archive.
    except Exception as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error}); check its permissions, or fetch it again"
        ) from error


def _expand(item: str) -> list[str]:
    """Find the files of one path, folder or glob."""
    with _reading(item):
        file_system, path = fsspec.core.url_to_fs(item)
        # What exists stands for itself, even with a glob's brackets in its name. A known ending is tried first, lest a
        # large file behind a URL be fetched to see whether it is a listing.
        if item.endswith(ENDINGS) and file_system.exists(path):
            return [path if isinstance(file_system, LocalFileSystem) else item]
        if file_system.isdir(path):
            found, kind = file_system.ls(path, detail=False), "no file"
        elif any(character in item for character in "*?["):
            found, kind = file_system.glob(path), "no match"
        elif file_system.exists(path):
            raise DataError(f"{item} does not end in {_endings()}, the forms of drawings that are read")
        else:
            raise DataError(f"{item} does not exist; check the path")
        paths = [entry for entry in found if entry.endswith(ENDINGS)]
        if not paths:
            raise DataError(f"{item} has {kind} that ends in {_endings()}, the forms of drawings that are read")
        return paths if isinstance(file_system, LocalFileSystem) else list(map(file_system.unstrip_protocol, paths))


def _bounded_lines(path: str) -> Iterator[bytes]:
    """Read a file's lines; of one that is too long, only the first MAX_LINE_BYTES + 1 bytes."""
    with _reading(path), fsspec.open(path, "rb", compression="infer") as raw, io.BufferedReader(raw) as stream:
        while line := stream.readline(MAX_LINE_BYTES + 1):
            rest = line
            while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = stream.readline(MAX_LINE_BYTES + 1)
            yield line


def _parse_line(line: bytes) -> Drawing:
    """Parse one line, or raise _UnfitError."""
    if len(line) > MAX_LINE_BYTES:
        raise _UnfitError("line_too_long", f"more than {MAX_LINE_BYTES} bytes")
    if not line.strip():
        raise _UnfitError("blank_line", "nothing but white space")
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _UnfitError("not_utf8", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _UnfitError("malformed_json", str(error)) from error
    if not isinstance(record, dict):
        raise _UnfitError("malformed_json", f"not an object but {reprlib.repr(record)}")
    missing = [name for name in ("word", "key_id", "drawing") if name not in record]
    if missing:
        raise _UnfitError("missing_field", ", ".join(missing))
    word, recognized = record["word"], record.get("recognized", True)
    # A lone surrogate, which JSON can spell, is not printable; nothing downstream could encode it.
    if not isinstance(word, str) or not word or not word.isprintable():
        raise _UnfitError("bad_word", reprlib.repr(word))
    if not isinstance(recognized, bool):
        raise _UnfitError("bad_recognized", reprlib.repr(recognized))
    key_id = _parse_key_id(record["key_id"])
    return Drawing(word, key_id, recognized, _parse_strokes(record["drawing"]))


def _parse_key_id(value: Any) -> int:
    """Take a number below 2**64, which QuickDraw writes as a string."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(2**64)):
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**64:
        raise _UnfitError("bad_key_id", reprlib.repr(value))
    return value


def _parse_strokes(strokes: Any) -> Int16Array:
    """Turn [[xs, ys], ...] into stroke-3 rows, int16 [N, 3]."""
    if not isinstance(strokes, list):
        raise _UnfitError("wrong_shape", f"the drawing is {reprlib.repr(strokes)}, not a list of strokes")
    if not strokes:
        raise _UnfitError("empty_drawing", "no stroke")
    xs: list[Any] = []
    ys: list[Any] = []
    last_points = []
    for index, stroke in enumerate(strokes):
        if type(stroke) is not list or len(stroke) != 2 or type(stroke[0]) is not list or type(stroke[1]) is not list:
            raise _UnfitError(
                "wrong_shape", f"stroke {index} is {reprlib.repr(stroke)}, not a list of xs and one of ys"
            )
        stroke_xs, stroke_ys = stroke
        if len(stroke_xs) != len(stroke_ys):
            raise _UnfitError("unequal_lengths", f"stroke {index} has {len(stroke_xs)} xs and {len(stroke_ys)} ys")
        if not stroke_xs:
            raise _UnfitError("empty_stroke", f"stroke {index} has no point")
        xs += stroke_xs
        ys += stroke_ys
        last_points.append(len(xs) - 1)
    values = xs + ys
    # Not isinstance: JSON's true is an int to Python.
    if set(map(type, values)) != {int}:
        odd = next(value for value in values if type(value) is not int)
        raise _UnfitError("not_integer", f"{reprlib.repr(odd)} among the coordinates")
    # One array for the whole drawing, not polylines_to_stroke3's one a stroke: small arrays are most of a line's cost.
    try:
        points = np.frombuffer(bytes(values), dtype=np.uint8).reshape(2, -1).T
    except ValueError as error:
        found = f"coordinates from {min(values)} to {max(values)}"
        raise _UnfitError("out_of_range", f"{found}, where 0 to 255 are possible") from error
    stroke3 = np.zeros((len(xs), 3), dtype=np.int16)
    stroke3[:, :2] = points
    stroke3[1:, :2] -= points[:-1]
    stroke3[last_points, 2] = 1
    return stroke3


def _load_splits(path: str) -> Iterator[tuple[str, list[npt.NDArray[Any]]]]:
    """Load the splits of an npz file, one after another."""
    with _reading(path), fsspec.open(path, "rb") as stream:
        magic = stream.read(4)
        if not magic:
            raise DataError(f"{path} is empty; fetch it again")
        if not magic.startswith(b"PK"):
            raise DataError(
                f"{path} is not an npz file: it does not start with the zip magic bytes; is it an error page?"
            )
        with zipfile.ZipFile(stream) as archive:
            members = {member.filename: member for member in archive.infolist()}
            missing = [split for split in SPLITS if f"{split}.npy" not in members]
            if missing:
                raise DataError(f"{path} lacks {', '.join(missing)}, which a sketch-rnn file holds")
            for split in SPLITS:
                member = members[f"{split}.npy"]
                if member.file_size > min(MAX_MEMBER_BYTES, MAX_COMPRESSION_RATIO * member.compress_size):
                    raise DataError(
                        f"{path} claims {member.file_size} bytes for {split}, packed into {member.compress_size}, "
                        "which no file of drawings needs; fetch it again"
                    )
                with archive.open(member) as content:
                    arrays = load_object_array(content, f"{split} of {path}")
                yield split, arrays


def _check_stroke3(array: npt.NDArray[Any]) -> Int16Array:
    """Take an array of any number type and shape as stroke-3 rows, int16 [N, 3], or raise _UnfitError."""
    if array.ndim != 2 or array.shape[1] != 3:
        raise _UnfitError("wrong_shape", f"shape {array.shape}, where (N, 3) is needed")
    if len(array) == 0:
        raise _UnfitError("empty_drawing", "no row")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise _UnfitError("not_finite", f"{array.dtype} with NaN or infinity")
        if (array != np.trunc(array)).any():
            raise _UnfitError("wrong_dtype", f"{array.dtype} with numbers that are not whole")
    pen = array[:, 2]
    if not ((pen == 0) | (pen == 1)).all():
        raise _UnfitError("bad_pen", f"pen_lift from {pen.min()} to {pen.max()}, where 0 or 1 is needed")
    if pen[-1] != 1:
        raise _UnfitError("open_last_stroke", "the last pen_lift is 0")
    if array.min() < _INT16.min or array.max() > _INT16.max:
        raise _UnfitError("offset_too_large", f"offsets from {array.min()} to {array.max()} do not fit in 16 bits")
    return array.astype(np.int16)
