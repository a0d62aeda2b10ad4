"""Real servers for the tests: nginx, an S3 endpoint, and a proxy in front of either that does what networks do.

Each is started and stopped by the fixture that gives it, on a free port of the loopback interface. The processes are
killed by the kernel when the tests' process dies, however it does.
"""

import contextlib
import dataclasses
import http.client
import http.server
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

_START_SECONDS = 60.0
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
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
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
    end = time.monotonic() + _START_SECONDS
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

    def serve(self, folder: Path, *, ranges: bool = True, headers: Mapping[str, str] | None = None) -> str:
        """Serve a folder until the test ends; its URL.

        Args:
            folder: what is served.
            ranges: False: a request for some bytes of a file gets all.
            headers: sent with every file.
        """
        if self._program is None:
            pytest.skip("nginx is not installed; install Debian's package nginx")
        program, state = self._program, self._state / uuid.uuid4().hex
        state.mkdir()
        options = [f"add_header {name} '{value}';" for name, value in (headers or {}).items()]
        if not ranges:
            options.append("max_ranges 0;")

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


@dataclass(frozen=True)
class Fault:
    """What happens to the answer to a request.

    Attributes:
        kind: "status": another status, with a page of HTML; "drop": no answer, the connection is closed. After some of
            the body, "reset": the connection is reset; "truncate": it is closed; "stall": nothing more comes; "garble":
            a byte is another.
        after: bytes of the body that come before; for "garble", those before the changed byte.
        status: for "status".
    """

    kind: Literal["status", "drop", "reset", "truncate", "stall", "garble"]
    after: int = 0
    status: int = 503


@dataclass(frozen=True)
class Request:
    """What a proxy was asked for.

    Attributes:
        method: GET or HEAD.
        path: with its query.
        range: the header, "" without.
        num_bytes: of the body that was sent.
    """

    method: str
    path: str
    range: str
    num_bytes: int = 0


Plan = Callable[[int], Fault | None] | Sequence[Fault | None]


@dataclass
class FaultyProxy:
    """A proxy that passes requests on, one after another with a number from 0, and spoils the answers by a plan.

    Attributes:
        upstream: host and port of the server behind it.
        plan: the fault of each request: a function of its number, or the faults of the first.
        url: its own.
        requests: those that it answered, in the order of their coming; the last are still being answered.
    """

    upstream: str
    plan: Plan
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def num_requests(self) -> int:
        """Requests that came."""
        return len(self.requests)

    @property
    def num_bytes(self) -> int:
        """Bytes of bodies that were sent."""
        return sum(request.num_bytes for request in self.requests)

    def follow(self, plan: Plan) -> None:
        """Forget the requests, and follow another plan."""
        with self.lock:
            self.requests, self.plan = [], plan

    def note(self, request: Request) -> tuple[int, Fault | None]:
        """Give a request its number and its fault."""
        with self.lock:
            number = len(self.requests)
            self.requests.append(request)
        if callable(self.plan):
            return number, self.plan(number)
        return number, self.plan[number] if number < len(self.plan) else None

    def count(self, number: int, num_bytes: int) -> None:
        """Count bytes of a request's answer."""
        with self.lock:
            # It may have been forgotten meanwhile.
            if number < len(self.requests):
                request = self.requests[number]
                self.requests[number] = dataclasses.replace(request, num_bytes=request.num_bytes + num_bytes)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    # Small answers would wait for the acknowledgement of their headers.
    disable_nagle_algorithm = True
    server: "_ProxyServer"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        proxy = self.server.proxy
        number, fault = proxy.note(Request(self.command, self.path, self.headers.get("Range", "")))
        if fault is not None and fault.kind == "status":
            page = b"<html><body>out of order</body></html>"
            self._begin(fault.status, [("Content-Type", "text/html"), ("Content-Length", str(len(page)))])
            self._send(number, page)
            return
        if fault is not None and fault.kind == "drop":
            self.close_connection = True
            return
        connection = http.client.HTTPConnection(proxy.upstream, timeout=_START_SECONDS)
        with contextlib.closing(connection):
            # Signatures of S3 are made for the host that was asked.
            connection.request(self.command, self.path, headers=dict(self.headers.items()))
            response = connection.getresponse()
            body = response.read()
        named = {"connection", "transfer-encoding", "server", "date"}
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in named]
        if response.chunked:
            headers.append(("Content-Length", str(len(body))))
        self._begin(response.status, headers)
        self._spoil(number, body, fault)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _send(self, number: int, body: bytes) -> None:
        if self.command == "HEAD":
            return
        for start in range(0, len(body), 2**16):
            piece = body[start : start + 2**16]
            self.wfile.write(piece)
            self.server.proxy.count(number, len(piece))

    def _spoil(self, number: int, body: bytes, fault: Fault | None) -> None:
        if fault is None:
            self._send(number, body)
            return
        if fault.kind == "garble":
            changed = bytearray(body)
            if fault.after < len(changed):
                changed[fault.after] ^= 0xFF
            self._send(number, bytes(changed))
            return
        self.close_connection = True
        self._send(number, body[: fault.after])
        if fault.kind == "stall":
            self.server.proxy.stopped.wait()
        if fault.kind == "reset":
            # No time to linger: what closes it is a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()


class _ProxyServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: FaultyProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that are killed or lose patience are what the tests are about.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def _proxying(url: str, plan: Plan) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(urllib.parse.urlsplit(url).netloc, plan)
    with _ProxyServer(proxy) as server:
        proxy.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="faulty-proxy")
        thread.start()
        try:
            yield proxy
        finally:
            proxy.stopped.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def faulty() -> Iterator[Callable[[str, Plan], FaultyProxy]]:
    """Starts a faulty proxy, given the URL of what is behind it and the plan of faults."""
    with contextlib.ExitStack() as stack:
        yield lambda url, plan: stack.enter_context(_proxying(url, plan))


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
