"""Runs a Prefect server as the local cloud does, and counts the requests to it.

    python -m tests.benchmarks.counted_prefect PORT

GET /counted-requests returns {"METHOD path": count}, where the IDs in paths are replaced by {id}. Requests with the
user agent BENCH_AGENT are not counted.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any

from deployment.local.own_pages import own_pages_only
from deployment.local.ports import HOST

COUNTS_PATH = "/counted-requests"
BENCH_AGENT = "sluice-bench"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def counted(app: Any) -> Any:
    """Wrap an ASGI app so that the requests to it are counted. A websocket counts as one request."""
    requests: Counter[str] = Counter()

    async def counting(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif scope["path"] == COUNTS_PATH:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(requests).encode()})
        else:
            if dict(scope["headers"]).get(b"user-agent") != BENCH_AGENT.encode():
                method = scope.get("method", "WEBSOCKET")
                requests[f"{method} {_ID.sub('{id}', scope['path'])}"] += 1
            await app(scope, receive, send)

    return counting


if __name__ == "__main__":
    import uvicorn
    from prefect.server.api.server import create_app

    port = int(sys.argv[1])
    app = counted(own_pages_only(create_app(final=True), port))
    uvicorn.run(app, host=HOST, port=port, log_level="warning")
