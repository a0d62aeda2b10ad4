"""Streaming shards from real servers, with and without faults."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

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
from sgloc.storage import Retries
from tests.data.streams import expect_equal
from tests.drawings import make_drawings, write_ndjson
from tests.faulty import Fault, FaultyProxy, Plan
from tests.servers import Bucket, Nginx

RETRIES = Retries(num_attempts=5, first_delay=0.01, longest_delay=0.05, timeout=3.0)
# One of eight concurrent readers may receive several of the spoilt responses in a row.
PATIENT = dataclasses.replace(RETRIES, num_attempts=20)
NUM_BATCHES = 40
Faulty = Callable[[str, Plan], FaultyProxy]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of about 3700 training drawings: 15 files of two blocks each."""
    folder = tmp_path_factory.mktemp("shards")
    write_ndjson(folder / "cat.ndjson", make_drawings(4000, ["cat"]))
    options = BuildOptions(sketches_per_shard=256, sketches_per_block=128)
    build_shards(str(folder / "cat.ndjson"), str(folder / "out"), options)
    return folder / "out"


def open_stream(
    location: str, manifest: Manifest, options: ReadOptions, *, rank: int = 0, world_size: int = 1
) -> tuple[ShardReader, Iterator[PackedBatch]]:
    reader = ShardReader(location, manifest, "train", options=options)
    sizes = [shard.num_sketches for shard in reader.shards]
    order = Order(sizes, manifest.sketches_per_block, 1, num_streams=16)
    return reader, training_batches(reader, order, Share(96, rank, world_size), prefetch=1, num_threads=0)


def expect_same_stream(location: str, folder: Path, options: ReadOptions) -> ShardReader:
    """Assert that an epoch streamed from a server equals the same epoch read from disk."""
    manifest = load_manifest(location, options.retries)
    reader, remote = open_stream(location, manifest, options)
    _, local = open_stream(str(folder), manifest, ReadOptions())
    with closing(remote), closing(local):  # type: ignore[type-var]
        for found, expected in itertools.islice(zip(remote, local, strict=True), NUM_BATCHES):
            expect_equal(found, expected)
    return reader


@pytest.mark.parametrize("ranges", [True, False])
def test_a_web_server(nginx: Nginx, folder: Path, ranges: bool) -> None:
    reader = expect_same_stream(nginx.serve(folder, ranges=ranges), folder, ReadOptions(RETRIES))
    assert reader.num_retries == 0


def test_an_s3_server(s3: Bucket, folder: Path) -> None:
    for path in folder.iterdir():
        s3.put(f"quickdraw/{path.name}", path.read_bytes())
    reader = expect_same_stream(f"{s3.url}/quickdraw", folder, ReadOptions(RETRIES))
    assert reader.num_retries == 0


FAULTS = [
    Fault("status", status=503),
    Fault("reset", after=100),
    Fault("truncate", after=300),
    Fault("garble", after=500),
    Fault("status", status=429),
    Fault("reset"),
]


