"""Reading sketches from shards, and ahead of the training step."""

import dataclasses
import gc
import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgloc.data.batch import FIXED_NOISE_EPOCH, PackedBatch
from sgloc.data.block import Block, IntArray, pack_block, unpack_block
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.data.order import Order
from sgloc.data.shards import build_shards
from sgloc.data.stream import ShardReader, fixed_batches, training_batches
from sgloc.errors import DataError
from tests.drawings import make_drawings, stroke3_of, write_ndjson, write_npz

THREAD_NAME = "sgloc-read-ahead"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of about 1400 training drawings, two blocks each."""
    folder = tmp_path_factory.mktemp("shards")
    write_ndjson(folder / "all.ndjson", make_drawings(1500))
    build_shards(str(folder / "all.ndjson"), str(folder / "out"), sketches_per_shard=512)
    return str(folder / "out")


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, Manifest]:
    """A fresh folder of shards, to be damaged."""
    write_ndjson(tmp_path / "all.ndjson", make_drawings(600))
    manifest = build_shards(str(tmp_path / "all.ndjson"), str(tmp_path / "out"))
    return tmp_path / "out" / manifest.splits["train"].shards[0].path, manifest


def expect_equal(found: PackedBatch | Block, expected: PackedBatch | Block) -> None:
    for field in dataclasses.fields(expected):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), err_msg=field.name)


def batches_of(
    folder: str, start: int, *, rank: int = 0, world_size: int = 1, prefetch: int = 2
) -> Generator[PackedBatch, None, None]:
    manifest = load_manifest(folder)
    order = Order([shard.num_sketches for shard in manifest.splits["train"].shards], 3, num_streams=8, window=100)
    batches = training_batches(
        folder, manifest, order, global_batch=100, rank=rank, world_size=world_size, start=start, prefetch=prefetch
    )
    assert isinstance(batches, Generator)
    return batches


@given(st.lists(st.integers(0, 1400), min_size=1, max_size=20), st.integers(1, 4))
@settings(max_examples=30)
def test_any_sketches_are_read_in_the_sequence_asked_for(folder: str, numbers: list[int], num_kept_blocks: int) -> None:
    manifest = load_manifest(folder)
    reader = ShardReader(folder, manifest, "train", num_kept_blocks)
    size = reader.num_sketches
    everything = ShardReader(folder, manifest, "train", 9).read(np.arange(size), np.zeros(size, dtype=np.int64))
    sketches = np.array(numbers) % size
    found = reader.read(sketches, sketches + 5)
    assert found.key_id.tolist() == everything.key_id[sketches].tolist()
    assert found.category.tolist() == everything.category[sketches].tolist()
    assert found.epoch.tolist() == (sketches + 5).tolist()
    assert len(found) == len(numbers)
    # Every drawing of these has 4 points.
    np.testing.assert_array_equal(found.offsets.reshape(-1, 4, 2), everything.offsets.reshape(-1, 4, 2)[sketches])


def test_only_blocks_that_are_not_kept_are_read(folder: str) -> None:
    manifest = load_manifest(folder)
    first = manifest.splits["train"].shards[0]
    reader = ShardReader(folder, manifest, "train", num_kept_blocks=2)

    def cost(sketch: int) -> int:
        before = reader.num_bytes_read
        reader.read(np.array([sketch]), np.zeros(1, dtype=np.int64))
        return reader.num_bytes_read - before

    assert cost(3) == first.block_sizes[0]
    assert cost(255) == 0
    assert cost(256) == first.block_sizes[1]
    assert cost(0) == 0
    assert cost(512) > 0  # for which the block used longest ago, the second, goes
    assert cost(1) == 0
    assert cost(300) == first.block_sizes[1]


def test_a_split_without_drawings_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "cat.npz", train=[stroke3_of([[(1, 2)]])])
    manifest = build_shards(str(tmp_path / "cat.npz"), str(tmp_path / "out"))
    with pytest.raises(DataError, match=r"the valid split of .*out holds no drawing"):
        ShardReader(str(tmp_path / "out"), manifest, "valid", 1)


def read_all(shard: Path, manifest: Manifest) -> None:
    reader = ShardReader(str(shard.parent), manifest, "train", 4)
    reader.read(np.arange(reader.num_sketches), np.zeros(reader.num_sketches, dtype=np.int64))


@pytest.mark.parametrize("block", [0, 2])
def test_a_flipped_bit_is_found_and_placed(damaged: tuple[Path, Manifest], block: int) -> None:
    shard, manifest = damaged
    described = manifest.splits["train"].shards[0]
    content = bytearray(shard.read_bytes())
    start = described.block_offsets[block]
    for place in range(start + 300, start + 700, 97):  # among the offsets
        content[place] ^= 4
        shard.write_bytes(content)
        with pytest.raises(DataError, match=f"^block {block} of shard {shard} .*is damaged"):
            read_all(shard, manifest)
        content[place] ^= 4
    shard.write_bytes(content)
    read_all(shard, manifest)


def expect_told_or_harmless(content: bytes, place: int, bit: int) -> None:
    """A flipped bit is told, or is one that no drawing depends on."""
    flipped = bytearray(content)
    flipped[place] ^= 1 << bit
    try:
        found = unpack_block(bytes(flipped), "it")
    except DataError:
        return
    expect_equal(found, unpack_block(content, "it"))


def test_no_flipped_bit_of_a_block_changes_a_drawing() -> None:
    content = pack_block(make_drawings(2), {"cat": 0, "dog": 1})
    for place in range(content.index(b"PK\1\2")):
        expect_told_or_harmless(content, place, place % 8)


def test_no_flipped_bit_of_a_blocks_directory_escapes() -> None:
    content = pack_block(make_drawings(2), {"cat": 0, "dog": 1})
    for place, bit in itertools.product(range(content.index(b"PK\1\2"), len(content)), range(8)):
        expect_told_or_harmless(content, place, bit)


def test_a_missing_shard_is_told(damaged: tuple[Path, Manifest]) -> None:
    shard, manifest = damaged
    shard.unlink()
    with pytest.raises(DataError, match=f"^shard {shard} cannot be read"):
        read_all(shard, manifest)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_truncated_shard_is_told(damaged: tuple[Path, Manifest], block: int) -> None:
    shard, manifest = damaged
    described = manifest.splits["train"].shards[0]
    start, size = described.block_offsets[block], described.block_sizes[block]
    content = shard.read_bytes()
    for length in (start, start + 1, start + size // 2, start + size - 1):
        shard.write_bytes(content[:length])
        with pytest.raises(DataError, match=f"^block {block} of shard {shard} .*is damaged"):
            read_all(shard, manifest)


def test_a_shard_of_another_build_is_told(damaged: tuple[Path, Manifest], folder: str) -> None:
    shard, manifest = damaged
    shard.write_bytes((Path(folder) / "valid-00000.tar").read_bytes())
    with pytest.raises(DataError, match=f"shard {shard}"):
        read_all(shard, manifest)


@pytest.mark.parametrize("start", [100, 1300, 1400, 2900])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 3)])
def test_starting_at_a_place_equals_skipping_to_it(folder: str, start: int, rank: int, world_size: int) -> None:
    # However far is read ahead. About 1400 drawings are an epoch, so that 1400 straddles its end.
    with (
        closing(batches_of(folder, start, rank=rank, world_size=world_size, prefetch=5)) as started,
        closing(batches_of(folder, 0, rank=rank, world_size=world_size, prefetch=0)) as skipped,
    ):
        for expected in itertools.islice(skipped, start // 100, start // 100 + 4):
            expect_equal(next(started), expected)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_the_ranks_together_read_two_epochs(folder: str, world_size: int) -> None:
    train = load_manifest(folder).splits["train"]
    steps = -(-2 * train.num_sketches // 100)
    seen: Counter[tuple[int, int]] = Counter()
    for rank in range(world_size):
        with closing(batches_of(folder, 0, rank=rank, world_size=world_size)) as batches:
            for batch in itertools.islice(batches, steps):
                seen.update(zip(batch.key_id.tolist(), batch.epoch.tolist(), strict=True))
    assert set(seen.values()) == {1}
    visits = Counter(epoch for _, epoch in seen)
    assert (visits[0], visits[1]) == (train.num_sketches, train.num_sketches)
    assert visits[2] == steps * 100 - 2 * train.num_sketches


def expect_no_reading_thread() -> None:
    # A thread that is told to stop finishes the batch it is reading.
    for thread in threading.enumerate():
        if thread.name.startswith(THREAD_NAME):
            thread.join(timeout=10)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]


def test_closing_ends_the_reading_thread(folder: str) -> None:
    batches = batches_of(folder, 0, prefetch=3)
    next(batches)
    assert [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]
    batches.close()
    expect_no_reading_thread()
    assert list(batches) == []


def test_forgetting_ends_the_reading_thread(folder: str) -> None:
    for _ in batches_of(folder, 0):
        break
    gc.collect()
    expect_no_reading_thread()


def test_closing_waits_for_nothing_and_reads_no_more(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: queue.SimpleQueue[int] = queue.SimpleQueue()
    go_on = threading.Event()
    real_read = ShardReader.read

    def read(self: ShardReader, sketches: IntArray, epoch: IntArray) -> PackedBatch:
        begun.put(len(sketches))
        if begun.qsize() > 1:
            go_on.wait(timeout=10)
        return real_read(self, sketches, epoch)

    monkeypatch.setattr(ShardReader, "read", read)
    batches = batches_of(folder, 0, prefetch=5)
    next(batches)
    while begun.qsize() < 2:
        time.sleep(0.001)
    batches.close()
    go_on.set()
    expect_no_reading_thread()
    assert begun.qsize() == 2


def test_batches_are_read_ahead(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()
    real_read = ShardReader.read

    def read(self: ShardReader, sketches: IntArray, epoch: IntArray) -> PackedBatch:
        asked.put(len(sketches))
        return real_read(self, sketches, epoch)

    monkeypatch.setattr(ShardReader, "read", read)
    with closing(batches_of(folder, 0, prefetch=3)) as batches:
        next(batches)
        # One was taken, three wait, whoever else is slow.
        assert [asked.get(timeout=10) for _ in range(4)] == [100] * 4
        with pytest.raises(queue.Empty):
            asked.get(timeout=0.05)


def test_an_error_while_reading_ahead_reaches_the_consumer(damaged: tuple[Path, Manifest]) -> None:
    shard, _ = damaged
    batches = batches_of(str(shard.parent), 0)
    next(batches)
    batches.close()
    shard.unlink()
    batches = batches_of(str(shard.parent), 0)
    with pytest.raises(DataError, match=f"^shard {shard} cannot be read"):
        next(batches)
    expect_no_reading_thread()


def test_fixed_batches_are_the_given_sketches_with_fixed_noise(folder: str) -> None:
    manifest = load_manifest(folder)
    reader = ShardReader(folder, manifest, "train", 9)
    sketches = np.arange(7, 1000, 9)
    batches = list(fixed_batches(reader, sketches, batch_size=50))
    assert [len(batch) for batch in batches] == [50, 50, 11]
    keys = reader.read(sketches, np.zeros_like(sketches)).key_id
    assert np.concatenate([batch.key_id for batch in batches]).tolist() == keys.tolist()
    assert set(np.concatenate([batch.epoch for batch in batches]).tolist()) == {FIXED_NOISE_EPOCH}
