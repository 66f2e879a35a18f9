"""A local server that receives notifications by webhook."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver(ThreadingHTTPServer):
    """A server that keeps the JSON documents that are posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.received: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Return the URL to post to."""
        return f"http://127.0.0.1:{self.server_port}/hook"

    def notification_about(self, subject: str) -> dict[str, Any] | None:
        """Return the first notification whose subject contains `subject`, or None."""
        return next((message for message in list(self.received) if subject in message["subject"]), None)


class _Post(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.received.append(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Run a webhook receiver until the context ends."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
