"""Tests that each role has exactly the permissions that its component needs, so that a change here is always
deliberate."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from deployment import PROJECT_ROOT
from lambda_trigger.pause import PAUSE_KEY
from tests.infra.template import listed, load_template, resources_of, statements_of, text_of

ROLES = resources_of(load_template(), "AWS::IAM::Role")

_LOG_DELIVERY = {
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
}
_TRACING = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
}
_FAMILY = "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:task-definition/${AWS::StackName}-drain:*"
_MACHINE = "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:stateMachine:${AWS::StackName}-drain"
_TASK_ROLES = {"${TaskRole.Arn}", "${TaskExecutionRole.Arn}"}
_RESULTS = {f"${{PublishedBucket.Arn}}/{folder}/*" for folder in ("receipts", "data", "quarantine", "index", "docs")}
_LIVE, _USED = (f"${{PublishedBucket.Arn}}/contracts/{folder}/*" for folder in ("live", "used"))
_KEY = {"${KmsKeyArn}"}
_STACK = "arn:${AWS::Partition}:cloudformation:${AWS::Region}:${AWS::AccountId}:stack/${AWS::StackName}/*"
_PEOPLE = "people of the account"

# Role → who may assume it, and the actions and resources of each statement.
EXPECTED: dict[str, tuple[str, dict[str, tuple[set[str], set[str]]]]] = {
    "TriggerRole": (
        "lambda.amazonaws.com",
        {
            "SendMessages": ({"sqs:SendMessage"}, {"${UploadQueue.Arn}"}),
            "StartDrain": ({"states:StartExecution"}, {"${DrainMachine}"}),
            "LookForPause": ({"s3:ListBucket"}, {"${PublishedBucket.Arn}"}),
            "KeepFailedEvents": ({"sqs:SendMessage"}, {"${TriggerFailures.Arn}"}),
            "Log": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"${TriggerLogs.Arn}"}),
            "Trace": ({"xray:PutTraceSegments", "xray:PutTelemetryRecords"}, {"*"}),
            "UseKey": ({"kms:Decrypt", "kms:GenerateDataKey"}, _KEY),
        },
    ),
    "DrainRole": (
        "states.amazonaws.com",
        {
            "CountMessages": ({"sqs:GetQueueAttributes"}, {"${UploadQueue.Arn}"}),
            "LookForBatchNotesAndPause": ({"s3:ListBucket"}, {"${PublishedBucket.Arn}"}),
            "CountTasks": ({"ecs:ListTasks"}, {"*"}),
            "LaunchTask": ({"ecs:RunTask"}, {_FAMILY}),
            "TagTask": (
                {"ecs:TagResource"},
                {"arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:task/${Cluster}/*"},
            ),
            "WatchTask": (
                {"ecs:DescribeTasks", "ecs:StopTask"},
                {"arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:task/${Cluster}/*"},
            ),
            "ReceiveTaskEvents": (
                {"events:PutTargets", "events:PutRule", "events:DescribeRule"},
                {
                    "arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:"
                    "rule/StepFunctionsGetEventsForECSTaskRule"
                },
            ),
            "PassTaskRoles": ({"iam:PassRole"}, _TASK_ROLES),
            "DeliverLogs": (_LOG_DELIVERY, {"*"}),
            "Trace": (_TRACING, {"*"}),
        },
    ),
    "SweepTimerRole": ("scheduler.amazonaws.com", {"StartDrain": ({"states:StartExecution"}, {"${DrainMachine}"})}),
    "TaskRole": (
        "ecs-tasks.amazonaws.com",
        {
            "ReadUploads": (
                {"s3:GetObject", "s3:GetObjectVersion"},
                {"arn:${AWS::Partition}:s3:::${Bucket}/${IncomingPrefix}*"},
            ),
            "DistinguishMissingFromForbidden": (
                {"s3:ListBucket"},
                {"${PublishedBucket.Arn}", "arn:${AWS::Partition}:s3:::${Bucket}"},
            ),
            "OrderVersions": ({"s3:ListBucketVersions"}, {"arn:${AWS::Partition}:s3:::${Bucket}"}),
            "ReadAndWriteResults": ({"s3:GetObject", "s3:PutObject"}, _RESULTS),
            "AbortLargeUploads": (
                {"s3:AbortMultipartUpload"},
                {"${PublishedBucket.Arn}/data/*", "${PublishedBucket.Arn}/quarantine/*"},
            ),
            "RemoveReplacedData": ({"s3:DeleteObject"}, {"${PublishedBucket.Arn}/data/*"}),
            "ConsumeQueue": (
                {
                    "sqs:ReceiveMessage",
                    "sqs:ChangeMessageVisibility",
                    "sqs:DeleteMessage",
                    "sqs:GetQueueAttributes",
                },
                {"${UploadQueue.Arn}"},
            ),
            "KeepAttemptsAndBatchNotes": (
                {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"},
                {"${PublishedBucket.Arn}/attempts/*", "${PublishedBucket.Arn}/batches/*"},
            ),
            "ReadContracts": ({"s3:GetObject"}, {_LIVE}),
            "KeepUsedContracts": ({"s3:PutObject"}, {_USED}),
            "GiveUp": ({"sqs:SendMessage"}, {"${DeadLetterQueue.Arn}"}),
            "RequestMoreTasks": ({"states:StartExecution"}, {_MACHINE}),
            "Announce": (
                {"events:PutEvents"},
                {"arn:${AWS::Partition}:events:${AWS::Region}:${AWS::AccountId}:event-bus/default"},
            ),
            "UseKey": ({"kms:Decrypt", "kms:GenerateDataKey"}, _KEY),
            "DescribeStoppedTasks": (
                {"ecs:DescribeTasks"},
                {"arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:task/${Cluster}/*"},
            ),
            "ReadTaskLogs": ({"logs:GetLogEvents"}, {"${TaskLogs.Arn}"}),
        },
    ),
    "ReconcileRole": (
        "ecs-tasks.amazonaws.com",
        {
            "ListUploads": ({"s3:ListBucketVersions"}, {"arn:${AWS::Partition}:s3:::${Bucket}"}),
            "LookForReceipts": ({"s3:GetObject"}, {"${PublishedBucket.Arn}/receipts/*"}),
            "RebuildIndex": ({"s3:GetObject", "s3:PutObject"}, {"${PublishedBucket.Arn}/index/*"}),
            "DeleteOrphanedOutputs": ({"s3:DeleteObject"}, {"${PublishedBucket.Arn}/data/*"}),
            "DistinguishMissingFromForbidden": ({"s3:ListBucket"}, {"${PublishedBucket.Arn}"}),
            "LookForBatchNotes": ({"s3:GetObject"}, {"${PublishedBucket.Arn}/batches/*"}),
            "ReadContracts": ({"s3:GetObject"}, {_LIVE}),
            "ReopenAttempts": ({"s3:GetObject", "s3:PutObject"}, {"${PublishedBucket.Arn}/attempts/*"}),
            "CountMessages": ({"sqs:GetQueueAttributes"}, {"${UploadQueue.Arn}"}),
            "AgeOfMessages": ({"cloudwatch:GetMetricStatistics"}, {"*"}),
            "SendMessages": ({"sqs:SendMessage"}, {"${UploadQueue.Arn}"}),
            "StartDrain": ({"states:StartExecution"}, {"${DrainMachine}"}),
            "UseKey": ({"kms:Decrypt", "kms:GenerateDataKey"}, _KEY),
        },
    ),
    "ContractPublisherRole": (
        _PEOPLE,
        {
            "FindStack": ({"cloudformation:DescribeStacks"}, {_STACK}),
            "ListContracts": ({"s3:ListBucket"}, {"${PublishedBucket.Arn}"}),
            "ReadContracts": ({"s3:GetObject", "s3:GetObjectVersion"}, {"${PublishedBucket.Arn}/contracts/*"}),
            "PublishContracts": ({"s3:PutObject", "s3:DeleteObject"}, {_LIVE}),
            "UseKey": ({"kms:Decrypt", "kms:GenerateDataKey"}, _KEY),
        },
    ),
    "TaskExecutionRole": (
        "ecs-tasks.amazonaws.com",
        {
            "LogInToRegistry": ({"ecr:GetAuthorizationToken"}, {"*"}),
            "PullImage": (
                {"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"},
                {"${ImageRepository.Arn}"},
            ),
            "Log": ({"logs:CreateLogStream", "logs:PutLogEvents"}, {"${TaskLogs.Arn}"}),
            "ReadPrefectKey": ({"secretsmanager:GetSecretValue"}, {"${PrefectApiKeySecretArn}"}),
            "ReadPrefectAuthString": ({"secretsmanager:GetSecretValue"}, {"${PrefectAuthStringSecretArn}"}),
            "UseKey": ({"kms:Decrypt"}, _KEY),
        },
    ),
}


def statements(role: str) -> dict[str, Mapping[str, Any]]:
    policies = ROLES[role]["Properties"]["Policies"]
    return {one["Sid"]: one for policy in policies for one in statements_of(policy["PolicyDocument"])}


def actions(statement: Mapping[str, Any]) -> set[str]:
    return set(listed(statement["Action"]))


def resources(statement: Mapping[str, Any]) -> set[str]:
    return {text_of(one) for one in listed(statement["Resource"])}


def test_every_role_is_listed_here() -> None:
    assert set(ROLES) == set(EXPECTED)


@pytest.mark.parametrize("role", EXPECTED)
def test_a_role_may_do_exactly_what_is_listed(role: str) -> None:
    assert {sid: (actions(one), resources(one)) for sid, one in statements(role).items()} == EXPECTED[role][1]
    assert {one["Effect"] for one in statements(role).values()} == {"Allow"}
    assert not ROLES[role]["Properties"].get("ManagedPolicyArns"), "AWS's managed policies allow more than is called"


@pytest.mark.parametrize("role", EXPECTED)
def test_a_role_can_be_assumed_only_by_its_service_or_its_account(role: str) -> None:
    (trust,) = ROLES[role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    taken_by = EXPECTED[role][0]
    principal = {"AWS": {"Ref": "AWS::AccountId"}} if taken_by == _PEOPLE else {"Service": taken_by}
    assert (trust["Action"], trust["Principal"]) == ("sts:AssumeRole", principal)


_SOURCES = {
    "states.amazonaws.com": "states:${AWS::Region}:${AWS::AccountId}:stateMachine:*",
    "ecs-tasks.amazonaws.com": "ecs:${AWS::Region}:${AWS::AccountId}:*",
    "scheduler.amazonaws.com": "scheduler:${AWS::Region}:${AWS::AccountId}:schedule-group/default",
}


@pytest.mark.parametrize("role", [role for role in EXPECTED if EXPECTED[role][0] in _SOURCES])
def test_a_service_can_assume_a_role_only_for_this_accounts_resources(role: str) -> None:
    """The conditions are those on each service's page about confused deputies. Lambda has no such page.

    Amazon ECS task IAM role: docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
    Creating an IAM role for your state machine in Step Functions:
    docs.aws.amazon.com/step-functions/latest/dg/procedure-create-iam-role.html
    Confused deputy prevention in EventBridge Scheduler:
    docs.aws.amazon.com/scheduler/latest/UserGuide/cross-service-confused-deputy-prevention.html
    """
    (trust,) = ROLES[role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    source = "arn:${AWS::Partition}:" + _SOURCES[EXPECTED[role][0]]
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    assert text_of(trust["Condition"]["ArnLike"]["aws:SourceArn"]) == source


def test_lambda_cannot_assume_the_triggers_role_for_another_account_if_it_names_one() -> None:
    """The condition ends in IfExists, because AWS does not document that Lambda sends a source account
    (docs/decisions/0016)."""
    (trust,) = ROLES["TriggerRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"] == {"StringEqualsIfExists": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


@pytest.mark.parametrize("role", EXPECTED)
def test_no_role_has_a_wildcard_without_a_reason(role: str) -> None:
    assert not [action for one in statements(role).values() for action in actions(one) if "*" in action]
    wild = {sid for sid, one in statements(role).items() if any("*" in arn for arn in resources(one))}
    reasons = ROLES[role].get("Metadata", {}).get("Sluice", {}).get("WildcardReasons", {})
    assert wild == set(reasons)
    assert all(reasons.values())


@pytest.mark.parametrize("role", EXPECTED)
def test_every_role_has_the_permissions_boundary_that_is_given(role: str) -> None:
    boundary = ROLES[role]["Properties"]["PermissionsBoundary"]["Fn::If"]
    assert boundary == ["HasBoundary", {"Ref": "PermissionsBoundaryArn"}, {"Ref": "AWS::NoValue"}]


@pytest.mark.parametrize(
    ("role", "services"),
    [
        ("TriggerRole", ["sqs"]),
        ("TaskRole", ["s3", "sqs"]),
        ("ReconcileRole", ["s3", "sqs"]),
        ("ContractPublisherRole", ["s3"]),
        ("TaskExecutionRole", ["secretsmanager"]),
    ],
)
def test_the_key_serves_the_services_that_a_role_uses_and_no_other(role: str, services: list[str]) -> None:
    """The condition prevents a role from decrypting data of other services."""
    via = statements(role)["UseKey"]["Condition"]["StringEquals"]["kms:ViaService"]
    assert [text_of(one) for one in via] == [f"{service}.${{AWS::Region}}.amazonaws.com" for service in services]


def test_the_page_on_security_lists_every_role_that_uses_the_key() -> None:
    page = (PROJECT_ROOT / "docs" / "security.md").read_text(encoding="utf-8").partition("## Your own KMS key")[2]
    listed_roles = re.findall(r"^\| `(\w+Role)` \| ", page, re.MULTILINE)
    assert listed_roles == [role for role in ROLES if "UseKey" in statements(role)]


@pytest.mark.parametrize("role", EXPECTED)
def test_permissions_that_a_resource_cannot_limit_have_a_condition(role: str) -> None:
    if "PassTaskRoles" in statements(role):
        condition = statements(role)["PassTaskRoles"]["Condition"]
        assert condition == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    for sid in ("CountTasks", "LaunchTask"):
        if sid in statements(role):
            assert text_of(statements(role)[sid]["Condition"]["ArnEquals"]["ecs:cluster"]) == "${Cluster.Arn}"


def test_drains_and_the_lambda_list_what_they_look_for_and_nothing_else() -> None:
    listing = statements("DrainRole")["LookForBatchNotesAndPause"]["Condition"]
    assert listing == {"StringEquals": {"s3:prefix": ["batches/", PAUSE_KEY]}}
    assert statements("TriggerRole")["LookForPause"]["Condition"] == {"StringEquals": {"s3:prefix": PAUSE_KEY}}


def test_the_tasks_may_start_the_machine_of_their_stack() -> None:
    """The policy contains the ARN as a string, because a reference to the state machine would be circular."""
    name = resources_of(load_template(), "AWS::StepFunctions::StateMachine")["DrainMachine"]["Properties"]
    assert _MACHINE.endswith(f":stateMachine:{text_of(name['StateMachineName'])}")


def test_the_publisher_of_contracts_lists_contracts_and_nothing_else() -> None:
    listing = statements("ContractPublisherRole")["ListContracts"]["Condition"]
    assert listing == {"StringLike": {"s3:prefix": "contracts/*"}}


def test_reconciling_lists_uploads_and_nothing_else_of_the_landing_bucket() -> None:
    assert text_of(statements("ReconcileRole")["ListUploads"]["Condition"]["StringLike"]["s3:prefix"]) == (
        "${IncomingPrefix}*"
    )


def test_the_container_cannot_change_uploads_start_tasks_or_read_the_dead_letter_queue() -> None:
    allowed = [
        (action, arn) for one in statements("TaskRole").values() for action in actions(one) for arn in resources(one)
    ]
    assert not [pair for pair in allowed if pair[0].startswith(("iam:", "lambda:"))]
    assert [pair for pair in allowed if pair[0].startswith("states:")] == [("states:StartExecution", _MACHINE)]
    assert [pair[0] for pair in allowed if pair[0].startswith("ecs:")] == ["ecs:DescribeTasks"]
    assert [pair[0] for pair in allowed if "DeadLetter" in pair[1]] == ["sqs:SendMessage"]
    assert not [pair for pair in allowed if "${Bucket}" in pair[1] and pair[0].startswith(("s3:Put", "s3:Delete"))]
