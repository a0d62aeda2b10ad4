"""Reading sketches from shards, at any place, in the run's order, ahead of the training step (DESIGN contracts 1 and
2)."""

import collections
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import fsspec.core
import numpy as np

from sgloc.data.batch import FIXED_NOISE_EPOCH, PackedBatch, gather
from sgloc.data.block import Block, IntArray, unpack_block
from sgloc.data.manifest import Manifest
from sgloc.data.order import Order
from sgloc.errors import DataError


class ShardReader:
    """Random access to the sketches of one split.

    Only the blocks that hold the wanted sketches are read, and the most recently used are kept.

    Args:
        folder: folder or URL of the shards.
        manifest: its manifest.
        split: "train", "valid" or "test".
        num_kept_blocks: blocks that are kept in memory.

    Raises:
        DataError: if the split is empty.
    """

    def __init__(self, folder: str, manifest: Manifest, split: str, num_kept_blocks: int) -> None:
        self.manifest, self.split = manifest, split
        self.shards = manifest.splits[split].shards
        self.num_sketches = manifest.splits[split].num_sketches
        if self.num_sketches == 0:
            raise DataError(f"the {split} split of {folder} holds no drawing; build the shards from more drawings")
        self._shard_starts = np.cumsum([0] + [shard.num_sketches for shard in self.shards])
        self._file_system, self._root = fsspec.core.url_to_fs(folder)
        self._num_kept_blocks = num_kept_blocks
        self._blocks: collections.OrderedDict[tuple[int, int], Block] = collections.OrderedDict()
        self.num_bytes_read = 0

    def read(self, sketches: IntArray, epoch: IntArray) -> PackedBatch:
        """Read sketches.

        Args:
            sketches: int64 [B], numbers in the split, counted through the shards as the manifest lists them; B >= 1.
            epoch: int64 [B], in which each is visited.

        Raises:
            DataError: if a shard is missing or damaged.
        """
        shard = np.searchsorted(self._shard_starts, sketches, side="right") - 1
        block, place = np.divmod(sketches - self._shard_starts[shard], self.manifest.sketches_per_block)
        blocks = [self._block(*key) for key in zip(shard.tolist(), block.tolist(), strict=True)]
        return gather(blocks, place.tolist(), epoch)

    def _block(self, shard_number: int, block_number: int) -> Block:
        key = (shard_number, block_number)
        if key not in self._blocks:
            self._blocks[key] = self._fetch(*key)
            if len(self._blocks) > self._num_kept_blocks:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def _fetch(self, shard_number: int, block_number: int) -> Block:
        shard = self.shards[shard_number]
        start, size = shard.block_offsets[block_number], shard.block_sizes[block_number]
        path = f"{self._root}/{shard.path}"
        try:
            content = self._file_system.cat_file(path, start=start, end=start + size)
        except OSError as error:
            raise DataError(f"shard {path} cannot be read ({error}); restore it or build the shards again") from error
        self.num_bytes_read += len(content)
        if len(content) == shard.num_bytes != size:
            # A server that knows no ranges sends the whole file.
            content = content[start : start + size]
        if len(content) != size:
            raise DataError(
                f"block {block_number} of shard {path} is damaged (it gave {len(content)} bytes of {size}); "
                "restore it or build the shards again"
            )
        return unpack_block(content, f"block {block_number} of shard {path} (bytes {start} to {start + size})")


def training_batches(
    folder: str,
    manifest: Manifest,
    order: Order,
    *,
    global_batch: int,
    rank: int,
    world_size: int,
    start: int,
    prefetch: int,
) -> Generator[PackedBatch, None, None]:
    """One rank's shares of the global batches, without end; closing it ends the thread that reads ahead.

    Global batch b is positions b * global_batch to (b + 1) * global_batch of the order, at any world size. Nothing here
    counts what was consumed: the
    trainer does, and that integer is the whole state.

    Args:
        folder: folder or URL of the shards.
        manifest: its manifest.
        order: of the training split.
        global_batch: sketches in a step over all ranks, at least one a rank.
        rank: this process.
        world_size: number of processes.
        start: position at which to start, a multiple of global_batch.
        prefetch: batches read ahead by a background thread.

    Raises:
        DataError: if a shard is missing or damaged.
    """
    # A rank works on 1/W of the streams, and in each on one window, which touches one block more than fits in it. It
    # shares those at both ends of its part, and keeps as much again for the way from one window to the next.
    streams = -(-order.num_streams // world_size) + 2
    reader = ShardReader(folder, manifest, "train", 2 * streams * (order.window // manifest.sketches_per_block + 2))

    def read(position: int) -> PackedBatch:
        return reader.read(*order.for_rank(position, position + global_batch, rank, world_size))

    return _read_ahead(read, start, global_batch, prefetch)


def _read_ahead(
    read: Callable[[int], PackedBatch], start: int, stride: int, prefetch: int
) -> Generator[PackedBatch, None, None]:
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sgloc-read-ahead")
    try:
        pending: collections.deque[Future[PackedBatch]] = collections.deque()
        position = start
        while True:
            while len(pending) <= prefetch:
                pending.append(executor.submit(read, position))
                position += stride
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def fixed_batches(reader: ShardReader, sketches: IntArray, *, batch_size: int) -> Iterator[PackedBatch]:
    """Given sketches of a split, in that order, in batches of at most batch_size, with the fixed noise of validation
    and test."""
    for start in range(0, len(sketches), batch_size):
        some = sketches[start : start + batch_size]
        yield reader.read(some, np.full(len(some), FIXED_NOISE_EPOCH, dtype=np.int64))
