"""A drawing and its two representations: polylines and stroke-3 (METHOD 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Int16Array = npt.NDArray[np.int16]
Number = TypeVar("Number", bound=np.number[Any])
# Offsets are clipped to +- this value, in the source's units (METHOD 1).
MOST_OFFSET = 1000


@dataclass(frozen=True)
class Drawing:
    """One drawing of a data set, in the integer units of its source.

    Attributes:
        category: what was drawn: QuickDraw's ``word``.
        key_id: the drawing's QuickDraw id, below 2**64; derived from category, split and position if the source has
            none.
        recognized: whether QuickDraw's game recognised the drawing; True if the source does not say.
        stroke3: int16 [N, 3], rows (dx, dy, pen_lift): offsets from the previous point, the first from the origin;
            pen_lift is 1 on each stroke's last point and 0 elsewhere.
        split: "train", "valid" or "test"; None if the source does not say.
    """

    category: str
    key_id: int
    recognized: bool
    stroke3: Int16Array
    split: str | None = None


@dataclass(frozen=True)
class Reject:
    """A rejected drawing.

    Attributes:
        source: the file that contains it.
        place: where in the file: a line number (from 1), a split and an index (from 0), or "record 17 at byte 2048".
        reason: one of a small fixed set of identifiers, by which rejects are counted.
        detail: what was found.
    """

    source: str
    place: str
    reason: str
    detail: str


def stroke3_rows(polylines: Sequence[npt.NDArray[Any]], dtype: type[Number]) -> npt.NDArray[Number]:
    """Convert polylines to rows (dx, dy, pen_lift).

    Args:
        polylines: one [n, 2] array of absolute (x, y) per stroke, n >= 1; at least one stroke.
        dtype: dtype of the computation and the result.

    Returns:
        [N, 3].
    """
    points = np.concatenate(polylines).astype(dtype)
    rows = np.zeros((len(points), 3), dtype)
    rows[:, :2] = np.diff(points, axis=0, prepend=0)
    rows[np.cumsum([len(line) for line in polylines]) - 1, 2] = 1
    return rows


def polylines_to_stroke3(polylines: Sequence[npt.NDArray[np.integer]]) -> Int16Array:
    """Convert polylines to stroke-3 rows.

    Args:
        polylines: one integer [n, 2] array of absolute (x, y) per stroke, n >= 1.

    Returns:
        int16 [N, 3].

    Raises:
        ValueError: if there is no stroke, a stroke has no point, or an offset does not fit in int16.
    """
    if not polylines or any(len(line) == 0 for line in polylines):
        raise ValueError("a drawing needs at least one stroke, and every stroke at least one point")
    rows = stroke3_rows(polylines, np.int64)
    if np.abs(rows).max() > np.iinfo(np.int16).max:
        raise ValueError(f"an offset of {np.abs(rows).max()} does not fit in 16 bits")
    return rows.astype(np.int16)
