"""Read a file in a separate process with limited memory, if the format's library could crash the task.

A server process that has imported the libraries forks a reader for each file, which takes some milliseconds. The
reader sends the partitions back over a socket.
"""

import atexit
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
from itertools import islice
from pathlib import Path
from typing import Any

from flows.refinery.read.partition import Partition
from flows.refinery.read.reader_messages import receive, send
from flows.refinery.read.rejections import ReaderKilled
from flows.refinery.read.remote_file import Source, size_of

Read = Callable[..., Iterator[Partition]]
"""A function at the top level of a module that gets a file and more arguments, and yields the file's partitions."""

_BUFFER_BYTES = 1 << 20
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_MIB = 1 << 20
_IMPORTED = ("pyarrow.pandas_compat", "flows.refinery.read.formats")  # by the server, so that no reader needs to
_RESERVED_BYTES = 2 << 30  # address space that Arrow and the threads' heaps reserve and do not use


class _Died(Exception):
    """The reader process ended before it had sent everything."""


def read_apart(read: Read, file: Source, *values: Any) -> Iterator[Partition]:
    """Yield what `read(file, *values)` yields in another process. If the process dies, another one repeats the read
    once. Raise what `read` raises, and ReaderKilled if both processes were killed or ran out of memory."""
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
                    " again with another program, upload it in parts, or give the task more memory"
                ) from None


def _read_once(read: Read, file: Source, *values: Any) -> Generator[Partition]:
    ours, theirs = socket.socketpair()
    pid = None
    with ours, ours.makefile("rwb", buffering=_BUFFER_BYTES) as stream:
        try:
            with theirs:
                _SERVER.give(theirs)
            send(stream, (read, file, values))
            pid = int(receive(stream))
            while (message := receive(stream)) is not None:
                if isinstance(message, Exception):
                    raise message
                yield message
            pid = None
        except (EOFError, pickle.UnpicklingError, ConnectionError):
            raise _Died from None
        finally:
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class _Server:
    """The task's connection to the process that forks readers, which is started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = 0

    def give(self, end: socket.socket) -> None:
        """Pass one end of a socket to the server, which forks a reader that uses it."""
        with self._lock:
            control = self._control if self._owner == os.getpid() else None
            try:
                socket.send_fds(control or self._start(), [b"r"], [end.fileno()])
            except ConnectionError:  # it was killed
                socket.send_fds(self._start(), [b"r"], [end.fileno()])

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
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # so that garbage collection does not copy the pages that the readers share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the task decides
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=control_fd) as control:
        while True:
            _, fds, _, _ = socket.recv_fds(control, 1, 1)
            if not fds:
                return
            if os.fork() == 0:
                control.close()
                _answer(fds[0])
            os.close(fds[0])


def _answer(fd: int) -> None:
    """Read one file, send its partitions, and end the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        with socket.socket(fileno=fd) as own, own.makefile("rwb", buffering=_BUFFER_BYTES) as stream:
            send(stream, os.getpid())
            read, file, values = pickle.load(stream)  # noqa: S301 the task sends it
            _limit_memory()
            try:
                for partition in read(file, *values):
                    send(stream, partition)
                    del partition  # before the next one is read
                send(stream, None)
            except (MemoryError, ConnectionError):
                raise
            except Exception as error:  # noqa: BLE001 whatever it is, it is raised on the other side
                send(stream, error)
    finally:
        os._exit(0)


def _limit_memory() -> None:
    with suppress(OSError):  # other systems than Linux
        _OOM_SCORE.write_text("1000")  # if memory runs out, the kernel kills this process and not the task
    with suppress(OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = used + memory_bytes() + _RESERVED_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (wanted if soft == resource.RLIM_INFINITY else min(soft, wanted), hard))


def memory_bytes() -> int:
    """Return the memory of this machine or container, in bytes."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return min(limits)
