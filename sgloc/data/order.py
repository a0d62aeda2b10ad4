"""Which sketch stands where: the order of an endless sequence of epochs, as arithmetic (DESIGN contract 1).

An epoch's order is a pure function of the seed, the epoch and the sizes of the shards:

1. the shards are permuted and laid end to end;
2. that row of N sketches is shuffled inside windows;
3. it is cut into C canonical streams of equal length (to within one sketch);
4. the streams are interleaved: position p of the epoch is sketch p // C of stream number reverse(p % C).

The streams are visited in bit-reversed order, 0, C/2, C/4, 3C/4 ...: however large a global batch is, it takes about
as many sketches from any one part of the streams as from any other of its size. So each rank can have its own part.

The whole state of the data side is one integer, the number of sketches consumed: epoch and position are its quotient
and remainder by N.
"""

import collections
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from sgloc import random
from sgloc.random import Purpose

IntArray = npt.NDArray[np.int64]

NUM_STREAMS = 512
WINDOW = 2048


class Order:
    """The order of a split's sketches, epoch after epoch.

    Args:
        shard_sizes: sketches in each shard, as the manifest lists them.
        seed: of the run.
        num_streams: C, canonical streams, a power of two. A run's is fixed; tests vary it.
        window: sketches of the row that are shuffled together. A run's is fixed; tests vary it.

    Raises:
        ValueError: if there is no sketch, or num_streams is not a power of two.
    """

    def __init__(
        self, shard_sizes: Sequence[int], seed: int, num_streams: int = NUM_STREAMS, window: int = WINDOW
    ) -> None:
        self.shard_sizes = np.array(shard_sizes, dtype=np.int64)
        self.num_sketches = int(self.shard_sizes.sum())
        if self.num_sketches == 0:
            raise ValueError("there is no sketch to put in order")
        if num_streams < 1 or num_streams & (num_streams - 1):
            raise ValueError(f"num_streams must be a power of two, not {num_streams}")
        self.seed, self.num_streams, self.window = seed, num_streams, window
        self._stream_at = _bit_reversed(num_streams)
        # Every stream is in one window at a time, and neighbours often in the same.
        self._windows: collections.OrderedDict[tuple[int, int], IntArray] = collections.OrderedDict()
        self._shards: collections.OrderedDict[int, tuple[IntArray, IntArray]] = collections.OrderedDict()

    def locate(self, start: int, stop: int) -> tuple[IntArray, IntArray, IntArray]:
        """What stands at positions start to stop of the endless sequence.

        Returns:
            For each position its sketch (a number below N, counted through the shards as listed), its epoch and its
            stream; int64 [stop - start] each.
        """
        epoch, position = np.divmod(np.arange(start, stop, dtype=np.int64), self.num_sketches)
        place, slot = np.divmod(position, self.num_streams)
        stream = self._stream_at[slot]
        # The streams at the first N % C slots are one sketch longer, as the interleaving wants it.
        lengths = np.empty(self.num_streams, dtype=np.int64)
        quotient, remainder = divmod(self.num_sketches, self.num_streams)
        lengths[self._stream_at] = quotient + (np.arange(self.num_streams) < remainder)
        row = (np.cumsum(lengths) - lengths)[stream] + place
        sketch = np.empty_like(row)
        for this in np.unique(epoch):
            here = epoch == this
            sketch[here] = self._sketches(int(this), row[here])
        return sketch, epoch, stream

    def for_rank(self, start: int, stop: int, rank: int, world_size: int) -> tuple[IntArray, IntArray]:
        """One rank's share of positions start to stop, which are one global batch.

        The positions are sorted by stream and cut into equal parts, so that a rank reads from about 1/W of the streams.

        Returns:
            Sketch and epoch of each of its positions.
        """
        sketch, epoch, stream = self.locate(start, stop)
        by_stream = np.argsort(stream, kind="stable")
        mine = by_stream[len(stream) * rank // world_size : len(stream) * (rank + 1) // world_size]
        return sketch[mine], epoch[mine]

    def _sketches(self, epoch: int, row: IntArray) -> IntArray:
        """The sketches that stand at places of an epoch's row, int64 [n]."""
        number, place = np.divmod(row, self.window)
        shuffled = np.empty_like(row)
        for this in np.unique(number):
            here = number == this
            shuffled[here] = this * self.window + self._window_order(epoch, int(this))[place[here]]
        ends, shift = self._shard_order(epoch)
        return shuffled + shift[np.searchsorted(ends, shuffled, side="right")]

    def _window_order(self, epoch: int, number: int) -> IntArray:
        """A permutation of a window's places."""
        key = (epoch, number)
        if key not in self._windows:
            size = min(self.window, self.num_sketches - number * self.window)
            seed = random.fold(random.fold(random.fold(self.seed, Purpose.WINDOW_ORDER), epoch), number)
            self._windows[key] = torch.argsort(random.bits(seed, torch.arange(size)), stable=True).numpy()
            if len(self._windows) > 2 * self.num_streams:
                self._windows.popitem(last=False)
        self._windows.move_to_end(key)
        return self._windows[key]

    def _shard_order(self, epoch: int) -> tuple[IntArray, IntArray]:
        """Where each shard of an epoch's row ends, and what to add to a place in it to get a sketch's number."""
        if epoch not in self._shards:
            seed = random.fold(random.fold(self.seed, Purpose.SHARD_ORDER), epoch)
            shards = torch.argsort(random.bits(seed, torch.arange(len(self.shard_sizes))), stable=True).numpy()
            sizes = self.shard_sizes[shards]
            ends = np.cumsum(sizes)
            self._shards[epoch] = ends, (np.cumsum(self.shard_sizes) - self.shard_sizes)[shards] - (ends - sizes)
            # A batch may straddle two epochs.
            if len(self._shards) > 2:
                self._shards.popitem(last=False)
        return self._shards[epoch]


def _bit_reversed(size: int) -> IntArray:
    """0 to size - 1, a power of two, in the order of their bits reversed."""
    order = np.zeros(1, dtype=np.int64)
    while len(order) < size:
        order = np.concatenate([2 * order, 2 * order + 1])
    return order
