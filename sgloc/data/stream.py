"""Read-ahead streaming of sketches from shards, in the run's order (DESIGN contracts 1 and 2).

One thread assembles batches, several thousand sketches at a time, so that vectorised numpy operations make the cost per
sketch negligible. Since the order is arithmetic, the thread knows which blocks it will need and has other threads
fetch them in advance.
"""

import collections
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass

import numpy as np

from sgloc.data.batch import FIXED_NOISE_EPOCH, PackedBatch, concatenate
from sgloc.data.block import IntArray
from sgloc.data.order import Order
from sgloc.data.reader import ShardReader
from sgloc.errors import SilentStoreError
from sgloc.threads import DaemonPool

# Limits of one span: sketches of this rank, and positions of the global order examined to find them.
_SPAN_SKETCHES = 32768
_SPAN_POSITIONS = 2**20
# Spans whose blocks are fetched in advance.
_SPANS_AHEAD = 2
# The same for `fixed_batches`, where each span is one batch; and the number of batches assembled in advance.
_FIXED_SPANS_AHEAD, _FIXED_PREFETCH = 8, 2
_REMOTE_THREADS = 8
# How often the assembling thread checks for a stop while it waits for a block.
_POLL_SECONDS = 0.1
# Evict a block not used for this many rounds over all streams: no stream of this rank is in it any more. The margin is
# for blocks on the border between two ranks, which this rank does not visit in every round.
_ROUNDS_KEPT = 64


