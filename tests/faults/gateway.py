"""A gateway between a worker and the Prefect server, which can delay or reject requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import httpx

_HOP_BY_HOP = {"transfer-encoding", "content-length", "content-encoding", "connection", "host"}


class Gateway:
    """A gateway to a Prefect server, and how it handles the next requests.

    Attributes:
        delay_seconds: the time that each request is delayed.
        refuse_next: a part of a path. The next request whose path contains it gets status 409.
        unknown: the end of a path. Requests for it get status 405, as from a server of another release.
        is_busy: whether every request gets status 503, as from an overloaded server.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removesuffix("/api")
        self.delay_seconds = 0.0
        self.refuse_next = ""
        self.unknown = ""
        self.is_busy = False
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Respond to one request, or forward it to the Prefect server."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if self.refuse_next and self.refuse_next in handler.path:
            self.refuse_next = ""
            _send(handler, 409, {}, b"")
            return
        if self.unknown and handler.path.endswith(self.unknown):
            _send(handler, 405, {}, b"")
            return
        if self.is_busy:
            _send(handler, 503, {"Retry-After": "1"}, b"")
            return
        time.sleep(self.delay_seconds)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in _HOP_BY_HOP}
        answer = httpx.request(handler.command, self.upstream + handler.path, headers=headers, content=body, timeout=30)
        _send(handler, answer.status_code, dict(answer.headers), answer.content)


def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        if name.lower() not in _HOP_BY_HOP:
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def gateway_to(upstream: str) -> Iterator[Gateway]:
    """Run a gateway to a Prefect API until the context ends."""
    gateway = Gateway(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            gateway.answer(self)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _any  # noqa: N815 (http.server's names)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    gateway.url = f"http://127.0.0.1:{server.server_port}{urlsplit(upstream).path}"
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