def test_every_third_answer_is_spoilt(nginx: Nginx, faulty: Faulty, folder: Path, logged: list[str]) -> None:
    proxy = faulty(nginx.serve(folder), lambda number: None if number % 3 else FAULTS[number // 3 % len(FAULTS)])
    reader = expect_same_stream(proxy.url, folder, ReadOptions(PATIENT))
    # Every kind of fault occurred and was logged; retries of the manifest are not the reader's.
    retried = [sentence for sentence in logged if "manifest.json" not in sentence]
    assert proxy.num_requests > 3 * len(FAULTS)
    assert reader.num_retries == len(retried) >= len(FAULTS)
    for word in ("503", "429", "checksum", "attempt 2 of 20 follows"):
        assert any(word in sentence for sentence in retried), word


def test_a_server_that_stalls_is_asked_again(nginx: Nginx, faulty: Faulty, folder: Path) -> None:
    proxy = faulty(nginx.serve(folder), lambda number: Fault("stall", after=1000) if number == 5 else None)
    reader = expect_same_stream(proxy.url, folder, ReadOptions(RETRIES))
    assert reader.num_retries == 1


def test_s3_faults_are_ridden_out(s3: Bucket, faulty: Faulty, folder: Path) -> None:
    for path in folder.iterdir():
        s3.put(f"quickdraw/{path.name}", path.read_bytes())
    proxy = faulty(s3.endpoint, lambda number: FAULTS[number // 4 % 4] if number % 4 == 3 else None)
    s3.go_through(proxy.url)
    reader = expect_same_stream(f"{s3.url}/quickdraw", folder, ReadOptions(PATIENT))
    assert reader.num_retries > 0


@pytest.mark.parametrize("fault", [Fault("status", status=500), Fault("garble", after=50), Fault("truncate", after=50)])
def test_a_shard_that_stays_bad_is_told(nginx: Nginx, faulty: Faulty, folder: Path, fault: Fault) -> None:
    manifest = load_manifest(str(folder))
    proxy = faulty(nginx.serve(folder), lambda _: fault)
    _, batches = open_stream(proxy.url, manifest, ReadOptions(RETRIES))
    with pytest.raises(BadShardError, match=r"^block \d of shard http://.*\.tar .* 5 attempts"):
        next(batches)


def test_a_missing_shard_is_told_at_once(nginx: Nginx, folder: Path, tmp_path: Path) -> None:
    reader, batches = open_stream(nginx.serve(tmp_path), load_manifest(str(folder)), ReadOptions(RETRIES))
    with pytest.raises(BadShardError, match=r"^block \d of shard http://.*\.tar .* does not exist"):
        next(batches)
    assert reader.num_retries == 0


def test_the_manifest_is_tried_again_too(nginx: Nginx, faulty: Faulty, folder: Path) -> None:
    proxy = faulty(nginx.serve(folder), FAULTS[:3])
    assert load_manifest(proxy.url, RETRIES) == load_manifest(str(folder))
    with pytest.raises(DataError, match=r"manifest\.json does not exist; give a folder that `sgloc shard` wrote"):
        load_manifest(f"{proxy.url}/nowhere", RETRIES)


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_ranks_ask_a_server_for_their_part(nginx: Nginx, faulty: Faulty, folder: Path, world_size: int) -> None:
    manifest = load_manifest(str(folder))
    sizes = [sum(shard.block_sizes) for shard in manifest.splits["train"].shards]
    proxy = faulty(nginx.serve(folder), [])
    _, batches = open_stream(proxy.url, manifest, ReadOptions(RETRIES), rank=world_size - 1, world_size=world_size)
    with closing(batches):  # type: ignore[type-var]
        next(batches)
        first = proxy.num_bytes
    # Wherever it starts, a rank requests the blocks of its current streams and of the next spans.
    assert first <= 2.5 * sum(sizes) / world_size
    assert {request.range.partition("=")[0] for request in proxy.requests} == {"bytes"}


def test_what_was_read_once_comes_from_the_cache(nginx: Nginx, faulty: Faulty, folder: Path, tmp_path: Path) -> None:
    proxy = faulty(nginx.serve(folder), [])
    manifest = load_manifest(str(folder))
    options = ReadOptions(RETRIES, BlockCache(str(tmp_path / "cache"), 10**8))

    def stream(rank: int, num_epochs: int) -> None:
        _, batches = open_stream(proxy.url, manifest, options, rank=rank, world_size=2)
        with closing(batches):  # type: ignore[type-var]
            for _ in range(num_epochs * NUM_BATCHES):
                next(batches)

    # Within a few epochs half of the streams visit every block.
    stream(0, 8)
    asked = {(request.path, request.range) for request in proxy.requests}
    assert len(asked) == sum(len(shard.block_sizes) for shard in manifest.splits["train"].shards)
    num_requests = proxy.num_requests
    # Another process on the node, with another rank.
    stream(1, 2)
    assert proxy.num_requests == num_requests
