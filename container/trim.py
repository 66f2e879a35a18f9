"""Takes out of an installed environment what a task never uses, so that it starts sooner: run while the image is built.

    python trim.py SITE_PACKAGES

Most of a Fargate task's start is pulling its image. What may go was found by weighing (docs/image.md has the table);
what may not, although it looks so, is named below with the reason.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

# The AWS services that code in the container calls; botocore carries the descriptions of all four hundred.
AWS_SERVICES = frozenset({"ecs", "events", "logs", "s3", "secretsmanager", "sqs", "ssm", "sso", "sso-oidc", "sts"})

# Folders of tests that no run imports. numpy/f2py and numpy/testing look like them and are imported by scipy.
TEST_FOLDERS = (
    "pandas/tests",
    "numpy/*/tests",
    "scipy/*/tests",
    "scipy/*/*/tests",
    "pyarrow/tests",
    "altair/examples",
    "sympy/*/tests",
    "sympy/*/*/tests",
    "networkx/*/tests",
    "networkx/*/*/tests",
    "distributed/tests",
    "distributed/*/tests",
    "dask/tests",
    "dask/*/tests",
)

# libarrow_substrait looks unused and is linked by pyarrow's own module: it stays.
UNUSED = (
    "prefect/server/ui",  # the UI is served by the server, which runs elsewhere
    "prefect/server/ui_build",
    "prefect/server/ui-v2",
    "pyarrow/include",  # headers, for compiling against Arrow
    "pyarrow/libarrow_flight*",  # Arrow's network protocol
    "pyarrow/_flight*",
    "pyarrow/libarrow_python_flight*",
    "numpy/_core/include",
    "numpy/_core/lib",
    "pip",
    "pip-*.dist-info",
    "setuptools",
    "setuptools-*.dist-info",
)


def trim(site_packages: Path) -> int:
    """Remove everything above from `site_packages`; return how many bytes that were."""
    saved = sum(_remove(path) for pattern in (*TEST_FOLDERS, *UNUSED) for path in site_packages.glob(pattern))
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
    print(f"took out {trim(Path(sys.argv[1])) / 1e6:.0f} MB")  # noqa: T201 (the build's own log)
