"""Serves Prefect's API and UI on a loopback port, to this machine's own pages and programs only.

    python -m deployment.local.serve_prefect PORT

`prefect server start` runs the same app, but has no setting for which Host and Origin it accepts.
"""

from __future__ import annotations

import sys

import uvicorn
from prefect.server.api.server import create_app

from deployment.local.own_pages import own_pages_only
from deployment.local.ports import HOST

if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(own_pages_only(create_app(final=True), port), host=HOST, port=port, log_level="warning")
