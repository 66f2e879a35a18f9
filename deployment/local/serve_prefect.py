"""Serves Prefect's API and UI on a loopback port, to this machine's own pages and programs only.

    python -m deployment.local.serve_prefect PORT

`prefect server start` runs the same app, but has no setting for which Host and Origin it accepts. What it logs goes to
a file, and when a notification fails that includes the webhook's address, which is a secret.
"""

import re
import sys
from typing import TextIO

import uvicorn
from prefect.server.api.server import create_app

from deployment.local.own_pages import own_pages_only
from deployment.local.ports import HOST

# Scheme, password, host and port, and the rest, which may hold a token.
_ADDRESS = re.compile(r"""([a-z][a-z0-9+.-]*://)(?:[^\s/?#'"]*@)?([^\s/?#'"@:]*(?::\d+\b)?)[^\s'"]*""", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return `text` with only scheme and host of each address in it."""
    return _ADDRESS.sub(r"\1\2/...", text)


class RedactedStream:
    """A text stream that writes what it is given without the secrets in addresses."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(without_secrets(text))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


if __name__ == "__main__":
    port = int(sys.argv[1])
    sys.stdout, sys.stderr = RedactedStream(sys.stdout), RedactedStream(sys.stderr)
    uvicorn.run(own_pages_only(create_app(final=True), port), host=HOST, port=port, log_level="warning")
