"""Asks OSV, the open database of vulnerabilities, about every package of the image.

    python -m container.scan .venv-supply/bin/pip-audit

A scanner that reaches no database finds nothing, and that looks like good news. So it is asked first about a package
that is known to be vulnerable: where it finds nothing there, nothing was scanned.

Exit codes: 0 no known vulnerability, 1 some (listed), 3 nothing was scanned, or not all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from container.lock import as_requirements, packages

EXIT_VULNERABLE = 1
EXIT_NOT_SCANNED = 3
_SECONDS = 600
# Jinja2 2.10 lets a template out of its sandbox: CVE-2019-10906.
_KNOWN_VULNERABLE = "jinja2==2.10 --hash=sha256:74c935a1b8bb9a3947c50a54766a969d4846290e1e788ea44c1392163723c3bd\n"


class NotScanned(Exception):
    """The scanner gave no answer; the message says what it said instead."""


@dataclass(frozen=True)
class Findings:
    """What a scan found.

    Attributes:
        vulnerable: a line for each package with known vulnerabilities: name, version, their ids and mended versions.
        unknown: packages that the database was not asked about, with the reason.
        scanned: how many packages it was asked about.
    """

    vulnerable: list[str]
    unknown: list[str]
    scanned: int


def audit(scanner: Sequence[str], requirements: str) -> Findings:
    """Let the scanner look at hashed requirements.

    Raises:
        NotScanned: it did not come to an end.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text(requirements)
        options = ("--require-hashes", "--disable-pip", "--progress-spinner", "off", "--format", "json")
        command = [*scanner, "--vulnerability-service", "osv", *options, "--requirement", str(path)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
            report = json.loads(ran.stdout)["dependencies"]
        except subprocess.TimeoutExpired as error:
            raise NotScanned(f"no answer in {error.timeout:.0f} s") from error
        except (ValueError, KeyError) as error:
            lines = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode} and no word"]
            raise NotScanned(lines[-1]) from error
    return Findings(
        vulnerable=[_line(package) for package in report if package.get("vulns")],
        unknown=[f"{package['name']}: {package['skip_reason']}" for package in report if "skip_reason" in package],
        scanned=sum("vulns" in package for package in report),
    )


def _check_that_it_knows(scanner: Sequence[str]) -> None:
    if not audit(scanner, _KNOWN_VULNERABLE).vulnerable:
        raise NotScanned("it does not know that Jinja2 2.10 is vulnerable")


def _line(package: dict[str, object]) -> str:
    vulnerabilities = package["vulns"]
    assert isinstance(vulnerabilities, list)  # noqa: S101 (for the type checker)
    ids = ", ".join(f"{one['id']} (mended in {', '.join(one['fix_versions']) or 'nothing'})" for one in vulnerabilities)
    return f"{package['name']} {package['version']}: {ids}"


def scan(scanner: Sequence[str]) -> int:
    """Scan the lock; say what was found, and return the exit code."""
    wanted = packages()
    try:
        _check_that_it_knows(scanner)
        findings = audit(scanner, as_requirements(wanted))
    except NotScanned as error:
        _say(f"NOT SCANNED: the database of vulnerabilities gives no answer here. {error}")
        return EXIT_NOT_SCANNED
    for line in findings.vulnerable:
        _say(f"VULNERABLE: {line}")
    if findings.scanned != len(wanted):
        _say(f"NOT ALL SCANNED: {findings.scanned} of {len(wanted)} packages. {'; '.join(findings.unknown)}")
        return EXIT_NOT_SCANNED
    _say(f"{findings.scanned} packages scanned, {len(findings.vulnerable)} with known vulnerabilities")
    return EXIT_VULNERABLE if findings.vulnerable else 0


def _say(line: str) -> None:
    print(line)  # noqa: T201 (a command's output)


def main() -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(prog="python -m container.scan", description=__doc__)
    parser.add_argument("scanner", nargs="+", help="pip-audit, and options of its own")
    sys.exit(scan(parser.parse_args().scanner))


if __name__ == "__main__":
    main()
