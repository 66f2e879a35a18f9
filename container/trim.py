"""Removes unused files from installed packages while the image is built, so that tasks start faster.

    python trim.py SITE_PACKAGES

A Fargate task spends most of its start-up time pulling the image. docs/image.md lists what is removed and how much that
saves. Comments below name files that look unused but must stay.
"""

import shutil
import sys
from pathlib import Path

# The AWS services that Sluice, Prefect and Great Expectations may call in the container, and those that boto3 calls for
# credentials. botocore contains descriptions of all AWS services, about 400.
AWS_SERVICES = frozenset(
    {
        *("cloudwatch", "ecs", "events", "logs", "s3", "secretsmanager", "sqs", "ssm", "stepfunctions"),
        *("sso", "sso-oidc", "sts"),
    }
)

# Tests that are installed with packages. numpy/f2py and numpy/testing look like tests too, but must stay, because scipy
# imports them.
TEST_FOLDERS = ("**/tests", "altair/examples")

# libarrow_substrait looks unused, but must stay, because pyarrow's own module is linked against it.
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
    "pkg_resources",  # part of setuptools, like the two below
    "_distutils_hack",
    "distutils-precedence.pth",
)


def trim(site_packages: Path) -> int:
    """Remove test folders, unused files and descriptions of unused AWS services. Return the number of bytes freed."""
    found = [path for pattern in (*TEST_FOLDERS, *UNUSED) for path in site_packages.glob(pattern)]
    saved = sum(_remove(path) for path in found if path.exists())  # a test folder may be inside another one
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
