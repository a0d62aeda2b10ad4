"""The on-disk cache of blocks."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from sgloc.data.cache import BlockCache
from sgloc.errors import ConfigError
from tests.forking import FORKING
from tests.patience import PATIENCE

BLOCK = b"x" * 1000
OWN = "sgloc-blocks"


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = BlockCache(str(tmp_path / "cache"), 10**6)
    assert cache.get("a/b/1") is None
    cache.put("a/b/1", b"one")
    cache.put("a/b/2", b"two")
    assert (cache.get("a/b/1"), cache.get("a/b/2")) == (b"one", b"two")
    # Another process on the node finds it too.
    assert BlockCache(str(tmp_path / "cache"), 10**6).get("a/b/1") == b"one"
    cache.drop("a/b/1")
    cache.drop("a/b/1")
    assert cache.get("a/b/1") is None


def test_the_oldest_goes_when_the_limit_is_reached(tmp_path: Path) -> None:
    cache = BlockCache(str(tmp_path), 64_000)
    for number in range(200):
        cache.put(f"shard/{number}", BLOCK)
        assert size_of(tmp_path) <= 64_000
        # Set modification times explicitly: not every file system resolves them finely enough.
        os.utime(tmp_path / OWN / "shard" / str(number), (number, number))
        if number >= 10:
            assert cache.get("shard/3") == BLOCK, "a block in use was evicted"
            os.utime(tmp_path / OWN / "shard" / "3", (number, number))
    assert cache.get("shard/199") == BLOCK
    assert cache.get("shard/100") is None
    assert size_of(tmp_path) > 32_000


def test_a_cache_that_is_too_large_from_before_shrinks_at_once(tmp_path: Path) -> None:
    BlockCache(str(tmp_path), 10**6).put("old/1", b"x" * 100_000)
    BlockCache(str(tmp_path), 50_000).put("new/1", BLOCK)
    assert size_of(tmp_path) == len(BLOCK)


def fill(folder: str, limit: int, process: int) -> None:
    cache = BlockCache(folder, limit)
    number = 0
    while True:
        # Half of the blocks are requested by all processes.
        name = f"shard/{process if number % 2 else 'all'}-{number % 300}"
        content = cache.get(name)
        assert content in (None, BLOCK), "a block written by another process was read incomplete"
        if content is None:
            cache.put(name, BLOCK)
        number += 1


def test_nothing_but_blocks_is_deleted(tmp_path: Path) -> None:
    # Users may choose a folder that contains files of their own.
    (tmp_path / "thesis.doc").write_bytes(b"x" * 100_000)
    cache = BlockCache(str(tmp_path), 50_000)
    for number in range(100):
        cache.put(f"shard/{number}", BLOCK)
    assert (tmp_path / "thesis.doc").stat().st_size == 100_000
    assert size_of(tmp_path) <= 150_000


def test_what_is_too_large_for_the_limit_is_not_kept(tmp_path: Path) -> None:
    cache = BlockCache(str(tmp_path), 5000)
    cache.put("shard/1", BLOCK)
    assert cache.get("shard/1") is None
    assert size_of(tmp_path) == 0


def test_killed_processes_leave_nothing_that_stops_others(tmp_path: Path) -> None:
    # Twice, four processes that write to and evict from one folder are killed in mid-operation.
    limit = 200_000
    for _ in range(2):
        workers = [FORKING.Process(target=fill, args=(str(tmp_path), limit, number)) for number in range(4)]
        for worker in workers:
            worker.start()
        deadline = time.monotonic() + PATIENCE
        while size_of_racing(tmp_path) < limit / 2:
            assert time.monotonic() < deadline, "the workers have not filled half of the cache in time"
            assert all(worker.is_alive() for worker in workers)
        for _ in range(20):
            assert size_of_racing(tmp_path) <= limit
            time.sleep(0.02)
        assert all(worker.is_alive() for worker in workers)
        for worker in workers:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
    # A partial file left by a killed process is evicted by age like any other.
    (tmp_path / OWN / "shard" / "1-1.77-3").write_bytes(b"half")
    os.utime(tmp_path / OWN / "shard" / "1-1.77-3", (1, 1))
    cache = BlockCache(str(tmp_path), limit)
    for number in range(200):
        cache.put(f"new/{number}", BLOCK)
    assert not (tmp_path / OWN / "shard" / "1-1.77-3").exists()
    assert size_of(tmp_path) <= limit


def size_of_racing(folder: Path) -> int:
    """Like `size_of`, for a folder whose files appear and disappear meanwhile."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(parent) / name).stat().st_size
    return total


def test_threads_of_a_process_share_it(tmp_path: Path) -> None:
    cache, failures = BlockCache(str(tmp_path), 50_000), []

    def work(number: int) -> None:
        for block in range(200):
            cache.put(f"{number}/{block % 40}", BLOCK)
            if cache.get(f"{number}/{block % 40}") not in (None, BLOCK):
                failures.append((number, block))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert size_of(tmp_path) <= 50_000


def test_a_block_that_others_delete_before_it_has_its_name_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = BlockCache(str(tmp_path), 10**6)
    write = Path.write_bytes

    def write_and_lose(path: Path, content: bytes) -> int:
        size = write(path, content)
        path.unlink()
        return size

    monkeypatch.setattr(Path, "write_bytes", write_and_lose)
    cache.put("a/1", BLOCK)
    assert cache.get("a/1") is None


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot create the cache .*file/cache .* another data\.cache"):
        BlockCache(str(tmp_path / "file" / "cache"), 1000)


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    cache = BlockCache(str(tmp_path / "cache"), 10**6)
    (tmp_path / "cache" / OWN / "a").write_text("a file where a folder is needed")
    with pytest.raises(OSError, match="a"):
        cache.put("a/1", BLOCK)
    assert [path.name for path in (tmp_path / "cache" / OWN).iterdir()] == ["a"]
