"""A proxy that injects network faults into the responses of a real server."""

import contextlib
import dataclasses
import http.client
import http.server
import socket
import struct
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

_ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Fault:
    """A fault injected into one response.

    Attributes:
        kind: "status": respond with another status and an HTML page; "drop": close the connection without a response.
            After part of the body, "reset": reset the connection; "truncate": close it; "stall": send nothing more;
            "garble": flip one byte.
        after: number of bytes of the body sent first; for "garble", the index of the flipped byte.
        status: status code for "status".
    """

    kind: Literal["status", "drop", "reset", "truncate", "stall", "garble"]
    after: int = 0
    status: int = 503


@dataclass(frozen=True)
class Request:
    """A request that the proxy received.

    Attributes:
        method: GET or HEAD.
        path: path and query.
        range: Range header, or "".
        num_bytes: number of bytes of the body sent so far.
    """

    method: str
    path: str
    range: str
    num_bytes: int = 0


Plan = Callable[[int], Fault | None] | Sequence[Fault | None]


@dataclass
class FaultyProxy:
    """A proxy that numbers the requests it forwards from 0 and injects faults into the responses by a plan.

    Attributes:
        upstream: host and port of the real server.
        plan: the fault of each request: a function of its number, or a list for the first requests.
        url: URL of the proxy.
        requests: requests in order of arrival; the last may still be in progress.
    """

    upstream: str
    plan: Plan
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def num_requests(self) -> int:
        """Number of requests received."""
        return len(self.requests)

    @property
    def num_bytes(self) -> int:
        """Number of bytes of response bodies sent."""
        return sum(request.num_bytes for request in self.requests)

    def follow(self, plan: Plan) -> None:
        """Clear the recorded requests and switch to another plan."""
        with self.lock:
            self.requests, self.plan = [], plan

    def note(self, request: Request) -> tuple[int, Fault | None]:
        """Record a request; return its number and its fault."""
        with self.lock:
            number = len(self.requests)
            self.requests.append(request)
        if callable(self.plan):
            return number, self.plan(number)
        return number, self.plan[number] if number < len(self.plan) else None

    def count(self, number: int, num_bytes: int) -> None:
        """Add to the number of bytes sent for a request."""
        with self.lock:
            # `follow` may have cleared the request meanwhile.
            if number < len(self.requests):
                request = self.requests[number]
                self.requests[number] = dataclasses.replace(request, num_bytes=request.num_bytes + num_bytes)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    # Otherwise a small body waits until its headers are acknowledged.
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
        connection = http.client.HTTPConnection(proxy.upstream, timeout=_ANSWER_SECONDS)
        with contextlib.closing(connection):
            # Forward the Host header: S3 signatures cover it.
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
            # Count before sending, so that a client with the complete body finds it counted.
            self.server.proxy.count(number, len(piece))
            self.wfile.write(piece)

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
            # A linger time of zero turns the close into a reset.
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
        # Tests kill clients and let them time out on purpose.
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
    """Return a function that starts a faulty proxy from the upstream URL and the plan of faults."""
    with contextlib.ExitStack() as stack:
        yield lambda url, plan: stack.enter_context(_proxying(url, plan))
