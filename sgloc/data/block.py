"""Blocks: about a thousand sketches packed into one npz, the unit of shard reads and of shuffling."""

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sgloc.errors import DataError
from sgloc.sketch.drawing import Drawing

IntArray = npt.NDArray[np.int64]

COMPRESSIONS = ("none", "zstd")
# First bytes of a compressed block.
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# Limit on an unpacked block, far above any real one, so that a malicious frame cannot exhaust memory.
MAX_BLOCK_BYTES = 2**30
_ZSTD_LEVEL = 9

# Size of a zip member's local header; its last fields are the lengths of the name and the extra field that follow it.
_ZIP_HEADER = 30
_ZIP_LENGTHS = struct.Struct("<HH")
# Matches numbers and text of one or two dimensions only, never pickled objects.
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|][biuU]\d+)', 'fortran_order': False, 'shape': \((\d+),(?: (\d+))?\), \} *\n",
    re.DOTALL,
)

# What numpy and zipfile raise for damaged files. A flipped bit can mark a member as encrypted (RuntimeError) or as
# compressed by a method that zipfile does not support (NotImplementedError, a subclass).
_DAMAGE = (
    *(ValueError, KeyError, OSError, EOFError, IndexError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


@dataclass(frozen=True)
class Block:
    """n sketches with S strokes and P points in all, in the source's integer units.

    Attributes:
        offsets: int16 [P, 2], (dx, dy) from the previous point; a sketch's first offset is from the origin.
        stroke_lengths: integer [S], points per stroke, at least 1.
        num_strokes: integer [n], strokes per sketch, at least 1.
        words: str [c], the categories that occur.
        category: integer [n], indices into `words`.
        key_id: uint64 [n], sketch ids.
        recognized: bool [n], whether QuickDraw's game recognised the drawing.
        stroke_starts, point_starts: int64 [n+1], start of each sketch's strokes and points, and the totals.
    """

    offsets: npt.NDArray[np.int16]
    stroke_lengths: npt.NDArray[Any]
    num_strokes: npt.NDArray[Any]
    words: npt.NDArray[np.str_]
    category: npt.NDArray[Any]
    key_id: npt.NDArray[np.uint64]
    recognized: npt.NDArray[np.bool_]
    stroke_starts: IntArray
    point_starts: IntArray

    def __len__(self) -> int:
        return len(self.num_strokes)


_STORED = ("offsets", "stroke_lengths", "num_strokes", "words", "category", "key_id", "recognized")


def _smallest(values: Sequence[int] | IntArray) -> npt.NDArray[Any]:
    """Return the values in the smallest unsigned dtype that fits them all."""
    array = np.asarray(values, dtype=np.int64)
    return array.astype(np.min_scalar_type(int(array.max())))


def pack_block(drawings: Sequence[Drawing], compression: str = "none") -> bytes:
    """Pack one or more drawings deterministically: the same drawings give the same bytes.

    Args:
        drawings: drawings to pack.
        compression: "none" for an uncompressed npz, "zstd" for that npz in one Zstandard frame.
    """
    rows = np.concatenate([drawing.stroke3 for drawing in drawings])
    stroke_ends = np.flatnonzero(rows[:, 2])
    sketch_ends = np.cumsum([len(drawing.stroke3) for drawing in drawings])
    strokes_before = np.searchsorted(stroke_ends, sketch_ends)
    words, category = np.unique([drawing.category for drawing in drawings], return_inverse=True)
    stream = io.BytesIO()
    np.savez(
        stream,
        offsets=np.ascontiguousarray(rows[:, :2]),
        stroke_lengths=_smallest(np.diff(stroke_ends, prepend=-1)),
        num_strokes=_smallest(np.diff(strokes_before, prepend=0)),
        words=words,
        category=_smallest(category),
        key_id=np.array([drawing.key_id for drawing in drawings], dtype=np.uint64),
        recognized=np.array([drawing.recognized for drawing in drawings], dtype=np.bool_),
    )
    content = stream.getvalue()
    if compression == "zstd":
        import zstandard

        content = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)
    return content


def _decompress(content: bytes, where: str) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise DataError(f"{where} is compressed and needs the package zstandard; pip install zstandard") from error
    try:
        size = zstandard.get_frame_parameters(content).content_size
        if size > MAX_BLOCK_BYTES:
            raise ValueError(f"its header claims {size} bytes")
        return zstandard.ZstdDecompressor().decompress(content)
    except (zstandard.ZstdError, ValueError) as error:
        raise DataError(f"{where} is damaged ({error}); build the shards again") from error


def unpack_block(content: bytes, where: str) -> Block:
    """Unpack a block.

    Args:
        content: the npz, or a Zstandard frame holding it.
        where: description of the block for error messages.

    Raises:
        DataError: if the block is damaged (the npz has a checksum per array) or its arrays are inconsistent.
    """
    if content.startswith(ZSTD_MAGIC):
        content = _decompress(content, where)
    try:
        arrays = _read_arrays(content)
        stroke_starts = np.concatenate([[0], np.cumsum(arrays["num_strokes"], dtype=np.int64)])
        point_starts = np.concatenate([[0], np.cumsum(arrays["stroke_lengths"], dtype=np.int64)])[stroke_starts]
        block = Block(**arrays, stroke_starts=stroke_starts, point_starts=point_starts)
        _check(block)
    except _DAMAGE as error:
        raise DataError(f"{where} is damaged ({error}); build the shards again") from error
    return block


def _read_arrays(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return views of the arrays in a `pack_block` npz; `numpy.load` copies them and takes three times as long."""
    view, arrays = memoryview(content), {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in _STORED:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed")
            lengths = _ZIP_LENGTHS.unpack_from(content, member.header_offset + _ZIP_HEADER - _ZIP_LENGTHS.size)
            start = member.header_offset + _ZIP_HEADER + sum(lengths)
            array = view[start : start + member.file_size]
            if zlib.crc32(array) != member.CRC:
                raise ValueError(f"checksum mismatch in {name}")
            arrays[name] = _read_array(array)
    return arrays


def _read_array(content: memoryview) -> npt.NDArray[Any]:
    header = _NPY_HEADER.match(content)
    if header is None:
        raise ValueError("an array has an invalid header")
    code, *shape = (group.decode() for group in header.groups() if group is not None)
    sizes = tuple(map(int, shape))
    array: npt.NDArray[Any] = np.frombuffer(content, code, math.prod(sizes), header.end())
    return array.reshape(sizes)


def _check(block: Block) -> None:
    """Raise ValueError unless the arrays are consistent."""
    per_sketch = {len(block.category), len(block.key_id), len(block.recognized), len(block)}
    counts = (block.stroke_lengths, block.num_strokes, block.category)
    fits = (
        len(per_sketch) == 1
        and len(block) > 0
        and all(array.dtype.kind == "u" and array.ndim == 1 for array in counts)
        and block.point_starts[-1] == len(block.offsets)
        and block.stroke_starts[-1] == len(block.stroke_lengths)
        and block.offsets.shape[1:] == (2,)
        and block.offsets.dtype == np.int16
        and block.words.dtype.kind == "U"
        and block.category.max() < len(block.words)
    )
    if not fits:
        raise ValueError("the arrays are inconsistent")
