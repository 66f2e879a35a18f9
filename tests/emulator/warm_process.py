"""Forks processes that have made their heavy imports already: what importing takes is most of a small task's time.

Runs in the project's environment. Prefect reads the environment when it is imported: a forked process lets it read its
task's variables, as a fresh one does.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import sys
from pathlib import Path
from typing import Any

from tests.warm import import_all, take_environment

_IN_IMAGE = {"blocks", "flows", "lambda_trigger", "stepfunctions"}


def main() -> None:
    """Answer requests until the other end closes, and become the requested module in each forked process."""
    import_all()
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
    if request["cwd"] != str(Path.cwd()):
        _take_code_of(request["cwd"])
    take_environment(request["environment"])
    output = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    module, *arguments = request["arguments"]
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _take_code_of(folder: str) -> None:
    """Import the project from now on from `folder`, the code of an image."""
    os.chdir(folder)
    sys.path[0] = folder
    for name in [name for name in sys.modules if name.partition(".")[0] in _IN_IMAGE]:
        del sys.modules[name]


if __name__ == "__main__":
    main()
