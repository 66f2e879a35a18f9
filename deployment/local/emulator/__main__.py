"""Starts the AWS emulator: sets MiniStack's environment variables, installs the patches, serves requests, and writes a
file when it is ready."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployment.local.emulator import containers

_HOST = "127.0.0.1"
# Each patch covers one difference from AWS. If two replace the same function, the later one calls the earlier one.
PATCHES = (
    "transport",
    "task_roles",
    "execution_role",
    "template_secrets",
    "template_boundaries",
    "task_stop",
    "state_machine_role",
    "run_task_sync",
    "start_execution",
    "execution_end",
    "execution_timeout",
    "schedules",
    "message_moves",
    "version_ranges",
    "condition_keys",
    "task_arns",
    "batch_calls",
    "durability",
)
# How long tasks may take to end before the emulator, which they still use, stops.
_TASK_GRACE_SECONDS = 8.0
_SHUTDOWN_SECONDS = 10.0


def main() -> None:
    """Run the AWS emulator until SIGTERM or SIGINT."""
    options = _options()
    state = options.state.resolve()
    listener = _listen(options.ports)
    _set_environment(state, listener.getsockname()[1], options)
    docker = _docker() if options.docker else None
    stand_in = containers.Containers(state, options.task_path, options.region)
    if docker is None:
        containers.install(stand_in)
    # The patches are imported only now, because they import ministack, which then reads the environment.
    logging.getLogger("persistence").setLevel(logging.WARNING)  # otherwise MiniStack logs every file at every save
    for name in PATCHES:
        importlib.import_module(f"deployment.local.emulator.{name}").install()
    for extension in options.extensions:
        importlib.import_module(extension).install(state)
    end_tasks = stand_in.close
    if docker is not None:
        from deployment.local.emulator.docker_tasks import DockerTasks

        end_tasks = DockerTasks(docker, state, options.region).close
    asyncio.run(_serve(listener, end_tasks, state / "cloud" / "ready.json"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="deployment.local.emulator", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="the state folder")
    parser.add_argument("--ports", type=int, nargs="+", default=[0], help="the first free port is used; 0 means any")
    parser.add_argument("--region", required=True)
    parser.add_argument("--task-path", required=True, help="the PATH of the tasks' processes")
    parser.add_argument("--wait-scale", type=float, default=1.0, help="a factor for the waits of state machines")
    parser.add_argument("--extensions", nargs="*", default=[], help="modules with a function install(state), for tests")
    parser.add_argument("--docker", action="store_true", help="run tasks in a real Docker engine")
    return parser.parse_args()


def _listen(ports: list[int]) -> socket.socket:
    """Return a loopback socket that listens on the first free port. This must happen before MiniStack is imported,
    because it then reads the port."""
    for port in ports:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, port))
            listener.listen(128)
        except OSError:
            listener.close()
        else:
            return listener
    sys.exit(f"none of these ports is free: {', '.join(map(str, ports))}")


def _set_environment(state: Path, port: int, options: argparse.Namespace) -> None:
    temporary = state / "cloud" / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    os.environ.update(
        GATEWAY_PORT=str(port),
        MINISTACK_HOST="127.0.0.1",
        MINISTACK_REGION=options.region,
        AUTH="true",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",  # noqa: S106 (the credentials of MiniStack's root user)
        # With a limit, MiniStack would drop an asynchronous event after three throttles, but AWS retries for hours.
        LAMBDA_ACCOUNT_CONCURRENCY="0",
        IOT_MTLS_ENABLED="0",  # otherwise MiniStack opens an additional port
        SFTP_ENABLED="0",
        PERSIST_STATE="1",
        STATE_DIR=str(state / "cloud" / "state"),
        S3_PERSIST="1",
        S3_DATA_DIR=str(state / "cloud" / "s3"),
        SFN_WAIT_SCALE=str(options.wait_scale),
        TMPDIR=str(temporary),
    )
    if options.docker:
        os.environ["MINISTACK_DOCKER_TIMEOUT"] = "120"  # because a busy engine may take longer than the default of 10 s
    else:
        os.environ["HOSTNAME"] = containers.OWN_HOST_NAME


def _docker() -> Any:
    """Return a client for the Docker engine; exit with a message if the engine does not respond, because MiniStack
    would then report tasks as running without running them."""
    try:
        client = importlib.import_module("docker").from_env(timeout=None)  # mypy runs where docker is not installed
        client.ping()
    except Exception as error:  # noqa: BLE001 (docker's errors have no common base class that is known here)
        sys.exit(f"SLUICE_DOCKER=1 needs a Docker engine, but none responds: {error}")
    return client


async def _serve(listener: socket.socket, end_tasks: Callable[[float], None], ready: Path) -> None:
    # hypercorn is installed in the emulator's Python environment, where mypy does not run.
    from hypercorn.asyncio import serve  # type: ignore[import-not-found]
    from hypercorn.config import Config  # type: ignore[import-not-found]
    from ministack import app

    from deployment.local.emulator import durability, state_machine_role
    from deployment.local.own_pages import own_pages_only

    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    asked_to_stop, stop_serving = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    guarded = own_pages_only(app.app, listener.getsockname()[1])
    server = asyncio.create_task(serve(guarded, config, shutdown_trigger=stop_serving.wait))
    await asyncio.wait([asyncio.create_task(_answers()), server], return_when=asyncio.FIRST_COMPLETED)
    durability.resume_executions()
    durability.save_periodically()
    partial = ready.with_suffix(".partial")
    partial.write_text(json.dumps({"port": listener.getsockname()[1]}))
    partial.replace(ready)
    await asyncio.wait([asyncio.create_task(asked_to_stop.wait()), server], return_when=asyncio.FIRST_COMPLETED)
    state_machine_role.freeze()
    # The server keeps running, because the tasks still need it to return their messages.
    await asyncio.to_thread(end_tasks, _TASK_GRACE_SECONDS)
    stop_serving.set()
    await asyncio.wait([server], timeout=_SHUTDOWN_SECONDS)
    sys.stdout.flush()
    os._exit(0)  # frozen executions never return


async def _answers() -> None:
    """Wait until MiniStack responds to a request, which means that it has loaded its state."""
    port = int(os.environ["GATEWAY_PORT"])
    reader, writer = await asyncio.open_connection(_HOST, port)
    writer.write(b"GET /_ministack/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    await writer.drain()
    await reader.readline()
    writer.close()


if __name__ == "__main__":
    main()
