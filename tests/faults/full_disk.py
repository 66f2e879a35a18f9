"""Gives a process a small disk, so that the disk becomes full."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000  # linux/sched.h
_PRIVATE = 0x4000 | (1 << 18)  # linux/mount.h: MS_REC | MS_PRIVATE


def small_disk(folder: Path, size_bytes: int) -> None:
    """Mount a disk of `size_bytes` at `folder`, which is visible only to this process.

    If the system does not allow this, limit the size of each file that this process writes instead.
    """
    try:
        _mount(folder, size_bytes)
    except (OSError, AttributeError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def _mount(folder: Path, size_bytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    _done(libc.unshare(_NEW_MOUNTS if user == 0 else _NEW_MOUNTS | _NEW_USERS))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _done(libc.mount(None, b"/", None, _PRIVATE, None))
    _done(libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={size_bytes}".encode()))


def _done(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "not permitted here")
