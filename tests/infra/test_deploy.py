"""`sluice deploy` and `sluice destroy` from the command line, against the local cloud with IAM enforced.

The commands run from a copy of the project, so that a test can change the code, a contract or the template, and deploy
the change. A stand-in engine builds the image and pushes it to the AWS emulator's registry, and tasks run the pushed
code.

The emulator differs from AWS in two ways. CloudFormation's operations end within a second or two, so no command finds
one that is still in progress (test_deploy_faults.py covers that with AWS's responses). And change sets include
resources whose condition is false.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployment import PROJECT_ROOT
from deployment.local.cloud import LocalCloud
from deployment.local.environment import aws_environment
from deployment.local.pipeline import settings_of
from deployment.local.ports import free_port
from deployment.project_commands import run_command
from lambda_trigger.pause import PAUSE_KEY
from tests import forking
from tests.emulator.records import EXTENSIONS
from tests.infra.waiting import eventually
from tests.warm_cloud import WarmCloud

pytestmark = [pytest.mark.cloud, pytest.mark.timeout(600)]

_COPIED = ("blocks", "container", "deployment", "flows", "lambda_trigger", "stepfunctions")
_GOOD = b"a,b\n1,2\n"
_MOMENT_SECONDS = 120.0


@dataclass
class Checkout:
    """A copy of the project, its container engine, and the cloud that it deploys to."""

    folder: Path
    engine: Path
    cloud: LocalCloud
    popen: type[subprocess.Popen[str]] = field(default_factory=forking.popen)

    @property
    def cold(self) -> Checkout:
        """Return a copy of this checkout that starts each command in a new interpreter, as a user does. Each command
        should run this way at least once."""
        return replace(self, popen=subprocess.Popen)

    def sluice(self, *arguments: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        with self.begin(*arguments, **environment) as process:
            output, _ = process.communicate(typed, timeout=500)
            return subprocess.CompletedProcess(arguments, process.returncode, output)

    def begin(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `sluice` with a user's credentials for the local cloud. Stdout and stderr are one stream."""
        return self.popen(
            [sys.executable, "-m", "deployment.cli", *arguments],
            cwd=self.folder,
            env={
                "PATH": f"{self.engine}:{os.defpath}",
                "HOME": str(self.folder),
                "COLUMNS": "200",
                **aws_environment(self.cloud.endpoints.aws_endpoint_url, self.cloud.region),
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def deploy(self, stack: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Deploy without Prefect and without the smoke test, because the fixture `deployed` covers both."""
        parameters = (
            "--parameter",
            f"PrefectApiUrl={self.cloud.endpoints.prefect_api_url}",
            "--parameter",
            "WindowSeconds=5",
        )
        quick = ("--skip-prefect", "--no-smoke-test")
        return self.sluice("deploy", "--stack", stack, *self.here, *parameters, *quick, "--yes", *more, **environment)

    @property
    def here(self) -> tuple[str, str]:
        return ("--region", self.cloud.region)

    @property
    def commands(self) -> list[str]:
        """Return the commands that the container engine received."""
        return (self.engine / "store" / "commands").read_text().split()

    def change(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    def stack(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cloud.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        return found

    def outputs(self, name: str) -> dict[str, str]:
        return {one["OutputKey"]: one["OutputValue"] for one in self.stack(name)["Outputs"]}

    def image(self, name: str) -> str:
        """Return the image in the stack's task definition."""
        arn = self.outputs(name)["TaskDefinitionArn"]
        definition = self.cloud.client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"]
        return str(definition["containerDefinitions"][0]["image"])

    def wait_for_tasks(self, name: str) -> None:
        """Wait until the stack has no running tasks."""
        ecs, cluster = self.cloud.client("ecs"), self.outputs(name)["ClusterArn"]
        eventually(lambda: not ecs.list_tasks(cluster=cluster)["taskArns"], seconds=_MOMENT_SECONDS)

    def buckets(self) -> set[str]:
        return {bucket["Name"] for bucket in self.cloud.client("s3").list_buckets()["Buckets"]}

    def upload(self, stack: str, dataset: str, name: str, body: bytes) -> subprocess.CompletedProcess[str]:
        file = self.folder / name
        file.write_bytes(body)
        of = ("--dataset", dataset) if dataset else ()
        return self.sluice("upload", str(file), *of, "--stack", stack, *self.here)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with WarmCloud(folder, wait_scale=0.1, prefect_port=free_port(), emulator_extensions=EXTENSIONS) as started:
        yield started


@pytest.fixture(scope="module")
def checkout(cloud: LocalCloud, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("project")
    for name in _COPIED:
        shutil.copytree(PROJECT_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT_ROOT / "prefect.yaml", folder)
    return Checkout(folder, engine_in(tmp_path_factory.mktemp("engine")), cloud)


def engine_in(folder: Path) -> Path:
    """Return a folder in which the command `docker` is the stand-in engine."""
    shutil.copy(Path(__file__).with_name("container_engine.py"), folder)
    docker = folder / "docker"
    docker.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder}/container_engine.py" "$@"\n')
    docker.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def deployed(checkout: Checkout) -> subprocess.CompletedProcess[str]:
    """Deploy the shared stack for the first time, with its image, its objects in Prefect and the test file."""
    parameters = (
        "--parameter",
        f"PrefectApiUrl={checkout.cloud.endpoints.prefect_api_url}",
        "--parameter",
        "WindowSeconds=5",
    )
    words = ("deploy", "--stack", "shared", *checkout.here, *parameters, "--yes", "--deadline", "300")
    return checkout.cold.sluice(*words)


def prefect(cloud: LocalCloud, what: str) -> set[str]:
    answer = httpx.post(f"{cloud.endpoints.prefect_api_url}/{what}/filter", json={"limit": 100}, timeout=30)
    return {one["name"] for one in answer.json()}


# --- deploying ----------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_everything_and_leaves_nothing(checkout: Checkout) -> None:
    before = checkout.buckets()
    shown = checkout.deploy("dry", "--dry-run")
    assert shown.returncode == 0, shown.stdout
    assert "000000000000" in shown.stdout
    assert checkout.cloud.region in shown.stdout
    assert "Add     UploadQueue" in shown.stdout
    assert "would be built and pushed with docker" in shown.stdout
    assert checkout.buckets() == before
    assert set(checkout.commands) == {"info"}
    stacks = checkout.cloud.client("cloudformation").list_stacks()["StackSummaries"]
    assert [one for one in stacks if one["StackStatus"] != "DELETE_COMPLETE"] == []


def test_the_first_deployment_goes_from_nothing_to_a_receipt(
    checkout: Checkout, deployed: subprocess.CompletedProcess[str]
) -> None:
    assert deployed.returncode == 0, deployed.stdout
    assert "1 of 1 published" in deployed.stdout
    assert "/receipts/" in deployed.stdout
    assert "CREATE_COMPLETE               shared" in deployed.stdout  # the repository first,
    assert "UPDATE_COMPLETE               shared" in deployed.stdout  # then the rest
    repository = checkout.outputs("shared")["ImageRepositoryUri"]
    assert checkout.image("shared").startswith(f"{repository}@sha256:")


def test_a_deployment_registers_the_stack_in_prefect(
    checkout: Checkout, deployed: subprocess.CompletedProcess[str]
) -> None:
    assert deployed.returncode == 0, deployed.stdout
    api = f"{checkout.cloud.endpoints.prefect_api_url}/deployments/name"
    reconcile = httpx.get(f"{api}/reconcile/shared", timeout=30).raise_for_status().json()
    assert reconcile["job_variables"]["task_role_arn"] == checkout.outputs("shared")["ReconcileRoleArn"]
    assert httpx.get(f"{api}/process-upload/shared", timeout=30).json()["work_pool_name"] == "sluice-shared-ecs"
    assert {"shared", "sluice-shared-aws"} <= prefect(checkout.cloud, "block_documents")
    assert "Sluice: a run crashed (shared)" in prefect(checkout.cloud, "automations")


def test_a_second_run_finds_nothing_to_change_and_builds_nothing(
    checkout: Checkout, deployed: subprocess.CompletedProcess[str]
) -> None:
    asked = checkout.commands.count("build")
    again = checkout.deploy("shared")
    assert again.returncode == 0, again.stdout
    assert "nothing to change" in again.stdout
    assert "UPDATE_IN_PROGRESS" not in again.stdout
    assert checkout.commands.count("build") == asked


def test_changed_code_reaches_the_lambda(checkout: Checkout, deployed: subprocess.CompletedProcess[str]) -> None:
    name = checkout.outputs("shared")["TriggerFunctionName"]
    function = checkout.cloud.client("lambda").get_function_configuration(FunctionName=name)
    with (checkout.folder / "lambda_trigger" / "handler.py").open("a") as handler:
        handler.write("\nCHANGED = True\n")
    changed = checkout.deploy("shared")
    assert "Modify  TriggerFunction" in changed.stdout, changed.stdout
    now = checkout.cloud.client("lambda").get_function_configuration(FunctionName=name)
    assert now["CodeSha256"] != function["CodeSha256"]


def test_a_new_contract_makes_a_new_image_and_new_tasks_apply_it(
    checkout: Checkout, deployed: subprocess.CompletedProcess[str]
) -> None:
    before = checkout.image("shared")
    folder = checkout.folder / "flows" / "contracts" / "readings"
    folder.mkdir()
    (folder / "contract.yaml").write_text(
        "dataset: readings\nsource: incoming/readings/*.csv\ncolumns:\n  a: {type: integer}\n  b: {type: integer}\n"
        "expectations:\n  - expect_column_values_to_be_between: {column: b, max_value: 1}\n"
        "bad_rows: {policy: reject_file}\n"
    )
    changed = checkout.deploy("shared")
    assert "TaskDefinition" in changed.stdout, changed.stdout
    assert checkout.image("shared") != before
    checkout.wait_for_tasks("shared")  # of earlier uploads, because they keep their image
    judged = checkout.upload("shared", "readings", "readings.csv", _GOOD)
    assert judged.returncode == 1, judged.stdout
    assert "rejected" in judged.stdout


def test_an_update_that_fails_is_undone_and_the_chain_works_as_before(
    checkout: Checkout, deployed: subprocess.CompletedProcess[str]
) -> None:
    before = checkout.outputs("shared")
    template = (checkout.folder / "deployment" / "aws" / "template.yaml").read_text()
    checkout.change("deployment/aws/template.yaml", "Key: !Ref DrainDefinitionKey", "Key: missing.json")
    checkout.change("deployment/aws/template.yaml", "MemorySize: 256", "MemorySize: 512")
    failed = checkout.deploy("shared")
    (checkout.folder / "deployment" / "aws" / "template.yaml").write_text(template)
    assert failed.returncode == 3
    assert "ended in UPDATE_ROLLBACK_COMPLETE: DrainMachine" in failed.stdout
    assert checkout.stack("shared")["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert checkout.outputs("shared") == before
    published = checkout.upload("shared", "readings", "again.csv", b"a,b\n1,1\n")
    assert published.returncode == 0, published.stdout
    assert "1 of 1 published" in published.stdout
    assert checkout.deploy("shared").returncode == 0


def test_an_invalid_contract_stops_the_deployment_before_a_stack_is_created(checkout: Checkout) -> None:
    folder = checkout.folder / "flows" / "contracts" / "wrong"
    folder.mkdir()
    (folder / "contract.yaml").write_text("dataset: wrong\nsource: incoming/wrong/*.csv\nbad_rows: {policy: never}\n")
    refused = checkout.deploy("wrong")
    shutil.rmtree(folder)
    assert refused.returncode == 3
    assert "bad_rows.policy" in refused.stdout
    stacks = checkout.cloud.client("cloudformation").list_stacks()["StackSummaries"]
    assert "wrong" not in {one["StackName"] for one in stacks}


# --- deploying after a failure ------------------------------------------------------------------------------------


def test_a_killed_deployment_continues_where_it_stopped(checkout: Checkout) -> None:
    name, stopped = "killed", checkout.engine / "store" / "stopped"
    with checkout.begin(
        *("deploy", "--stack", name, *checkout.here, "--skip-prefect", "--no-smoke-test", "--yes"),
        *("--parameter", f"PrefectApiUrl={checkout.cloud.endpoints.prefect_api_url}"),
        ENGINE_STOPS="push",
    ) as process:
        eventually(lambda: stopped.exists() or process.poll() is not None, seconds=_MOMENT_SECONDS)
        assert process.poll() is None, process.communicate()[0]
        os.killpg(process.pid, signal.SIGKILL)
    assert "StateMachineArn" not in checkout.outputs(name)
    went_on = checkout.deploy(name)
    assert went_on.returncode == 0, went_on.stdout
    assert "Add     ImageRepository" not in went_on.stdout
    assert "StateMachineArn" in checkout.outputs(name)


def test_a_deployment_whose_push_fails_can_be_repeated(checkout: Checkout) -> None:
    refused = checkout.deploy("refused", ENGINE_FAILS="push")
    assert refused.returncode == 3
    assert "the registry does not like this image" in refused.stdout
    assert checkout.deploy("refused").returncode == 0


def test_a_stack_whose_creation_failed_is_created_again(checkout: Checkout) -> None:
    template = (checkout.folder / "deployment" / "aws" / "template.yaml").read_text()
    checkout.change("deployment/aws/template.yaml", "Key: !Ref DrainDefinitionKey", "Key: missing.json")
    failed = checkout.deploy("broken", "--image", "registry.example/sluice:1")
    (checkout.folder / "deployment" / "aws" / "template.yaml").write_text(template)
    assert failed.returncode == 3
    assert checkout.stack("broken")["StackStatus"] == "ROLLBACK_COMPLETE"
    again = checkout.deploy("broken", "--image", "registry.example/sluice:1")
    assert "no update leads out of that" not in again.stdout  # with --yes, the question is not asked
    assert again.returncode == 0, again.stdout
    assert checkout.stack("broken")["StackStatus"] == "CREATE_COMPLETE"


# --- adopting the data of a deleted stack -------------------------------------------------------------------------


def test_a_new_stack_that_adopts_the_old_results_processes_only_what_was_missed(checkout: Checkout) -> None:
    """Follow the steps in docs/deploy.md: use the old landing bucket and a copy of the old published bucket, then
    reconcile."""
    s3 = checkout.cloud.client("s3")
    assert checkout.deploy("first").returncode == 0
    assert checkout.upload("first", "", "before.csv", _GOOD).returncode == 0
    old = checkout.outputs("first")
    assert checkout.sluice("destroy", "--stack", "first", *checkout.here, "--yes").returncode == 0
    s3.put_object(Bucket=old["LandingBucket"], Key="incoming/missed.csv", Body=_GOOD)

    again = checkout.deploy("second", "--parameter", f"ExistingLandingBucket={old['LandingBucket']}")
    assert again.returncode == 0, again.stdout
    new = checkout.outputs("second")
    for key in keys_of(s3, old["PublishedBucket"]):  # what `aws s3 sync` does
        s3.copy_object(
            Bucket=new["PublishedBucket"], Key=key, CopySource={"Bucket": old["PublishedBucket"], "Key": key}
        )
    adopted = receipts_of(s3, new["PublishedBucket"])
    assert [one["source"]["key"] for one in adopted] == ["incoming/before.csv"]

    as_its_role = checkout.cloud.endpoints.environment_of(new["ReconcileRoleArn"]) | settings_of(new)
    with forking.forking():
        run_command(["python", "-m", "tests.reconcile_now", ""], as_its_role, timeout_seconds=300)
    assert eventually(lambda: len(receipts_of(s3, new["PublishedBucket"])) == 2, seconds=_MOMENT_SECONDS)
    receipts = receipts_of(s3, new["PublishedBucket"])
    assert all(one in receipts for one in adopted)
    machine = checkout.cloud.client("stepfunctions").list_executions(stateMachineArn=new["StateMachineArn"])
    assert len(machine["executions"]) == 1, "what was processed before is not processed again"
    assert checkout.upload("second", "", "after.csv", _GOOD).returncode == 0


def keys_of(s3: Any, bucket: str) -> list[str]:
    return [one["Key"] for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def receipts_of(s3: Any, bucket: str) -> list[dict[str, Any]]:
    keys = [key for key in keys_of(s3, bucket) if key.startswith("receipts/")]
    return [json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]


# --- destroying ---------------------------------------------------------------------------------------------------


def test_destroying_keeps_the_data_and_says_where_it_is(checkout: Checkout) -> None:
    assert checkout.deploy("kept", "--image", "registry.example/sluice:1").returncode == 0
    buckets = {checkout.outputs("kept")[name] for name in ("LandingBucket", "PublishedBucket")}
    gone = checkout.cold.sluice("destroy", "--stack", "kept", *checkout.here, "--yes")
    assert gone.returncode == 0, gone.stdout
    assert buckets <= checkout.buckets()
    assert all(f"kept: s3://{bucket}" in gone.stdout for bucket in buckets)
    again = checkout.sluice("destroy", "--stack", "kept", *checkout.here, "--yes")
    assert "no such stack" in again.stdout


def test_destroying_stops_a_running_task_and_deletes_its_stack(checkout: Checkout) -> None:
    """Otherwise, the deletion would end in DELETE_FAILED, because a cluster with active tasks cannot be deleted."""
    assert checkout.deploy("working", "--image", "registry.example/sluice:1").returncode == 0
    outputs, ecs = checkout.outputs("working"), checkout.cloud.client("ecs")
    sleep = {"containerOverrides": [{"name": outputs["ContainerName"], "command": ["sleep", "3600"]}]}
    task = ecs.run_task(cluster=outputs["ClusterArn"], taskDefinition=outputs["OperatorTaskFamily"], overrides=sleep)
    arn = task["tasks"][0]["taskArn"]

    def described() -> dict[str, Any]:
        found: dict[str, Any] = ecs.describe_tasks(cluster=outputs["ClusterArn"], tasks=[arn])["tasks"][0]
        return found

    eventually(lambda: described()["lastStatus"] == "RUNNING", seconds=_MOMENT_SECONDS)
    gone = checkout.sluice("destroy", "--stack", "working", *checkout.here, "--yes")
    assert gone.returncode == 0, gone.stdout
    assert "Stopping 1 running task," in gone.stdout
    assert "The stack working was deleted" in gone.stdout


def test_destroying_during_a_drain_pauses_the_stack_and_ends_the_drain_first(checkout: Checkout) -> None:
    assert checkout.deploy("draining", "--image", "registry.example/sluice:1").returncode == 0
    outputs, s3 = checkout.outputs("draining"), checkout.cloud.client("s3")
    for number in range(3):
        s3.put_object(Bucket=outputs["LandingBucket"], Key=f"incoming/orders/{number}.csv", Body=b"a,b\n1,2\n")
    states, machine = checkout.cloud.client("stepfunctions"), outputs["StateMachineArn"]
    started = eventually(
        lambda: states.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"],
        seconds=_MOMENT_SECONDS,
    )
    gone = checkout.sluice("destroy", "--stack", "draining", *checkout.here, "--yes")
    assert gone.returncode == 0, gone.stdout
    assert gone.stdout.index("running drain") < gone.stdout.index("The stack draining was deleted")
    assert states.describe_execution(executionArn=started[0]["executionArn"])["status"] in ("ABORTED", "SUCCEEDED")
    mark = {"Bucket": outputs["PublishedBucket"], "Prefix": PAUSE_KEY}
    assert s3.list_object_versions(**mark)["Versions"], "it was paused"
    assert s3.list_objects_v2(**mark)["KeyCount"] == 0, "a stack that adopts a copy of the bucket is not paused"


def test_data_is_deleted_only_when_every_buckets_name_is_typed(checkout: Checkout) -> None:
    assert checkout.deploy("deleted", "--image", "registry.example/sluice:1").returncode == 0
    outputs = checkout.outputs("deleted")
    s3 = checkout.cloud.client("s3")
    for body in (b"1", b"2"):
        s3.put_object(Bucket=outputs["PublishedBucket"], Key="data/x", Body=body)
    command = ("destroy", "--stack", "deleted", *checkout.here, "--yes", "--delete-data")
    mistyped = checkout.sluice(*command, typed="yes\n")
    assert mistyped.returncode == 3
    assert "nothing was deleted" in mistyped.stdout
    assert checkout.stack("deleted")["StackStatus"] == "CREATE_COMPLETE"
    listed = [line.split()[1].rstrip(":") for line in mistyped.stdout.splitlines() if line.startswith("bucket ")]
    gone = checkout.sluice(*command, typed="".join(f"{name}\n" for name in listed))
    assert gone.returncode == 0, gone.stdout
    assert "3 object versions deleted" in gone.stdout  # including the object that marks the pause
    assert not {outputs["LandingBucket"], outputs["PublishedBucket"]} & checkout.buckets()
