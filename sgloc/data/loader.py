"""The training batches of a run, and what happens to shards that stay bad."""

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
    """How a rank of a run reads shards.

    Raises:
        ConfigError: if the cache's folder cannot be made.
    """
    return ReadOptions(
        retries=Retries(num_attempts=config.read_attempts, timeout=config.read_timeout),
        cache=BlockCache(config.cache, round(config.cache_gigabytes * 1e9)) if config.cache else None,
        patience=patience,
    )


def agree_on_bad_shard(error: BadShardError | None, policy: str, group: Group) -> int | None:
    """Whether some rank met a shard that stays bad. Unless the policy is to stop, all ranks must call it together.

    Args:
        error: what this rank met.
        policy: "stop" or "skip".
        group: of the ranks.

    Returns:
        The shard's number, the same on all ranks; None when there is none.

    Raises:
        DataError: if this rank met one and the policy is to stop.
    """
    if policy == "skip":
        bad = int(group.max(-1 if error is None else error.shard))
        return None if bad < 0 else bad
    if error is not None:
        refused = DataError(f"{error}; data.bad_shards skip goes on without a shard that stays bad")
        # It may be there again when training is started again.
        refused.exit_code = 1
        raise refused from error
    return None


@dataclass(frozen=True)
class _Pulled:
    """A batch that is being loaded, or the error that stands in its place."""

    packed: PackedBatch | None = None
    loaded: Future[Any] | None = None
    error: BadShardError | None = None


class Loader(IterableDataset[tuple[PackedBatch, Any]]):
    """This rank's shares of the global batches, without end: the packed sketches, and what `load` makes of them.

    Nothing here is consumed state: the position is `step`, and an iterator that starts at a later step gives the later
    batches (DESIGN contract 1). All ranks must iterate together.

    Args:
        config: of the data.
        manifest: of the shards.
        group: of the ranks.
        seed: of the run.
        global_batch: sketches in a step over all ranks.
        step: at which to start.
        load: the host's work on a batch; a thread does it while the batch before trains.
        skipped_shards: paths of shards to leave out; shards that are skipped later are added.
        patience: seconds that the shards may keep the run waiting; None: any number.

    Attributes:
        num_skipped_sketches: positions of the order left out so far, for shards that are skipped.

    Raises:
        ConfigError: if the cache's folder cannot be made.
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
        """Iterate; closing the iterator ends the threads that read and load ahead.

        Raises:
            DataError: if a shard stays bad and is not to be skipped.
            SilentStoreError: if no batch has come within the patience.
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
        """Reads that were tried again since this process began, of all ranks, and sketches skipped. All ranks must call
        it together."""
        (num_retries,) = self.group.sum([float(self.reader.num_retries)])
        return {"data_retries": num_retries, "skipped_sketches": self.num_skipped_sketches}

    def _order(self) -> Order:
        shards = self.manifest.splits["train"].shards
        skipped = [number for number, shard in enumerate(shards) if shard.path in self.skipped_shards]
        return Order.of_training(self.manifest, self.seed, skipped)

    def _pull(self, batches: Generator[PackedBatch, None, None], pool: DaemonPool) -> _Pulled:
        """The batch that follows, being loaded; or the error in its place."""
        try:
            packed = next(batches)
        except BadShardError as error:
            return _Pulled(error=error)
        return _Pulled(packed, pool.submit(self.load, packed))

    def _skip(self, number: int) -> None:
        """Go on without a shard, from the same position: every rank does, whether or not it could read it."""
        path = self.manifest.splits["train"].shards[number].path
        self.skipped_shards.append(path)
        if self.group.rank == 0:
            logger.warning("shard %s stays bad and is skipped by all ranks", path)

    def _count_skipped(self, order: Order, share: Share) -> None:
        if self.skipped_shards:
            self.num_skipped_sketches += order.count_skipped(share.start, share.start + share.global_batch)
