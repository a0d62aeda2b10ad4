"""Sketches from shards, in the run's order, ahead of the training step (DESIGN contracts 1 and 2).

One thread assembles batches, some thousand sketches at a time: what can be done for all of them at once by numpy costs
no time a sketch. It knows which blocks it will need, since the order is arithmetic, and has other threads fetch them
before it does.
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

# Sketches of a rank that are assembled together, and positions of all ranks that are looked at for it.
_SPAN_SKETCHES = 32768
_SPAN_POSITIONS = 2**20
# Spans whose blocks are asked for before they are needed.
_SPANS_AHEAD = 2
# Likewise of given sketches, where a span is a batch; and how many batches are assembled before they are asked for.
_FIXED_SPANS_AHEAD, _FIXED_PREFETCH = 8, 2
_REMOTE_THREADS = 8
# How often the thread that waits for a block looks whether it is stopped.
_LOOK_SECONDS = 0.1
# A block is forgotten after as many rounds through the streams without a visit: no stream of this rank is in it any
# more. One on the border between two ranks is not visited in every round.
_ROUNDS_KEPT = 64


@dataclass(frozen=True)
class Share:
    """Which part of the endless sequence of global batches a process reads.

    Attributes:
        global_batch: sketches in a step over all ranks, at least one a rank.
        rank: this process.
        world_size: number of processes.
        start: position at which to start, a multiple of global_batch.
    """

    global_batch: int
    rank: int = 0
    world_size: int = 1
    start: int = 0

    @property
    def size(self) -> int:
        """Sketches of a batch that are this rank's."""
        ends = [self.global_batch * rank // self.world_size for rank in (self.rank, self.rank + 1)]
        return ends[1] - ends[0]


def training_batches(
    reader: ShardReader, order: Order, share: Share, *, prefetch: int, num_threads: int
) -> Generator[PackedBatch, None, None]:
    """One rank's shares of the global batches, without end; closing it ends the threads that read ahead.

    Global batch b is positions b * global_batch to (b + 1) * global_batch of the order, at any world size. Nothing here
    counts what was consumed: the trainer does, and that integer is the whole state.

    Args:
        reader: of the training split.
        order: of the training split.
        share: what this rank reads, and from where.
        prefetch: batches assembled ahead, at least; by then their blocks are fetched.
        num_threads: blocks fetched at the same time; 0: one from a local folder, more from elsewhere.

    Raises:
        BadShardError: if a shard stays unreadable or damaged.
        SilentStoreError: if no batch has come for as long as the reader's patience lasts.
    """
    spans = _training_spans(order, share)
    num_kept = _ROUNDS_KEPT * order.num_streams
    assembler = _Assembler(reader, spans, share.size, _SPANS_AHEAD, num_kept, order.visits)
    return _read_ahead(assembler, prefetch, num_threads)


def fixed_batches(reader: ShardReader, sketches: IntArray, *, batch_size: int) -> Generator[PackedBatch, None, None]:
    """Given sketches of a split, in that order, in batches of at most batch_size, with the fixed noise of validation
    and test. They are read ahead; closing the generator ends the threads that do it.

    Args:
        reader: of the split.
        sketches: int64 [n], numbers in the split, counted through the shards as the manifest lists them.
        batch_size: most sketches in a batch.

    Raises:
        BadShardError: if a shard stays unreadable or damaged.
        SilentStoreError: if no batch has come for as long as the reader's patience lasts.
    """
    assembler = _Assembler(reader, _fixed_spans(reader, sketches, batch_size), batch_size, _FIXED_SPANS_AHEAD)
    return _read_ahead(assembler, _FIXED_PREFETCH, 0)


def _read_ahead(assembler: "_Assembler", prefetch: int, num_threads: int) -> Generator[PackedBatch, None, None]:
    """Batches, of which at least `prefetch` are assembled ahead by one thread, and their blocks fetched by others."""
    reader = assembler.reader
    # Where reads wait for nothing, more threads only wait for each other.
    fetchers = DaemonPool(num_threads or (1 if reader.is_local else _REMOTE_THREADS), "sgloc-fetch")
    thread = DaemonPool(1, "sgloc-read-ahead", may_hang=False)
    try:
        pending = collections.deque([thread.submit(assembler.assemble, fetchers)])
        while batches := _result(pending.popleft(), reader):
            # The first spans are short, so that training need not wait for blocks that it needs later.
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
            f"the shards in {reader.folder} have not answered for {patience:g} s; check the store, then start again"
        )
    return future.result()


