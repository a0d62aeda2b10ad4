"""The training batches of a run, and what becomes of shards that stay bad."""

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from sgloc import dist
from sgloc.config import DataConfig
from sgloc.data.batch import PackedBatch
from sgloc.data.cache import BlockCache
from sgloc.data.manifest import Manifest
from sgloc.data.order import Order
from sgloc.data.reader import BadShardError, ReadOptions, ShardReader
from sgloc.data.stream import Share, training_batches
from sgloc.errors import DataError
from sgloc.storage import Retries
from sgloc.train.loggers.terminal import tell
from sgloc.train.state import TrainState


def read_options(config: DataConfig, rank: int, patience: float | None = None) -> ReadOptions:
    """How a rank of a run reads shards; it tells its own retries.

    Raises:
        ConfigError: if the cache's folder cannot be made.
    """
    return ReadOptions(
        retries=Retries(num_attempts=config.read_attempts, timeout=config.read_timeout),
        cache=BlockCache(config.cache, round(config.cache_gigabytes * 1e9)) if config.cache else None,
        patience=patience,
    )


def agree_on_bad_shard(error: BadShardError | None, policy: str, device: torch.device) -> int | None:
    """Whether some rank met a shard that stays bad. Unless the policy is to stop, all ranks must call it together.

    Args:
        error: what this rank met.
        policy: "stop" or "skip".
        device: of this process.

    Returns:
        The shard's number, the same on all ranks; None when there is none.

    Raises:
        DataError: if this rank met one and the policy is to stop.
    """
    if policy == "skip":
        bad = int(dist.max_over_ranks(-1 if error is None else error.shard, device))
        return None if bad < 0 else bad
    if error is not None:
        refused = DataError(f"{error}; --data.bad_shards skip goes on without a shard that stays bad")
        # It may be there again when training is started again.
        refused.exit_code = 1
        raise refused from error
    return None


@dataclass(frozen=True)
class _Pulled:
    """A batch and what loading makes of it, if it is loaded; or what was met in its place."""

    packed: PackedBatch | None = None
    loaded: Future[Any] | None = None
    error: BadShardError | None = None


class Feed:
    """This rank's shares of the global batches, from where the run stands.

    Args:
        config: of the data.
        manifest: of the shards.
        state: of the run: where it stands, and which shards are skipped, which is kept up to date.
        share: which part of the sequence this rank reads.
        seed: of the run.
        device: of this process.
        load: what is to be done with a batch on the host while the one before it trains; None: nothing.
        patience: seconds that the shards may keep the run waiting; None: any number.

    Raises:
        ConfigError: if the cache's folder cannot be made.
    """

    def __init__(
        self,
        config: DataConfig,
        manifest: Manifest,
        state: TrainState,
        share: Share,
        seed: int,
        device: torch.device,
        load: Callable[[PackedBatch], Any] | None = None,
        *,
        patience: float | None = None,
    ) -> None:
        self.config, self.manifest, self.state, self.share = config, manifest, state, share
        self.seed, self.device = seed, device
        self._load = load
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="sgloc-load") if load is not None else None
        self._ahead: _Pulled | None = None
        self.reader = ShardReader(config.path, manifest, "train", options=read_options(config, share.rank, patience))
        self._open()

    def next(self) -> tuple[PackedBatch, Any]:
        """The share of the batch that the run's next step takes, and what loading made of it. All ranks must call it
        together.

        Raises:
            DataError: if a shard stays bad and is not to be skipped.
        """
        while True:
            pulled = self._ahead or self._pull()
            shard = agree_on_bad_shard(pulled.error, self.config.bad_shards, self.device)
            if pulled.packed is not None and shard is None:
                self._count_skipped()
                self._ahead = None if self._loader is None else self._pull()
                return pulled.packed, pulled.packed if pulled.loaded is None else pulled.loaded.result()
            if shard is not None:
                self._skip(shard)

    def counts(self) -> dict[str, float]:
        """Reads that were tried again since this process began, of all ranks, and sketches that the run has skipped.
        All ranks must call it together."""
        (num_retries,) = dist.sum_over_ranks([float(self.reader.num_retries)], self.device)
        return {"data_retries": num_retries, "skipped_sketches": self.state.num_skipped_sketches}

    def close(self) -> None:
        """End the threads that read and load ahead."""
        self._batches.close()
        if self._loader is not None:
            self._loader.shutdown(wait=False, cancel_futures=True)

    def _pull(self) -> "_Pulled":
        """The batch that follows, being loaded; or the error that there is in its place."""
        try:
            packed = next(self._batches)
        except BadShardError as error:
            return _Pulled(error=error)
        if self._loader is None or self._load is None:
            return _Pulled(packed)
        return _Pulled(packed, self._loader.submit(self._load, packed))

    def _open(self) -> None:
        self._ahead = None
        shards = self.manifest.splits["train"].shards
        skipped = [number for number, shard in enumerate(shards) if shard.path in self.state.skipped_shards]
        self._order = Order.of_training(self.manifest, self.seed, skipped)
        self._batches: Generator[PackedBatch, None, None] = training_batches(
            self.reader,
            self._order,
            self.share,
            prefetch=self.config.prefetch,
            num_threads=self.config.read_threads,
        )

    def _skip(self, number: int) -> None:
        """Go on without a shard, from the same position: every rank does, whether or not it could read it."""
        path = self.manifest.splits["train"].shards[number].path
        self.state.skipped_shards.append(path)
        if self.share.rank == 0:
            tell(f"shard {path} stays bad and is skipped by all ranks")
        self._batches.close()
        self._open()

    def _count_skipped(self) -> None:
        start, size = self.share.start, self.share.global_batch
        if self.state.skipped_shards:
            self.state.num_skipped_sketches += self._order.count_skipped(start, start + size)
        self.share = self.share.after(size)
