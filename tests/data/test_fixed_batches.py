"""Fixed batches of given sketches, read ahead of the computation, as in validation and evaluation."""

import shutil
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sgloc.data.batch import FIXED_NOISE_EPOCH, concatenate
from sgloc.data.build.run import build_shards
from sgloc.data.manifest import load_manifest
from sgloc.data.reader import BadShardError, ShardReader
from sgloc.data.stream import fixed_batches
from tests.builds import read_sketches
from tests.data.streams import IMPATIENT, SMALL, expect_equal, expect_no_reading_thread
from tests.drawings import make_drawings, write_ndjson


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of about 1400 training drawings in blocks of 128."""
    folder = tmp_path_factory.mktemp("shards")
    write_ndjson(folder / "all.ndjson", make_drawings(1500))
    build_shards(str(folder / "all.ndjson"), str(folder / "out"), SMALL)
    return str(folder / "out")


def test_fixed_batches_are_the_given_sketches_with_fixed_noise(shards: str) -> None:
    manifest = load_manifest(shards)
    reader = ShardReader(shards, manifest, "train")
    sketches = np.arange(7, 1000, 9)
    batches = list(fixed_batches(reader, sketches, batch_size=50))
    assert [len(batch) for batch in batches] == [50, 50, 11]
    keys = read_sketches(reader, sketches).key_id
    assert np.concatenate([batch.key_id for batch in batches]).tolist() == keys.tolist()
    assert set(np.concatenate([batch.epoch for batch in batches]).tolist()) == {FIXED_NOISE_EPOCH}


def test_fixed_batches_of_any_sketches_are_what_the_reader_gives(shards: str) -> None:
    manifest = load_manifest(shards)
    reader = ShardReader(shards, manifest, "train")
    sketches = np.random.default_rng(0).integers(0, reader.num_sketches, 300)
    expected = read_sketches(reader, sketches, np.full_like(sketches, FIXED_NOISE_EPOCH))
    # With small batches, blocks are evicted before they are needed again.
    for batch_size in (1, 70, 300, 1000):
        expect_equal(concatenate(list(fixed_batches(reader, sketches, batch_size=batch_size))), expected)
    expect_no_reading_thread()


def test_no_sketches_are_no_batches(shards: str) -> None:
    reader = ShardReader(shards, load_manifest(shards), "train")
    assert list(fixed_batches(reader, np.arange(0), batch_size=70)) == []


def test_a_block_is_read_once_for_the_batches_that_need_it_in_a_row(shards: str) -> None:
    manifest = load_manifest(shards)
    reader = ShardReader(shards, manifest, "train")
    assert sum(map(len, fixed_batches(reader, np.arange(reader.num_sketches), batch_size=50))) == reader.num_sketches
    assert reader.num_bytes_read == sum(sum(shard.block_sizes) for shard in manifest.splits["train"].shards)


def test_fixed_batches_are_read_ahead(shards: str, tmp_path: Path) -> None:
    copied = tmp_path / "out"
    shutil.copytree(shards, copied)
    manifest = load_manifest(shards)
    reader = ShardReader(str(copied), manifest, "train", options=IMPATIENT)
    with closing(fixed_batches(reader, np.arange(reader.num_sketches), batch_size=128)) as batches:
        next(batches)
        deadline = time.monotonic() + 10
        while reader.num_bytes_read < sum(manifest.splits["train"].shards[0].block_sizes[:3]):
            assert time.monotonic() < deadline, "no block was read ahead"
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
        # The first four blocks must be requested together before any of them is returned.
        if block < 4:
            together.wait(timeout=30)
        return fetch_bytes(block)

    monkeypatch.setattr(reader, "fetch_bytes", fetch)
    assert sum(map(len, fixed_batches(reader, np.arange(reader.num_sketches), batch_size=100))) == reader.num_sketches
