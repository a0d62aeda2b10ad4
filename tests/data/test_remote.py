"""Reading from servers that fail: transient errors are retried, permanent ones are reported at once."""

import concurrent.futures
import errno
import functools
import gzip
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from sgloc.errors import DataError
from sgloc.storage import DamagedReadError, Retries, is_transient, open_file_system, read_range, retry_reading
from tests.faulty import Fault, FaultyProxy, Plan
from tests.servers import Bucket, Nginx

CONTENT = bytes(range(256)) * 1000
# A busy machine needs more than a second for an answer.
FAST = Retries(num_attempts=3, first_delay=0.01, longest_delay=0.02, timeout=3.0)

Faulty = Callable[[str, Plan], FaultyProxy]


@pytest.fixture
def url(nginx: Nginx, tmp_path: Path) -> str:
    """URL of a folder with a file named `file` that contains CONTENT."""
    (tmp_path / "file").write_bytes(CONTENT)
    return nginx.serve(tmp_path)


def read(location: str, start: int = 10, stop: int = 1000, timeout: float = FAST.timeout) -> bytes:
    file_system, path = open_file_system(location, timeout)
    return read_range(file_system, path, start, stop)


def failure(location: str) -> Exception:
    """Return the exception raised by reading a location."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 (which is what the tests look at)
        read(location)
    assert isinstance(raised.value, Exception)
    return raised.value


def always(fault: Fault, number: int) -> Fault:
    """A plan, once its first argument is bound."""
    del number
    return fault


# Faults of a network, and of a server that will recover.
PASSING = [
    Fault("status", status=500),
    Fault("status", status=502),
    Fault("status", status=503),
    Fault("status", status=504),
    Fault("status", status=408),
    Fault("status", status=425),
    Fault("status", status=429),
    Fault("drop"),
    Fault("reset"),
    Fault("reset", after=100),
    Fault("truncate", after=100),
    Fault("stall"),
    Fault("stall", after=100),
]
LASTING = [Fault("status", status=status) for status in (400, 401, 403, 404, 410, 416)]


def test_http_errors_that_pass_and_that_last(url: str, faulty: Faulty) -> None:
    proxy = faulty(url, [])
    for fault in PASSING + LASTING:
        proxy.follow(functools.partial(always, fault))
        error = failure(f"{proxy.url}/file")
        assert is_transient(error) is (fault in PASSING), (fault, error)


def test_s3_errors_that_pass_and_that_last(s3: Bucket, faulty: Faulty) -> None:
    location = s3.put("file", CONTENT)
    proxy = faulty(s3.endpoint, [])
    s3.go_through(proxy.url)
    for fault in PASSING + LASTING:
        proxy.follow(functools.partial(always, fault))
        error = failure(location)
        assert is_transient(error) is (fault in PASSING), (fault, error)
        # No layer below retries by itself, which would cost a time-out per retry if the server is silent. The
        # exception is aiohttp, when a connection closes before the response.
        assert proxy.num_requests <= (2 if fault.kind == "drop" else 1), fault


def test_a_server_that_is_not_there_may_come_back(s3: Bucket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert is_transient(failure(f"{address}/file"))
    s3.go_through(address)
    assert is_transient(failure(f"{s3.url}/file"))


def test_a_name_that_is_not_found_may_be_found_later() -> None:
    assert is_transient(failure("http://nobody.invalid/file"))


@pytest.mark.parametrize("num_bytes", [1, 10_000])
def test_encryption_that_is_cut_off_may_pass(num_bytes: int) -> None:
    # Closing a connection with unread data resets it.
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection = listener.accept()[0]
            connection.recv(num_bytes)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = failure(f"https://127.0.0.1:{listener.getsockname()[1]}/file")
        thread.join()
    assert is_transient(error), error


def test_encryption_that_is_none_lasts(url: str) -> None:
    error = failure(f"{url.replace('http:', 'https:')}/file")
    assert not is_transient(error), error


def test_a_file_that_fsspec_calls_missing_for_a_server_out_of_order_may_come_back(url: str, faulty: Faulty) -> None:
    for fault, may_come_back in ((Fault("status", status=503), True), (Fault("status", status=404), False)):
        file_system, path = open_file_system(f"{faulty(url, [fault] * 10).url}/file")
        with pytest.raises(FileNotFoundError) as raised:
            file_system.info(path)
        assert is_transient(raised.value) is may_come_back


def test_what_is_missing_forbidden_or_wrong_lasts(s3: Bucket, tmp_path: Path) -> None:
    assert not is_transient(failure(f"{s3.url}/missing"))
    assert not is_transient(failure("s3://no-such-bucket/file"))
    assert not is_transient(failure(str(tmp_path / "missing")))
    assert not is_transient(failure(str(tmp_path)))
    assert not is_transient(failure("memory://missing"))
    assert not is_transient(PermissionError(errno.EACCES, "no"))
    assert not is_transient(OSError(errno.ENOSPC, "full"))
    assert not is_transient(ValueError("a mistake"))
    assert not is_transient(KeyError("a mistake"))


def test_local_errors_of_a_network_pass() -> None:
    for number in (errno.ECONNRESET, errno.ETIMEDOUT, errno.ESTALE, errno.EIO):
        assert is_transient(OSError(number, os.strerror(number)))
    assert is_transient(TimeoutError())
    assert is_transient(ConnectionResetError())
    assert is_transient(DamagedReadError("short"))


def test_ranges_come_exactly(url: str, s3: Bucket, tmp_path: Path) -> None:
    with fsspec.open("memory://folder/file", "wb") as file:
        file.write(CONTENT)
    places = [f"{url}/file", s3.put("file", CONTENT), str(tmp_path / "file"), "memory://folder/file"]
    for location in places:
        assert read(location, 300, 700) == CONTENT[300:700]
        assert read(location, 0, len(CONTENT)) == CONTENT
        assert read(location, 5, 5) == b""
        with pytest.raises(DamagedReadError, match=f"received {len(CONTENT) - 9} bytes .* instead of {len(CONTENT)}"):
            read(location, 9, len(CONTENT) + 9)


def test_a_server_without_ranges_sends_the_file(nginx: Nginx, url: str, tmp_path: Path) -> None:
    del url
    file_system, path = open_file_system(f"{nginx.serve(tmp_path, ranges=False)}/file")
    assert read_range(file_system, path, 300, 700) == CONTENT[300:700]
    assert read_range(file_system, path, 300, 700, file_size=len(CONTENT)) == CONTENT[300:700]
    # If the file's length differs from the expected one, its bytes may differ too.
    with pytest.raises(DamagedReadError):
        read_range(file_system, path, 300, 700, file_size=len(CONTENT) + 1)


def test_what_is_stored_packed_is_not_unpacked(nginx: Nginx, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT, mtime=0)
    (tmp_path / "file.gz").write_bytes(packed)
    server = nginx.serve(tmp_path, headers={"Content-Encoding": "gzip"})
    assert read(f"{server}/file.gz", 0, len(packed)) == packed


def test_a_time_out_is_kept(url: str, faulty: Faulty) -> None:
    proxy = faulty(url, [Fault("stall")])
    with pytest.raises(TimeoutError):
        read(f"{proxy.url}/file", timeout=0.2)
    # Each time-out needs its own file system.
    first, second = (open_file_system(proxy.url, timeout)[0] for timeout in (1.0, 2.0))
    assert first is not second
    assert first is open_file_system(proxy.url, 1.0)[0]


def test_what_passes_is_retried_and_told(url: str, faulty: Faulty, logged: list[str]) -> None:
    proxy = faulty(url, [Fault("status", status=503), Fault("truncate", after=3)])
    assert retry_reading(lambda: read(f"{proxy.url}/file"), "the shard", FAST) == CONTENT[10:1000]
    assert proxy.num_requests == 3
    first, second = logged
    assert first.startswith("the shard cannot be read (HTTP status 503 ")
    assert "attempt 2 of 3 follows in 0.0" in first
    assert "attempt 3 of 3" in second


def test_what_does_not_pass_in_time_is_an_error(url: str, faulty: Faulty, logged: list[str]) -> None:
    proxy = faulty(url, lambda _: Fault("status", status=500))
    with pytest.raises(DataError, match=r"^the shard cannot be read after 3 attempts \(HTTP status 500 .*\); check"):
        retry_reading(lambda: read(f"{proxy.url}/file"), "the shard", FAST)
    assert (proxy.num_requests, len(logged)) == (3, 2)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(404, "the shard does not exist; check the path"), (403, "HTTP status 403 .* check its permissions")],
)
def test_what_lasts_is_an_error_at_once(
    url: str, faulty: Faulty, status: int, sentence: str, logged: list[str]
) -> None:
    proxy = faulty(url, lambda _: Fault("status", status=status))
    with pytest.raises(DataError, match=sentence) as raised:
        retry_reading(lambda: read(f"{proxy.url}/file"), "the shard", FAST)
    assert raised.value.__cause__ is not None
    assert (proxy.num_requests, logged) == (1, [])


def test_an_error_that_says_what_to_do_is_neither_reworded_nor_retried(logged: list[str]) -> None:
    def fail() -> None:
        raise DataError("the disk is full; make room") from DamagedReadError("short")

    with pytest.raises(DataError, match=r"^the disk is full; make room$"):
        retry_reading(fail, "the shard", FAST)
    assert logged == []


def test_delays_grow_and_end() -> None:
    retries = Retries(first_delay=0.5, longest_delay=30.0)
    for attempt, longest in ((1, 0.5), (2, 1.0), (4, 4.0), (7, 30.0), (5000, 30.0)):
        delays = {retries.delay(attempt) for _ in range(50)}
        assert longest / 2 <= min(delays) < max(delays) <= longest


def test_a_protocol_that_is_not_there_is_told() -> None:
    with pytest.raises(DataError, match="nonsense://a cannot be opened"):
        open_file_system("nonsense://a")
    with pytest.raises(DataError, match="needs a package"):
        open_file_system("dropbox://a")


def test_threads_read_side_by_side(url: str, s3: Bucket) -> None:
    for location in (f"{url}/file", s3.put("file", CONTENT)):
        file_system, path = open_file_system(location)

        def part(number: int, file_system: AbstractFileSystem = file_system, path: str = path) -> bytes:
            return read_range(file_system, path, 100 * number, 100 * number + 100)

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            assert b"".join(threads.map(part, range(200))) == CONTENT[:20000]


def _send_range(sender: Connection, file_system: AbstractFileSystem, path: str) -> None:
    sender.send_bytes(read_range(file_system, path, 10, 1000))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_file_system_outlives_a_fork_and_a_spawn(url: str, s3: Bucket, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    for location in (f"{url}/file", s3.put("file", CONTENT)):
        file_system, path = open_file_system(location)
        read_range(file_system, path, 0, 5)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send_range, args=(sender, file_system, path), daemon=True)
        process.start()
        sender.close()
        try:
            assert receiver.poll(30)
            assert receiver.recv_bytes() == CONTENT[10:1000]
        finally:
            process.kill()
            process.join()
            receiver.close()
