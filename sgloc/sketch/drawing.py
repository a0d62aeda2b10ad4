"""A drawing, and the two forms it comes in: polylines and stroke-3 (METHOD 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Int16Array = npt.NDArray[np.int16]
Number = TypeVar("Number", bound=np.number[Any])
# An offset beyond it, in the source's units, is clipped to it (METHOD 1).
MOST_OFFSET = 1000


@dataclass(frozen=True)
class Drawing:
    """One drawing of a data set, in the source's own integer units.

    Attributes:
        category: what was drawn, as QuickDraw's ``word`` says it.
        key_id: the drawing's number in QuickDraw, below 2**64; derived from category, split and place where the source
            has none.
        recognized: whether QuickDraw's game recognised it; True where the source does not say.
        stroke3: int16 [N, 3], rows (dx, dy, pen_lift): offsets from the previous point, the first from the origin;
            pen_lift is 1 on each stroke's last point and 0 elsewhere.
        split: "train", "valid" or "test" where the source says; None where it does not.
    """

    category: str
    key_id: int
    recognized: bool
    stroke3: Int16Array
    split: str | None = None


@dataclass(frozen=True)
class Reject:
    """A drawing that was not taken.

    Attributes:
        source: the file it stands in.
        place: where in the file: a line number (from 1), a split and an index (from 0), or "record 17 at byte 2048".
        reason: one of a small number of fixed words, by which rejects are counted.
        detail: what was found.
    """

    source: str
    place: str
    reason: str
    detail: str


def stroke3_rows(polylines: Sequence[npt.NDArray[Any]], dtype: type[Number]) -> npt.NDArray[Number]:
    """Rows (dx, dy, pen_lift) of polylines.

    Args:
        polylines: one [n, 2] array of absolute (x, y) a stroke, n >= 1; at least one.
        dtype: to compute in.

    Returns:
        [N, 3].
    """
    points = np.concatenate(polylines).astype(dtype)
    rows = np.zeros((len(points), 3), dtype)
    rows[:, :2] = np.diff(points, axis=0, prepend=0)
    rows[np.cumsum([len(line) for line in polylines]) - 1, 2] = 1
    return rows


def polylines_to_stroke3(polylines: Sequence[npt.NDArray[np.integer]]) -> Int16Array:
    """Turn polylines into stroke-3 rows.

    Args:
        polylines: one integer [n, 2] array of absolute (x, y) a stroke, n >= 1.

    Returns:
        int16 [N, 3].

    Raises:
        ValueError: if there is no stroke, a stroke has no point, or an offset does not fit in int16.
    """
    if not polylines or any(len(line) == 0 for line in polylines):
        raise ValueError("a drawing needs at least one stroke, and a stroke at least one point")
    rows = stroke3_rows(polylines, np.int64)
    if np.abs(rows).max() > np.iinfo(np.int16).max:
        raise ValueError(f"an offset of {np.abs(rows).max()} does not fit in 16 bits")
    return rows.astype(np.int16)
