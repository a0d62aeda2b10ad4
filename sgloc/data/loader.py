"""The training data loader, including the policy for persistently bad shards."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset

from sgloc.config import DataConfig
from sgloc.data.batch import PackedBatch
from sgloc.data.cache import BlockCache
from sgloc.data.manifest import Manifest
from sgloc.data.order import Order
from sgloc.data.reader import BadShardError, ReadOptions, ShardReader
from sgloc.data.stream import Share, training_batches
from sgloc.dist import Group
from sgloc.errors import DataError
from sgloc.storage import Retries
from sgloc.threads import DaemonPool

logger = logging.getLogger(__name__)


def read_options(config: DataConfig, patience: float | None = None) -> ReadOptions:
    """Return the read options that a data configuration specifies.

    Raises:
        ConfigError: if the cache folder cannot be created.
    """
    return ReadOptions(
        retries=Retries(num_attempts=config.read_attempts, timeout=config.read_timeout),
        cache=BlockCache(config.cache, round(config.cache_gigabytes * 1e9)) if config.cache else None,
        patience=patience,
    )


def agree_on_bad_shard(error: BadShardError | None, policy: str, group: Group) -> int | None:
    """Agree across ranks on a persistently bad shard. Under the "skip" policy this is a collective call.

    Args:
        error: the error this rank encountered, if any.
        policy: "stop" or "skip".
        group: process group of the ranks.

    Returns:
        The index of the bad shard, the same on all ranks; None if no rank found one.

    Raises:
        DataError: if this rank found a bad shard and the policy is "stop".
    """
    if policy == "skip":
        bad = int(group.max(-1 if error is None else error.shard))
        return None if bad < 0 else bad
    if error is not None:
        refused = DataError(f"{error}; set data.bad_shards to skip to train without bad shards")
        # Exit code for transient errors: the shard may be readable again after a restart.
        refused.exit_code = 1
        raise refused from error
    return None


@dataclass(frozen=True)
class _Pulled:
    """A batch with its pending loaded form, or the error raised while reading it."""

    packed: PackedBatch | None = None
    loaded: Future[Any] | None = None
    error: BadShardError | None = None


class Loader(IterableDataset[tuple[PackedBatch, Any]]):
    """Infinite loader of this rank's shares of the global batches: packed sketches and the result of `load` on them.

    The loader keeps no consumption state: `step` alone determines the position, so that a loader created for a later
    step yields the later batches (DESIGN contract 1). All ranks must iterate in lockstep.

    Args:
        config: data options.
        manifest: manifest of the shards.
        group: process group of the ranks.
        seed: seed of the run.
        global_batch: sketches per step, summed over all ranks.
        step: step to start at.
        load: host-side preparation of a batch; runs in a thread while the previous batch trains.
        skipped_shards: paths of shards to leave out; the loader appends the shards that it skips.
        patience: seconds to wait for the shards before giving up; None waits forever.

    Attributes:
        num_skipped_sketches: positions of the order left out so far because their shard is skipped.

    Raises:
        ConfigError: if the cache folder cannot be created.
    """

    def __init__(
        self,
        config: DataConfig,
        manifest: Manifest,
        group: Group,
        *,
        seed: int,
        global_batch: int,
        step: int = 0,
        load: Callable[[PackedBatch], Any] = lambda packed: packed,
        skipped_shards: list[str] | None = None,
        patience: float | None = None,
    ) -> None:
        self.config, self.manifest, self.group, self.seed, self.load = config, manifest, group, seed, load
        self.share = Share(global_batch, group.rank, group.world_size, step * global_batch)
        self.skipped_shards = [] if skipped_shards is None else skipped_shards
        self.num_skipped_sketches = 0
        self.reader = ShardReader(config.path, manifest, "train", options=read_options(config, patience))

    def __iter__(self) -> Generator[tuple[PackedBatch, Any], None, None]:
        """Iterate; closing the iterator stops the threads that read and load ahead.

        Raises:
            DataError: if a shard stays bad and the policy is "stop".
            SilentStoreError: if no batch arrives within the patience.
        """
        share, pool = self.share, DaemonPool(1, "sgloc-load", may_hang=False)
        try:
            while True:
                order = self._order()
                read_ahead = {"prefetch": self.config.prefetch, "num_threads": self.config.read_threads}
                with contextlib.closing(training_batches(self.reader, order, share, **read_ahead)) as batches:
                    pulled = self._pull(batches, pool)
                    while (bad := agree_on_bad_shard(pulled.error, self.config.bad_shards, self.group)) is None:
                        packed, loaded = pulled.packed, pulled.loaded
                        assert packed is not None
                        assert loaded is not None
                        self._count_skipped(order, share)
                        share = dataclasses.replace(share, start=share.start + share.global_batch)
                        pulled = self._pull(batches, pool)
                        yield packed, loaded.result()
                self._skip(bad)
        finally:
            pool.close()

    def counts(self) -> dict[str, float]:
        """Return the read retries of all ranks since this process started, and the skipped sketches.

        This is a collective call.
        """
        (num_retries,) = self.group.sum([float(self.reader.num_retries)])
        return {"data_retries": num_retries, "skipped_sketches": self.num_skipped_sketches}

    def _order(self) -> Order:
        shards = self.manifest.splits["train"].shards
        skipped = [number for number, shard in enumerate(shards) if shard.path in self.skipped_shards]
        return Order.of_training(self.manifest, self.seed, skipped)

    def _pull(self, batches: Generator[PackedBatch, None, None], pool: DaemonPool) -> _Pulled:
        """Start loading the next batch, or return the error raised while reading it."""
        try:
            packed = next(batches)
        except BadShardError as error:
            return _Pulled(error=error)
        return _Pulled(packed, pool.submit(self.load, packed))

    def _skip(self, number: int) -> None:
        """Exclude a shard and continue from the same position; every rank does, even if it could read the shard."""
        path = self.manifest.splits["train"].shards[number].path
        self.skipped_shards.append(path)
        if self.group.rank == 0:
            logger.warning("all ranks skip shard %s, which stays unreadable or damaged", path)

    def _count_skipped(self, order: Order, share: Share) -> None:
        if self.skipped_shards:
            self.num_skipped_sketches += order.count_skipped(share.start, share.start + share.global_batch)
