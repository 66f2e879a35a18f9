"""Forks processes that have made their heavy imports already: what importing takes is most of a small task's time.

Runs in the project's environment. It imports nothing that reads the environment when imported, Prefect above all, so a
forked process configures itself from its task's variables as a fresh one does.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import socket
import sys
import tempfile
from typing import Any

from flows.refinery.validate.gx import gx

# What Prefect and the pipeline import besides; without one of them a process only starts later.
_IMPORTED = """
    boto3 botocore.session griffe h2 httpx jinja2 jsonschema opentelemetry.trace pendulum prometheus_client
    pyarrow.parquet pydantic_settings rich.console ruamel.yaml sqlalchemy websockets
"""


def main() -> None:
    """Answer requests until the other end closes, and become the requested module in each forked process."""
    gx()
    for name in _IMPORTED.split():
        importlib.import_module(name)
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        while received := requests.recv(1 << 20):
            request = json.loads(received)
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                # The task itself is a grandchild: its parent ends, and the emulator, a subreaper, becomes its parent.
                task = os.fork()
                if task == 0:
                    break
                os.write(writer, str(task).encode())
                os._exit(0)
            os.waitpid(child, 0)
            requests.send(os.read(reader, 100))
            os.close(reader)
            os.close(writer)
        else:
            return
    _become(request)


def _become(request: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # it belongs to the environment
    output = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    module, *arguments = request["arguments"]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
