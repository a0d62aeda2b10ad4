"""Normalisation, augmentation, disturbance and node splitting of ragged batches (METHOD 1, 2, 3 and 8).

Every function processes a whole batch at once, on its device.

Shapes: P points, S strokes and B sketches in the batch. Coordinates are (x, y), absolute, in normalised units unless
    stated otherwise.
"""

import torch
from torch import Tensor

from sgloc import random
from sgloc.ops.ragged import group_index, local_index, offsets_from_lengths
from sgloc.random import Purpose
from sgloc.sketch.drawing import MOST_OFFSET

_FIRST_POINTS_KEPT = 3
# Half the side of the original's images, in the source's units; and the share of the free space around a sketch that
# translation uses.
_HALF_IMAGE = 24.0
_TRANSLATION = 0.8


def absolute_coordinates(
    offsets: Tensor, sketch_point_offsets: Tensor, scale: float, from_first_point: bool = False
) -> Tensor:
    """Compute absolute normalised coordinates from the source's offsets (METHOD 1).

    Args:
        offsets: integer [P, 2], offsets from the previous point, each sketch's first from the origin; clipped to
            +-1000.
        sketch_point_offsets: int64 [B+1], where each sketch's points begin.
        scale: standard deviation of the data set's offsets.
        from_first_point: whether to move each sketch's origin to its first point.

    Returns:
        float32 [P, 2].
    """
    # Integer sums are exact, however long the batch.
    sums = torch.cumsum(offsets.long().clamp(-MOST_OFFSET, MOST_OFFSET), 0)
    starts = sketch_point_offsets[:-1]
    before = sums[starts] if from_first_point else torch.nn.functional.pad(sums, (0, 0, 1, 0))[starts]
    sketch = group_index(sketch_point_offsets, len(offsets))
    return ((sums - before.index_select(0, sketch)).double() / scale).float()


def random_scale(points: Tensor, sketch_point_offsets: Tensor, random_key: Tensor, amount: float) -> Tensor:
    """Scale x and y of each sketch by independent factors from U(1 - amount, 1 + amount) (METHOD 8).

    Args:
        points: float [P, 2].
        sketch_point_offsets: int64 [B+1].
        random_key: int64 [B].
        amount: at least 0 and below 1.

    Returns:
        [P, 2].
    """
    axes = torch.arange(2, device=points.device)
    factors = 1 + amount * (2 * random.uniform(random.fold(random_key, Purpose.SCALE)[:, None], axes) - 1)
    return points * factors.index_select(0, group_index(sketch_point_offsets, len(points)))


def drop_points(
    points: Tensor, stroke_lengths: Tensor, sketch_stroke_offsets: Tensor, random_key: Tensor, probability: float
) -> tuple[Tensor, Tensor]:
    """Drop inner points of strokes at random (METHOD 8).

    A stroke's first three points and its last are never dropped. The offset of a dropped point is added to the kept
    point before it.

    Args:
        points: float [P, 2].
        stroke_lengths: int64 [S], number of points in each stroke.
        sketch_stroke_offsets: int64 [B+1], where each sketch's strokes begin.
        random_key: int64 [B].
        probability: probability of dropping an inner point.

    Returns:
        The remaining points [P', 2], and the new stroke lengths, int64 [S].
    """
    stroke_offsets = offsets_from_lengths(stroke_lengths)
    stroke = group_index(stroke_offsets, len(points))
    place = torch.arange(len(points), device=points.device)
    first_inner, last = stroke_offsets[:-1] + _FIRST_POINTS_KEPT, stroke_offsets[1:] - 1
    is_inner = (place >= first_inner.index_select(0, stroke)) & (place < last.index_select(0, stroke))
    inner = is_inner.nonzero()[:, 0]
    stroke = stroke.index_select(0, inner)
    sketch = group_index(sketch_stroke_offsets, len(stroke_lengths))
    key = random.fold(random_key, Purpose.DROP_POINT)[sketch]
    first_of_sketch = stroke_offsets[sketch_stroke_offsets][sketch]
    number = random.uniform(key.index_select(0, stroke), inner - first_of_sketch.index_select(0, stroke))
    is_dropped = number < probability
    keep = torch.ones_like(is_inner).index_fill_(0, inner[is_dropped], False)
    kept = keep.nonzero()[:, 0]
    # In absolute coordinates, a kept point that takes over the offsets of the dropped points after it moves to the
    # position of the last of them.
    last_of_run = torch.cat([kept[1:], kept.new_tensor([len(points)])]) - 1
    num_dropped = torch.zeros_like(stroke_lengths).index_add_(0, stroke, is_dropped.long())
    return points.index_select(0, last_of_run), stroke_lengths - num_dropped


