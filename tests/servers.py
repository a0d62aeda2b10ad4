"""Real servers for tests: nginx and an S3 endpoint. `tests.faulty` can stand in front of either.

Each server is started and stopped by its fixture, on a free port of the loopback interface. The kernel kills it when
the test process dies for any reason.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE
from tests.ports import free_port

_STOP_SECONDS = 10.0
# Replaces itself with the command, which the kernel kills together with the test process.
_WITH_PARENT = (
    "import os, sys; from sgloc.orphan import die_with_parent; die_with_parent(); os.execv(sys.argv[1], sys.argv[1:])"
)

_NGINX_CONFIGURATION = """
daemon off;
master_process off;
pid {state}/nginx.pid;
error_log {state}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log {state}/access.log;
    default_type application/octet-stream;
    client_body_temp_path {state}/body;
    fastcgi_temp_path {state}/fastcgi;
    proxy_temp_path {state}/proxy;
    scgi_temp_path {state}/scgi;
    uwsgi_temp_path {state}/uwsgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder};
        autoindex on;
        {options}
    }}
}}
"""


@contextlib.contextmanager
def _running(command: Callable[[int], list[str]], log: Path) -> Iterator[int]:
    """Run a server while inside, and yield its port.

    Args:
        command: returns the program's path and its arguments, given a port.
        log: file for its output.
    """
    for _ in range(5):
        port = free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _WITH_PARENT, *command(port)], stdout=output, stderr=output
            )
        try:
            # Another program may have taken the port in the meantime.
            if _answers(process, port):
                yield port
                return
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    raise RuntimeError(f"{command(0)} did not start:\n{log.read_text()}")


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server accepts connections; return False if it exits first."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return process.poll() is None
        time.sleep(0.02)
    return False


class Nginx:
    """nginx servers, one per folder."""

    def __init__(self, state: Path, stack: contextlib.ExitStack) -> None:
        self._state, self._stack = state, stack
        self._program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

    def serve(
        self,
        folder: Path,
        *,
        ranges: bool = True,
        headers: Mapping[str, str] | None = None,
        password: str | None = None,
    ) -> str:
        """Serve a folder until the test ends; return its URL.

        Args:
            folder: folder to serve.
            ranges: whether to support range requests; False: a range request returns the complete file.
            headers: headers sent with every file.
            password: password required from the user `me`; None: no authentication.
        """
        if self._program is None:
            pytest.skip("nginx is not installed; run `make system-packages` as root to install it")
        program, state = self._program, self._state / uuid.uuid4().hex
        state.mkdir()
        options = [f"add_header {name} '{value}';" for name, value in (headers or {}).items()]
        if not ranges:
            options.append("max_ranges 0;")
        if password is not None:
            (state / "passwords").write_text(f"me:{{PLAIN}}{password}\n")
            options.append(f"auth_basic 'drawings'; auth_basic_user_file {state}/passwords;")

        def command(port: int) -> list[str]:
            configuration = _NGINX_CONFIGURATION.format(
                state=state, folder=folder, port=port, options=" ".join(options)
            )
            (state / "nginx.conf").write_text(configuration)
            return [program, "-p", str(state), "-e", str(state / "error.log"), "-c", str(state / "nginx.conf")]

        return f"http://127.0.0.1:{self._stack.enter_context(_running(command, state / 'output.log'))}"


@pytest.fixture
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """Yield a starter of nginx servers; the test is skipped if nginx is not installed."""
    with contextlib.ExitStack() as stack:
        yield Nginx(tmp_path_factory.mktemp("nginx"), stack)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of an in-memory S3 server."""

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    with _running(command, tmp_path_factory.mktemp("moto") / "output.log") as port:
        yield f"http://127.0.0.1:{port}"


@dataclass
class Bucket:
    """A bucket of an S3 server.

    Attributes:
        name: name of the bucket.
        endpoint: URL of the server.
        environment: changes to the environment, undone when the test ends.
    """

    name: str
    endpoint: str
    environment: pytest.MonkeyPatch

    @property
    def url(self) -> str:
        """URL of the bucket."""
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes, **options: Any) -> str:
        """Write an object, passing options to s3fs; return its URL."""
        self._direct().pipe_file(f"{self.name}/{key}", content, **options)
        return f"{self.url}/{key}"

    def go_through(self, endpoint: str) -> None:
        """Point s3:// at another endpoint, such as a proxy in front of this one."""
        import s3fs

        self.environment.setenv("AWS_ENDPOINT_URL", endpoint)
        # Cached instances keep the endpoint they were created with.
        s3fs.S3FileSystem.clear_instance_cache()

    def make(self) -> None:
        """Create the bucket."""
        self._direct().mkdir(self.name)

    def _direct(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(endpoint_url=self.endpoint)


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Yield an empty bucket of an S3 server that s3:// resolves to."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(f"test-{uuid.uuid4().hex}", s3_endpoint, monkeypatch)
    bucket.go_through(s3_endpoint)
    bucket.make()
    yield bucket
    bucket.go_through(s3_endpoint)
