"""Chooses the loopback ports of the local cloud."""

import socket

from deployment.local.errors import PortTaken

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether `port` is free: no program listens on it, neither on loopback nor on all interfaces."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket() as probe:
        # Connections of an earlier run may still be in TIME_WAIT, which does not prevent the port from being used.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def choose(asked: int | None, preferred: list[int], purpose: str) -> int:
    """Return the port `asked` or, if it is None, the first free port in `preferred` or any free port. Raise PortTaken
    if `asked` is in use; its message names the `purpose` of the port."""
    if asked is not None:
        if is_free(asked):
            return asked
        raise PortTaken(
            f"Port {asked}, requested for {purpose}, is in use by another program. "
            f"Request another port, or omit the option to use any free port."
        )
    return next((port for port in preferred if is_free(port)), None) or free_port()
