"""Describes the content of an image. This script runs inside the image as root, and prints JSON."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

_UNCHECKED_HASH = 1  # the second word of a .pyc: docs.python.org/3/reference/import.html#pyc-invalidation
_PROGRAMS = (
    "gcc",
    "cc",
    "g++",
    "c++",
    "clang",
    "ld",
    "as",
    "make",
    "rustc",
    "pip",
    "pip3",
    "uv",
    "easy_install",
    "git",
)
_INSTALLERS = ("pip", "setuptools", "wheel", "ensurepip")
_HISTORIES = ("root/.*_history", "home/*/.*_history", "tmp/.*_history")
_CACHES = (
    *("root/.cache/**/*", "home/*/.cache/**/*", "tmp/**/*", "build/**/*"),
    *("var/cache/apt/**/*.deb", "var/lib/apt/lists/**/*Packages*"),
)


def look() -> dict[str, object]:
    """Return what the tests of the image's content need to know about the file system and the Python environment."""
    packages, library, code = sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), "/app"
    return {
        "python": _marker_variables(),
        "packages": {
            distribution.name.lower().replace("_", "-").replace(".", "-"): distribution.version
            for distribution in importlib.metadata.distributions(path=[packages])
        },
        "installers": [name for name in _INSTALLERS if importlib.util.find_spec(name)],
        "programs": [name for name in _PROGRAMS if shutil.which(name)],
        "histories": _files(_HISTORIES),
        "caches": _files(_CACHES),
        "tests": [str(path) for top in (packages, code) for path in Path(top).rglob("tests")],
        "test_modules": [str(path) for path in Path(code).rglob("test_*.py")],
        "without_bytecode": [
            str(path) for top in (packages, library, code) for path in Path(top).rglob("*.py") if not _compiled(path)
        ],
    }


def _marker_variables() -> dict[str, str]:
    return {
        "python_version": "{}.{}".format(*sys.version_info),
        "python_full_version": platform.python_version(),
        "sys_platform": sys.platform,
        "platform_system": platform.system(),
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "implementation_name": sys.implementation.name,
        "os_name": os.name,
    }


def _files(patterns: tuple[str, ...]) -> list[str]:
    return [str(path) for pattern in patterns for path in Path("/").glob(pattern) if path.is_file()]


def _compiled(source: Path) -> bool:
    bytecode = Path(importlib.util.cache_from_source(str(source)))
    return bytecode.exists() and int.from_bytes(bytecode.read_bytes()[4:8], "little") == _UNCHECKED_HASH


print(json.dumps(look()))