@dataclass(frozen=True)
class _Span:
    """Batches that are assembled together.

    Attributes:
        stop: position at which they end.
        keys: of the windows that they need, in ascending order: epoch times the number of blocks, plus block.
        which: int64 [n], each sketch's window among them.
        visit: int64 [n], each sketch's place in its window.
    """

    stop: int
    keys: list[int]
    which: IntArray
    visit: IntArray

    @classmethod
    def of(cls, stop: int, key: IntArray, visit: IntArray) -> "_Span":
        """Sketches that are given by their windows' keys and their places in these, int64 [n] each."""
        keys, which = np.unique(key, return_inverse=True)
        return cls(stop, keys.tolist(), which, visit)


def _training_spans(order: Order, share: Share) -> Iterator[_Span]:
    """A rank's spans, without end: first of one batch, then of twice as many each, up to a limit."""
    most = max(1, min(_SPAN_SKETCHES // share.size, _SPAN_POSITIONS // share.global_batch))
    position, num_batches = share.start, 1
    while True:
        places = order.share(position, num_batches, share.global_batch, share.rank, share.world_size)
        position += num_batches * share.global_batch
        num_batches = min(2 * num_batches, most)
        yield _Span.of(position, places.epoch * order.num_blocks + places.block, places.visit)


def _fixed_spans(reader: ShardReader, sketches: IntArray, batch_size: int) -> Iterator[_Span]:
    """Spans of one batch each of given sketches."""
    for start in range(0, len(sketches), batch_size):
        block, place = reader.places(sketches[start : start + batch_size])
        yield _Span.of(start + batch_size, FIXED_NOISE_EPOCH * reader.num_blocks + block, place)


class _Assembler:
    """Assembles spans of batches, one after another; used by one thread.

    A window is a block in an epoch, its sketches in the sequence of their visits. Windows are fetched by other threads
    before they are needed, and forgotten when they are done with.

    Args:
        reader: of the split.
        spans: of batches; the positions at which they end grow.
        batch_size: sketches in every batch of a span but its last.
        num_ahead: spans whose windows are fetched before they are needed.
        num_kept: positions for which a window that is not needed is kept.
        visits: gives a block's sketches in the sequence in which an epoch visits them, int64 [n]; None: as they stand.

    Attributes:
        is_stopped: whether nothing more is wanted; the thread then waits for no block that is being fetched.
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
        """The next span's batches; none at the end."""
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
        """A window that was asked for."""
        if key not in self._windows:
            epoch, block = divmod(key, self.reader.num_blocks)
            fetched = self._fetched.pop(key)
            while not wait([fetched], _LOOK_SECONDS).done:
                if self.is_stopped:
                    raise CancelledError
            content = fetched.result()
            # Not in the threads that fetch: what keeps the interpreter busy there keeps others from their answers.
            packed = self.reader.unpack(content, block, epoch)
            self._windows[key] = packed if self._visits is None else packed.take(self._visits(epoch, block))
        return self._windows[key]

    def _forget(self, position: int) -> None:
        """Forget the windows that were last needed before a position."""
        for key in [key for key, last_use in self._last_use.items() if last_use < position]:
            del self._last_use[key]
            self._fetched.pop(key, None)
            self._windows.pop(key, None)

    def _gather(self, span: _Span) -> PackedBatch:
        """Copy out of each window the run of its visits that the span touches, and put them in sequence."""
        by_window = np.argsort(span.which, kind="stable")
        bounds = np.searchsorted(span.which[by_window], np.arange(len(span.keys)))
        firsts = np.minimum.reduceat(span.visit[by_window], bounds)
        stops = np.maximum.reduceat(span.visit[by_window], bounds) + 1
        runs = zip(span.keys, firsts.tolist(), stops.tolist(), strict=True)
        parts = concatenate([self._window(key).part(first, stop) for key, first, stop in runs])
        lengths = stops - firsts
        begins = np.cumsum(lengths) - lengths
        return parts.take(begins[span.which] + span.visit - firsts[span.which])
