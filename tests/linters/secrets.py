"""Scans the committed files for keys and passwords. `make lint` fails if it finds any.

detect-secrets runs in the linters' environment. Its false positives are listed here as patterns, each with a reason,
because a real secret could hide in detect-secrets' usual baseline of hashes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
SCANNER = PROJECT_ROOT / ".venv-lint" / "bin" / "detect-secrets-hook"

# Regular expression for a file's path → why its high-entropy strings are not secrets.
FILES = {
    r"(^|/)[a-z-]+\.lock$": "hashes of packages",
    r"package-lock\.json$": "hashes of packages",
    r"^tests/events/.*\.json$": "payloads as AWS documents them",
    r"^tests/compatibility/.*\.json$": "hashes of files and contracts, from an in-memory account",
    r"^docs/images/": "pictures",
}
# Regular expression for a line → why the line contains no secret.
LINES = {
    r"d41d8cd98f00b204e9800998ecf8427e": "the MD5 of an empty object, an ETag in examples",
    r"0055AED6DCD90281E": "the sequencer of AWS's own example",
    r"(AWS_SECRET_ACCESS_KEY|AUTHORIZATION_TOKEN)\W{1,4}test\b|aws_secret_access_key=.test\b": "MiniStack's root user",
    r"arn:aws:ecs:[\w-]+:123456789012:task/": "the name of a task in AWS's example account",
    r"__HIVE_DEFAULT_PARTITION__": "Hive's name for a partition without a value",
    r"secretsmanager:|Secret\w*Arn|HasSecret|(Decrypt|EndpointFor)Secrets": "names a permission or a parameter",
    r"# noqa: S10[567] \(": "ruff flags the same line, which gives the reason",
    r":change-me@": "an example's password",
    r"uses: [\w/-]+@[0-9a-f]{40} ": "the commit that a GitHub action is pinned to",
}


def findings(paths: Sequence[str], folder: Path = PROJECT_ROOT) -> str:
    """Return a report of what looks like a secret in these files, or "" if nothing does."""
    # Tests use made-up passwords, which only the keyword detector reports. The other detectors
    # would still find a real secret.
    planted = [path for path in paths if path.startswith("tests/")]
    others = [path for path in paths if not path.startswith("tests/")]
    return _scan(others, folder) + _scan(planted, folder, "--disable-plugin", "KeywordDetector")


def _scan(paths: Sequence[str], folder: Path, *options: str) -> str:
    if not paths:
        return ""
    excluded = [
        *(part for pattern in FILES for part in ("--exclude-files", pattern)),
        *(part for pattern in LINES for part in ("--exclude-lines", pattern)),
    ]
    command = [str(SCANNER), "--no-verify", *options, *excluded, *paths]
    scanned = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if scanned.returncode not in (0, 1) or (scanned.returncode == 0) != (scanned.stdout == ""):
        raise RuntimeError(f"detect-secrets ended with {scanned.returncode}: {scanned.stderr or scanned.stdout}")
    return scanned.stdout


def main() -> int:
    """Scan every tracked file, print the findings, and return the exit code."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    paths = [path for path in listed.stdout.split("\0") if path and (PROJECT_ROOT / path).is_file()]
    found = findings(paths)
    sys.stdout.write(found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
