"""The test servers themselves: they serve, fail as planned, and leave no process behind."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import fsspec.core
import pytest

from tests.faulty import Fault, FaultyProxy, Plan
from tests.patience import PATIENCE
from tests.servers import Bucket, Nginx

CONTENT = bytes(range(256)) * 1000


def get(url: str, header: str = "") -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={"Range": header} if header else {})
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return response.status, response.read()


@pytest.fixture
def url(nginx: Nginx, tmp_path: Path) -> str:
    """URL of a file with CONTENT."""
    (tmp_path / "file").write_bytes(CONTENT)
    return f"{nginx.serve(tmp_path)}/file"


def test_nginx_serves_ranges_or_does_not(nginx: Nginx, url: str, tmp_path: Path) -> None:
    assert get(url) == (200, CONTENT)
    assert get(url, "bytes=10-19") == (206, CONTENT[10:20])
    without = nginx.serve(tmp_path, ranges=False)
    assert get(f"{without}/file", "bytes=10-19") == (200, CONTENT)


def test_faults_come_as_planned_and_are_counted(url: str, faulty: Callable[[str, Plan], FaultyProxy]) -> None:
    proxy = faulty(
        url,
        [
            None,
            Fault("status", status=429),
            Fault("garble", after=7),
            Fault("truncate", after=100),
            Fault("reset", after=100),
            Fault("drop"),
        ],
    )
    assert get(f"{proxy.url}/file", "bytes=0-99") == (206, CONTENT[:100])
    with pytest.raises(urllib.error.HTTPError, match="429") as error:
        get(f"{proxy.url}/file")
    error.value.close()
    status, body = get(f"{proxy.url}/file")
    assert status == 200
    assert [place for place in range(len(CONTENT)) if body[place] != CONTENT[place]] == [7]
    with pytest.raises(http.client.IncompleteRead):
        get(f"{proxy.url}/file")
    with pytest.raises(ConnectionResetError):
        get(f"{proxy.url}/file")
    with pytest.raises(http.client.RemoteDisconnected):
        get(f"{proxy.url}/file")
    assert get(f"{proxy.url}/file") == (200, CONTENT)
    assert proxy.num_requests == 7
    assert (proxy.requests[0].method, proxy.requests[0].path) == ("GET", "/file")
    assert [request.range for request in proxy.requests] == ["bytes=0-99", "", "", "", "", "", ""]
    sent = [request.num_bytes for request in proxy.requests]
    assert sent == [100, sent[1], len(CONTENT), 100, 100, 0, len(CONTENT)]
    assert proxy.num_bytes == sum(sent)


def test_a_stalled_answer_stays_away(url: str, faulty: Callable[[str, Plan], FaultyProxy]) -> None:
    proxy = faulty(url, lambda number: Fault("stall", after=5) if number % 2 == 0 else None)
    with (
        urllib.request.urlopen(f"{proxy.url}/file", timeout=0.3) as response,
        pytest.raises(TimeoutError),
    ):
        response.read()
    assert get(f"{proxy.url}/file") == (200, CONTENT)


def test_s3_gives_back_what_is_put(s3: Bucket) -> None:
    url = s3.put("a folder/file", CONTENT)
    file_system, path = fsspec.core.url_to_fs(url)
    assert file_system.cat_file(path) == CONTENT
    assert file_system.ls(f"{s3.name}/a folder") == [path]


_SERVE_AND_WAIT = """
import contextlib, pathlib, sys, time
from tests.servers import Nginx
with contextlib.ExitStack() as stack:
    print(Nginx(pathlib.Path(sys.argv[1]), stack).serve(pathlib.Path(sys.argv[1])), flush=True)
    time.sleep(60)
"""


def test_a_killed_test_leaves_no_server(nginx: Nginx, tmp_path: Path) -> None:
    nginx.serve(tmp_path)
    with subprocess.Popen([sys.executable, "-c", _SERVE_AND_WAIT, str(tmp_path)], stdout=subprocess.PIPE) as test:
        assert test.stdout is not None
        port = int(test.stdout.readline().rpartition(b":")[2])
        socket.create_connection(("127.0.0.1", port)).close()
        os.kill(test.pid, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.02)
    pytest.fail("the server still answers")
