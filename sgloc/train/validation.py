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
    """Computes the loss on the validation split, which is distributed over the ranks.

    Validation uses the mean of the latent code, no dropout and no augmentation; the disturbance noise depends only on
    the seed and the sketch.

    Args:
        config: configuration of the run.
        manifest: manifest of the run's shards.
        prepare: turns packed sketches into batches, without augmentation.
        group: group of the ranks.
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
        """Return the mean loss terms per sketch in nats, the same on all ranks. Collective.

        Args:
            model: the model to validate, on the group's device; left in training mode.
            stop: polled between batches; if it returns True, this rank aborts, since a validation may take longer than
                the time a stopped run has left.

        Returns:
            The loss terms by name; None, on all ranks, if some rank aborted.

        Raises:
            DataError: if a shard stays unreadable and data.bad_shards is "stop", or no sketch is left.
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
        """Sum the loss terms over this rank's sketches, or over only some of them if it aborts.

        Returns:
            The sums; None, on all ranks, if some rank found an unreadable shard, which is now skipped: try again.
        """
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
        """Exclude a shard's sketches, on every rank."""
        self.chosen = self.chosen[self.reader.shard_of(self.chosen) != shard]
        path = self.reader.shards[shard].path
        if len(self.chosen) == 0:
            raise DataError(f"no validation sketch is left without shard {path}; restore it or rebuild the shards")
        if self.group.rank == 0:
            logger.warning("shard %s is still unreadable; validation continues without it on all ranks", path)
