"""Batches: sketches as the shards hold them, and what becomes of them on the device (METHOD 1, 2, 3 and 8)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sgloc import random
from sgloc.data.block import Block, IntArray
from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch import transform
from sgloc.sketch.ragged import SketchBatch

# No epoch has this number: the noise of validation and test depends on the seed and the sketch alone.
FIXED_NOISE_EPOCH = -1


@dataclass(frozen=True)
class PackedBatch:
    """B sketches of S strokes and P points on the host, in the source's integer units.

    Attributes:
        offsets: int16 [P, 2], (dx, dy) from the previous point, each sketch's first from the origin.
        stroke_lengths: int64 [S], points of each stroke.
        num_strokes: int64 [B], strokes of each sketch.
        category: int64 [B], numbers into the manifest's list.
        key_id: uint64 [B].
        epoch: int64 [B], in which each sketch is visited.
    """

    offsets: npt.NDArray[np.int16]
    stroke_lengths: IntArray
    num_strokes: IntArray
    category: IntArray
    key_id: npt.NDArray[np.uint64]
    epoch: IntArray

    def __len__(self) -> int:
        return len(self.num_strokes)

    @property
    def num_points(self) -> int:
        """Points in the batch."""
        return len(self.offsets)


def gather(blocks: list[Block], places: list[int], epoch: IntArray) -> PackedBatch:
    """Collect sketches from blocks.

    Args:
        blocks: each sketch's block.
        places: each sketch's place in its block.
        epoch: int64 [B].
    """
    pairs = list(zip(blocks, places, strict=True))
    points = [slice(block.point_starts[place], block.point_starts[place + 1]) for block, place in pairs]
    strokes = [slice(block.stroke_starts[place], block.stroke_starts[place + 1]) for block, place in pairs]
    return PackedBatch(
        offsets=np.concatenate([block.offsets[where] for block, where in zip(blocks, points, strict=True)]),
        stroke_lengths=np.concatenate(
            [block.stroke_lengths[where] for block, where in zip(blocks, strokes, strict=True)]
        ).astype(np.int64),
        num_strokes=np.array([where.stop - where.start for where in strokes], dtype=np.int64),
        category=np.array([block.category[place] for block, place in pairs], dtype=np.int64),
        key_id=np.array([block.key_id[place] for block, place in pairs], dtype=np.uint64),
        epoch=epoch,
    )


@dataclass(frozen=True)
class Preparation:
    """How packed sketches become the model's input.

    Attributes:
        scale: the data set's (METHOD 1).
        seed: of all random numbers.
        disturb_scale: r of METHOD 3; 0 leaves strokes where they are.
        max_node_points: the most points in a node; None: a node is a whole stroke.
        augment_scale: x and y are scaled by factors from 1 - this to 1 + this.
        drop_probability: of an inner point.
    """

    scale: float
    seed: int
    disturb_scale: float = 0.0
    max_node_points: int | None = None
    augment_scale: float = 0.0
    drop_probability: float = 0.0

    def __call__(self, packed: PackedBatch, device: torch.device) -> SketchBatch:
        """Move a batch to the device and normalise, augment, disturb and cut it there."""

        def on_device(array: npt.NDArray[np.generic]) -> torch.Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        stroke_lengths = on_device(packed.stroke_lengths)
        stroke_offsets = offsets_from_lengths(on_device(packed.num_strokes))
        point_offsets = offsets_from_lengths(stroke_lengths)[stroke_offsets]
        random_key = random.fold(
            random.fold(random.fold(self.seed, 0).to(device), on_device(packed.epoch)),
            on_device(packed.key_id.view(np.int64)),
        )
        targets = transform.absolute_coordinates(on_device(packed.offsets), point_offsets, self.scale)
        if self.drop_probability > 0:
            targets, stroke_lengths = transform.drop_points(
                targets, stroke_lengths, stroke_offsets, random_key, self.drop_probability
            )
            point_offsets = offsets_from_lengths(stroke_lengths)[stroke_offsets]
        if self.augment_scale > 0:
            targets = transform.random_scale(targets, point_offsets, random_key, self.augment_scale)
        points = targets
        if self.disturb_scale > 0:
            points = transform.disturb(targets, stroke_lengths, stroke_offsets, random_key, self.disturb_scale)
        node_offsets, sketch_node_offsets = transform.split_nodes(stroke_lengths, stroke_offsets, self.max_node_points)
        pen_lift = torch.zeros(len(targets), dtype=torch.bool, device=device)
        pen_lift[offsets_from_lengths(stroke_lengths)[1:] - 1] = True
        return SketchBatch(
            points=points,
            targets=targets,
            pen_lift=pen_lift,
            node_offsets=node_offsets,
            sketch_node_offsets=sketch_node_offsets,
            sketch_point_offsets=point_offsets,
            random_key=random_key,
        )
