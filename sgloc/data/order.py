"""Which sketch stands where: the order of an endless sequence of epochs, as arithmetic (DESIGN contract 1).

An epoch's order is a pure function of the seed, the epoch and the sizes of the shards:

1. the shards are permuted and laid end to end;
2. that row of N sketches is cut into C canonical streams of equal length (to within one sketch);
3. each stream is shuffled inside windows;
4. the streams are interleaved: position p of the epoch is sketch p // C of stream p % C.

The whole state of the data side is one integer, the number of sketches consumed: epoch and position are its quotient
    and remainder by N.
"""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from sgloc import random
from sgloc.random import Purpose

IntArray = npt.NDArray[np.int64]

_AFTER_EVERY_KEY = torch.iinfo(torch.int64).max


class Order:
    """The order of a split's sketches, epoch after epoch.

    Args:
        shard_sizes: sketches in each shard, as the manifest lists them.
        seed: of the run.
        num_streams: C, canonical streams.
        window: sketches of a stream that are shuffled together.

    Raises:
        ValueError: if there is no sketch.
    """

    def __init__(self, shard_sizes: Sequence[int], seed: int, num_streams: int, window: int) -> None:
        self.shard_sizes = torch.tensor(shard_sizes, dtype=torch.int64)
        self.num_sketches = int(self.shard_sizes.sum())
        if self.num_sketches == 0:
            raise ValueError("there is no sketch to put in order")
        self.seed, self.num_streams, self.window = seed, num_streams, window
        self._band = functools.lru_cache(maxsize=2)(self._make_band)

    def locate(self, start: int, stop: int) -> tuple[IntArray, IntArray, IntArray]:
        """What stands at positions start to stop of the endless sequence.

        Returns:
            For each position its sketch (a number below N, counted through the shards as listed), its epoch and its
            stream; int64 [stop - start] each.
        """
        position = np.arange(start, stop, dtype=np.int64)
        epoch, within = np.divmod(position, self.num_sketches)
        band_size = self.num_streams * self.window
        sketch = np.empty_like(position)
        for this_epoch, this_band in np.unique(np.stack([epoch, within // band_size]), axis=1).T:
            here = (epoch == this_epoch) & (within // band_size == this_band)
            sketch[here] = self._band(int(this_epoch), int(this_band))[within[here] - this_band * band_size]
        return sketch, epoch, within % self.num_streams

    def for_rank(self, start: int, stop: int, rank: int, world_size: int) -> tuple[IntArray, IntArray]:
        """One rank's share of positions start to stop, which are one global batch.

        The positions are sorted by stream and cut into equal parts. When a global batch is as large as there are
        streams, it takes one sketch of each, and a rank reads the same 1/W of the streams all the time.

        Returns:
            Sketch and epoch of each of its positions.
        """
        sketch, epoch, stream = self.locate(start, stop)
        by_stream = np.argsort(stream, kind="stable")
        mine = by_stream[len(stream) * rank // world_size : len(stream) * (rank + 1) // world_size]
        return sketch[mine], epoch[mine]

    def _make_band(self, epoch: int, band: int) -> IntArray:
        """The sketches at the positions whose streams are in their window number `band`, in order of position."""
        key = random.fold(random.fold(self.seed, Purpose.SHARD_ORDER), epoch)
        shards = torch.argsort(random.bits(key, torch.arange(len(self.shard_sizes))), stable=True)
        sizes = self.shard_sizes[shards]
        shard_ends = torch.cumsum(sizes, 0)
        # What to add to a place in the row of permuted shards to get a sketch's number.
        shift = (torch.cumsum(self.shard_sizes, 0) - self.shard_sizes)[shards] - (shard_ends - sizes)

        # The first N % C streams are one sketch longer, as the interleaving wants it.
        quotient, remainder = divmod(self.num_sketches, self.num_streams)
        stream = torch.arange(self.num_streams)
        stream_start = stream * quotient + stream.clamp(max=remainder)
        length = (quotient + (stream < remainder).long() - band * self.window).clamp(0, self.window)

        place = torch.arange(int(length.max()))
        key = random.fold(random.fold(random.fold(self.seed, Purpose.WINDOW_ORDER), epoch), band)
        keys = random.bits(random.fold(key, stream)[:, None], place)
        shuffled = torch.argsort(keys.masked_fill(place >= length[:, None], _AFTER_EVERY_KEY), dim=1, stable=True)
        row = (stream_start[:, None] + band * self.window + shuffled).T  # [place, stream], as positions run
        row = row[(place[:, None] < length)]
        return (row + shift[torch.searchsorted(shard_ends, row, right=True)]).numpy()
