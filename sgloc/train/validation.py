"""Validation with fixed noise (METHOD 3, 5.5 and 7)."""

import contextlib
import logging
from collections.abc import Callable

import torch

from sgloc.config import RunConfig
from sgloc.data.loader import agree_on_bad_shard, read_options
from sgloc.data.manifest import Manifest
from sgloc.data.reader import BadShardError, ShardReader
from sgloc.data.stream import fixed_batches
from sgloc.dist import Group
from sgloc.errors import DataError
from sgloc.train.recipe import Prepare, Trainable

logger = logging.getLogger(__name__)


class Validation:
    """Loss on the validation split: the code's mean, no dropout, no augmentation, and noise that depends on the seed
    and the sketch alone. The ranks share the work.

    Args:
        config: of the run.
        manifest: of its shards.
        prepare: how sketches become input.
        group: of the ranks.
    """

    def __init__(self, config: RunConfig, manifest: Manifest, prepare: Prepare, group: Group) -> None:
        options = read_options(config.data, config.train.timeout)
        self.reader = ShardReader(config.data.path, manifest, "valid", options=options)
        self.chosen = self.reader.spread(config.data.validation_limit or self.reader.num_sketches)
        self.batch_size = -(-config.train.global_batch // (group.world_size * config.train.accumulation))
        self.prepare, self.group, self.bad_shards = prepare, group, config.data.bad_shards
        self.autocast = config.train.precision == "bfloat16"

    @torch.no_grad()
    def __call__(self, model: Trainable, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """Mean loss terms a sketch in nats, the same on all ranks. All ranks must call it together.

        Args:
            model: to validate, on the group's device; it is left in training mode.
            stop: asked between batches whether this rank is to leave off: it may take longer than a run has left.

        Returns:
            The losses by name; None, on all ranks, if some rank left off.

        Raises:
            DataError: if a shard stays bad and is not to be skipped, or nothing is left.
        """
        model.eval()
        sums = None
        while sums is None:
            sums = self._sums(model, stop)
        model.train()
        names = (*model.loss_names[:-1], "loss")
        *totals, stops = self.group.sum([*sums, float(stop())])
        if stops > 0:
            return None
        return {name: total / len(self.chosen) for name, total in zip(names, totals, strict=True)}

    def _sums(self, model: Trainable, stop: Callable[[], bool]) -> list[float] | None:
        """Loss terms of this rank's sketches, added up; of some of them if it is to leave off. None, on all ranks, if
        some rank met a shard that stays bad, which is left out from now on."""
        count, rank, world_size = len(self.chosen), self.group.rank, self.group.world_size
        mine = self.chosen[count * rank // world_size : count * (rank + 1) // world_size]
        device, sums, error = self.group.device, [0.0] * len(model.loss_names), None
        try:
            with contextlib.closing(fixed_batches(self.reader, mine, batch_size=self.batch_size)) as batches:
                for packed in batches:
                    if stop():
                        break
                    with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
                        losses = model(self.prepare(self.prepare.load(packed), device))
                    sums = [total + float(term) for total, term in zip(sums, losses, strict=True)]
        except BadShardError as bad:
            error = bad
        shard = agree_on_bad_shard(error, self.bad_shards, self.group)
        if shard is None:
            return sums
        self._skip(shard)
        return None

    def _skip(self, shard: int) -> None:
        """Leave out a shard's sketches, on every rank."""
        self.chosen = self.chosen[self.reader.shard_of(self.chosen) != shard]
        path = self.reader.shards[shard].path
        if len(self.chosen) == 0:
            raise DataError(f"no validation sketch is left without shard {path}; restore it or build the shards again")
        if self.group.rank == 0:
            logger.warning("shard %s stays bad: validation goes on without it on all ranks", path)
