"""Tests that cfn-lint, the schema of the workflow and asl-validator find nothing in this project, that the linters find
bad examples, and that every exception has a reason.

`make lint` runs checkov, hadolint and the scan for secrets on the project. This file tests these linters themselves.
"""

from __future__ import annotations

import re
import secrets
import shutil
import string
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment import PROJECT_ROOT
from deployment.aws.deploy_stack import TEMPLATE
from deployment.aws.packaging import DEFINITIONS, Timeouts, definition
from tests.infra.template import load_template
from tests.infra.test_template import cfn_lint
from tests.linters.secrets import FILES, LINES, SCANNER, findings

TEMPLATES = sorted(path for path in TEMPLATE.parent.glob("*.yaml") if "Resources:" in path.read_text(encoding="utf-8"))
WORKFLOW = PROJECT_ROOT / ".github" / "workflows" / "deploy.yml"
ASL_VALIDATOR = PROJECT_ROOT / "tests" / "linters" / "node" / "node_modules" / ".bin" / "asl-validator"

needs_linters = pytest.mark.skipif(
    not SCANNER.exists(), reason="the linters are not installed: make lint installs them"
)
needs_asl_validator = pytest.mark.skipif(
    shutil.which("node") is None or not ASL_VALIDATOR.exists(),
    reason="asl-validator is not installed: make infra installs it if npm is available",
)


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [SCANNER.with_name(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


# --- templates --------------------------------------------------------------------------------------------------


def test_cfn_lint_finds_nothing_in_any_template() -> None:
    assert cfn_lint(*TEMPLATES) == ""


@needs_linters
def test_checkov_finds_a_bucket_that_is_open_to_all(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text("Resources:\n  Open:\n    Type: AWS::S3::Bucket\n    Properties: {AccessControl: PublicRead}\n")
    checked = run(
        "checkov", "--quiet", "--compact", "--skip-download", "--framework", "cloudformation", "-f", str(template)
    )
    assert checked.returncode == 1
    assert "CKV_AWS_20" in checked.stdout, checked.stdout


@needs_linters
def test_hadolint_finds_a_package_without_a_pinned_version(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM debian:12\nRUN apt-get update && apt-get install -y --no-install-recommends gcc\n")
    checked = run("hadolint", dockerfile)
    assert checked.returncode == 1
    assert "DL3008" in checked.stdout, checked.stdout


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_check_that_checkov_skips_has_a_reason(path: Path) -> None:
    for name, one in load_template(path)["Resources"].items():
        for skip in one.get("Metadata", {}).get("checkov", {}).get("skip", []):
            assert len(skip["comment"].split()) >= 5, f"{name}: {skip['id']}"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_check_that_cfn_lint_skips_has_a_reason_beside_it(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        assert "ignore_checks" not in line or re.search(r"\] # \S+ \S+ \S+", line), line


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_ec2_accepts_the_descriptions_of_security_groups_and_their_rules(path: Path) -> None:
    """EC2 rejects an apostrophe: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_IpRange.html (Description)"""
    for found in descriptions_of(load_template(path)["Resources"].values()):
        assert re.fullmatch(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]{1,255}", found), found


def descriptions_of(groups: Iterable[Any]) -> Iterator[str]:
    """Yield the descriptions of security groups and of their rules, including rules that depend on a condition."""
    for group in groups:
        if group["Type"].startswith("AWS::EC2::SecurityGroup"):
            waiting: list[Any] = [group["Properties"]]
            while waiting:
                one = waiting.pop()
                if isinstance(one, dict):
                    yield from (str(one[name]) for name in ("Description", "GroupDescription") if name in one)
                    waiting.extend(one.values())
                elif isinstance(one, list):
                    waiting.extend(one)


# --- secrets ----------------------------------------------------------------------------------------------------


@needs_linters
def test_a_committed_key_is_found_and_an_excused_string_is_not(tmp_path: Path) -> None:
    key = "AKIA" + "".join(secrets.choice(string.ascii_uppercase) for _ in range(16))
    (tmp_path / "settings.py").write_text(f'KEY = "{key}"\n')
    (tmp_path / "example.py").write_text('etag = "d41d8cd98f00b204e9800998ecf8427e"\n')
    assert "settings.py:1" in findings(["settings.py"], tmp_path)
    assert findings(["example.py"], tmp_path) == ""


def test_every_excuse_is_still_needed() -> None:
    """A pattern without a match could later hide a real finding."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)  # noqa: S607 (git is found through PATH)
    paths = [path for path in tracked.stdout.split("\0") if path and (PROJECT_ROOT / path).is_file()]
    assert [pattern for pattern in FILES if not any(re.search(pattern, path) for path in paths)] == []
    text = "\n".join(
        (PROJECT_ROOT / path).read_text(encoding="utf-8")
        for path in paths
        if path.endswith((".py", ".yaml", ".yml", ".md")) and path != "tests/linters/secrets.py"
    )
    assert [pattern for pattern in LINES if not re.search(pattern, text)] == []


# --- the workflow -----------------------------------------------------------------------------------------------


def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    return loaded


@needs_linters
def test_the_workflow_fits_its_schema_and_a_broken_one_does_not(tmp_path: Path) -> None:
    schema = ("--builtin-schema", "vendor.github-workflows")
    assert run("check-jsonschema", *schema, WORKFLOW).returncode == 0
    broken = tmp_path / "deploy.yml"
    broken.write_text(WORKFLOW.read_text().replace("runs-on:", "runs_on:"))
    assert run("check-jsonschema", *schema, broken).returncode == 1


def test_every_action_is_pinned_to_a_commit() -> None:
    uses = [step["uses"] for job in workflow()["jobs"].values() for step in job["steps"] if "uses" in step]
    assert uses
    assert [one for one in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", one)] == []


def test_only_the_deploying_job_gets_a_token_for_aws_and_none_may_write_to_the_repository() -> None:
    jobs = workflow()["jobs"]
    assert workflow()["permissions"] == {}
    assert {name: job["permissions"] for name, job in jobs.items()} == {
        "test": {"contents": "read"},
        "deploy": {"contents": "read", "id-token": "write"},
    }
    assert (jobs["deploy"]["needs"], jobs["deploy"]["environment"]) == ("test", "production")
    assert jobs["deploy"]["concurrency"]["cancel-in-progress"] is False
    assert "pull_request" in jobs["deploy"]["if"]
    assert "AWS_SECRET_ACCESS_KEY" not in WORKFLOW.read_text()


def test_no_value_from_github_is_inserted_into_a_script() -> None:
    """GitHub's values must be passed as environment variables, because a branch name in a script could be run as a
    command."""
    scripts = [step["run"] for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]
    assert [script for script in scripts if "${{" in script] == []


# --- state machines: a second validator ---------------------------------------------------------------------------


def filled() -> str:
    """Return the definition as it is deployed, with a suitable value for every placeholder."""
    whole = definition(DEFINITIONS / "drain.asl.json", Timeouts(60, 600).placeholders).decode()
    return re.sub(r"\$\{\w+\}", "1", whole.replace("${Partition}", "aws"))


def asl_validator(path: Path, text: str) -> str:
    """Return the findings of asl-validator, or "" if there are none."""
    path.write_text(text, encoding="utf-8")
    checked = subprocess.run([ASL_VALIDATOR, "--json-path", path], capture_output=True, text=True)
    return "" if checked.returncode == 0 else checked.stderr + checked.stdout


@needs_asl_validator
def test_a_second_validator_finds_nothing_in_the_definition(tmp_path: Path) -> None:
    assert asl_validator(tmp_path / "machine.json", filled()) == ""


@needs_asl_validator
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(
            lambda text: text.replace('"Next":"Count messages"', '"Next":"Missing"'), id="a state that does not exist"
        ),
        pytest.param(lambda text: text.replace('"{% $paused %}"', '"{% $paused( %}"'), id="invalid JSONata"),
        pytest.param(lambda text: text.replace('"Arguments"', '"Parameters"'), id="JSONPath's field"),
        pytest.param(lambda text: text.replace('"BackoffRate":2', '"BackoffRate":"2"'), id="a string for a number"),
    ],
)
def test_the_second_validator_checks_jsonata_and_the_graph(broken: Callable[[str], str], tmp_path: Path) -> None:
    whole = filled()
    assert broken(whole) != whole
    assert "is invalid" in asl_validator(tmp_path / "machine.json", broken(whole))
