"""Treats all requests as if they were sent over TLS. MiniStack treats them as plain HTTP, which the template's policies
reject."""

from contextvars import ContextVar

from ministack import app
from ministack.core import iam_evaluator

_LOOPBACK = "127.0.0.1"


def install() -> None:
    pin = iam_evaluator.pin_request_origin

    def pin_as_secure(source_ip: str, secure_transport: bool) -> None:  # noqa: ARG001 (MiniStack's signature)
        pin(source_ip, True)

    app.pin_request_origin = pin_as_secure
    # A call by a schedule belongs to no request, so its origin is never set and this default applies.
    iam_evaluator._request_origin = ContextVar("request_origin", default=(_LOOPBACK, True))
