"""Forks child processes from a process that has already made their heavy imports, which saves time in tests.

A warm process makes the imports once, and a command such as `python -m MODULE` then runs in a fork of it. A forked
process behaves like a normal one: it has a separate process ID, session, environment, streams and exit code, is a child
of the process that asked for it, and can be killed. Commands that cannot be forked are started as usual, and so are all
commands on systems other than Linux.

This module imports only the standard library, because MiniStack's environment has nothing else.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from shutil import which
from typing import Any, NoReturn
from unittest import mock

_ROOT = Path(__file__).parents[1]
_SOCKET_VARIABLE = "SLUICE_TESTS_WARM_PROCESS"
_PR_SET_CHILD_SUBREAPER = 36
_KEEPER = "deployment.local.keeper"
_SUPERVISOR = "prefect.runner._workspace_supervisor"  # prepares a worker's run, and then calls `exec` to become the run
_OF_PROJECT = {"blocks", "deployment", "flows", "lambda_trigger", "stepfunctions"}
_PlainPopen = subprocess.Popen
WARM = "warm"  # the name of a warm process in /proc


@dataclass(frozen=True)
class _Program:
    """What a forked process should run: a command, with its environment, its folder and whether it starts a session."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    session: bool

    @property
    def module(self) -> str:
        """Return the Python module that the command runs, or "" if the command cannot be forked."""
        first, *words = [word for word in self.command if word != "-S"]
        if Path(first).name == "prefect":
            return "prefect"
        runs_module = first in ("python", sys.executable) and words[:1] == ["-m"]
        return words[1] if runs_module and words[1].partition(".")[0] in {*_OF_PROJECT, "prefect", "tests"} else ""

    @property
    def arguments(self) -> list[str]:
        words = self.command[1:]
        return words[words.index("-m") + 2 :] if "-m" in words[:2] else words


class Popen(subprocess.Popen[Any]):
    """A replacement for `subprocess.Popen` that forks the process from a warm one if its command allows that."""

    fork: Callable[[_Program, list[int]], int]
    always = False  # whether `fork` is also used for commands that cannot be forked

    def _execute_child(self, args: Any, executable: Any, preexec: Any, close: Any, passed: Any, *more: Any) -> None:
        folder, environment = more[:2]
        ends, session = more[5:11], more[16]
        program = _Program(
            command=[args] if isinstance(args, str) else [os.fspath(word) for word in args],
            environment=dict(os.environ if environment is None else environment),
            folder=os.fspath(folder or Path.cwd()),
            session=session,
        )
        if not (program.module or self.always):
            super()._execute_child(args, executable, preexec, close, passed, *more)  # type: ignore[misc]
            return
        streams = (ends[0], ends[3], ends[5])
        self.pid = type(self).fork(program, [own if end == -1 else end for own, end in enumerate(streams)])
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]


class _Warm:
    """A connection to a warm process, whose forks become children of this process."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._lock = threading.Lock()
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def fork(self, program: _Program, streams: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._requests, [json.dumps(asdict(program)).encode()], streams)
            return int(self._requests.recv(100))


def popen(python_path: str = str(Path(sys.executable).parent)) -> type[subprocess.Popen[Any]]:
    """Return a class to use in place of `subprocess.Popen`.

    The class forks the warm process that this process was given, or starts one with the Python interpreter in
    `python_path`.
    """
    return _popen(python_path) if sys.platform == "linux" else subprocess.Popen


@cache
def _popen(python_path: str) -> type[subprocess.Popen[Any]]:
    given = os.environ.pop(_SOCKET_VARIABLE, "")
    requests = socket.socket(fileno=int(given)) if given else None
    lock = threading.Lock()
    warm: list[_Warm] = []

    def fork(program: _Program, streams: list[int]) -> int:
        with lock:
            if not warm:
                warm.append(_Warm(requests or _start(program.environment, python_path)))
        return warm[0].fork(program, streams)

    return type("Popen", (Popen,), {"fork": staticmethod(fork)})


def _start(environment: dict[str, str], python_path: str) -> socket.socket:
    python = which("python", path=python_path) or "python"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        _PlainPopen(
            [python, "-m", "tests.forking", str(theirs.fileno())],
            cwd=_ROOT,
            env={name: environment[name] for name in ("PATH", "HOME")},
            pass_fds=[theirs.fileno()],
        )
    return ours


@contextlib.contextmanager
def forking() -> Iterator[None]:
    """Within the context, `subprocess.Popen` forks a warm process instead of starting a new Python interpreter, if the
    command is one that can be forked."""
    with mock.patch.object(subprocess, "Popen", popen()):
        yield


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Do what `subprocess.run` does, but fork a warm process if the command is one that can be forked."""
    with forking():
        return subprocess.run(command, **options)


