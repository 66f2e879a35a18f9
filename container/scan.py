"""Checks the image's locked Python packages against OSV, the open vulnerability database.

    python -m container.scan .venv-supply/bin/pip-audit

A scanner that cannot reach the database would report no vulnerabilities. So a package that is known to be vulnerable is
scanned first, and if nothing is found, the scan counts as failed. The base image's system packages are not scanned.

Known vulnerabilities are listed. The exit code is 3 if not all packages could be scanned; otherwise, it is 1 if there
are known vulnerabilities, and 0 if there are none.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from container.lock import as_requirements, packages

EXIT_VULNERABLE = 1
EXIT_NOT_SCANNED = 3
_TIMEOUT_SECONDS = 600
# Jinja2 2.10 has a sandbox escape: CVE-2019-10906.
_KNOWN_VULNERABLE = "jinja2==2.10 --hash=sha256:74c935a1b8bb9a3947c50a54766a969d4846290e1e788ea44c1392163723c3bd\n"
_OPTIONS = (
    *("--vulnerability-service", "osv", "--require-hashes", "--disable-pip", "--progress-spinner", "off"),
    *("--format", "json", "--requirement"),
)


class NotScanned(Exception):
    """The scanner failed, timed out or missed a known vulnerability; the message contains the reason."""


def audit(scanner: Sequence[str], requirements: str) -> dict[str, str]:
    """Scan packages, and return the vulnerabilities of each package by package name: their IDs and the versions that
    fix them, or "" if there are none. A package that was not scanned is omitted. Raise NotScanned if the scanner fails
    or takes longer than ten minutes."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [*scanner, *_OPTIONS, file.name]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
            report = json.loads(ran.stdout)["dependencies"]
        except subprocess.TimeoutExpired as error:
            raise NotScanned(f"no answer in {_TIMEOUT_SECONDS} s") from error
        except (ValueError, KeyError) as error:
            raise NotScanned((ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]) from error
    return {one["name"]: ", ".join(map(_described, one["vulns"])) for one in report if "vulns" in one}


def _described(vulnerability: dict[str, list[str]]) -> str:
    return f"{vulnerability['id']} (fixed in {', '.join(vulnerability['fix_versions']) or 'no version'})"


def _check_scanner(scanner: Sequence[str]) -> None:
    if not any(audit(scanner, _KNOWN_VULNERABLE).values()):
        raise NotScanned("the scanner does not find that Jinja2 2.10 is vulnerable")


def scan(scanner: Sequence[str]) -> int:
    """Scan the image's locked packages, print the result, and return the exit code."""
    wanted = packages()
    try:
        _check_scanner(scanner)
        found = audit(scanner, as_requirements(wanted))
    except NotScanned as error:
        _print(f"NOT SCANNED: {error}")
        return EXIT_NOT_SCANNED
    vulnerable = {name: ids for name, ids in found.items() if ids}
    for name, ids in vulnerable.items():
        _print(f"VULNERABLE: {name} {wanted[name][0]}: {ids}")
    missing = sorted(set(wanted) - set(found))
    _print(f"{len(found)} of {len(wanted)} packages scanned, {len(vulnerable)} vulnerable; not scanned: {missing}")
    if missing:
        return EXIT_NOT_SCANNED
    return EXIT_VULNERABLE if vulnerable else 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(scan(sys.argv[1:]))
