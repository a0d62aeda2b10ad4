"""Streaming sketches from shards, read ahead of the training step."""

import gc
import itertools
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sgloc.data.batch import PackedBatch
from sgloc.data.build.plan import BuildOptions
from sgloc.data.build.run import build_shards
from sgloc.data.cache import BlockCache
from sgloc.data.manifest import Manifest, load_manifest
from sgloc.data.order import Order
from sgloc.data.reader import BadShardError, ReadOptions, ShardReader
from sgloc.data.stream import Share, training_batches
from sgloc.errors import DataError
from tests.builds import read_block, read_sketches
from tests.data.streams import IMPATIENT, SMALL, THREAD_NAMES, expect_equal, expect_no_reading_thread, sketches_at
from tests.drawings import make_drawings, stroke3_of, write_ndjson, write_npz
from tests.patience import PATIENCE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of about 1400 training drawings in blocks of 128, four blocks per shard."""
    folder = tmp_path_factory.mktemp("shards")
    write_ndjson(folder / "all.ndjson", make_drawings(1500))
    build_shards(str(folder / "all.ndjson"), str(folder / "out"), SMALL)
    return str(folder / "out")


@pytest.fixture
def damaged(folder: str, tmp_path: Path) -> tuple[Path, Manifest]:
    """A copy of the shards that a test may damage: path of the first training shard, and manifest."""
    shutil.copytree(folder, tmp_path / "out")
    manifest = load_manifest(folder)
    return tmp_path / "out" / manifest.splits["train"].shards[0].path, manifest


def order_of(manifest: Manifest, skipped: tuple[int, ...] = (), num_streams: int = 8) -> Order:
    sizes = [shard.num_sketches for shard in manifest.splits["train"].shards]
    return Order(sizes, manifest.sketches_per_block, 3, num_streams=num_streams, skipped_shards=skipped)


def batches_of(
    folder: str, start: int, *, rank: int = 0, world_size: int = 1, prefetch: int = 2, num_threads: int = 2
) -> Generator[PackedBatch, None, None]:
    manifest = load_manifest(folder)
    reader = ShardReader(folder, manifest, "train", options=IMPATIENT)
    share = Share(100, rank, world_size, start)
    return training_batches(reader, order_of(manifest), share, prefetch=prefetch, num_threads=num_threads)


@pytest.mark.parametrize("num_streams", [1, 8, 64])
@pytest.mark.parametrize("num_threads", [1, 8])
def test_the_stream_is_the_order(folder: str, num_streams: int, num_threads: int) -> None:
    # Three epochs, read in growing spans, compared with the sketches that the order names, read one by one.
    manifest = load_manifest(folder)
    order, reader = order_of(manifest, num_streams=num_streams), ShardReader(folder, manifest, "train")
    for rank, world_size in ((0, 1), (1, 3)):
        share = Share(70, rank, world_size, 700)
        with closing(training_batches(reader, order, share, prefetch=1, num_threads=num_threads)) as batches:
            for number, found in enumerate(itertools.islice(batches, 3 * reader.num_sketches // 70)):
                places = order.share(700 + 70 * number, 1, 70, rank, world_size)
                expect_equal(found, read_sketches(reader, sketches_at(order, places), places.epoch))


def test_a_split_without_drawings_is_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "cat.npz", train=[stroke3_of([[(1, 2)]])])
    manifest = build_shards(str(tmp_path / "cat.npz"), str(tmp_path / "out"))
    with pytest.raises(DataError, match=r"the valid split of .*out is empty"):
        ShardReader(str(tmp_path / "out"), manifest, "valid")


def read_all(shard: Path, manifest: Manifest) -> None:
    reader = ShardReader(str(shard.parent), manifest, "train", IMPATIENT)
    read_sketches(reader, np.arange(reader.num_sketches))


@pytest.mark.parametrize("block", [0, 2])
def test_a_flipped_bit_is_found_and_placed(damaged: tuple[Path, Manifest], block: int) -> None:
    shard, manifest = damaged
    described = manifest.splits["train"].shards[0]
    content = bytearray(shard.read_bytes())
    start = described.block_offsets[block]
    for place in range(start + 300, start + 700, 97):  # among the offsets
        content[place] ^= 4
        shard.write_bytes(content)
        with pytest.raises(DataError, match=f"^block {block} of shard {shard} "):
            read_all(shard, manifest)
        content[place] ^= 4
    shard.write_bytes(content)
    read_all(shard, manifest)


def test_a_missing_shard_is_told(damaged: tuple[Path, Manifest]) -> None:
    shard, manifest = damaged
    shard.unlink()
    with pytest.raises(DataError, match=f"^block . of shard {shard} "):
        read_all(shard, manifest)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_truncated_shard_is_told(damaged: tuple[Path, Manifest], block: int) -> None:
    shard, manifest = damaged
    described = manifest.splits["train"].shards[0]
    start, size = described.block_offsets[block], described.block_sizes[block]
    content = shard.read_bytes()
    for length in (start, start + 1, start + size // 2, start + size - 1):
        shard.write_bytes(content[:length])
        with pytest.raises(DataError, match=f"^block {block} of shard {shard} "):
            read_all(shard, manifest)


def test_a_shard_of_another_build_is_told(damaged: tuple[Path, Manifest], folder: str) -> None:
    shard, manifest = damaged
    shard.write_bytes((Path(folder) / "valid-00000-00000.tar").read_bytes())
    with pytest.raises(DataError, match=f"shard {shard}"):
        read_all(shard, manifest)


def test_a_bad_block_names_its_shard_and_is_not_tried_again(damaged: tuple[Path, Manifest], logged: list[str]) -> None:
    shard, manifest = damaged
    content = bytearray(shard.read_bytes())
    content[manifest.splits["train"].shards[0].block_offsets[1] + 400] ^= 1
    shard.write_bytes(content)
    reader = ShardReader(str(shard.parent), manifest, "train")
    with pytest.raises(BadShardError, match=f"^block 1 of shard {shard} .* is damaged") as error:
        read_block(reader, 1)
    assert error.value.shard == 0
    assert (reader.num_retries, logged) == (0, [])
    assert len(read_block(reader, 0)) == 128


def test_what_was_read_is_cached_and_checked(damaged: tuple[Path, Manifest], tmp_path: Path, logged: list[str]) -> None:
    shard, manifest = damaged
    options = ReadOptions(cache=BlockCache(str(tmp_path / "cache"), 10**7))
    reader = ShardReader(str(shard.parent), manifest, "train", options=options)
    first = read_block(reader, 0)
    read = reader.num_bytes_read
    assert read == manifest.splits["train"].shards[0].block_sizes[0]
    # Another process on the node.
    again = ShardReader(str(shard.parent), manifest, "train", options=options)
    expect_equal(read_block(again, 0), first)
    assert again.num_bytes_read == 0
    (cached,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    for damage in (b"", cached.read_bytes()[:-1], cached.read_bytes()[:-1] + b"x"):
        cached.write_bytes(damage)
        expect_equal(read_block(again, 0), first)
    assert again.num_bytes_read == 3 * read
    assert len(logged) == 3
    assert all("is damaged; fetching it again" in sentence for sentence in logged)


def test_a_cache_that_cannot_be_written_is_told_and_done_without(
    folder: str, tmp_path: Path, logged: list[str]
) -> None:
    options = ReadOptions(cache=BlockCache(str(tmp_path / "cache"), 10**7))
    (tmp_path / "cache" / "sgloc-blocks" / load_manifest(folder).identity[:16]).write_text("in the way")
    reader = ShardReader(folder, load_manifest(folder), "train", options=options)
    assert len(read_block(reader, 0)) == 128
    (sentence,) = logged
    assert "cannot cache " in sentence


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_skipped_shards_are_never_touched(damaged: tuple[Path, Manifest], world_size: int) -> None:
    shard, manifest = damaged
    shard.unlink()
    order, seen = order_of(manifest, skipped=(0,)), Counter[int]()
    steps = -(-manifest.splits["train"].num_sketches // 100)
    for rank in range(world_size):
        reader = ShardReader(str(shard.parent), manifest, "train", options=IMPATIENT)
        with closing(
            training_batches(reader, order, Share(100, rank, world_size), prefetch=1, num_threads=1)
        ) as batches:
            for batch in itertools.islice(batches, steps):
                seen.update(batch.key_id.tolist())
    sizes = [shard.num_sketches for shard in manifest.splits["train"].shards]
    assert len(seen) == sum(sizes[1:])
    assert seen.total() == 100 * steps


class CountingReader(ShardReader):
    """Counts the bytes of the first epoch only, excluding those read ahead for the next."""

    num_bytes_of_epoch = 0

    def unpack(self, content: bytes, block: int, epoch: int) -> PackedBatch:
        self.num_bytes_of_epoch += len(content) * (epoch == 0)
        return super().unpack(content, block, epoch)


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_a_rank_reads_about_its_part_of_the_bytes(tmp_path: Path, world_size: int) -> None:
    # Each of eight ranks has two streams of about 520 sketches, or 16 blocks, and shares the blocks at their ends.
    write_ndjson(tmp_path / "cat.ndjson", make_drawings(8900, ["cat"]))
    options = BuildOptions(sketches_per_shard=256, sketches_per_block=32)
    manifest = build_shards(str(tmp_path / "cat.ndjson"), str(tmp_path / "out"), options)
    train, parts = manifest.splits["train"], []
    for rank in range(world_size):
        reader = CountingReader(str(tmp_path / "out"), manifest, "train")
        share = Share(96, rank, world_size)
        order = order_of(manifest, num_streams=16)
        with closing(training_batches(reader, order, share, prefetch=1, num_threads=1)) as batches:
            for _ in range(-(-train.num_sketches // 96)):
                next(batches)
        expect_no_reading_thread()
        parts.append(reader.num_bytes_of_epoch / sum(sum(shard.block_sizes) for shard in train.shards))
    assert sum(parts) >= 1
    assert max(parts) <= 1.1 / world_size


@pytest.mark.parametrize("start", [100, 1300, 1400, 2900])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (1, 3)])
def test_starting_at_a_place_equals_skipping_to_it(folder: str, start: int, rank: int, world_size: int) -> None:
    # Independent of the read-ahead distance. An epoch has about 1400 drawings, so the batch at 1400 straddles its end.
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


def test_closing_ends_the_reading_thread(folder: str) -> None:
    batches = batches_of(folder, 0, prefetch=3)
    next(batches)
    assert [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAMES)]
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
    real_fetch, seen = ShardReader.fetch_bytes, set[int]()

    def fetch(self: ShardReader, block: int) -> bytes:
        # A repeated read belongs to the second epoch.
        if block in seen:
            begun.put(block)
            go_on.wait(timeout=PATIENCE)
        seen.add(block)
        return real_fetch(self, block)

    monkeypatch.setattr(ShardReader, "fetch_bytes", fetch)
    batches = batches_of(folder, 0, prefetch=100, num_threads=2)
    next(batches)
    while begun.qsize() < 2:
        time.sleep(0.001)
    batches.close()
    go_on.set()
    expect_no_reading_thread()
    assert begun.qsize() == 2


def test_a_read_that_hangs_does_not_keep_the_process_from_ending(damaged: tuple[Path, Manifest]) -> None:
    shard, _ = damaged
    # Opening a FIFO for reading blocks until somebody writes.
    shard.unlink()
    os.mkfifo(shard)
    script = f"""
