"""Reading given sketches in given batches, as validation and evaluation do, ahead of the computation."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sgloc.data.batch import FIXED_NOISE_EPOCH, concatenate
from sgloc.data.block import IntArray
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import load_manifest
from sgloc.data.reader import BadShardError, ShardReader
from sgloc.data.stream import fixed_batches
from tests.data.streams import IMPATIENT, SMALL, expect_equal, expect_no_reading_thread
from tests.drawings import make_drawings, write_ndjson


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of about 1400 training drawings, in blocks of 128."""
    folder = tmp_path_factory.mktemp("shards")
    write_ndjson(folder / "all.ndjson", make_drawings(1500))
    build_shards(str(folder / "all.ndjson"), str(folder / "out"), SMALL)
    return str(folder / "out")


def test_fixed_batches_are_the_given_sketches_with_fixed_noise(shards: str) -> None:
    manifest = load_manifest(shards)
    reader = ShardReader(shards, manifest, "train", 9)
    sketches = np.arange(7, 1000, 9)
    batches = list(fixed_batches(reader, sketches, batch_size=50))
    assert [len(batch) for batch in batches] == [50, 50, 11]
    keys = reader.read(sketches, np.zeros_like(sketches)).key_id
    assert np.concatenate([batch.key_id for batch in batches]).tolist() == keys.tolist()
    assert set(np.concatenate([batch.epoch for batch in batches]).tolist()) == {FIXED_NOISE_EPOCH}


def test_fixed_batches_of_any_sketches_are_what_the_reader_gives(shards: str) -> None:
    manifest = load_manifest(shards)
    # One block at a time, so that most are forgotten before they are wanted again.
    reader = ShardReader(shards, manifest, "train", num_kept_blocks=1)
    sketches = np.random.default_rng(0).integers(0, reader.num_sketches, 300)
    expected = ShardReader(shards, manifest, "train").read(sketches, np.full_like(sketches, FIXED_NOISE_EPOCH))
    expect_equal(concatenate(list(fixed_batches(reader, sketches, batch_size=70))), expected)
    expect_no_reading_thread()


def test_fixed_batches_are_read_ahead(shards: str, tmp_path: Path) -> None:
    copied = tmp_path / "out"
    shutil.copytree(shards, copied)
    manifest = load_manifest(shards)
    reader = ShardReader(str(copied), manifest, "train", options=IMPATIENT)
    with closing(fixed_batches(reader, np.arange(reader.num_sketches), batch_size=128)) as batches:
        next(batches)
        deadline = time.monotonic() + 10
        while reader.num_bytes_read < sum(manifest.splits["train"].shards[0].block_sizes[:3]):
            assert time.monotonic() < deadline, "nothing is read ahead"
            time.sleep(0.001)
        shutil.rmtree(copied)
        assert [len(next(batches)) for _ in range(2)] == [128, 128]
        with pytest.raises(BadShardError):
            list(batches)
    expect_no_reading_thread()


def test_fixed_batches_of_a_store_are_fetched_several_at_once(shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = load_manifest(shards)
    reader = ShardReader(shards, manifest, "train")
    monkeypatch.setattr(reader, "is_local", False)
    together, fetch_bytes = threading.Barrier(4), reader.fetch_bytes

    def fetch(block: int) -> bytes:
        # None of the first four is read before all are asked for.
        if block < 4:
            together.wait(timeout=30)
        return fetch_bytes(block)

    monkeypatch.setattr(reader, "fetch_bytes", fetch)
    assert sum(map(len, fixed_batches(reader, np.arange(reader.num_sketches), batch_size=100))) == reader.num_sketches


def test_sketches_can_be_read_by_several_threads_at_once(shards: str) -> None:
    manifest = load_manifest(shards)
    reader = ShardReader(shards, manifest, "train", num_kept_blocks=2)
    expected = {key: reader.read(key_sketches(key, reader), np.zeros(200, dtype=np.int64)).key_id for key in range(8)}
    with ThreadPoolExecutor(4) as threads:
        read = [
            threads.submit(reader.read, key_sketches(key % 8, reader), np.zeros(200, dtype=np.int64))
            for key in range(64)
        ]
    for number, future in enumerate(read):
        np.testing.assert_array_equal(future.result().key_id, expected[number % 8])


def key_sketches(seed: int, reader: ShardReader) -> IntArray:
    return np.random.default_rng(seed).integers(0, reader.num_sketches, 200)
