"""A block: some hundreds of sketches packed into one npz, the unit in which shards are read."""

import io
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

# What numpy and zipfile raise for damaged files. RuntimeError: a flipped bit says that a member is encrypted;
# NotImplementedError, a kind of it: or compressed by a method that zipfile does not know.
_DAMAGE = (
    *(ValueError, KeyError, OSError, EOFError, IndexError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class Block:
    """n sketches of S strokes and P points in the source's integer units.

    Attributes:
        offsets: int16 [P, 2], (dx, dy) from the previous point, each sketch's first from the origin.
        stroke_lengths: integer [S], points of each stroke, at least 1.
        num_strokes: integer [n], strokes of each sketch, at least 1.
        category: integer [n], numbers into the manifest's list.
        key_id: uint64 [n].
        recognized: bool [n].
        stroke_starts, point_starts: int64 [n+1], where each sketch's strokes and points begin.
    """

    offsets: npt.NDArray[np.int16]
    stroke_lengths: npt.NDArray[Any]
    num_strokes: npt.NDArray[Any]
    category: npt.NDArray[Any]
    key_id: npt.NDArray[np.uint64]
    recognized: npt.NDArray[np.bool_]
    stroke_starts: IntArray
    point_starts: IntArray

    def __len__(self) -> int:
        return len(self.num_strokes)


def _smallest(values: Sequence[int] | IntArray) -> npt.NDArray[Any]:
    """Counts in 16 bits, or 32 where a count does not fit."""
    array = np.asarray(values, dtype=np.int64)
    return array.astype(np.uint16 if array.max() <= np.iinfo(np.uint16).max else np.uint32)


def pack_block(drawings: Sequence[Drawing], category_numbers: dict[str, int]) -> bytes:
    """Pack at least one drawing into an uncompressed npz; the same drawings give the same bytes."""
    rows = np.concatenate([drawing.stroke3 for drawing in drawings])
    stroke_ends = np.flatnonzero(rows[:, 2])
    stream = io.BytesIO()
    np.savez(
        stream,
        offsets=np.ascontiguousarray(rows[:, :2]),
        stroke_lengths=_smallest(np.diff(stroke_ends, prepend=-1)),
        num_strokes=_smallest([int(drawing.stroke3[:, 2].sum()) for drawing in drawings]),
        category=_smallest([category_numbers[drawing.category] for drawing in drawings]),
        key_id=np.array([drawing.key_id for drawing in drawings], dtype=np.uint64),
        recognized=np.array([drawing.recognized for drawing in drawings], dtype=np.bool_),
    )
    return stream.getvalue()


def unpack_block(content: bytes, where: str) -> Block:
    """Read a block.

    Args:
        content: the npz.
        where: what to call it in an error.

    Raises:
        DataError: if it is damaged (the npz carries a checksum of every array) or its arrays do not fit together.
    """
    names = ("offsets", "stroke_lengths", "num_strokes", "category", "key_id", "recognized")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names}
        stroke_starts = np.concatenate([[0], np.cumsum(arrays["num_strokes"], dtype=np.int64)])
        point_starts = np.concatenate([[0], np.cumsum(arrays["stroke_lengths"], dtype=np.int64)])[stroke_starts]
        block = Block(**arrays, stroke_starts=stroke_starts, point_starts=point_starts)
        per_sketch = {len(block.category), len(block.key_id), len(block.recognized), len(block)}
        whole = point_starts[-1] == len(block.offsets) and stroke_starts[-1] == len(block.stroke_lengths)
        if not (whole and len(per_sketch) == 1 and block.offsets.shape[1:] == (2,) and block.offsets.dtype == np.int16):
            raise ValueError("the arrays do not fit together")
    except _DAMAGE as error:
        raise DataError(f"{where} is damaged ({error}); build the shards again") from error
    return block
