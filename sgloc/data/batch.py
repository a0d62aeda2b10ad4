"""Batches: sketches as the shards hold them, and what becomes of them on the device (METHOD 1, 2, 3 and 8)."""

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

# No epoch has this number: the noise of validation and test depends on the seed and the sketch alone.
FIXED_NOISE_EPOCH = -1


@dataclass(frozen=True)
class PackedBatch:
    """B sketches of S strokes and P points on the host, in the source's integer units.

    Attributes:
        offsets: int16 [P, 2], (dx, dy) from the previous point, each sketch's first from the origin.
        stroke_lengths: int32 [S], points of each stroke.
        num_strokes: int32 [B], strokes of each sketch.
        category: int32 [B], numbers into the manifest's list.
        key_id: uint64 [B].
        epoch: int64 [B], in which each sketch is visited.
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
        """Points in the batch."""
        return len(self.offsets)

    @functools.cached_property
    def stroke_starts(self) -> IntArray:
        """int64 [B+1], where each sketch's strokes begin."""
        return _starts(self.num_strokes)

    @functools.cached_property
    def point_starts(self) -> IntArray:
        """int64 [B+1], where each sketch's points begin."""
        return _starts(self.stroke_lengths)[self.stroke_starts]

    def part(self, start: int, stop: int) -> "PackedBatch":
        """Sketches start to stop, without copying."""
        offsets = self.offsets[self.point_starts[start] : self.point_starts[stop]]
        stroke_lengths = self.stroke_lengths[self.stroke_starts[start] : self.stroke_starts[stop]]
        return self._select(offsets, stroke_lengths, slice(start, stop))

    def take(self, chosen: IntArray) -> "PackedBatch":
        """The sketches of these numbers, int64 [n], in that sequence."""
        points = _ranges(self.point_starts, chosen)
        # A point is moved as one number of 32 bits.
        offsets = np.ascontiguousarray(self.offsets).view(np.int32).ravel()[points]
        stroke_lengths = self.stroke_lengths[_ranges(self.stroke_starts, chosen)]
        return self._select(offsets.view(np.int16).reshape(-1, 2), stroke_lengths, chosen)

    def _select(
        self, offsets: npt.NDArray[np.int16], stroke_lengths: npt.NDArray[np.int32], chosen: IntArray | slice
    ) -> "PackedBatch":
        """Some of the sketches, whose points and strokes are given."""
        of_each = (self.num_strokes[chosen], self.category[chosen], self.key_id[chosen], self.epoch[chosen])
        return PackedBatch(offsets, stroke_lengths, *of_each)


def concatenate(parts: Sequence[PackedBatch]) -> PackedBatch:
    """The sketches of at least one batch after another."""
    arrays = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(PackedBatch)
    }
    return PackedBatch(**arrays)


def _starts(lengths: npt.NDArray[np.int32]) -> IntArray:
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def _ranges(starts: IntArray, chosen: IntArray) -> IntArray:
    """All indices of the chosen ragged rows, row after row."""
    begins = starts[chosen]
    lengths = starts[chosen + 1] - begins
    ends = np.cumsum(lengths)
    indices: IntArray = np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - (ends - lengths), lengths)
    return indices


@dataclass(frozen=True)
class Preparation:
    """How packed sketches become the model's input.

    Attributes:
        scale: the data set's (METHOD 1).
        seed: of all random numbers.
        disturb: r of METHOD 3; 0 leaves strokes where they are.
        max_node_points: the most points in a node; None: a node is a whole stroke.
        augment_scale: x and y are scaled by factors from 1 - this to 1 + this.
        drop_probability: of an inner point.
        translate: whether whole sketches are moved.
        from_first_point: whether the origin of each sketch is its first point (see `starts_at_first_point`).
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
        """On the host there is nothing to do."""
        return packed

    def __call__(self, packed: PackedBatch, device: torch.device) -> SketchBatch:
        """Move a batch to the device and normalise, augment, disturb, translate and cut it there."""

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
