"""Read a file in a separate process with limited memory, because the library for its format could crash the task.

A server process that has imported the libraries forks a reader for each file, which takes a few milliseconds. The
reader sends the rows back over a socket. If the file is in S3, the reader requests its bytes from the task.
"""

import atexit
import ctypes
import gc
import importlib
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from flows.refinery.read.reader_messages import Range, receive, send
from flows.refinery.read.rejections import ReaderKilled
from flows.refinery.read.remote_file import RemoteFile, Source, size_of

_T = TypeVar("_T")

_BUFFER_BYTES = 1 << 20
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_MIB = 1 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _TRIM_BYTES = -1, -3, 128 << 10  # malloc.h
_NAME_BYTES = 128  # of a module's name
_RESERVED_BYTES = 2 << 30  # address space that Arrow and the threads' heaps reserve and do not use


class _Died(Exception):
    """The reader process ended before it had sent everything, or sent something that is not allowed."""


def read_apart(read: Callable[..., Iterator[_T]], file: Source, *values: Any) -> Iterator[_T]:
    """Call `read(file, *values)` in a separate process. Yield its items and raise its errors; an unexpected error
    becomes a RuntimeError that names its type. If the process dies, a new process repeats the read once. Raise
    ReaderKilled if both processes die, for example because they run out of memory.

    Args:
        read: a function at the top level of a module. Everything that the module imports takes memory in the other
            process.
    """
    done = 0
    for is_last in (False, True):
        try:
            with closing(_read_once(read, file, *values)) as partitions:
                for partition in islice(partitions, done, None):
                    done += 1
                    yield partition
            return
        except _Died:
            if is_last:
                raise ReaderKilled(
                    f"the process that read the file was killed twice, or ran out of memory: the file has"
                    f" {size_of(file)} bytes, and its reader may use {memory_bytes() // _MIB} MiB; save the file"
                    " again with another program (Parquet with smaller row groups), upload it in parts, or give the"
                    " task more memory"
                ) from None


def _read_once(read: Callable[..., Iterator[_T]], file: Source, *values: Any) -> Generator[_T]:
    ours, theirs = socket.socketpair()
    pid = None
    with ours, ours.makefile("rwb", buffering=_BUFFER_BYTES) as stream:
        try:
            with theirs:
                _SERVER.give(theirs, read.__module__)
            send(stream, (read, replace(file, read_range=_refuse) if isinstance(file, RemoteFile) else file, values))
            pid = int(receive(stream))
            while (message := receive(stream)) is not None:
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, Range) and isinstance(file, RemoteFile):
                    send(stream, file.read_some(message.offset, message.size))
                else:
                    yield message
                del message  # before the next one is received
            pid = None
        except (EOFError, pickle.UnpicklingError, ConnectionError):
            raise _Died from None
        finally:
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _refuse(*_: int) -> bytes:
    raise RuntimeError("only the task has access to S3; the reader must request ranges from it")


class _Server:
    """Starts the server process when the first reader is needed, and keeps the task's connection to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = 0

    def give(self, end: socket.socket, module: str) -> None:
        """Pass one end of a socket to the server, which imports the module and forks a reader that uses the socket."""
        name = module.encode().ljust(_NAME_BYTES)
        with self._lock:
            control = self._control if self._owner == os.getpid() else None
            try:
                socket.send_fds(control or self._start(), [name], [end.fileno()])
            except ConnectionError:  # the server process was killed
                socket.send_fds(self._start(), [name], [end.fileno()])

    def stop(self) -> None:
        """End the server process; the readers that it forked end by themselves."""
        if self._control and self._process and self._owner == os.getpid():
            self._control.close()
            self._process.kill()
            self._process.wait()
        self._control = None

    def _start(self) -> socket.socket:
        self.stop()
        self._control, theirs = socket.socketpair()
        program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()})"
        with theirs:
            self._process = subprocess.Popen([sys.executable, "-c", program], pass_fds=[theirs.fileno()])
        self._owner = os.getpid()
        return self._control


_SERVER = _Server()
atexit.register(_SERVER.stop)


# --- in the server and in the readers that it forks -------------------------------------------------------------------


def serve(control_fd: int) -> None:
    """Fork a reader for each socket that is received, until the task closes the connection."""
    _return_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, but the task ends this one
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=control_fd) as control:
        while True:
            name, fds, _, _ = socket.recv_fds(control, _NAME_BYTES, 1)
            if not fds:
                return
            importlib.import_module(name.decode().strip())  # so that no reader needs to import it
            gc.freeze()  # so that garbage collection does not copy the pages that the readers share
            if os.fork() == 0:
                control.close()
                _answer(fds[0])
            os.close(fds[0])


def _answer(fd: int) -> None:
    """Read one file, send its rows, and end the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        with socket.socket(fileno=fd) as own, own.makefile("rwb", buffering=_BUFFER_BYTES) as stream:
            send(stream, os.getpid())
            read, file, values = pickle.load(stream)  # noqa: S301 the task sends it
            if isinstance(file, RemoteFile):
                file = replace(file, read_range=partial(_ask, stream), keeps_blocks=False)
            _limit_memory()
            try:
                for item in read(file, *values):
                    send(stream, item)
                    del item  # before the next one is read
                send(stream, None)
            except (MemoryError, ConnectionError):
                raise
            except Exception as error:  # noqa: BLE001 every error is raised in the task
                send(stream, error)
    finally:
        os._exit(0)


def _ask(stream: Any, offset: int, size: int) -> bytes:
    send(stream, Range(offset, size))
    content: bytes = pickle.load(stream)  # noqa: S301 the task sends it
    return content


def _return_freed_memory() -> None:
    """Make the system allocator return all freed memory, so that readers stay small. Make Arrow use this allocator,
    whatever the environment sets."""
    os.putenv("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow reads it when it is loaded
    with suppress(AttributeError):  # C libraries other than glibc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _TRIM_BYTES)
        ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def _limit_memory() -> None:
    with suppress(OSError):  # systems other than Linux
        _OOM_SCORE.write_text("1000")  # if memory runs out, the kernel kills this process and not the task
    with suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = used + memory_bytes() + _RESERVED_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (wanted if soft == resource.RLIM_INFINITY else min(soft, wanted), hard))


def memory_bytes() -> int:
    """Return the memory of this machine or, if it is lower, the container's memory limit, in bytes."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return min(limits)
