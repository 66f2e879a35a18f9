"""Removes what a task never uses from installed packages, so that tasks start faster. Runs while the image is built.

    python trim.py SITE_PACKAGES

A Fargate task spends most of its start-up time pulling the image. docs/image.md lists what was removed and how much it
saved. Comments below name what looks unused but must stay.
"""

import shutil
import sys
from pathlib import Path

# The AWS services that code in the container calls; botocore describes all of AWS's, about four hundred.
AWS_SERVICES = frozenset({"ecs", "events", "logs", "s3", "secretsmanager", "sqs", "ssm", "sso", "sso-oidc", "sts"})

# Tests that are installed with packages; no run imports them. numpy/f2py and numpy/testing look like tests too,
# but scipy imports them: they stay.
TEST_FOLDERS = ("**/tests", "altair/examples")

# libarrow_substrait looks unused and is linked by pyarrow's own module: it stays.
UNUSED = (
    "prefect/server/ui",  # the UI is served by the server, which runs elsewhere
    "prefect/server/ui_build",
    "prefect/server/ui-v2",
    "pyarrow/include",  # headers, for compiling against Arrow
    "pyarrow/libarrow_flight*",  # Arrow's network protocol
    "pyarrow/_flight*",
    "pyarrow/libarrow_python_flight*",
    "pyarrow/libarrow_python*.so",  # copies of the loaded .so.MAJOR, for linking
    "pyarrow/libarrow_python*.so.*.*.*",
    "numpy/_core/include",
    "numpy/_core/lib",
    "pip",
    "pip-*.dist-info",
    "setuptools",
    "setuptools-*.dist-info",
    "pkg_resources",  # setuptools', and the two below
    "_distutils_hack",
    "distutils-precedence.pth",
)


def trim(site_packages: Path) -> int:
    """Remove test folders, unused files and descriptions of other AWS services; return the number of bytes freed."""
    found = [path for pattern in (*TEST_FOLDERS, *UNUSED) for path in site_packages.glob(pattern)]
    saved = sum(_remove(path) for path in found if path.exists())  # a folder of tests may be inside another
    for data in site_packages.glob("*botocore/data"):
        for service in data.iterdir():
            if service.is_dir() and service.name not in AWS_SERVICES:
                saved += _remove(service)
    return saved


def _remove(path: Path) -> int:
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path)
        return size
    size = path.stat().st_size
    path.unlink()
    return size


if __name__ == "__main__":
    print(f"removed {trim(Path(sys.argv[1])) / 1e6:.0f} MB")  # noqa: T201 (the build's own log)
