"""Picks the loopback ports of the local cloud."""

from __future__ import annotations

import socket

from deployment.local.errors import PortTaken

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether nothing listens on `port`, be it on loopback or on every interface."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket() as probe:
        # Connections that ended a moment ago linger on the port of an earlier run; they are no reason to move.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port that the system says is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def choose(asked: int | None, preferred: list[int], purpose: str) -> int:
    """Return `asked` if it is free; without it the first free one of `preferred`, else any free port.

    Raises:
        PortTaken: the port that was asked for is in use.
    """
    if asked is not None:
        if is_free(asked):
            return asked
        raise PortTaken(
            f"Port {asked}, asked for {purpose}, is in use by another program. "
            f"Ask for another, or for none: a free one is chosen then."
        )
    return next((port for port in preferred if is_free(port)), None) or free_port()
