"""Conversion between stroke-3, polylines and the model's batches (METHOD 1)."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgloc import random
from sgloc.errors import DataError
from sgloc.nn.rows import PEN_LIFT
from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch.drawing import MOST_OFFSET, stroke3_rows
from sgloc.sketch.ragged import SketchBatch

Polylines = list[npt.NDArray[np.float64]]
Stroke3 = npt.NDArray[np.integer | np.floating]


def polylines_of_stroke3(sketch: Stroke3, number: int = 0) -> Polylines:
    """Split a stroke-3 sketch into strokes, float64 [n, 2] arrays of absolute (x, y).

    Offsets beyond +-1000 are clipped.

    Args:
        sketch: [N, 3], rows (dx, dy, pen_lift) in the source's units.
        number: the sketch's number in error messages.

    Raises:
        DataError: if `sketch` is not stroke-3.
    """
    rows = np.asarray(sketch)
    if rows.ndim != 2 or rows.shape[1] != 3 or len(rows) == 0:
        raise DataError(f"sketch {number} has shape {rows.shape}; pass stroke-3, [points, 3] with at least one point")
    if rows.dtype.kind not in "iuf" or not np.isfinite(rows).all():
        raise DataError(f"sketch {number} contains a value that is not a finite number; pass rows (dx, dy, pen_lift)")
    points = np.cumsum(np.clip(rows[:, :2].astype(np.float64), -MOST_OFFSET, MOST_OFFSET), axis=0)
    ends = np.flatnonzero(rows[:-1, 2]) + 1
    return np.split(points, ends)


def stroke3_of_polylines(polylines: Sequence[npt.NDArray[np.floating]]) -> npt.NDArray[np.float32]:
    """Convert strokes, [n, 2] of absolute (x, y), to rows (dx, dy, pen_lift), float32 [N, 3]; N may be 0."""
    if not polylines:
        return np.zeros((0, 3), dtype=np.float32)
    return stroke3_rows(polylines, np.float64).astype(np.float32)


def batch_of(
    sketches: Sequence[Sequence[npt.NDArray[np.floating]]],
    scale: float,
    max_node_points: int | None,
    random_key: Tensor,
    device: torch.device,
) -> SketchBatch:
    """Build a batch of undisturbed sketches.

    Args:
        sketches: sketches, each with at least one stroke, [n, 2] of absolute (x, y) in the source's units.
        scale: divisor that normalises coordinates.
        max_node_points: maximum number of points in a node; None makes a node a whole stroke.
        random_key: int64 [B].
        device: device to put the batch on.
    """
    strokes = [stroke for sketch in sketches for stroke in sketch]
    points = torch.from_numpy(np.concatenate(strokes) / scale).float().to(device)
    lengths = torch.tensor([len(stroke) for stroke in strokes], device=device)
    offsets = offsets_from_lengths(torch.tensor([len(sketch) for sketch in sketches], device=device))
    return SketchBatch.of_strokes(points, points, lengths, offsets, max_node_points, random_key.to(device))


def polylines(points: Tensor, pen_lift: Tensor, scale: float) -> Polylines:
    """Cut normalised points [n, 2] after each pen lift (bool [n]) and convert them to the source's units."""
    coordinates = points.double().numpy() * scale
    ends = np.flatnonzero(pen_lift.numpy()) + 1
    return [line for line in np.split(coordinates, ends) if len(line)]


def strokes_of(sketches: SketchBatch, points: Tensor, scale: float) -> list[Polylines]:
    """Return the strokes of each sketch of a batch, in the source's units.

    Args:
        sketches: the batch.
        points: the batch's `points` or `targets`.
        scale: scale of the data set (METHOD 1).
    """
    points, pen_lift = points.cpu(), sketches.pen_lift.cpu()
    bounds = itertools.pairwise(sketches.sketch_point_offsets.tolist())
    return [polylines(points[start:stop], pen_lift[start:stop], scale) for start, stop in bounds]


def polylines_of_rows(rows: Tensor, scale: float) -> Polylines:
    """Return the strokes of stroke-5 rows [n, 5], in the source's units."""
    rows = rows.cpu()
    return polylines(rows[:, :2], rows[:, 2 + PEN_LIFT] > 0, scale)


def keys_of(seed: int, count: int) -> Tensor:
    """Return random keys, int64 [count], for sketches without an id."""
    return random.fold(random.fold(seed, 0), torch.arange(count))
