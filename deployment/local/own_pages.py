"""An ASGI wrapper for the local servers, which need no password. It rejects requests from other sites' web pages.

Any web page in the user's browser can send requests to loopback addresses. CORS hides the responses from the page, but
the requests still arrive. With a host name that resolves to 127.0.0.1 (DNS rebinding), the page even has the server's
origin. Neither Prefect nor MiniStack has a setting that prevents this. This module must import only the standard
library, because the AWS emulator's Python environment uses it too.
https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Origin
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_Scope = MutableMapping[str, Any]
_App = Callable[[_Scope, Any, Any], Awaitable[None]]
_NAMES = ("127.0.0.1", "localhost")


def own_origins(port: int) -> list[str]:
    """Return the origins of the pages that the local server on `port` serves."""
    return [f"http://{name}:{port}" for name in _NAMES]


def own_pages_only(app: _App, port: int) -> _App:
    """Return `app` wrapped so that a request with a foreign Host or Origin header gets the status 403."""
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
            await send(
                {
                    "type": "http.response.body",
                    "body": b"Only requests from this machine's own pages and programs are allowed.\n",
                }
            )

    return guarded
