"""Rasterisation of strokes for the classifier (METHOD 10).

Shapes: P points, S strokes and B sketches in the batch.
"""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgloc import random
from sgloc.ops.ragged import group_index
from sgloc.random import Purpose
from sgloc.sketch.transform import random_scale

RASTER_SIZE = 225
# Distance between a sketch and the edge of its image, in pixels.
_MARGIN = 12
# Coordinates are passed to OpenCV in multiples of 2**-4 pixels.
_FRACTION_BITS = 4
_INK = 255


@dataclass(frozen=True)
class RasterBatch:
    """B sketches as images.

    Attributes:
        images: uint8 [B, 225, 225], ink 255 on background 0.
        labels: int64 [B], category indices.
        random_key: int64 [B], the keys from which all random numbers of a sketch derive (`sgloc.random`).
    """

    images: Tensor
    labels: Tensor
    random_key: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int) -> "RasterBatch":
        """Return sketches start to stop, as views."""
        return RasterBatch(self.images[start:stop], self.labels[start:stop], self.random_key[start:stop])

    def to(self, device: torch.device) -> "RasterBatch":
        """Move the batch to a device."""
        moved = (tensor.to(device, non_blocking=True) for tensor in (self.images, self.labels, self.random_key))
        return RasterBatch(*moved)


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training images; the amounts are uniform and drawn per sketch.

    Attributes:
        stretch: scale x and y by factors between 1 - stretch and 1 + stretch.
        rotate: largest rotation in either direction, in degrees.
        shift: largest shift along x and along y in either direction, in pixels.
        flip: mirror half of the sketches horizontally.
    """

    stretch: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    flip: bool = False

    def turn(self, points: Tensor, sketch_point_offsets: Tensor, random_key: Tensor) -> Tensor:
        """Stretch, rotate and mirror points [P, 2] of sketches with keys int64 [B]; return [P, 2]."""
        points = random_scale(points, sketch_point_offsets, random_key, self.stretch)
        drawn = self._uniform(random_key, 0)
        angle = torch.deg2rad(self.rotate * (2 * drawn[:, 0] - 1))
        mirror = torch.where(drawn[:, 1] < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(angle)
        cosine, sine = torch.cos(angle), torch.sin(angle)
        rows = torch.stack([mirror * cosine, -sine, mirror * sine, cosine], dim=1).view(-1, 2, 2)
        sketch = group_index(sketch_point_offsets, len(points))
        return (rows[sketch] @ points[:, :, None])[:, :, 0]

    def shifts(self, random_key: Tensor) -> Tensor:
        """Return the shift of each sketch's image, [B, 2] in pixels."""
        return self.shift * (2 * self._uniform(random_key, 2) - 1)

    def _uniform(self, random_key: Tensor, first: int) -> Tensor:
        key = random.fold(random_key, Purpose.RASTER)
        return random.uniform(key[:, None], torch.arange(first, first + 2))


def rasterise(
    points: Tensor,
    stroke_lengths: Tensor,
    sketch_stroke_offsets: Tensor,
    *,
    line_width: int,
    augmentation: Augmentation | None = None,
    random_key: Tensor | None = None,
) -> Tensor:
    """Draw sketches as images, each centred and scaled to fill its image up to a margin.

    Args:
        points: float [P, 2], absolute (x, y) in any unit, y downwards, on the host.
        stroke_lengths: int64 [S], number of points in each stroke, at least 1.
        sketch_stroke_offsets: int64 [B+1], where each sketch's strokes begin; no sketch is empty.
        line_width: in pixels.
        augmentation: the augmentation to apply, or None.
        random_key: int64 [B], for the augmentation.

    Returns:
        uint8 [B, 225, 225], ink 255 on background 0.

    Raises:
        ValueError: if a point is not finite.
    """
    if not bool(torch.isfinite(points).all()):
        raise ValueError("a sketch has a point that is not finite; leave the sketch out")
    ends = torch.cumsum(stroke_lengths, 0)
    point_offsets = torch.nn.functional.pad(ends, (1, 0))[sketch_stroke_offsets]
    if augmentation is not None and random_key is not None:
        points = augmentation.turn(points, point_offsets, random_key)
    pixels = _fitted(points, point_offsets)
    if augmentation is not None and random_key is not None:
        pixels = pixels + augmentation.shifts(random_key)[group_index(point_offsets, len(points))]
    fixed = (pixels * 2**_FRACTION_BITS).round().to(torch.int32).numpy()
    strokes = np.split(fixed, ends[:-1].numpy())
    images = np.zeros((len(sketch_stroke_offsets) - 1, RASTER_SIZE, RASTER_SIZE), dtype=np.uint8)
    for image, (start, stop) in zip(images, itertools.pairwise(sketch_stroke_offsets.tolist()), strict=True):
        _draw(image, strokes[start:stop], line_width)
    return torch.from_numpy(images)


def _fitted(points: Tensor, point_offsets: Tensor) -> Tensor:
    """Convert points [P, 2] to pixel coordinates of their images."""
    lengths = point_offsets.diff()
    low = torch.segment_reduce(points, "min", lengths=lengths, axis=0)
    high = torch.segment_reduce(points, "max", lengths=lengths, axis=0)
    # A sketch that is a single dot has no extent; it stays in the centre.
    side = (high - low).amax(1).clamp(min=torch.finfo(points.dtype).tiny)
    sketch = group_index(point_offsets, len(points))
    room = RASTER_SIZE - 1 - 2 * _MARGIN
    from_middle = (points - ((low + high) / 2)[sketch]) / side[sketch, None] * room
    return from_middle + (RASTER_SIZE - 1) / 2


def _draw(image: npt.NDArray[np.uint8], strokes: list[npt.NDArray[np.int32]], line_width: int) -> None:
    # OpenCV draws nothing for a polyline of one point.
    lines = [stroke if len(stroke) > 1 else np.repeat(stroke, 2, axis=0) for stroke in strokes]
    cv2.polylines(image, lines, False, _INK, line_width, cv2.LINE_AA, _FRACTION_BITS)
