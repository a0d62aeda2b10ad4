"""Which sketch stands where: the order of an endless sequence of epochs, as arithmetic (DESIGN contract 1).

An epoch's order is a pure function of the seed, the epoch and the manifest:

1. the blocks, from that of the shortest sketches to that of the longest, are dealt to C canonical streams at random,
   C at a time and one to each: so no stream has more to read than another;
2. each stream's blocks are put in random order, and the streams end to end;
3. each block's sketches are shuffled: a block is the window of the shuffle;
4. that row of N sketches is cut into C parts of equal length (to within one sketch), which are the streams from now on;
5. the streams are interleaved: position p of the epoch is sketch p // C of stream number reverse(p % C).

The streams are visited in bit-reversed order, 0, C/2, C/4, 3C/4 ...: however large a global batch is, it takes about
as many sketches from any one part of the streams as from any other of its size. So each rank can have its own part.

The whole state of the data side is one integer, the number of sketches consumed: epoch and position are its quotient
and remainder by N.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from sgloc import random
from sgloc.data.block import IntArray
from sgloc.data.manifest import Manifest
from sgloc.errors import DataError
from sgloc.random import Purpose

NUM_STREAMS = 1024


@dataclass(frozen=True)
class Places:
    """Where n sketches of the sequence are found.

    Attributes:
        epoch: int64 [n], in which each is visited.
        block: int64 [n], counted through all shards as the manifest lists them.
        visit: int64 [n], how many sketches of its block are visited before it in that epoch.
        stream: int64 [n].
    """

    epoch: IntArray
    block: IntArray
    visit: IntArray
    stream: IntArray

    def __len__(self) -> int:
        return len(self.epoch)


class Order:
    """The order of a split's sketches, epoch after epoch.

    Args:
        shard_sizes: sketches in each shard, as the manifest lists them.
        sketches_per_block: in every block of a shard but its last.
        seed: of the run.
        block_bytes: of each block, as the manifest lists them; None: all sketches are of one length.
        num_streams: C, canonical streams, a power of two. A run's is fixed; tests vary it.
        skipped_shards: shards that cannot be read. Their sketches are left out of the global batches, and the batch's
            other sketches, from the first on, are taken twice in their stead.

    Raises:
        ValueError: if there is no sketch, or num_streams is not a power of two.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int],
        sketches_per_block: int,
        seed: int,
        block_bytes: Sequence[int] | IntArray | None = None,
        num_streams: int = NUM_STREAMS,
        skipped_shards: Collection[int] = (),
    ) -> None:
        self.num_sketches = sum(shard_sizes)
        if self.num_sketches == 0:
            raise ValueError("there is no sketch to put in order")
        if num_streams < 1 or num_streams & (num_streams - 1):
            raise ValueError(f"num_streams must be a power of two, not {num_streams}")
        self.seed, self.num_streams = seed, num_streams
        sizes = np.array(shard_sizes, dtype=np.int64)
        blocks_in_shard = -(-sizes // sketches_per_block)
        self.num_shards, self.num_blocks = len(sizes), int(blocks_in_shard.sum())
        self.shard_of_block = np.repeat(np.arange(len(sizes)), blocks_in_shard)
        self.first_block = np.cumsum(blocks_in_shard) - blocks_in_shard
        before = (np.arange(self.num_blocks) - self.first_block[self.shard_of_block]) * sketches_per_block
        self.block_sizes: IntArray = np.minimum(sketches_per_block, sizes[self.shard_of_block] - before)
        self.block_starts = np.cumsum(self.block_sizes) - self.block_sizes
        num_bytes = self.block_sizes if block_bytes is None else np.asarray(block_bytes, dtype=np.int64)
        self._by_length = np.argsort(num_bytes / self.block_sizes, kind="stable")
        self._is_skipped = np.isin(np.arange(self.num_shards), list(skipped_shards))[self.shard_of_block]
        self._stream_at = _bit_reversed(num_streams)
        # The streams at the first N % C slots are one sketch longer, as the interleaving wants it.
        quotient, remainder = divmod(self.num_sketches, num_streams)
        lengths = np.empty(num_streams, dtype=np.int64)
        lengths[self._stream_at] = quotient + (np.arange(num_streams) < remainder)
        self._stream_starts = np.cumsum(lengths) - lengths
        self._epoch_key = functools.lru_cache(maxsize=4)(
            lambda epoch: random.fold(random.fold(seed, Purpose.WINDOW_ORDER), epoch)
        )
        # A batch may straddle two epochs.
        self._row = functools.lru_cache(maxsize=2)(self._make_row)

    @classmethod
    def of_training(cls, manifest: Manifest, seed: int, skipped_shards: Collection[int] = ()) -> "Order":
        """The order of a manifest's training split.

        Raises:
            ValueError: if it is empty.
        """
        shards = manifest.splits["train"].shards
        return cls(
            [shard.num_sketches for shard in shards],
            manifest.sketches_per_block,
            seed,
            [size for shard in shards for size in shard.block_sizes],
            skipped_shards=skipped_shards,
        )

    def locate(self, positions: IntArray) -> Places:
        """Where the sketches at positions of the endless sequence, int64 [n], are found."""
        epoch, position = np.divmod(positions, self.num_sketches)
        depth, slot = np.divmod(position, self.num_streams)
        stream = self._stream_at[slot]
        row = self._stream_starts[stream] + depth
        block, visit = np.empty_like(row), np.empty_like(row)
        for this in np.unique(epoch):
            here = epoch == this
            blocks, ends = self._row(int(this))
            number = np.searchsorted(ends, row[here], side="right")
            block[here] = blocks[number]
            visit[here] = row[here] - (ends[number] - self.block_sizes[blocks[number]])
        return Places(epoch, block, visit, stream)

    def share(self, start: int, num_batches: int, global_batch: int, rank: int, world_size: int) -> Places:
        """One rank's shares of consecutive global batches, one after another and all of one size.

        A batch's positions are sorted by stream and cut into equal parts, so that a rank reads from about 1/W of the
        streams.

        Args:
            start: position of the first batch's first sketch.
            num_batches: how many.
            global_batch: positions in each.
            rank: whose share.
            world_size: number of ranks.

        Raises:
            DataError: if nothing of a batch can be read.
        """
        positions = (start + np.arange(num_batches * global_batch, dtype=np.int64)).reshape(num_batches, global_batch)
        if self._is_skipped.any():
            positions = self._without_skipped(positions)
        # Small numbers are sorted by their digits, in time proportional to how many there are.
        streams = self._stream_at.astype(np.uint16)[positions % self.num_sketches % self.num_streams]
        mine = slice(global_batch * rank // world_size, global_batch * (rank + 1) // world_size)
        by_stream = np.argsort(streams, axis=1, kind="stable")[:, mine]
        return self.locate(np.take_along_axis(positions, by_stream, axis=1).ravel())

    def count_skipped(self, start: int, stop: int) -> int:
        """How many of the positions start to stop cannot be read."""
        return int(self._is_skipped[self.locate(np.arange(start, stop)).block].sum())

    def visits(self, epoch: int, block: int) -> IntArray:
        """A block's sketches in the sequence in which an epoch visits them: a permutation, int64 [n]."""
        key = random.fold(self._epoch_key(epoch), block)
        return random.permutation(key, int(self.block_sizes[block]))

    def _without_skipped(self, positions: IntArray) -> IntArray:
        skipped = self._is_skipped[self.locate(positions.ravel()).block].reshape(positions.shape)
        replaced = positions.copy()
        for batch in np.flatnonzero(skipped.any(axis=1)):
            sound = positions[batch, ~skipped[batch]]
            if len(sound) == 0:
                raise DataError(
                    f"no sketch of positions {positions[batch, 0]} to {positions[batch, -1]} can be read: "
                    "too many shards are bad; restore them or build the shards again"
                )
            replaced[batch, skipped[batch]] = np.resize(sound, int(skipped[batch].sum()))
        return replaced

    def _make_row(self, epoch: int) -> tuple[IntArray, IntArray]:
        """An epoch's blocks in their row, and where in it each ends, in sketches."""
        key = random.fold(random.fold(self.seed, Purpose.BLOCK_ORDER), epoch)
        stream = np.empty(self.num_blocks, dtype=np.int64)
        for deal, start in enumerate(range(0, self.num_blocks, self.num_streams)):
            dealt = self._by_length[start : start + self.num_streams]
            stream[dealt] = random.permutation(random.fold(key, deal), self.num_streams)[: len(dealt)]
        shuffled = random.permutation(key, self.num_blocks)
        blocks = shuffled[np.argsort(stream[shuffled], kind="stable")]
        return blocks, np.cumsum(self.block_sizes[blocks])


def _bit_reversed(size: int) -> IntArray:
    """0 to size - 1, a power of two, in the order of their bits reversed."""
    order = np.zeros(1, dtype=np.int64)
    while len(order) < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order
