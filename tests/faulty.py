"""A proxy in front of a real server that does to its answers what networks do."""

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
        connection = http.client.HTTPConnection(proxy.upstream, timeout=_ANSWER_SECONDS)
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
            # Before it is sent: whoever has it all finds it counted.
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
