"""Packed host-side batches and their preparation on the device (METHOD 1, 2, 3 and 8)."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from sgloc import random
from sgloc.data.block import IntArray
from sgloc.ops.ragged import group_index, offsets_from_lengths
from sgloc.sketch import transform
from sgloc.sketch.ragged import SketchBatch

# Not a real epoch, so that the noise of validation and test depends only on the seed and the sketch.
FIXED_NOISE_EPOCH = -1


@dataclass(frozen=True)
class PackedBatch:
    """B sketches with S strokes and P points in all, on the host, in the source's integer units.

    Attributes:
        offsets: int16 [P, 2], (dx, dy) from the previous point; a sketch's first offset is from the origin.
        stroke_lengths: int32 [S], points per stroke.
        num_strokes: int32 [B], strokes per sketch.
        category: int32 [B], indices into the manifest's categories.
        key_id: uint64 [B], sketch ids.
        epoch: int64 [B], the epoch of each sketch's visit.
    """

    offsets: npt.NDArray[np.int16]
    stroke_lengths: npt.NDArray[np.int32]
    num_strokes: npt.NDArray[np.int32]
    category: npt.NDArray[np.int32]
    key_id: npt.NDArray[np.uint64]
    epoch: IntArray

    def __len__(self) -> int:
        return len(self.num_strokes)

    @property
    def num_points(self) -> int:
        """Number of points in the batch."""
        return len(self.offsets)

    @functools.cached_property
    def stroke_starts(self) -> IntArray:
        """int64 [B+1], start of each sketch's strokes, and the total."""
        return _starts(self.num_strokes)

    @functools.cached_property
    def point_starts(self) -> IntArray:
        """int64 [B+1], start of each sketch's points, and the total."""
        return _starts(self.stroke_lengths)[self.stroke_starts]

    def part(self, start: int, stop: int) -> "PackedBatch":
        """Return sketches start to stop (exclusive) as views, without copying."""
        offsets = self.offsets[self.point_starts[start] : self.point_starts[stop]]
        stroke_lengths = self.stroke_lengths[self.stroke_starts[start] : self.stroke_starts[stop]]
        return self._select(offsets, stroke_lengths, slice(start, stop))

    def take(self, chosen: IntArray) -> "PackedBatch":
        """Return a copy of the sketches at these indices, int64 [n], in the given order."""
        points = _ranges(self.point_starts, chosen)
        # Gather each (dx, dy) pair as a single 32-bit number.
        offsets = np.ascontiguousarray(self.offsets).view(np.int32).ravel()[points]
        stroke_lengths = self.stroke_lengths[_ranges(self.stroke_starts, chosen)]
        return self._select(offsets.view(np.int16).reshape(-1, 2), stroke_lengths, chosen)

    def _select(
        self, offsets: npt.NDArray[np.int16], stroke_lengths: npt.NDArray[np.int32], chosen: IntArray | slice
    ) -> "PackedBatch":
        """Build a batch of the chosen sketches from their already selected points and strokes."""
        of_each = (self.num_strokes[chosen], self.category[chosen], self.key_id[chosen], self.epoch[chosen])
        return PackedBatch(offsets, stroke_lengths, *of_each)


def concatenate(parts: Sequence[PackedBatch]) -> PackedBatch:
    """Concatenate one or more batches."""
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(PackedBatch)
    }
    return PackedBatch(**arrays)


def _starts(lengths: npt.NDArray[np.int32]) -> IntArray:
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _ranges(starts: IntArray, chosen: IntArray) -> IntArray:
    """Return the flat indices of the chosen ragged rows, row by row."""
    begins = starts[chosen]
    lengths = starts[chosen + 1] - begins
    ends = np.cumsum(lengths)
    indices: IntArray = np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - (ends - lengths), lengths)
    return indices


@dataclass(frozen=True)
class Preparation:
    """Conversion of packed sketches to the model's input.

    Attributes:
        scale: scale of the data set (METHOD 1).
        seed: seed of all random numbers.
        disturb: disturbance scale r (METHOD 3); 0 leaves the strokes in place.
        max_node_points: maximum number of points per node; None makes each stroke one node.
        augment_scale: a; x and y are scaled by independent factors from 1 - a to 1 + a.
        drop_probability: probability of dropping an inner point of a stroke.
        translate: whether to translate each sketch as a whole (METHOD 8).
        from_first_point: whether each sketch's origin is its first point (see `starts_at_first_point`).
    """

    scale: float
    seed: int
    disturb: float = 0.0
    max_node_points: int | None = None
    augment_scale: float = 0.0
    drop_probability: float = 0.0
    translate: bool = False
    from_first_point: bool = False

    def load(self, packed: PackedBatch) -> PackedBatch:
        """Return the batch unchanged: this preparation has no host-side work."""
        return packed

    def __call__(self, packed: PackedBatch, device: torch.device) -> SketchBatch:
        """Move a batch to the device; normalise, augment, disturb and translate it and cut it into nodes there."""

        def on_device(array: npt.NDArray[np.generic]) -> torch.Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        stroke_lengths = on_device(packed.stroke_lengths).long()
        stroke_offsets = offsets_from_lengths(on_device(packed.num_strokes).long())
        point_offsets = offsets_from_lengths(stroke_lengths)[stroke_offsets]
        random_key = random.fold(
            random.fold(random.fold(self.seed, 0).to(device), on_device(packed.epoch)),
            on_device(packed.key_id.view(np.int64)),
        )
        targets = transform.absolute_coordinates(
            on_device(packed.offsets), point_offsets, self.scale, self.from_first_point
        )
        if self.drop_probability > 0:
            targets, stroke_lengths = transform.drop_points(
                targets, stroke_lengths, stroke_offsets, random_key, self.drop_probability
            )
            point_offsets = offsets_from_lengths(stroke_lengths)[stroke_offsets]
        if self.augment_scale > 0:
            targets = transform.random_scale(targets, point_offsets, random_key, self.augment_scale)
        points = targets
        if self.disturb > 0:
            points = transform.disturb(targets, stroke_lengths, stroke_offsets, random_key, self.disturb)
        if self.translate:
            lengths = point_offsets.diff()
            moves = transform.translations(targets, lengths, random_key, self.scale)
            moves = moves.index_select(0, group_index(point_offsets, len(targets)))
            points, targets = points + moves, targets + moves
        return SketchBatch.of_strokes(points, targets, stroke_lengths, stroke_offsets, self.max_node_points, random_key)
