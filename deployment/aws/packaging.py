"""Creates the files that a deployment uploads: the Lambda's ZIP file and the state machine's definition.

Each file is named after its hash. The same sources give the same bytes on every machine, so deploying them again
changes nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blocks.limits import Limits
from deployment import PROJECT_ROOT
from flows.refinery.errors import TerminalError

LAMBDA_PACKAGE = PROJECT_ROOT / "lambda_trigger"
DEFINITIONS = PROJECT_ROOT / "stepfunctions"

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a ZIP file can store
_UNIX = 3
_READABLE_FILE = 0o100644  # the Lambda runtime's user must be able to read every file


class PackageIncomplete(TerminalError):
    """A file that must be uploaded is missing or invalid; the message names it."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timeouts in the state machine's definition. They must be numbers, but CloudFormation can only insert strings,
    so they are inserted here; CloudFormation replaces all other placeholders."""

    task_seconds: int  # after this time, a task that is still running is stopped, and another task is launched
    drain_seconds: int  # after this time, a drain ends and its tasks are stopped

    def __post_init__(self) -> None:
        if not 1 <= self.task_seconds <= self.drain_seconds <= 31_536_000:
            raise ValueError(
                "a task's timeout must be 1 s or more and at most the drain's timeout, which is at most a year"
            )

    @classmethod
    def of(cls, limits: Limits) -> Timeouts:
        """Return timeouts for these limits that are long enough for a task to end by itself."""
        return cls(limits.launch_seconds, limits.drain_seconds)

    @property
    def placeholders(self) -> dict[str, int]:
        """Return the values of the definition's placeholders, by name."""
        return {"TaskTimeoutSeconds": self.task_seconds, "DrainTimeoutSeconds": self.drain_seconds}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file to upload to the artifact bucket."""

    parameter: str  # the template parameter that gets the key; "" if there is none
    key: str  # the object key, which contains a hash of the body
    body: bytes


def build_artifacts(timeouts: Timeouts) -> tuple[Artifact, ...]:
    """Return the artifacts that the template expects in the artifact bucket. Raise PackageIncomplete if a source file
    is missing or invalid."""
    return (
        artifact("LambdaCodeKey", "lambda_trigger", "zip", lambda_zip()),
        artifact(
            "DrainDefinitionKey",
            "drain",
            "asl.json",
            definition(DEFINITIONS / "drain.asl.json", timeouts.placeholders),
        ),
    )


def artifact(parameter: str, name: str, suffix: str, body: bytes) -> Artifact:
    """Return an artifact with the key NAME/HASH.SUFFIX, where HASH is the first 32 hex digits of the body's SHA-256."""
    return Artifact(parameter, f"{name}/{hashlib.sha256(body).hexdigest()[:32]}.{suffix}", body)


def lambda_zip(package: Path = LAMBDA_PACKAGE) -> bytes:
    """Return a ZIP file for the Lambda, with the package's Python files in sorted order and without times or owners, so
    that its bytes depend only on the sources. Raise PackageIncomplete if there is no handler.py."""
    files = sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix())
    if package / "handler.py" not in files:
        raise PackageIncomplete(f"{package} has no handler.py to package")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in files:
            entry = zipfile.ZipInfo(f"{package.name}/{path.relative_to(package).as_posix()}", date_time=_EPOCH)
            entry.create_system = _UNIX
            entry.external_attr = _READABLE_FILE << 16
            archive.writestr(entry, path.read_bytes(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    return buffer.getvalue()


def definition(path: Path, numbers: Mapping[str, int]) -> bytes:
    """Return a state machine's definition as compact JSON, with the placeholders in `numbers` replaced by their values.
    Raise PackageIncomplete if the file is missing, is not JSON, or lacks one of the placeholders."""
    try:
        states = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PackageIncomplete(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise PackageIncomplete(f"{path} is not JSON: {error}") from error
    body = json.dumps(states, separators=(",", ":"), ensure_ascii=False)
    placeholders = {f'"${{{name}}}"': str(number) for name, number in numbers.items()}
    if missing := sorted(placeholder for placeholder in placeholders if placeholder not in body):
        raise PackageIncomplete(f"{path} has no {', '.join(missing)}")
    for placeholder, number in placeholders.items():
        body = body.replace(placeholder, number)
    return body.encode()
