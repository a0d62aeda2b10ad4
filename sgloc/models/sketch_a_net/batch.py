"""Preparation of packed sketches as images."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sgloc import random
from sgloc.data.batch import PackedBatch
from sgloc.ops.ragged import offsets_from_lengths
from sgloc.sketch.raster import Augmentation, RasterBatch, rasterise
from sgloc.sketch.transform import absolute_coordinates


@dataclass(frozen=True)
class RasterPreparation:
    """Turns packed sketches into the classifier's input.

    Attributes:
        seed: seed of all random numbers.
        line_width: width of the pen, in pixels.
        augmentation: random variation of the images; None disables it.
    """

    seed: int
    line_width: int
    augmentation: Augmentation | None = None

    def load(self, packed: PackedBatch) -> RasterBatch:
        """Draw the images on the host; called from a thread, ahead of the training step."""
        stroke_lengths = torch.from_numpy(packed.stroke_lengths).long()
        stroke_offsets = offsets_from_lengths(torch.from_numpy(packed.num_strokes).long())
        point_offsets = offsets_from_lengths(stroke_lengths)[stroke_offsets]
        points: Tensor = absolute_coordinates(torch.from_numpy(packed.offsets), point_offsets, 1.0)
        epoch, key_id = torch.from_numpy(packed.epoch), torch.from_numpy(packed.key_id.view(np.int64))
        random_key = random.fold(random.fold(random.fold(self.seed, 0), epoch), key_id)
        images = rasterise(
            points,
            stroke_lengths,
            stroke_offsets,
            line_width=self.line_width,
            augmentation=self.augmentation,
            random_key=random_key,
        )
        return RasterBatch(images, torch.from_numpy(packed.category).long(), random_key)

    def __call__(self, loaded: RasterBatch, device: torch.device) -> RasterBatch:
        """Move a loaded batch to the device."""
        return loaded.to(device)