def disturb(
    points: Tensor, stroke_lengths: Tensor, sketch_stroke_offsets: Tensor, random_key: Tensor, scale: float
) -> Tensor:
    """Move every stroke except the first rigidly by a random amount (METHOD 3).

    Args:
        points: float [P, 2].
        stroke_lengths: int64 [S].
        sketch_stroke_offsets: int64 [B+1].
        random_key: int64 [B].
        scale: r of METHOD 3: standard deviation of a move, in units of the larger side of the sketch's bounding box,
            which includes the origin.

    Returns:
        [P, 2].
    """
    stroke_offsets = offsets_from_lengths(stroke_lengths)
    low, high = _bounds(points, stroke_offsets[sketch_stroke_offsets].diff())
    size = (high - low).amax(1)  # [B]
    stroke = local_index(sketch_stroke_offsets, len(stroke_lengths))
    sketch = group_index(sketch_stroke_offsets, len(stroke_lengths))
    key = random.fold(random.fold(random_key, Purpose.DISTURB)[sketch], stroke)
    noise = random.normal(key[:, None], torch.arange(2, device=points.device)).to(points.dtype)
    moves = noise * (size[sketch] * scale * (stroke > 0))[:, None]
    return points + moves.index_select(0, group_index(stroke_offsets, len(points)))


def translations(points: Tensor, sketch_lengths: Tensor, random_key: Tensor, scale: float) -> Tensor:
    """Draw the translation of each whole sketch in training (METHOD 8).

    Args:
        points: float [P, 2], undisturbed.
        sketch_lengths: int64 [B], number of points in each sketch.
        random_key: int64 [B].
        scale: scale of the data set (METHOD 1).

    Returns:
        [B, 2], to be added to all points of a sketch.
    """
    low, high = _bounds(points, sketch_lengths)
    half = _HALF_IMAGE / scale
    axes = torch.arange(2, device=points.device)
    share = random.uniform(random.fold(random_key, Purpose.TRANSLATE)[:, None], axes).to(points.dtype)
    # For a sketch larger than the image the two ends are swapped; the interval is the same.
    first, last = -_TRANSLATION * (low + half), _TRANSLATION * (half - high)
    return first + share * (last - first)


def _bounds(points: Tensor, sketch_lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the minimum and maximum coordinates of each sketch, including the origin: [B, 2] each."""
    low = torch.segment_reduce(points, "min", lengths=sketch_lengths, axis=0).clamp(max=0)
    high = torch.segment_reduce(points, "max", lengths=sketch_lengths, axis=0).clamp(min=0)
    return low, high


def split_nodes(
    stroke_lengths: Tensor, sketch_stroke_offsets: Tensor, max_node_points: int | None
) -> tuple[Tensor, Tensor]:
    """Cut strokes into nodes (METHOD 2).

    Args:
        stroke_lengths: int64 [S].
        sketch_stroke_offsets: int64 [B+1].
        max_node_points: largest number of points in a node; None makes each stroke one node.

    Returns:
        Where each node's points begin, int64 [nodes + 1], and where each sketch's nodes begin, int64 [B+1].
    """
    if max_node_points is None:
        return offsets_from_lengths(stroke_lengths), sketch_stroke_offsets
    num_nodes = (stroke_lengths + max_node_points - 1) // max_node_points
    stroke_node_offsets = offsets_from_lengths(num_nodes)
    lengths = torch.full((int(stroke_node_offsets[-1]),), max_node_points, device=stroke_lengths.device)
    lengths[stroke_node_offsets[1:] - 1] = stroke_lengths - (num_nodes - 1) * max_node_points
    return offsets_from_lengths(lengths), stroke_node_offsets[sketch_stroke_offsets]
