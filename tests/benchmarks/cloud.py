"""Serves the local cloud for benchmarks. Objects in its landing bucket may be larger than any disk.

    python -m tests.benchmarks.cloud PORT FOLDER MINISTACK_PORT

The content of an object in the landing bucket comes from the file in FOLDER that is named by the last part of the key.
For an object `…/200x-NAME`, it is the header of the file NAME, followed by all other lines 200 times, each time with
different order IDs. Parts of multipart uploads are discarded. All other requests go to MiniStack, an AWS emulator.
"""

from __future__ import annotations

import http.client
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LANDING, PUBLISHED = "landing", "published"
VERSION_ID = "1"
_CHUNK_BYTES = 1 << 20
_REPEATED = re.compile(r"(\d+)x-(.+)")
_BEFORE_AN_ID = (b"\n", b'{"Order ID":"')
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "server", "date"}


class LandingObject:
    """An object in the landing bucket, which is read in byte ranges. Its content is a file, or a file whose lines are
    repeated."""

    def __init__(self, folder: Path, name: str) -> None:
        found = _REPEATED.fullmatch(name)
        self._path = folder / (found[2] if found else name)
        self._is_repeated = bool(found)
        with self._path.open("rb") as file:
            self._header = len(file.readline()) if found else 0
        self._body = self._path.stat().st_size - self._header
        self.size = self._header + (int(found[1]) if found else 1) * self._body

    def read(self, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes from `first` to `last`, inclusive, in blocks."""
        while first <= last:
            found = self._from(first)[: last + 1 - first]
            first += len(found)
            yield found

    def _from(self, first: int) -> bytes:
        """Return a block of bytes that begins at `first`."""
        if self._is_repeated and first >= self._header:
            turn, place = divmod(first - self._header, self._body)
            return _repetition(self._path, self._header, turn)[place:]
        with self._path.open("rb") as file:
            file.seek(first)
            return file.read((self._header - first) if self._is_repeated else _CHUNK_BYTES)


@lru_cache(maxsize=4)
def _repetition(path: Path, header: int, turn: int) -> bytes:
    """Return the lines of a file after its header, with order IDs that no other repetition of these lines has."""
    lines, number = path.read_bytes()[header:], b"%05d" % turn
    for before in _BEFORE_AN_ID:
        lines = lines.replace(before + b"00000", before + number)
    return lines


class Cloud(BaseHTTPRequestHandler):
    """Answers the HTTP requests of one connection."""

    protocol_version = "HTTP/1.1"
    folder, ministack_port = Path(), 0

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith(f"/{LANDING}/") and self.command in ("GET", "HEAD"):
            self._send_object(LandingObject(self.folder, path.rpartition("/")[2]))
        elif self.command == "PUT" and "partNumber=" in query:
            left = int(self.headers["Content-Length"])
            while left:
                left -= len(self.rfile.read(min(left, _CHUNK_BYTES)))
            self._forward(b"x", {})
        else:
            self._forward(self.rfile.read(int(self.headers.get("Content-Length") or 0)), dict(self.headers))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 (http.server's names)

    def _send_object(self, stored: LandingObject) -> None:
        first, last, status = 0, stored.size - 1, 200
        headers = {"ETag": '"e"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", "x-amz-version-id": VERSION_ID}
        if "Range" in self.headers:
            begin, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
            first, last, status = int(begin), min(last, int(end or last)), 206
            headers["Content-Range"] = f"bytes {first}-{last}/{stored.size}"
        self._send(status, headers, size=last + 1 - first)
        if self.command == "GET":
            for chunk in stored.read(first, last):
                self.wfile.write(chunk)

    def _forward(self, body: bytes, headers: dict[str, str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.ministack_port, timeout=60)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        found = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        self._send(answer.status, found, answer.read(), int(answer.headers.get("Content-Length") or 0))
        connection.close()

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"", size: int = 0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) or size))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Discard the log line that the base class would print for a request."""


if __name__ == "__main__":
    Cloud.folder, Cloud.ministack_port = Path(sys.argv[2]), int(sys.argv[3])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Cloud).serve_forever()
