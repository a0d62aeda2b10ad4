"""Validation with fixed noise (METHOD 3, 5.5 and 7)."""

import numpy as np
import torch

from sgloc import dist
from sgloc.data.batch import Preparation
from sgloc.data.stream import ShardReader, fixed_batches
from sgloc.nn.sketchgloc import SketchGloc


class Validation:
    """Loss on the validation split: the code's mean, no dropout, no augmentation, and noise that depends on the seed
    and the sketch alone.

    Args:
        reader: of the validation split.
        prepare: how its sketches become input.
        limit: validate on this many, spread evenly over the split; 0: on all.
        batch_size: sketches computed together on a rank.
        rank, world_size: of this process; the ranks share the work.
    """

    def __init__(
        self, reader: ShardReader, prepare: Preparation, limit: int, batch_size: int, rank: int, world_size: int
    ) -> None:
        count = min(limit or reader.num_sketches, reader.num_sketches)
        chosen = np.arange(count, dtype=np.int64) * reader.num_sketches // count
        self.num_sketches = count
        self.mine = chosen[count * rank // world_size : count * (rank + 1) // world_size]
        self.reader, self.prepare, self.batch_size = reader, prepare, batch_size

    @torch.no_grad()
    def __call__(self, model: SketchGloc, device: torch.device, autocast: bool) -> dict[str, float]:
        """Mean loss terms a sketch in nats, the same on all ranks. All ranks must call it."""
        was_training = model.training
        model.eval()
        sums = [0.0, 0.0, 0.0, 0.0]
        for packed in fixed_batches(self.reader, self.mine, batch_size=self.batch_size):
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                losses = model(self.prepare(packed, device))
            sums = [total + float(term) for total, term in zip(sums, losses, strict=True)]
        model.train(was_training)
        names = ("mixture", "pen", "divergence", "loss")
        totals = dist.sum_over_ranks(sums, device)
        return {name: total / self.num_sketches for name, total in zip(names, totals, strict=True)}
