"""The order of the drawings is arithmetic: DESIGN contract 1, the heart of the data side."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgloc.data import stream
from sgloc.data.manifest import Manifest
from sgloc.data.order import Order
from sgloc.data.shards import build_shards
from sgloc.data.stream import ShardReader, training_batches
from tests.drawings import make_drawings, write_ndjson

WORLD_SIZES = (1, 2, 3, 4, 8)


@dataclass(frozen=True)
class Case:
    """The arguments of an order."""

    shard_sizes: list[int]
    seed: int
    num_streams: int
    window: int

    def order(self) -> Order:
        return Order(self.shard_sizes, self.seed, self.num_streams, self.window)

    @property
    def num_sketches(self) -> int:
        return sum(self.shard_sizes)


cases = st.builds(
    Case,
    shard_sizes=st.lists(st.integers(1, 15), min_size=1, max_size=6),
    seed=st.integers(0, 2**63),
    num_streams=st.sampled_from([1, 2, 4, 8, 16]),
    window=st.integers(1, 20),
)


@given(cases, st.integers(1, 100))
def test_each_epoch_visits_each_sketch_once(case: Case, global_batch: int) -> None:
    # Global batches rarely divide an epoch here: they straddle its end.
    order, size = case.order(), case.num_sketches
    batches = [order.locate(start, start + global_batch) for start in range(0, 3 * size, global_batch)]
    sketch = np.concatenate([batch[0] for batch in batches])[: 3 * size].reshape(3, size)
    epoch = np.concatenate([batch[1] for batch in batches])[: 3 * size].reshape(3, size)
    np.testing.assert_array_equal(np.sort(sketch, axis=1), np.tile(np.arange(size), (3, 1)))
    np.testing.assert_array_equal(epoch, np.repeat([[0], [1], [2]], size, axis=1))


@given(cases, st.integers(1, 40), st.integers(0, 30))
@settings(max_examples=30)
def test_the_ranks_together_have_the_same_global_batches_at_any_world_size(
    case: Case, global_batch: int, number: int
) -> None:
    # A batch anywhere, and the one that straddles the end of the first epoch.
    for start in (number * global_batch, case.num_sketches // global_batch * global_batch):
        sketch, epoch, _ = case.order().locate(start, start + global_batch)
        expected = Counter(zip(sketch.tolist(), epoch.tolist(), strict=True))
        for world in WORLD_SIZES:
            order = case.order()
            shares = [order.for_rank(start, start + global_batch, rank, world) for rank in range(world)]
            found = Counter(pair for share in shares for pair in zip(*map(np.ndarray.tolist, share), strict=True))
            assert found == expected
            sizes = [len(sketches) for sketches, _ in shares]
            assert max(sizes) - min(sizes) <= 1


@given(cases, st.data())
@settings(max_examples=40)
def test_starting_at_a_place_equals_skipping_to_it(case: Case, data: st.DataObject) -> None:
    end = 3 * case.num_sketches
    whole = case.order().locate(0, end)
    # In any sequence, of one object, which keeps something of what it was asked before.
    asked = case.order()
    for _ in range(4):
        start = data.draw(st.integers(0, end), "start")
        stop = data.draw(st.integers(start, end), "stop")
        for all_of_it, part in zip(whole, asked.locate(start, stop), strict=True):
            np.testing.assert_array_equal(all_of_it[start:stop], part)


def test_golden_order() -> None:
    # An accidental change of the order would change what every resumed run sees.
    order = Order([5, 3, 6], seed=7, num_streams=4, window=5)
    sketch, epoch, stream = order.locate(9, 33)
    before, between, after = [10, 12, 6, 2, 13], [0, 8, 1, 11, 2, 6, 9, 13, 3, 5, 7, 10, 4, 12], [12, 7, 8, 4, 10]
    assert sketch.tolist() == before + between + after
    assert epoch.tolist() == [0] * 5 + [1] * 14 + [2] * 5
    # Each epoch begins with stream 0, and the streams come in bit-reversed order.
    assert stream.tolist() == [2, 1, 3, 0, 2] + [0, 2, 1, 3] * 3 + [0, 2] + [0, 2, 1, 3, 0]
    assert [share.tolist() for share in order.for_rank(9, 18, 1, 2)] == [[10, 13, 8, 6, 11], [0, 0, 1, 0, 1]]


def test_golden_order_of_many_shards() -> None:
    order = Order([300] * 40 + [77], seed=2**63)
    sketch, _, _ = order.locate(5 * order.num_sketches + 1234, 5 * order.num_sketches + 1240)
    assert sketch.tolist() == [7758, 2428, 4437, 11386, 793, 7835]


def test_seeds_and_epochs_give_unrelated_orders() -> None:
    sizes = [100] * 80
    size = sum(sizes)
    places = []
    for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2**40, 0)]:
        sketch, _, _ = Order(sizes, seed, num_streams=8, window=400).locate(epoch * size, (epoch + 1) * size)
        places.append(np.argsort(sketch))
    found = np.corrcoef([np.arange(size), *places])
    # Whole shards are permuted, so chance is that of 80 places, not of 8000.
    assert np.abs(found[np.triu_indices_from(found, 1)]).max() < 4 / np.sqrt(len(sizes))


def test_a_batch_mixes_shards_and_a_window_mixes_its_sketches() -> None:
    first, _, _ = Order([1000] * 10, seed=0, num_streams=16, window=250).locate(0, 100)
    assert len(set((first // 1000).tolist())) == 10
    window, _, _ = Order([1000] * 10, seed=0, num_streams=1, window=250).locate(0, 250)
    assert set(window.tolist()) == set(range(window.min(), window.min() + 250))
    assert abs(np.corrcoef(window, np.arange(250))[0, 1]) < 4 / np.sqrt(250)


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no sketch"):
        Order([], seed=0)


def test_streams_that_bits_cannot_be_reversed_of_are_refused() -> None:
    for num_streams in (0, 3, 100):
        with pytest.raises(ValueError, match="power of two"):
            Order([10], seed=0, num_streams=num_streams)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Manifest]:
    """30 training shards of one block each."""
    folder = tmp_path_factory.mktemp("shards")
    write_ndjson(folder / "cat.ndjson", make_drawings(8192, ["cat"]))
    out = str(folder / "out")
    return out, build_shards(str(folder / "cat.ndjson"), out, sketches_per_shard=256)


class CountingReader(ShardReader):
    """Remembers all readers that were made."""

    made: ClassVar[list[ShardReader]] = []

    def __init__(self, folder: str, manifest: Manifest, split: str, num_kept_blocks: int) -> None:
        super().__init__(folder, manifest, split, num_kept_blocks)
        self.made.append(self)


def shares_read(
    shards: tuple[str, Manifest], num_streams: int, window: int, global_batch: int, world: int
) -> list[float]:
    """What each rank reads over one epoch, as a share of the training split's blocks."""
    folder, manifest = shards
    train = manifest.splits["train"]
    order = Order([shard.num_sketches for shard in train.shards], 0, num_streams, window)
    CountingReader.made.clear()
    for rank in range(world):
        how = {"global_batch": global_batch, "rank": rank, "world_size": world, "start": 0, "prefetch": 0}
        batches = training_batches(folder, manifest, order, **how)
        for _ in range(train.num_sketches // global_batch):
            next(batches)
    size = sum(sum(shard.block_sizes) for shard in train.shards)
    return [reader.num_bytes_read / size for reader in CountingReader.made]


@pytest.mark.parametrize("world", [1, 2, 4, 8])
@pytest.mark.parametrize(("num_streams", "window", "global_batch"), [(8, 512, 64), (16, 256, 64), (16, 512, 16)])
def test_a_rank_reads_about_its_part_of_the_bytes(
    shards: tuple[str, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    num_streams: int,
    window: int,
    global_batch: int,
    world: int,
) -> None:
    # What two ranks both read is the window, in whole blocks, in which the one's part ends and the other's begins.
    monkeypatch.setattr(stream, "ShardReader", CountingReader)
    parts = shares_read(shards, num_streams, window, global_batch, world)
    assert len(parts) == world
    manifest = shards[1]
    shared = (window + 2 * manifest.sketches_per_block) / manifest.splits["train"].num_sketches
    assert 0.99 < sum(parts) <= 1 + (world - 1) * shared
    assert max(parts) < 1 / world + shared


def test_ranks_read_each_block_once_at_the_published_batch() -> None:
    # 100 drawings a batch are no multiple of the streams, and 3 ranks no divisor of either.
    order, block, world = Order([16384] * 8, seed=0), 256, 3
    read: list[set[int]] = [set() for _ in range(world)]
    for start in range(0, order.num_sketches - 100, 100):
        for rank in range(world):
            read[rank].update((order.for_rank(start, start + 100, rank, world)[0] // block).tolist())
    num_blocks = order.num_sketches // block
    assert sum(map(len, read)) < 1.1 * num_blocks
    assert max(map(len, read)) < 1.1 * num_blocks / world
