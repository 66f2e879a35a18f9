"""Refuses what other sites' pages send: an ASGI wrapper around the local servers, which take orders without a password.

A page in the user's browser can send requests to loopback addresses. CORS hides the answers from it, but the requests
still arrive; and a name that resolves to 127.0.0.1 (DNS rebinding) makes the page's own origin the server's. Neither
Prefect nor MiniStack has a setting for this. Standard library only: the embedded cloud's environment uses this as well.
https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Origin
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_Scope = MutableMapping[str, Any]
_App = Callable[[_Scope, Any, Any], Awaitable[None]]
_NAMES = ("127.0.0.1", "localhost")


def own_origins(port: int) -> list[str]:
    """Return the origins of the pages that the server on `port` gives."""
    return [f"http://{name}:{port}" for name in _NAMES]


def own_pages_only(app: _App, port: int) -> _App:
    """Return `app` such that it answers 403 to any other Host, and to pages of any other origin."""
    origins = own_origins(port)

    def is_refused(name: bytes, value: str) -> bool:
        if name.lower() == b"host":
            return value.partition(":")[0] not in _NAMES
        return name.lower() == b"origin" and value not in origins

    async def guarded(scope: _Scope, receive: Any, send: Any) -> None:
        if not any(is_refused(name, value.decode("latin-1").lower()) for name, value in scope.get("headers", [])):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"Only this machine's own pages and programs may ask.\n"})

    return guarded
