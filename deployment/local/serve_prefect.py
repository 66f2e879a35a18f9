"""Serves Prefect's API and UI on a loopback port, but only to programs on this machine and to Prefect's own web pages.

    python -m deployment.local.serve_prefect PORT

`prefect server start` runs the same app, but cannot restrict the accepted Host and Origin headers; see own_pages.py.
URLs in the log, which is written to a file, are redacted: after a failed notification, Prefect logs the webhook's URL,
which is a secret.
"""

import gc

if __name__ == "__main__":
    gc.disable()  # imports create hundreds of thousands of objects, none of which is garbage

import re
import sys
from typing import TextIO

from deployment.local.own_pages import own_pages_only
from deployment.local.ports import HOST

# A URL: the scheme, the password, the host and port, and the rest, which may contain a token.
_ADDRESS = re.compile(r"""([a-z][a-z0-9+.-]*://)(?:[^\s/?#'"]*@)?([^\s/?#'"@:]*(?::\d+\b)?)[^\s'"]*""", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return `text` with each URL reduced to its scheme, host and port."""
    return _ADDRESS.sub(r"\1\2/...", text)


class RedactedStream:
    """Writes text to `stream`, without the secrets that URLs may contain."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(without_secrets(text))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


if __name__ == "__main__":
    import uvicorn
    from prefect.server.api.server import create_app

    port = int(sys.argv[1])
    sys.stdout, sys.stderr = RedactedStream(sys.stdout), RedactedStream(sys.stderr)
    app = own_pages_only(create_app(final=True), port)
    gc.freeze()  # imported objects are never garbage
    gc.enable()
    uvicorn.run(app, host=HOST, port=port, log_level="warning")
