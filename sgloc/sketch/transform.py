"""Normalising, augmenting, disturbing and cutting a whole ragged batch at once, on its device (METHOD 1, 2, 3 and 8).

Shapes: P points, S strokes and B sketches in the batch. Coordinates are (x, y), absolute, in normalised units unless
    said otherwise.
"""

import torch
from torch import Tensor

from sgloc import random
from sgloc.ops.ragged import group_index, local_index, offsets_from_lengths, segment_sum
from sgloc.random import Purpose

MOST_OFFSET = 1000
_FIRST_POINTS_KEPT = 3


def absolute_coordinates(offsets: Tensor, sketch_point_offsets: Tensor, scale: float) -> Tensor:
    """Absolute normalised coordinates from the source's offsets (METHOD 1).

    Args:
        offsets: integer [P, 2], from the previous point, each sketch's first from the origin; beyond +-1000 they are
            clipped to it.
        sketch_point_offsets: int64 [B+1], where each sketch's points begin.
        scale: the data set's standard deviation of offsets.

    Returns:
        float32 [P, 2].
    """
    # Summed as integers: exact, however long the batch.
    sums = torch.cumsum(offsets.long().clamp(-MOST_OFFSET, MOST_OFFSET), 0)
    before = torch.nn.functional.pad(sums, (0, 0, 1, 0))[sketch_point_offsets[:-1]]
    return ((sums - before[group_index(sketch_point_offsets)]).double() / scale).float()


def random_scale(points: Tensor, sketch_point_offsets: Tensor, random_key: Tensor, amount: float) -> Tensor:
    """Scale x and y of each sketch by independent factors from U(1 - amount, 1 + amount) (METHOD 8).

    Args:
        points: float [P, 2].
        sketch_point_offsets: int64 [B+1].
        random_key: int64 [B].
        amount: at least 0, below 1.

    Returns:
        [P, 2].
    """
    axes = torch.arange(2, device=points.device)
    factors = 1 + amount * (2 * random.uniform(random.fold(random_key, Purpose.SCALE)[:, None], axes) - 1)
    return points * factors[group_index(sketch_point_offsets)]


def drop_points(
    points: Tensor, stroke_lengths: Tensor, sketch_stroke_offsets: Tensor, random_key: Tensor, probability: float
) -> tuple[Tensor, Tensor]:
    """Drop inner points of strokes (METHOD 8): never a stroke's first three or its last; a dropped point's offset goes
    to the kept point before it.

    Args:
        points: float [P, 2].
        stroke_lengths: int64 [S], points of each stroke.
        sketch_stroke_offsets: int64 [B+1], where each sketch's strokes begin.
        random_key: int64 [B].
        probability: with which each such point is dropped.

    Returns:
        The points that stay [P', 2], and the new lengths int64 [S].
    """
    stroke_offsets = offsets_from_lengths(stroke_lengths)
    sketch_point_offsets = stroke_offsets[sketch_stroke_offsets]
    place = local_index(stroke_offsets)
    inner = (place >= _FIRST_POINTS_KEPT) & (place < stroke_lengths[group_index(stroke_offsets)] - 1)
    key = random.fold(random_key, Purpose.DROP_POINT)[group_index(sketch_point_offsets)]
    keep = ~(inner & (random.uniform(key, local_index(sketch_point_offsets)) < probability))
    kept = keep.nonzero()[:, 0]
    # In absolute coordinates, taking over the offsets of the dropped points behind it moves a kept point to where the
    # last of them was.
    last_of_run = torch.cat([kept[1:], kept.new_tensor([len(points)])]) - 1
    return points[last_of_run], segment_sum(keep.long()[:, None], stroke_offsets)[:, 0]


def disturb(
    points: Tensor, stroke_lengths: Tensor, sketch_stroke_offsets: Tensor, random_key: Tensor, scale: float
) -> Tensor:
    """Move every stroke but the first rigidly and at random (METHOD 3).

    Args:
        points: float [P, 2].
        stroke_lengths: int64 [S].
        sketch_stroke_offsets: int64 [B+1].
        random_key: int64 [B].
        scale: r of METHOD 3: the standard deviation of a move, in units of the larger side of the sketch's bounding
            box, the origin included.

    Returns:
        [P, 2].
    """
    stroke_offsets = offsets_from_lengths(stroke_lengths)
    sketch_lengths = stroke_offsets[sketch_stroke_offsets].diff()
    low = torch.segment_reduce(points, "min", lengths=sketch_lengths, axis=0).clamp(max=0)
    high = torch.segment_reduce(points, "max", lengths=sketch_lengths, axis=0).clamp(min=0)
    size = (high - low).amax(1)  # [B]
    stroke = local_index(sketch_stroke_offsets)
    sketch = group_index(sketch_stroke_offsets)
    key = random.fold(random.fold(random_key, Purpose.DISTURB)[sketch], stroke)
    noise = random.normal(key[:, None], torch.arange(2, device=points.device)).to(points.dtype)
    moves = noise * (size[sketch] * scale * (stroke > 0))[:, None]
    return points + moves[group_index(stroke_offsets)]


def split_nodes(
    stroke_lengths: Tensor, sketch_stroke_offsets: Tensor, max_node_points: int | None
) -> tuple[Tensor, Tensor]:
    """Cut strokes into nodes (METHOD 2).

    Args:
        stroke_lengths: int64 [S].
        sketch_stroke_offsets: int64 [B+1].
        max_node_points: the most points in a node; None: a node is a whole stroke.

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