@dataclass(frozen=True)
class Share:
    """The part of the infinite sequence of global batches that one process reads.

    Attributes:
        global_batch: sketches per step, summed over all ranks; at least one per rank.
        rank: rank of this process.
        world_size: number of processes.
        start: position to start at, a multiple of global_batch.
    """

    global_batch: int
    rank: int = 0
    world_size: int = 1
    start: int = 0

    @property
    def size(self) -> int:
        """This rank's number of sketches in each global batch."""
        ends = [self.global_batch * rank // self.world_size for rank in (self.rank, self.rank + 1)]
        return ends[1] - ends[0]


def training_batches(
    reader: ShardReader, order: Order, share: Share, *, prefetch: int, num_threads: int
) -> Generator[PackedBatch, None, None]:
    """Yield one rank's shares of the global batches, infinitely; closing the generator stops the read-ahead threads.

    Global batch b consists of positions b * global_batch to (b + 1) * global_batch of the order, at any world size.
    Nothing here tracks consumption: the trainer counts the sketches consumed, and that integer is the entire state.

    Args:
        reader: reader of the training split.
        order: order of the training split.
        share: this rank's share and start position.
        prefetch: minimum number of batches assembled, and so fetched, in advance.
        num_threads: blocks fetched concurrently; 0 fetches one from a local folder, several from remote storage.

    Raises:
        BadShardError: if a shard stays unreadable or damaged.
        SilentStoreError: if no batch arrives within the reader's patience.
    """
    spans = _training_spans(order, share)
    num_kept = _ROUNDS_KEPT * order.num_streams
    assembler = _Assembler(reader, spans, share.size, _SPANS_AHEAD, num_kept, order.visits)
    return _read_ahead(assembler, prefetch, num_threads)


def fixed_batches(reader: ShardReader, sketches: IntArray, *, batch_size: int) -> Generator[PackedBatch, None, None]:
    """Yield selected sketches of a split, in the given order, with the fixed noise of validation and test.

    Batches are read ahead; closing the generator stops the read-ahead threads.

    Args:
        reader: reader of the split.
        sketches: int64 [n], indices into the split, counted across its shards in manifest order.
        batch_size: maximum number of sketches in a batch.

    Raises:
        BadShardError: if a shard stays unreadable or damaged.
        SilentStoreError: if no batch arrives within the reader's patience.
    """
    assembler = _Assembler(reader, _fixed_spans(reader, sketches, batch_size), batch_size, _FIXED_SPANS_AHEAD)
    return _read_ahead(assembler, _FIXED_PREFETCH, 0)


def _read_ahead(assembler: "_Assembler", prefetch: int, num_threads: int) -> Generator[PackedBatch, None, None]:
    """Yield batches, with one thread assembling at least `prefetch` of them in advance and others fetching blocks."""
    reader = assembler.reader
    # Local reads hardly wait for I/O, so additional threads would only contend with each other.
    fetchers = DaemonPool(num_threads or (1 if reader.is_local else _REMOTE_THREADS), "sgloc-fetch")
    thread = DaemonPool(1, "sgloc-read-ahead", may_hang=False)
    try:
        pending = collections.deque([thread.submit(assembler.assemble, fetchers)])
        while batches := _result(pending.popleft(), reader):
            # The first spans are short, so that training does not wait for blocks that it needs later.
            num_ahead = max(1, -(-prefetch // len(batches)))
            while len(pending) < num_ahead:
                pending.append(thread.submit(assembler.assemble, fetchers))
            yield from batches
    finally:
        assembler.is_stopped = True
        for pool in (thread, fetchers):
            pool.close()


def _result(future: Future[list[PackedBatch]], reader: ShardReader) -> list[PackedBatch]:
    patience = reader.options.patience
    wait([future], patience)
    if not future.done():
        raise SilentStoreError(
            f"reading the shards in {reader.folder} has returned nothing for {patience:g} s; check the storage, then "
            "start again"
        )
    return future.result()


@dataclass(frozen=True)
class _Span:
    """Consecutive batches that are assembled together.

    Attributes:
        stop: position at which the span ends.
        keys: keys of the windows it needs, ascending; a key is epoch * num_blocks + block.
        which: int64 [n], each sketch's window as an index into `keys`.
        visit: int64 [n], each sketch's index within its window.
    """

    stop: int
    keys: list[int]
    which: IntArray
    visit: IntArray

    @classmethod
    def of(cls, stop: int, key: IntArray, visit: IntArray) -> "_Span":
        """Build a span from each sketch's window key and index within that window, int64 [n] each."""
        keys, which = np.unique(key, return_inverse=True)
        return cls(stop, keys.tolist(), which, visit)


def _training_spans(order: Order, share: Share) -> Iterator[_Span]:
    """Yield a rank's spans infinitely: the first of one batch, each next one twice as long, up to a limit."""
    most = max(1, min(_SPAN_SKETCHES // share.size, _SPAN_POSITIONS // share.global_batch))
    position, num_batches = share.start, 1
    while True:
        places = order.share(position, num_batches, share.global_batch, share.rank, share.world_size)
        position += num_batches * share.global_batch
        num_batches = min(2 * num_batches, most)
        yield _Span.of(position, places.epoch * order.num_blocks + places.block, places.visit)


def _fixed_spans(reader: ShardReader, sketches: IntArray, batch_size: int) -> Iterator[_Span]:
    """Yield the selected sketches as spans of one batch each."""
    for start in range(0, len(sketches), batch_size):
        block, place = reader.places(sketches[start : start + batch_size])
        yield _Span.of(start + batch_size, FIXED_NOISE_EPOCH * reader.num_blocks + block, place)


class _Assembler:
    """Assembler of batches, span by span; used by a single thread.

    A window is a block as one epoch visits it, with its sketches in the order of their visits. Other threads fetch the
    windows in advance; the assembler evicts them after use.

    Args:
        reader: reader of the split.
        spans: spans of batches, with increasing stop positions.
        batch_size: sketches per batch; the last batch of a span may have fewer.
        num_ahead: spans whose windows are fetched in advance.
        num_kept: number of positions for which an unused window is kept.
        visits: maps (epoch, block) to the block's sketches in the order of that epoch's visits, int64 [n]; None keeps
            the stored order.

    Attributes:
        is_stopped: set to stop the assembler: it no longer waits for blocks.
    """

    is_stopped = False

    def __init__(
        self,
        reader: ShardReader,
        spans: Iterator[_Span],
        batch_size: int,
        num_ahead: int,
        num_kept: int = 0,
        visits: Callable[[int, int], IntArray] | None = None,
    ) -> None:
        self.reader, self._spans, self._batch_size, self._visits = reader, spans, batch_size, visits
        self._num_ahead, self._num_kept = num_ahead, num_kept
        self._ahead: collections.deque[_Span] = collections.deque()
        self._fetched: dict[int, Future[bytes]] = {}
        self._windows: dict[int, PackedBatch] = {}
        self._last_use: dict[int, int] = {}

    def assemble(self, fetchers: DaemonPool) -> list[PackedBatch]:
        """Return the batches of the next span, or an empty list after the last one."""
        while len(self._ahead) <= self._num_ahead and (span := next(self._spans, None)) is not None:
            self._ask_for(span, fetchers)
            self._ahead.append(span)
        if not self._ahead:
            return []
        span = self._ahead.popleft()
        batch = self._gather(span)
        self._forget(span.stop - self._num_kept)
        starts = range(0, len(batch), self._batch_size)
        return [batch.part(start, min(start + self._batch_size, len(batch))) for start in starts]

    def _ask_for(self, span: _Span, fetchers: DaemonPool) -> None:
        for key in span.keys:
            if key not in self._last_use:
                self._fetched[key] = fetchers.submit(self.reader.fetch_bytes, key % self.reader.num_blocks)
            self._last_use[key] = span.stop

    def _window(self, key: int) -> PackedBatch:
        """Return a requested window, unpacking it on first use."""
        if key not in self._windows:
            epoch, block = divmod(key, self.reader.num_blocks)
            fetched = self._fetched.pop(key)
            while not wait([fetched], _POLL_SECONDS).done:
                if self.is_stopped:
                    raise CancelledError
            content = fetched.result()
            # Unpack here rather than in the fetching threads: holding the GIL there would delay the other fetches.
            packed = self.reader.unpack(content, block, epoch)
            self._windows[key] = packed if self._visits is None else packed.take(self._visits(epoch, block))
        return self._windows[key]

    def _forget(self, position: int) -> None:
        """Evict the windows last needed before a position."""
        for key in [key for key, last_use in self._last_use.items() if last_use < position]:
            del self._last_use[key]
            self._fetched.pop(key, None)
            self._windows.pop(key, None)

    def _gather(self, span: _Span) -> PackedBatch:
        """Copy the contiguous run of visits that the span uses out of each window, then reorder the sketches."""
        by_window = np.argsort(span.which, kind="stable")
        bounds = np.searchsorted(span.which[by_window], np.arange(len(span.keys)))
        firsts = np.minimum.reduceat(span.visit[by_window], bounds)
        stops = np.maximum.reduceat(span.visit[by_window], bounds) + 1
        runs = zip(span.keys, firsts.tolist(), stops.tolist(), strict=True)
        parts = concatenate([self._window(key).part(first, stop) for key, first, stop in runs])
        lengths = stops - firsts
        begins = np.cumsum(lengths) - lengths
        return parts.take(begins[span.which] + span.visit - firsts[span.which])
