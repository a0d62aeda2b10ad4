"""Real servers for the tests: nginx and an S3 endpoint; `tests.faulty` stands in front of either.

Each is started and stopped by the fixture that gives it, on a free port of the loopback interface. The processes are
killed by the kernel when the tests' process dies, however it does.
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
# Becomes the command, which the kernel kills with the tests' process.
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
    """Run a server while inside, and give its port.

    Args:
        command: given a port, the program's path and its arguments.
        log: where what it prints goes.
    """
    for _ in range(5):
        port = free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", _WITH_PARENT, *command(port)], stdout=output, stderr=output
            )
        try:
            # Another program may have taken the port meanwhile.
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
    raise RuntimeError(f"{command(0)} does not start:\n{log.read_text()}")


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a server takes connections; False if it ends before."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return process.poll() is None
        time.sleep(0.02)
    return False


class Nginx:
    """nginx servers, each of one folder."""

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
        """Serve a folder until the test ends; its URL.

        Args:
            folder: what is served.
            ranges: False: a request for some bytes of a file gets all.
            headers: sent with every file.
            password: what the user `me` has to give; None: nobody is asked.
        """
        if self._program is None:
            pytest.skip("nginx is not installed; `make system-packages` as root installs it")
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
    """Starts nginx; the test is skipped where it is not installed."""
    with contextlib.ExitStack() as stack:
        yield Nginx(tmp_path_factory.mktemp("nginx"), stack)


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 server, kept in memory."""

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    with _running(command, tmp_path_factory.mktemp("moto") / "output.log") as port:
        yield f"http://127.0.0.1:{port}"


@dataclass
class Bucket:
    """A bucket of an S3 server.

    Attributes:
        name: of the bucket.
        endpoint: URL of the server.
        environment: set until the test ends.
    """

    name: str
    endpoint: str
    environment: pytest.MonkeyPatch

    @property
    def url(self) -> str:
        """The bucket's."""
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes, **options: Any) -> str:
        """Write an object, with options of s3fs; its URL."""
        self._direct().pipe_file(f"{self.name}/{key}", content, **options)
        return f"{self.url}/{key}"

    def go_through(self, endpoint: str) -> None:
        """From now on, let s3:// mean another server's, such as that of a proxy in front of this one."""
        import s3fs

        self.environment.setenv("AWS_ENDPOINT_URL", endpoint)
        # They would keep the one that they were made for.
        s3fs.S3FileSystem.clear_instance_cache()

    def make(self) -> None:
        """Make the bucket."""
        self._direct().mkdir(self.name)

    def _direct(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(endpoint_url=self.endpoint)


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket of an S3 server, to which s3:// leads."""
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
