"""Validation with fixed noise (METHOD 3, 5.5 and 7)."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch

from sgloc import dist
from sgloc.data.loader import agree_on_bad_shard
from sgloc.data.reader import BadShardError, ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.errors import DataError
from sgloc.train.loggers.terminal import tell
from sgloc.train.recipe import Prepare, Trainable


class Validation:
    """Loss on the validation split: the code's mean, no dropout, no augmentation, and noise that depends on the seed
    and the sketch alone.

    Args:
        reader: of the validation split.
        prepare: how its sketches become input.
        limit: validate on this many, spread evenly over the split; 0: on all.
        batch_size: sketches computed together on a rank.
        rank, world_size: of this process; the ranks share the work.
        bad_shards: "stop" where a shard stays bad, or "skip" its sketches on all ranks.
    """

    def __init__(
        self,
        reader: ShardReader,
        prepare: Prepare,
        limit: int,
        batch_size: int,
        rank: int,
        world_size: int,
        bad_shards: str,
    ) -> None:
        count = min(limit or reader.num_sketches, reader.num_sketches)
        self.chosen = np.arange(count, dtype=np.int64) * reader.num_sketches // count
        self.reader, self.prepare, self.batch_size = reader, prepare, batch_size
        self.rank, self.world_size, self.bad_shards = rank, world_size, bad_shards

    @torch.no_grad()
    def __call__(
        self, model: Trainable, device: torch.device, autocast: bool, stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        """Mean loss terms a sketch in nats, the same on all ranks. All ranks must call it.

        Args:
            model: to validate.
            device: of this process.
            autocast: whether to compute products in bfloat16.
            stop: asked between batches whether this rank is to leave off: it may take longer than a run has left.

        Returns:
            The losses by name; None, on all ranks, if some rank left off.

        Raises:
            DataError: if a shard stays bad and is not to be skipped, or nothing is left.
        """
        was_training = model.training
        model.eval()
        while True:
            sums, error = [0.0] * len(model.loss_names), None
            try:
                sums = self._sums(model, device, autocast, stop)
            except BadShardError as bad:
                error = bad
            shard = agree_on_bad_shard(error, self.bad_shards, device)
            if shard is None:
                break
            self._skip(shard)
        model.train(was_training)
        names = (*model.loss_names[:-1], "loss")
        *totals, stops = dist.sum_over_ranks([*sums, float(stop())], device)
        if stops > 0:
            return None
        return {name: total / len(self.chosen) for name, total in zip(names, totals, strict=True)}

    def _sums(self, model: Trainable, device: torch.device, autocast: bool, stop: Callable[[], bool]) -> list[float]:
        """Loss terms of this rank's sketches, added up; of some of them if it is to leave off."""
        count = len(self.chosen)
        mine = self.chosen[count * self.rank // self.world_size : count * (self.rank + 1) // self.world_size]
        sums = [0.0] * len(model.loss_names)
        with contextlib.closing(fixed_batches(self.reader, mine, batch_size=self.batch_size)) as batches:
            for packed in batches:
                if stop():
                    break
                with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                    losses = model(self.prepare(self.prepare.load(packed), device))
                sums = [total + float(term) for total, term in zip(sums, losses, strict=True)]
        return sums

    def _skip(self, shard: int) -> None:
        """Leave out a shard's sketches, on every rank."""
        self.chosen = self.chosen[self.reader.shard_of(self.chosen) != shard]
        path = self.reader.shards[shard].path
        if len(self.chosen) == 0:
            raise DataError(f"no validation sketch is left without shard {path}; restore it or build the shards again")
        if self.rank == 0:
            tell(f"shard {path} stays bad: validation goes on without it on all ranks")
