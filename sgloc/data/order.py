"""The sampling order: a stateless mapping from position to sketch over infinitely many epochs (DESIGN contract 1).

An epoch's order is a pure function of the seed, the epoch and the manifest:

1. Sort the blocks by the mean size of their sketches and deal them at random to C canonical streams, C at a time and
   one to each, so that all streams have about the same amount to read.
2. Shuffle the blocks of each stream and concatenate the streams.
3. Shuffle the sketches within each block: the block is the shuffle window.
4. Cut the resulting row of N sketches into C parts of equal length (to within one sketch). These parts are the final
   streams.
5. Interleave the streams: position p of the epoch is sketch p // C of stream reverse(p % C).

The streams are visited in bit-reversed order, 0, C/2, C/4, 3C/4 ..., so that a global batch of any size takes about
equally many sketches from any two stream ranges of equal width. This lets each rank read its own range of streams.

The entire state of the data pipeline is one integer, the number of sketches consumed: epoch and position are its
quotient and remainder by N.
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
    """Locations of n sketches of the sequence.

    Attributes:
        epoch: int64 [n], epoch of the visit.
        block: int64 [n], block index, counted across all shards in manifest order.
        visit: int64 [n], number of sketches of the same block visited earlier in that epoch.
        stream: int64 [n], stream index.
    """

    epoch: IntArray
    block: IntArray
    visit: IntArray
    stream: IntArray

    def __len__(self) -> int:
        return len(self.epoch)


class Order:
    """The order of a split's sketches over all epochs.

    Args:
        shard_sizes: number of sketches per shard, in manifest order.
        sketches_per_block: number of sketches per block; the last block of a shard may have fewer.
        seed: seed of the run.
        block_bytes: size of each block, in manifest order; None assumes sketches of equal size.
        num_streams: C, the number of canonical streams, a power of two. Fixed for runs; tests vary it.
        skipped_shards: indices of unreadable shards. Global batches leave out their sketches and repeat the batch's
            other sketches instead, starting from its first.

    Raises:
        ValueError: if there are no sketches, or num_streams is not a power of two.
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
            raise ValueError("an order needs at least one sketch")
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
        # The last, partial round of the interleaving visits the first N % C slots, so their streams are one sketch
        # longer.
        quotient, remainder = divmod(self.num_sketches, num_streams)
        lengths = np.empty(num_streams, dtype=np.int64)
        lengths[self._stream_at] = quotient + (np.arange(num_streams) < remainder)
        self._stream_starts = np.cumsum(lengths) - lengths
        self._epoch_key = functools.lru_cache(maxsize=4)(
            lambda epoch: random.fold(random.fold(seed, Purpose.WINDOW_ORDER), epoch)
        )
        # Cache two rows, since a batch may straddle two epochs.
        self._row = functools.lru_cache(maxsize=2)(self._make_row)

    @classmethod
    def of_training(cls, manifest: Manifest, seed: int, skipped_shards: Collection[int] = ()) -> "Order":
        """Build the order of a manifest's training split.

        Raises:
            ValueError: if the training split is empty.
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
        """Locate the sketches at positions of the infinite sequence, int64 [n]."""
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
        """Locate one rank's shares of consecutive global batches; the shares have equal size and are concatenated.

        Each batch's positions are sorted by stream and cut into equal parts, so that a rank reads only about 1/W of
        the streams.

        Args:
            start: position of the first batch's first sketch.
            num_batches: number of batches.
            global_batch: positions per batch.
            rank: rank whose share to locate.
            world_size: number of ranks W.

        Raises:
            DataError: if all sketches of a batch are in skipped shards.
        """
        positions = (start + np.arange(num_batches * global_batch, dtype=np.int64)).reshape(num_batches, global_batch)
        if self._is_skipped.any():
            positions = self._without_skipped(positions)
        # uint16, because numpy's stable sort is a linear-time radix sort for 16-bit integers.
        streams = self._stream_at.astype(np.uint16)[positions % self.num_sketches % self.num_streams]
        mine = slice(global_batch * rank // world_size, global_batch * (rank + 1) // world_size)
        by_stream = np.argsort(streams, axis=1, kind="stable")[:, mine]
        return self.locate(np.take_along_axis(positions, by_stream, axis=1).ravel())

    def count_skipped(self, start: int, stop: int) -> int:
        """Count the positions from start to stop (exclusive) whose shard is skipped."""
        return int(self._is_skipped[self.locate(np.arange(start, stop)).block].sum())

    def visits(self, epoch: int, block: int) -> IntArray:
        """Return a block's sketches in the order of an epoch's visits: a permutation, int64 [n]."""
        key = random.fold(self._epoch_key(epoch), block)
        return random.permutation(key, int(self.block_sizes[block]))

    def _without_skipped(self, positions: IntArray) -> IntArray:
        skipped = self._is_skipped[self.locate(positions.ravel()).block].reshape(positions.shape)
        replaced = positions.copy()
        for batch in np.flatnonzero(skipped.any(axis=1)):
            sound = positions[batch, ~skipped[batch]]
            if len(sound) == 0:
                raise DataError(
                    f"none of the sketches at positions {positions[batch, 0]} to {positions[batch, -1]} can be read "
                    "because too many shards are bad; restore the shards or build them again"
                )
            replaced[batch, skipped[batch]] = np.resize(sound, int(skipped[batch].sum()))
        return replaced

    def _make_row(self, epoch: int) -> tuple[IntArray, IntArray]:
        """Return an epoch's sequence of blocks and the end of each block in that row, in sketches."""
        key = random.fold(random.fold(self.seed, Purpose.BLOCK_ORDER), epoch)
        stream = np.empty(self.num_blocks, dtype=np.int64)
        for deal, start in enumerate(range(0, self.num_blocks, self.num_streams)):
            dealt = self._by_length[start : start + self.num_streams]
            stream[dealt] = random.permutation(random.fold(key, deal), self.num_streams)[: len(dealt)]
        shuffled = random.permutation(key, self.num_blocks)
        blocks = shuffled[np.argsort(stream[shuffled], kind="stable")]
        return blocks, np.cumsum(self.block_sizes[blocks])


def _bit_reversed(size: int) -> IntArray:
    """Return 0 to size - 1 in bit-reversed order; size is a power of two."""
    order = np.zeros(1, dtype=np.int64)
    while len(order) < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order
