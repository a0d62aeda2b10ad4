"""The order of drawings is arithmetic (DESIGN contract 1), the heart of the data side."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sgloc import random
from sgloc.data.order import Order, Places
from sgloc.errors import DataError
from sgloc.random import Purpose
from tests.data.streams import sketches_at
from tests.fuzzing import examples


@dataclass(frozen=True)
class Case:
    """The arguments of an order."""

    shard_sizes: list[int]
    sketches_per_block: int
    seed: int
    num_streams: int

    def order(self, skipped_shards: tuple[int, ...] = ()) -> Order:
        return Order(
            self.shard_sizes, self.sketches_per_block, self.seed, self.block_bytes, self.num_streams, skipped_shards
        )

    @property
    def block_bytes(self) -> list[int]:
        """Bytes of every block, some of them equal."""
        num_blocks = sum(-(-size // self.sketches_per_block) for size in self.shard_sizes)
        return [100 + self.seed % (7 + block % 13) for block in range(num_blocks)]

    @property
    def num_sketches(self) -> int:
        return sum(self.shard_sizes)


cases = st.builds(
    Case,
    shard_sizes=st.lists(st.integers(1, 25), min_size=1, max_size=6),
    sketches_per_block=st.integers(1, 9),
    seed=st.integers(0, 2**63),
    num_streams=st.sampled_from([1, 2, 4, 8, 16]),
)


# Large enough that a batch over 512 ranks spans at most a few epochs.
large_cases = st.builds(
    Case,
    shard_sizes=st.lists(st.integers(100, 400), min_size=1, max_size=5),
    sketches_per_block=st.integers(30, 90),
    seed=st.integers(0, 2**63),
    num_streams=st.sampled_from([1, 8, 64]),
)


def permutation(seed: int, purpose: Purpose, *parts: int, size: int) -> list[int]:
    """Return the numbers below `size`, sorted by random bits."""
    key = random.fold(seed, purpose)
    for part in parts:
        key = random.fold(key, part)
    bits = random.bits(key, torch.arange(size)).tolist()
    return sorted(range(size), key=bits.__getitem__)


def epoch_by_hand(case: Case, epoch: int) -> list[int]:
    """Return the sketches of an epoch, computed with lists, step by step as the module's docstring describes."""
    blocks: list[list[int]] = []
    sketch = 0
    for size in case.shard_sizes:
        for start in range(0, size, case.sketches_per_block):
            length = min(case.sketches_per_block, size - start)
            visits = permutation(case.seed, Purpose.WINDOW_ORDER, epoch, len(blocks), size=length)
            blocks.append([sketch + place for place in visits])
            sketch += length
    lengths = [size / len(block) for size, block in zip(case.block_bytes, blocks, strict=True)]
    by_length = sorted(range(len(blocks)), key=lengths.__getitem__)
    streams: list[list[int]] = [[] for _ in range(case.num_streams)]
    for turn, block in enumerate(by_length):
        deal, place = divmod(turn, case.num_streams)
        hands = permutation(case.seed, Purpose.BLOCK_ORDER, epoch, deal, size=case.num_streams)
        streams[hands[place]].append(block)
    shuffled = permutation(case.seed, Purpose.BLOCK_ORDER, epoch, size=len(blocks))
    row = [sketch for stream in streams for block in sorted(stream, key=shuffled.index) for sketch in blocks[block]]
    width = case.num_streams.bit_length() - 1
    slots = [int(f"{slot:0{width}b}"[::-1], 2) if width else 0 for slot in range(case.num_streams)]
    counts = Counter(slots[position % case.num_streams] for position in range(len(row)))
    starts = {stream: sum(counts[before] for before in range(stream)) for stream in range(case.num_streams)}
    return [
        row[starts[slots[position % case.num_streams]] + position // case.num_streams] for position in range(len(row))
    ]


@given(cases, st.integers(0, 3))
def test_the_order_is_what_its_steps_give(case: Case, epoch: int) -> None:
    order, size = case.order(), case.num_sketches
    places = order.locate(np.arange(epoch * size, (epoch + 1) * size))
    expected = epoch_by_hand(case, epoch)
    assert sketches_at(order, places).tolist() == expected
    assert sorted(expected) == list(range(size))
    assert set(places.epoch.tolist()) == {epoch}


@given(cases, st.data())
@examples(40)
def test_starting_at_a_place_equals_skipping_to_it(case: Case, data: st.DataObject) -> None:
    end = 3 * case.num_sketches
    whole = sketches_at(case.order(), case.order().locate(np.arange(end)))
    # Queries in any sequence to one object, which caches results of earlier queries.
    asked = case.order()
    for _ in range(4):
        start = data.draw(st.integers(0, end), "start")
        stop = data.draw(st.integers(start, end), "stop")
        assert sketches_at(asked, asked.locate(np.arange(start, stop))).tolist() == whole[start:stop].tolist()


def visits_of(order: Order, places: Places) -> Counter[tuple[int, int]]:
    """Count the visits of each sketch in each epoch."""
    return Counter(zip(sketches_at(order, places).tolist(), places.epoch.tolist(), strict=True))


@given(large_cases, st.integers(1, 512), st.integers(0, 30), st.integers(1, 3), st.data())
@examples(20)
def test_the_ranks_together_have_the_same_global_batches_at_any_world_size(
    case: Case, world_size: int, first: int, num_batches: int, data: st.DataObject
) -> None:
    global_batch = data.draw(st.integers(world_size, world_size + 40), "global batch")
    order, start = case.order(), first * global_batch
    shares = [order.share(start, num_batches, global_batch, rank, world_size) for rank in range(world_size)]
    sizes = [len(share) // num_batches for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sum(sizes) == global_batch
    for batch in range(num_batches):
        found: Counter[tuple[int, int]] = Counter()
        for share, size in zip(shares, sizes, strict=True):
            mine = slice(batch * size, (batch + 1) * size)
            found += visits_of(
                order, Places(share.epoch[mine], share.block[mine], share.visit[mine], share.stream[mine])
            )
        begin = start + batch * global_batch
        assert found == visits_of(order, order.locate(np.arange(begin, begin + global_batch)))


@given(
    large_cases, st.lists(st.tuples(st.integers(1, 512), st.integers(1, 3)), min_size=1, max_size=3), st.integers(0, 9)
)
@examples(20)
def test_a_world_that_changes_in_mid_epoch_visits_what_remains_once(
    case: Case, worlds: list[tuple[int, int]], start_batch: int
) -> None:
    # A run stopped and resumed at other world sizes; the global batch need not be divisible by any of them.
    global_batch = max(world_size for world_size, _ in worlds)
    order, position = case.order(), start_batch * global_batch
    begin, found = position, Counter[tuple[int, int]]()
    for world_size, num_batches in worlds:
        for rank in range(world_size):
            found += visits_of(order, order.share(position, num_batches, global_batch, rank, world_size))
        position += num_batches * global_batch
    assert found == visits_of(order, order.locate(np.arange(begin, position)))
    assert set(found.values()) == {1}


def test_a_rank_takes_its_streams() -> None:
    order = Order([4096], 256, 0, num_streams=64)
    for rank in range(8):
        assert set(order.share(0, 64, 64, rank, 8).stream.tolist()) == set(range(8 * rank, 8 * rank + 8))


@pytest.mark.parametrize("world_size", [1, 2, 8, 64, 512])
@pytest.mark.parametrize("per_rank", [1, 3, 100])
def test_a_rank_of_an_even_share_reads_its_part_of_the_streams(world_size: int, per_rank: int) -> None:
    order = Order([16384] * 700, 1024, 0)
    for rank in {0, world_size // 2, world_size - 1}:
        num_batches = -(-6 * 1024 // (world_size * per_rank))
        share = order.share(0, num_batches, world_size * per_rank, rank, world_size)
        assert len(set(share.stream.tolist())) == 1024 // world_size


def test_streams_have_as_much_to_read_as_each_other() -> None:
    # Shards of categories of very different size in bytes, as QuickDraw's are: some drawings are ten times as long.
    block_bytes = np.repeat(np.random.default_rng(0).integers(100, 1000, 640), 16)
    order = Order([16384] * 640, 1024, 0, block_bytes, num_streams=64)
    places = order.locate(np.arange(0, order.num_sketches, 7))
    read = np.bincount(places.stream, weights=block_bytes[places.block])
    assert read.max() < 1.02 * read.mean()


def test_golden_order() -> None:
    # An accidental change of the order would change the data of every resumed run.
    order = Order([300] * 40 + [77], 128, 2**63)
    positions = np.arange(5 * order.num_sketches + 1234, 5 * order.num_sketches + 1240)
    assert sketches_at(order, order.locate(positions)).tolist() == [8154, 10423, 30, 1382, 6722, 8426]
    assert order.locate(np.arange(6)).stream.tolist() == [0, 512, 256, 768, 128, 640]


def test_seeds_and_epochs_give_unrelated_orders() -> None:
    sizes = [100] * 80
    size = sum(sizes)
    places = []
    for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2**40, 0)]:
        order = Order(sizes, 50, seed, num_streams=8)
        places.append(np.argsort(sketches_at(order, order.locate(np.arange(epoch * size, (epoch + 1) * size)))))
    found = np.corrcoef([np.arange(size), *places])
    # Whole blocks are permuted, so the chance level is that of 160 places, not of 8000.
    assert np.abs(found[np.triu_indices_from(found, 1)]).max() < 4 / np.sqrt(2 * len(sizes))


def test_a_batch_mixes_blocks_and_a_block_mixes_its_sketches() -> None:
    order = Order([1000] * 10, 250, 0, num_streams=16)
    first = sketches_at(order, order.locate(np.arange(100)))
    assert len(set((first // 250).tolist())) >= 14
    order = Order([1000] * 10, 250, 0, num_streams=1)
    block = sketches_at(order, order.locate(np.arange(250)))
    assert set(block.tolist()) == set(range(block.min(), block.min() + 250))
    assert abs(np.corrcoef(block, np.arange(250))[0, 1]) < 4 / np.sqrt(250)


@given(cases, st.integers(1, 8), st.integers(0, 5), st.data())
@examples(60)
def test_skipped_shards_are_left_out_of_every_ranks_share(
    case: Case, world_size: int, first: int, data: st.DataObject
) -> None:
    global_batch = data.draw(st.integers(world_size, 40), "global batch")
    skipped = data.draw(st.sets(st.integers(0, len(case.shard_sizes) - 1), min_size=1, max_size=3), "skipped")
    order, start = case.order(tuple(skipped)), first * global_batch
    whole = order.locate(np.arange(start, start + global_batch))
    is_sound = ~np.isin(order.shard_of_block[whole.block], list(skipped))
    sound = set(sketches_at(order, whole)[is_sound].tolist())
    assert order.count_skipped(start, start + global_batch) == int((~is_sound).sum())
    if not sound:
        with pytest.raises(DataError, match=f"none of the sketches at positions {start} to {start + global_batch - 1}"):
            order.share(start, 1, global_batch, 0, world_size)
        return
    shares = [order.share(start, 1, global_batch, rank, world_size) for rank in range(world_size)]
    found = np.concatenate([sketches_at(order, share) for share in shares])
    assert len(found) == global_batch
    assert set(found.tolist()) == sound
    # The substitutes are spread evenly: none is taken much more often than another.
    counts = Counter(found.tolist()).values()
    visits = Counter(sketches_at(order, whole)[is_sound].tolist()).values()
    assert max(counts) - min(counts) <= max(visits) * -(-global_batch // is_sound.sum())


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sketch"):
        Order([], 1, 0)


def test_streams_that_bits_cannot_be_reversed_of_are_refused() -> None:
    for num_streams in (0, 3, 100):
        with pytest.raises(ValueError, match=f"power of two, not {num_streams}"):
            Order([10], 1, 0, num_streams=num_streams)
