"""A vulnerability scan that is incomplete, or that had no database, is never reported as a scan without findings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from container.lock import packages
from container.scan import EXIT_NOT_SCANNED, EXIT_VULNERABLE, scan

# Prints JSON to standard output and exits with 1 for errors, like pip-audit, which also exits with 1 for findings.
_SCANNER = """\
import json, pathlib, sys
asked = [line.split("==") for line in pathlib.Path(sys.argv[-1]).read_text().splitlines()]
found = [{{"name": name, "version": rest.split()[0], "vulns": []}} for name, rest in asked]
canary = found[0]["name"] == "jinja2" and found[0]["version"] == "2.10"
{behaviour}
print(json.dumps({{"dependencies": found}}))
"""
_VULNERABLE = '[{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": []}]'
_KNOWS_THE_CANARY = f"if canary: found[0]['vulns'] = {_VULNERABLE}"


def scanner(folder: Path, behaviour: str) -> list[str]:
    program = folder / "scanner.py"
    program.write_text(_SCANNER.format(behaviour=behaviour))
    return [sys.executable, str(program)]


def test_all_packages_without_a_known_vulnerability_is_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scan(scanner(tmp_path, _KNOWS_THE_CANARY)) == 0
    assert f"{len(packages())} of {len(packages())} packages" in capsys.readouterr().out


def test_a_vulnerable_package_is_named_with_the_version_that_fixes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviour = f"found[0]['vulns'] = {_VULNERABLE}"
    assert scan(scanner(tmp_path, behaviour)) == EXIT_VULNERABLE
    first = next(iter(packages()))
    (line,) = (one for one in capsys.readouterr().out.splitlines() if f" {first} " in one)
    assert [value for value in (packages()[first][0], "PYSEC-2019-217", "2.10.1") if value not in line] == []


@pytest.mark.parametrize(
    "behaviour",
    [
        "pass",
        "sys.exit('ConnectionError: no such host')",
        f"{_KNOWS_THE_CANARY}\nelse: found[3] = {{'name': 'b', 'skip_reason': 'not found'}}",
        f"{_KNOWS_THE_CANARY}\nelse: found.pop()",
    ],
    ids=["no database", "no network", "one skipped", "one missing"],
)
def test_an_incomplete_scan_is_neither_a_success_nor_a_finding(behaviour: str, tmp_path: Path) -> None:
    """A package index mirror without the vulnerability database reports no findings for any package."""
    assert scan(scanner(tmp_path, behaviour)) == EXIT_NOT_SCANNED
