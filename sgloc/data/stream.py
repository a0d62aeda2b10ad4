"""Sketches from shards, in the run's order, ahead of the training step (DESIGN contracts 1 and 2).

One thread assembles batches, some thousand sketches at a time: what can be done for all of them at once by numpy costs
no time a sketch. It knows which blocks it will need, since the order is arithmetic, and has other threads fetch them
before it does.
"""

import collections
import dataclasses
from collections.abc import Generator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sgloc.data.batch import FIXED_NOISE_EPOCH, PackedBatch, concatenate
from sgloc.data.block import IntArray
from sgloc.data.order import Order, Places
from sgloc.data.reader import ShardReader
from sgloc.errors import SilentStoreError
from sgloc.threads import DaemonPool

Value = TypeVar("Value")

# Sketches of a rank that are assembled together, and positions of all ranks that are looked at for it.
_SPAN_SKETCHES = 32768
_SPAN_POSITIONS = 2**20
# Spans whose blocks are asked for before they are needed.
_SPANS_AHEAD = 2
_REMOTE_THREADS = 8
# Batches of given sketches that are assembled before they are asked for.
_BATCHES_AHEAD = 2
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

    def after(self, num_positions: int) -> "Share":
        """The same, beginning as many positions later."""
        return dataclasses.replace(self, start=self.start + num_positions)


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
    fetchers = DaemonPool(_num_fetchers(reader, num_threads), "sgloc-fetch")
    assembler = DaemonPool(1, "sgloc-read-ahead")
    try:
        spans = _Spans(order, share, _Windows(reader, order, fetchers))
        pending: collections.deque[Future[list[PackedBatch]]] = collections.deque([assembler.submit(spans.assemble)])
        while True:
            batches = _result(pending.popleft(), reader)
            # The first spans are short, so that training need not wait for blocks that it needs later.
            num_ahead = max(1, -(-prefetch // len(batches)))
            while len(pending) < num_ahead:
                pending.append(assembler.submit(spans.assemble))
            yield from batches
    finally:
        for pool in (assembler, fetchers):
            pool.close()


def _result(future: Future[Value], reader: ShardReader) -> Value:
    patience = reader.options.patience
    wait([future], patience)
    if not future.done():
        raise SilentStoreError(
            f"the shards in {reader.folder} have not answered for {patience:g} s; check the store, then start again"
        )
    return future.result()


class _Windows:
    """The blocks that the streams are in, each with its sketches in the sequence of their visits; they are fetched
    before they are needed and forgotten when they are done with."""

    def __init__(self, reader: ShardReader, order: Order, fetchers: DaemonPool) -> None:
        self.reader, self.order, self.fetchers = reader, order, fetchers
        self._fetched: dict[tuple[int, int], Future[bytes]] = {}
        self._windows: dict[tuple[int, int], PackedBatch] = {}
        self._last_use: dict[tuple[int, int], int] = {}

    def ask_for(self, keys: list[tuple[int, int]], position: int) -> None:
        """Begin to fetch windows, given as epoch and block, that are needed up to a position of the sequence."""
        for key in keys:
            if key not in self._last_use:
                self._fetched[key] = self.fetchers.submit(self.reader.fetch_bytes, key[1])
            self._last_use[key] = position

    def get(self, key: tuple[int, int]) -> PackedBatch:
        """A window that was asked for."""
        if key not in self._windows:
            epoch, block = key
            content = self._fetched.pop(key).result()
            # Not in the threads that fetch: what keeps the interpreter busy there keeps others from their answers.
            packed = self.reader.unpack(content, block, epoch)
            self._windows[key] = packed.take(self.order.visits(epoch, block))
        return self._windows[key]

    def forget(self, position: int) -> None:
        """Forget what was last needed so long before a position that no stream is in it."""
        oldest = position - _ROUNDS_KEPT * self.order.num_streams
        for key in [key for key, last_use in self._last_use.items() if last_use < oldest]:
            del self._last_use[key]
            self._fetched.pop(key, None)
            self._windows.pop(key, None)


@dataclass(frozen=True)
class _Plan:
    """What a span of batches consists of.

    Attributes:
        stop: position at which it ends.
        places: of all its sketches of this rank, batch after batch.
        keys: epoch and block of the windows that it needs.
        which: int64 [n], each sketch's window among them.
    """

    stop: int
    places: Places
    keys: list[tuple[int, int]]
    which: IntArray


class _Spans:
    """Spans of batches, one after another, used by one thread."""

    def __init__(self, order: Order, share: Share, windows: _Windows) -> None:
        self.order, self.share, self.windows = order, share, windows
        self._most = max(1, min(_SPAN_SKETCHES // share.size, _SPAN_POSITIONS // share.global_batch))
        self._planned: collections.deque[_Plan] = collections.deque()
        self._position, self._num_batches = share.start, 1

    def assemble(self) -> list[PackedBatch]:
        """The next span's batches."""
        while len(self._planned) <= _SPANS_AHEAD:
            self._planned.append(self._plan())
        plan = self._planned.popleft()
        batch = self._gather(plan)
        self.windows.forget(plan.stop)
        size = self.share.size
        return [batch.part(start, start + size) for start in range(0, len(batch), size)]

    def _plan(self) -> _Plan:
        share, start = self.share, self._position
        places = self.order.share(start, self._num_batches, share.global_batch, share.rank, share.world_size)
        self._position += self._num_batches * share.global_batch
        self._num_batches = min(2 * self._num_batches, self._most)
        numbers, which = np.unique(places.epoch * self.order.num_blocks + places.block, return_inverse=True)
        keys = [divmod(number, self.order.num_blocks) for number in numbers.tolist()]
        self.windows.ask_for(keys, self._position)
        return _Plan(self._position, places, keys, which)

    def _gather(self, plan: _Plan) -> PackedBatch:
        """Copy out of each window the run of its visits that the span touches, and put them in sequence."""
        visit = plan.places.visit
        by_window = np.argsort(plan.which, kind="stable")
        bounds = np.searchsorted(plan.which[by_window], np.arange(len(plan.keys)))
        firsts = np.minimum.reduceat(visit[by_window], bounds)
        stops = np.maximum.reduceat(visit[by_window], bounds) + 1
        runs = zip(plan.keys, firsts.tolist(), stops.tolist(), strict=True)
        parts = concatenate([self.windows.get(key).part(first, stop) for key, first, stop in runs])
        lengths = stops - firsts
        begins = np.cumsum(lengths) - lengths
        return parts.take(begins[plan.which] + visit - firsts[plan.which])


def fixed_batches(reader: ShardReader, sketches: IntArray, *, batch_size: int) -> Generator[PackedBatch, None, None]:
    """Given sketches of a split, in that order, in batches of at most batch_size, with the fixed noise of validation
    and test. They are read ahead; closing the generator ends the threads that do it.

    Raises:
        BadShardError: if a shard stays unreadable or damaged.
        SilentStoreError: if no batch has come for as long as the reader's patience lasts.
    """
    batches = [sketches[start : start + batch_size] for start in range(0, len(sketches), batch_size)]
    fetchers = DaemonPool(_num_fetchers(reader, 0), "sgloc-fetch")
    assembler = DaemonPool(1, "sgloc-read-ahead")
    try:
        ahead = _Ahead(reader, batches, fetchers, num_ahead=2 * _num_fetchers(reader, 0))
        pending: collections.deque[Future[PackedBatch]] = collections.deque()
        for batch in batches:
            pending.append(assembler.submit(ahead.assemble, batch))
            if len(pending) > _BATCHES_AHEAD:
                yield _result(pending.popleft(), reader)
        while pending:
            yield _result(pending.popleft(), reader)
    finally:
        for pool in (assembler, fetchers):
            pool.close()


def _num_fetchers(reader: ShardReader, wanted: int) -> int:
    """Blocks fetched at the same time. Where reads wait for nothing, more threads only wait for each other."""
    return wanted or (1 if reader.is_local else _REMOTE_THREADS)


class _Ahead:
    """Batches of given sketches, used by one thread; their blocks are fetched before they are needed."""

    def __init__(self, reader: ShardReader, batches: list[IntArray], fetchers: DaemonPool, num_ahead: int) -> None:
        self.reader, self.fetchers, self._num_ahead = reader, fetchers, num_ahead
        self._fetched: dict[int, Future[bytes]] = {}
        # As `read` will ask for them, one batch after the other.
        self._wanted = (block for some in batches for block in reader.missing_blocks(some))

    def assemble(self, sketches: IntArray) -> PackedBatch:
        """The next batch."""
        self._fetch_ahead()
        return self.reader.read(sketches, np.full(len(sketches), FIXED_NOISE_EPOCH, dtype=np.int64), self._bytes_of)

    def _bytes_of(self, block: int) -> bytes:
        fetched = self._fetched.pop(block, None)
        self._fetch_ahead()
        return self.reader.fetch_bytes(block) if fetched is None else fetched.result()

    def _fetch_ahead(self) -> None:
        while len(self._fetched) < self._num_ahead and (block := next(self._wanted, None)) is not None:
            if block not in self._fetched:
                self._fetched[block] = self.fetchers.submit(self.reader.fetch_bytes, block)