# --- in a warm process ----------------------------------------------------------------------------------------------


def _serve(requests: socket.socket) -> NoReturn:
    """Fork a process for each request, until the other end closes the socket."""
    Path("/proc/self/comm").write_text(WARM)
    while True:
        received, streams, *_ = socket.recv_fds(requests, 1 << 20, 3)
        if not received:
            os._exit(0)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            # Fork again, so that the parent can end and the process that asked, a subreaper, becomes the new parent.
            pid = os.fork()
            if pid:
                os.write(writer, str(pid).encode())
                os._exit(0)
            for descriptor in (requests.detach(), reader, writer):
                os.close(descriptor)
            _become(_Program(**json.loads(received)), streams)
        os.waitpid(child, 0)
        requests.send(os.read(reader, 100))
        for descriptor in (reader, writer, *streams):
            os.close(descriptor)


def _become(program: _Program, streams: Sequence[int]) -> NoReturn:
    """Run a program in this process, which is a fork of a warm one, and exit."""
    from tests.warm import take_environment

    Path("/proc/self/comm").write_text("python")
    for descriptor, stream in enumerate(streams):
        os.dup2(stream, descriptor)
    for stream in {*streams} - {0, 1, 2}:
        os.close(stream)
    if program.session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if program.folder != str(Path.cwd()):
        os.chdir(program.folder)
        if (Path(program.folder) / "flows").is_dir():
            _take_code_of(program.folder)
    if program.module == _SUPERVISOR:
        program = _supervised(program)
    if not program.module:
        environment = program.environment | {_SOCKET_VARIABLE: str(_give_warm_process().detach())}
        os.execvpe(program.command[0], program.command, environment)  # noqa: S606 (a command of the tests)
    take_environment(program.environment)
    sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if program.module == _KEEPER:
        subprocess.Popen = type("Popen", (Popen,), {"fork": staticmethod(_fork), "always": True})  # type: ignore[assignment,misc]
    elif program.module == "deployment.cli" or (program.module == "prefect" and "worker" in program.arguments):
        os.environ[_SOCKET_VARIABLE] = str(_give_warm_process().detach())
        subprocess.Popen = popen()  # type: ignore[assignment,misc]
    else:
        subprocess.Popen = _PlainPopen  # type: ignore[misc]  # its parent may be a keeper, which forks
    _run(program)


def _fork(program: _Program, streams: Sequence[int]) -> int:
    """Fork this process, which must have no other threads, to run a program; return the process ID."""
    pid = os.fork()
    if pid == 0:
        _become(program, streams)
    return pid


def _give_warm_process() -> socket.socket:
    """Fork a warm process for the program that this process will run.

    Return the socket for requests to it, which stays open after `exec`.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        _serve(theirs)
    theirs.close()
    ours.set_inheritable(True)
    return ours


def _supervised(program: _Program) -> _Program:
    """Run Prefect's supervisor in a fork, and return the program with which it calls `exec`."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:

        def hand_over(_file: str, command: list[str], environment: dict[str, str]) -> NoReturn:
            found = _Program(command, dict(environment), str(Path.cwd()), session=False)
            os.write(writer, json.dumps(asdict(found)).encode())
            os._exit(0)

        os.execvpe = hand_over  # type: ignore[assignment]
        from tests.warm import take_environment

        take_environment(program.environment)
        _run(program)
    os.close(writer)
    with os.fdopen(reader, "rb") as handed:
        found = handed.read()
    _, status = os.waitpid(child, 0)
    if not found:
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    following = _Program(**json.loads(found))
    os.chdir(following.folder)
    return following


def _take_code_of(folder: str) -> None:
    """From now on, import the project's code from `folder`, which belongs to an image or is a copy of the project."""
    sys.path[0] = folder
    for name in [name for name in sys.modules if name.partition(".")[0] in _OF_PROJECT]:
        del sys.modules[name]


def _run(program: _Program) -> NoReturn:
    """Run the module and exit as `python -m` does, but without freeing objects at the end."""
    sys.argv[1:] = program.arguments
    sys.modules.pop(program.module, None)
    code = 1
    try:
        runpy.run_module(program.module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 (as the interpreter does)
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            code = 128 + signal.SIGINT
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    from tests.warm import warm_up

    gc.disable()
    warm_up()
    gc.freeze()  # forked processes need not examine these objects, and thus copy them
    gc.enable()
    _serve(socket.socket(fileno=int(sys.argv[1])))