from sgloc.data.manifest import load_manifest
from sgloc.data.order import Order
from sgloc.data.reader import ShardReader
from sgloc.data.stream import Share, training_batches
import threading
manifest = load_manifest({str(shard.parent)!r})
reader = ShardReader({str(shard.parent)!r}, manifest, "train")
batches = training_batches(reader, Order.of_training(manifest, 0), Share(4), prefetch=1, num_threads=1)
threading.Thread(target=next, args=(batches,), daemon=True).start()
while not any(thread.name.startswith("sgloc-fetch") for thread in threading.enumerate()):
    pass
print("at its end", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "at its end\n", "")


def test_batches_are_read_ahead(damaged: tuple[Path, Manifest]) -> None:
    shard, manifest = damaged
    reader = ShardReader(str(shard.parent), manifest, "train", options=IMPATIENT)
    with closing(training_batches(reader, order_of(manifest), Share(100), prefetch=3, num_threads=2)) as batches:
        next(batches)
        # A few batches touch every block of an epoch; reading ahead then reads the blocks again for the next batches.
        deadline = time.monotonic() + PATIENCE
        while reader.num_bytes_read < 2 * sum(sum(one.block_sizes) for one in manifest.splits["train"].shards):
            assert time.monotonic() < deadline, "no batch was read ahead"
            time.sleep(0.001)
        shutil.rmtree(shard.parent)
        assert [len(next(batches)) for _ in range(3)] == [100] * 3
        with pytest.raises(BadShardError):
            list(itertools.islice(batches, 1000))


def test_an_error_while_reading_ahead_reaches_the_consumer(damaged: tuple[Path, Manifest]) -> None:
    shard, _ = damaged
    batches = batches_of(str(shard.parent), 0)
    next(batches)
    batches.close()
    shard.unlink()
    batches = batches_of(str(shard.parent), 0)
    with pytest.raises(DataError, match=f"^block . of shard {shard} "):
        next(batches)
    expect_no_reading_thread()
