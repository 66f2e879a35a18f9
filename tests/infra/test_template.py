"""Properties of the template that linters do not check, such as an unprivileged container, private buckets and log
retention."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cfnlint
import pytest
import yaml

from blocks.settings import PipelineSettings
from deployment.aws.deploy_stack import MAX_STACK_NAME_LENGTH, TEMPLATE
from deployment.aws.images import DEPLOYED
from deployment.aws.packaging import DEFINITIONS, Timeouts, definition
from deployment.aws.templates import MAX_INLINE_BYTES, template_body, without_texts
from flows.pipeline.announce import EVENT_SOURCE, OutcomeStatus
from lambda_trigger.ignored_names import IGNORED_NAMES
from tests.infra.template import defaults_of, listed, load_template, resource, resources_of, statements_of, text_of

TIMEOUTS = Timeouts(60, 600)
TEMPLATE_DATA = load_template()
BUCKETS = resources_of(TEMPLATE_DATA, "AWS::S3::Bucket")
QUEUES = resources_of(TEMPLATE_DATA, "AWS::SQS::Queue")
STATE_MACHINES = resources_of(TEMPLATE_DATA, "AWS::StepFunctions::StateMachine")
TASK = resource(TEMPLATE_DATA, "TaskDefinition")["Properties"]
CONTAINER = TASK["ContainerDefinitions"][0]


def cfn_lint(*paths: Path) -> str:
    """Return cfn-lint's findings, including those of the rules for serverless resources."""
    program = Path(sys.executable).with_name("cfn-lint")
    linted = subprocess.run(
        [program, "--append-rules", "cfn_lint_serverless.rules", "--", *paths], capture_output=True, text=True
    )
    assert (linted.returncode == 0) == (linted.stdout == ""), linted.stderr
    return linted.stdout


def test_linters_find_nothing_in_the_definition(tmp_path: Path) -> None:
    """cfn-lint reads a definition only if it is inline in the template."""
    whole = definition(DEFINITIONS / "drain.asl.json", TIMEOUTS.placeholders).decode()
    filled = re.sub(r"\$\{\w+\}", "1", whole.replace("${Partition}", "aws"))
    properties = {
        "RoleArn": "arn:aws:iam::123456789012:role/run",
        "DefinitionString": filled,
        "TracingConfiguration": {"Enabled": True},
    }
    template = tmp_path / "template.json"
    template.write_text(
        json.dumps({"Resources": {"M": {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}}})
    )
    findings = cfn_lint(template)
    assert findings == ""


def test_the_template_has_no_yaml_aliases_which_cloudformation_rejects() -> None:
    tokens = yaml.scan(TEMPLATE.read_text(encoding="utf-8"))
    assert not [token for token in tokens if isinstance(token, yaml.AliasToken | yaml.AnchorToken)], "refused"


# --- parameters ------------------------------------------------------------------------------------------------


def test_every_parameter_is_described_and_bounded() -> None:
    bounds = {"AllowedPattern", "AllowedValues", "MinLength", "MinValue"}
    unbounded = {
        "SubnetIds",
        "SecurityGroupIds",
        "AvailabilityZones",
    }  # these are lists, whose items CloudFormation checks where they are used
    for name, parameter in TEMPLATE_DATA["Parameters"].items():
        assert parameter.get("Description"), name
        assert set(parameter) & bounds or name in unbounded, name


def test_every_parameter_has_its_place_in_the_console() -> None:
    groups = TEMPLATE_DATA["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    placed = [name for group in groups for name in group["Parameters"]]
    assert sorted(placed) == sorted(TEMPLATE_DATA["Parameters"])


def test_only_the_image_and_prefects_url_have_no_default() -> None:
    needed = set(TEMPLATE_DATA["Parameters"]) - set(defaults_of(TEMPLATE_DATA, "Default"))
    packaged = {"ArtifactBucket", "LambdaCodeKey", "DrainDefinitionKey"}
    assert needed - packaged == {"ImageUri", "PrefectApiUrl"}


def test_no_number_of_pushes_expires_an_image_that_was_deployed() -> None:
    """An image whose tags match a rule is never expired by a rule of lower priority.

    See docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html (evaluation rules).
    """
    text = resource(TEMPLATE_DATA, "ImageRepository")["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"]
    first, others = sorted(json.loads(text)["rules"], key=lambda rule: rule["rulePriority"])
    assert first["selection"]["tagPrefixList"] == [DEPLOYED]
    assert (first["selection"]["tagStatus"], others["selection"]["tagStatus"]) == ("tagged", "any")


def test_fixed_names_fit_with_the_longest_stack_name() -> None:
    """`sluice deploy` accepts stack names of at most 32 characters. The limits below are from AWS's API references."""
    limits = {
        "AWS::S3::Bucket": ("BucketName", 63),
        "AWS::Scheduler::Schedule": ("Name", 64),
        "AWS::StepFunctions::StateMachine": ("StateMachineName", 80),
        "AWS::ECR::Repository": ("RepositoryName", 256),
        "AWS::ECS::TaskDefinition": ("Family", 255),
    }
    for kind, (name, limit) in limits.items():
        for one in resources_of(TEMPLATE_DATA, kind).values():
            text = text_of(one["Properties"][name]).replace("${Unique}", "0" * 8)
            assert len(text.replace("${AWS::StackName}", "s" * MAX_STACK_NAME_LENGTH)) <= limit, kind


def test_the_stacks_tags_reach_its_resources_and_its_tasks() -> None:
    """CloudFormation sets the stack's tags on every resource that supports tags. Tasks get the tags of their
    definition."""
    no_tags = {
        "AWS::EC2::Route",
        "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::EC2::VPCGatewayAttachment",
        "AWS::Lambda::EventInvokeConfig",
        "AWS::Lambda::Permission",
        "AWS::S3::BucketPolicy",
        "AWS::SNS::Subscription",
        "AWS::SNS::TopicPolicy",
        "AWS::SQS::QueuePolicy",
        "AWS::Scheduler::Schedule",
    }
    types = {one["Type"] for one in TEMPLATE_DATA["Resources"].values()}
    schemas = (Path(cfnlint.__file__).parent / "data" / "schemas" / "resources").glob("*.json")
    read = (json.loads(path.read_text(encoding="utf-8")) for path in schemas)
    assert {one["typeName"] for one in read if not one.get("tagging", {}).get("taggable")} & types == no_tags
    launched = re.findall(r'"PropagateTags": *"(\w+)"', (DEFINITIONS / "drain.asl.json").read_text(encoding="utf-8"))
    assert launched == ["TASK_DEFINITION"]


def test_every_output_is_described() -> None:
    assert all(output.get("Description") for output in TEMPLATE_DATA["Outputs"].values())


# --- the container ----------------------------------------------------------------------------------------------


def test_the_container_runs_without_privileges() -> None:
    """Fargate allows dropping capabilities:
    docs.aws.amazon.com/AmazonECS/latest/APIReference/API_KernelCapabilities.html"""
    assert int(CONTAINER["User"]) >= 1000
    assert CONTAINER["Privileged"] is False
    assert CONTAINER["ReadonlyRootFilesystem"] is True
    assert CONTAINER["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
    assert not {"PidMode", "IpcMode"} & set(TASK)


def test_the_container_can_see_the_limit_of_its_memory() -> None:
    """The limit of a task is in a cgroup that its container cannot see. The machine of a task has more memory than the
    task, so a reader process would be allowed to use more than there is.

    github.com/heroku/buildpacks-nodejs/issues/220
    """
    assert CONTAINER["Memory"] == TASK["Memory"] == {"Ref": "TaskMemory"}


def test_the_container_writes_nowhere_but_to_its_scratch_volume() -> None:
    assert [mount["ContainerPath"] for mount in CONTAINER["MountPoints"]] == ["/tmp"]  # noqa: S108 (in the container)
    assert TASK["Volumes"] == [{"Name": CONTAINER["MountPoints"][0]["SourceVolume"]}]


def test_the_container_has_an_init_process_and_time_to_stop() -> None:
    assert CONTAINER["LinuxParameters"]["InitProcessEnabled"] is True
    assert CONTAINER["StopTimeout"] == 120  # the maximum on Fargate, and the notice that Spot gives


def test_the_container_gets_no_secret_in_its_environment() -> None:
    names = {entry["Name"] for entry in CONTAINER["Environment"]}
    assert names == {
        "PREFECT_API_URL",
        "SLUICE_STACK",
        "SLUICE_IGNORED_NAMES",
        "SLUICE_INCOMING_PREFIX",
        "SLUICE_LANDING_BUCKET",
        "SLUICE_PUBLISHED_BUCKET",
        "SLUICE_QUEUE_URL",
        "SLUICE_STATE_MACHINE_ARN",
        "SLUICE_DATASET_METRICS",
        "SLUICE_DEAD_LETTER_QUEUE_URL",
        "SLUICE_LIVE_BACKLOG",
        "SLUICE_MAX_OBJECT_BYTES",
        "SLUICE_MAX_RECEIVE_COUNT",
        "SLUICE_MAX_TASK_SECONDS",
        "SLUICE_STAGE_TIMEOUT_SECONDS",
        "SLUICE_MAX_TASKS",
        "SLUICE_MESSAGES_PER_TASK",
        "SLUICE_RETRY_DELAY_SECONDS",
        "SLUICE_VISIBILITY_TIMEOUT_SECONDS",
        "SLUICE_WINDOW_SECONDS",
    }


def test_every_variable_of_the_container_is_a_setting_and_has_the_parameters_value() -> None:
    """The state machine and the task must use the same values."""
    ours = {one["Name"]: one["Value"] for one in CONTAINER["Environment"] if one["Name"].startswith("SLUICE_")}
    assert {name.removeprefix("SLUICE_").lower() for name in ours} <= set(PipelineSettings.model_fields)
    machine = resource(TEMPLATE_DATA, "DrainMachine")["Properties"]["DefinitionSubstitutions"]
    names = {"MaxConcurrentTasks": "MAX_TASKS", "WindowSeconds": "WINDOW_SECONDS"} | {
        name: re.sub("(?<!^)(?=[A-Z])", "_", name).upper()
        for name in ("MessagesPerTask", "MaxReceiveCount", "RetryDelaySeconds", "VisibilityTimeoutSeconds")
    }
    assert all(machine[name] == ours[f"SLUICE_{variable}"] == {"Ref": name} for name, variable in names.items())


def test_runs_by_hand_differ_from_drains_in_their_family_only() -> None:
    """A drain counts the tasks of its family, and relies on each of them to drain the queue."""
    operators = resource(TEMPLATE_DATA, "OperatorTaskDefinition")["Properties"]
    assert {name for name in TASK if TASK[name] != operators[name]} == {"Family"}
    assert set(operators) == set(TASK)
    assert text_of(operators["Family"]) == "${AWS::StackName}-operator"


def test_prefects_keys_come_from_secrets_manager() -> None:
    secrets = {one["Fn::If"][1]["Name"]: text_of(one["Fn::If"][1]["ValueFrom"]) for one in CONTAINER["Secrets"]}
    assert secrets == {
        "PREFECT_API_KEY": "${PrefectApiKeySecretArn}",
        "PREFECT_API_AUTH_STRING": "${PrefectAuthStringSecretArn}",
    }


def test_the_definition_gets_the_names_of_the_container_and_of_the_task_family() -> None:
    for machine in STATE_MACHINES.values():
        substitutions = machine["Properties"]["DefinitionSubstitutions"]
        assert substitutions["ContainerName"] == CONTAINER["Name"]
        assert text_of(substitutions["TaskFamily"]) == text_of(TASK["Family"])


def test_nothing_may_connect_to_a_task() -> None:
    assert "SecurityGroupIngress" not in resource(TEMPLATE_DATA, "TaskSecurityGroup")["Properties"]
    assert not resources_of(TEMPLATE_DATA, "AWS::EC2::SecurityGroupIngress")


def test_a_throttled_lookup_of_subnets_is_retried() -> None:
    """ECS raises InvalidParameterException when EC2 throttles it. AWS's construct-hub retries this error for the same
    reason.

    github.com/cdklabs/construct-hub (src/backend/orchestration)
    """
    machine = json.loads((DEFINITIONS / "drain.asl.json").read_text(encoding="utf-8"))
    task = machine["States"]["Launch"]["ItemProcessor"]["States"]["Drain the queue"]
    (retry,) = (one for one in task["Retry"] if "ECS.InvalidParameterException" in one["ErrorEquals"])
    assert retry["MaxAttempts"] == 12
    assert retry["JitterStrategy"] == "FULL"


# --- the network --------------------------------------------------------------------------------------------------


def test_a_closed_network_has_no_way_out_and_an_endpoint_for_each_service_that_a_task_uses() -> None:
    ways_out = [resource(TEMPLATE_DATA, name) for name in ("InternetGateway", "InternetGatewayAttachment", "RouteOut")]
    assert {one["Condition"] for one in ways_out} == {"OpenNetwork"}
    endpoints = resources_of(TEMPLATE_DATA, "AWS::EC2::VPCEndpoint")
    services = {
        text_of(endpoint["Properties"]["ServiceName"]).rpartition("${AWS::Region}.")[2]: endpoint["Condition"]
        for endpoint in endpoints.values()
    }
    assert services == {
        "s3": "MakeNetwork",
        "sqs": "ClosedNetwork",
        "ecr.api": "ClosedNetwork",
        "ecr.dkr": "ClosedNetwork",
        "logs": "ClosedNetwork",
        "events": "ClosedNetwork",
        "monitoring": "ClosedNetwork",
        "states": "ClosedNetwork",
        "ecs": "ClosedNetwork",
        "secretsmanager": "ClosedNetwork",
    }
    assert not resources_of(TEMPLATE_DATA, "AWS::EC2::NatGateway")


def test_a_closed_network_works_with_a_prefect_server_inside_and_rejects_prefect_cloud() -> None:
    """A VPC without internet access reaches only its endpoints and its own addresses, but not Prefect Cloud or Docker
    Hub.

    Amazon ECR interface VPC endpoints (AWS PrivateLink):
    docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html (what Fargate needs to start there)
    """
    (refusal,) = TEMPLATE_DATA["Rules"]["ClosedNetworkReachesNoPrefectCloud"]["Assertions"]
    assert refusal["Assert"] == {"Fn::Equals": [{"Ref": "PrefectApiKeySecretArn"}, ""]}
    for machine in STATE_MACHINES.values():
        groups = machine["Properties"]["DefinitionSubstitutions"]["SecurityGroupIds"]
        assert groups == TEMPLATE_DATA["Outputs"]["SecurityGroupIds"]["Value"]
        assert groups["Fn::If"][1]["Fn::If"][0] == "MoreGroups"
    server = load_template(TEMPLATE.with_name("prefect_server.yaml"))
    admitted = resource(server, "ServerToEndpoints")["Properties"]
    assert admitted["GroupId"] == {"Ref": "EndpointSecurityGroupId"}
    assert (admitted["FromPort"], admitted["ToPort"]) == (443, 443)
    assert TEMPLATE_DATA["Outputs"]["EndpointSecurityGroupId"]["Value"] == {"Ref": "EndpointSecurityGroup"}


def test_availability_zones_can_be_given_instead_of_the_first_two() -> None:
    """If the account has default subnets, Fn::GetAZs returns only the zones that contain one, which may be a single
    zone.

    Fn::GetAZs:
    docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/intrinsic-function-reference-getavailabilityzones.html
    """
    for number, name in enumerate(("SubnetA", "SubnetB")):
        condition, given, found = resource(TEMPLATE_DATA, name)["Properties"]["AvailabilityZone"]["Fn::If"]
        assert condition == "GivenZones"
        assert given == {"Fn::Select": [number, {"Ref": "AvailabilityZones"}]}
        assert found == {"Fn::Select": [number, {"Fn::GetAZs": ""}]}


def test_a_new_account_can_deploy_the_defaults() -> None:
    """A new account has a concurrency of 10, and Lambda rejects a reservation that leaves less than that unreserved.

    Understanding Lambda function scaling: docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
    """
    assert TEMPLATE_DATA["Parameters"]["LambdaReservedConcurrency"]["Default"] == 0


def test_a_task_reaches_https_and_prefects_port_only() -> None:
    """If Prefect uses port 443, there is only one rule: CloudFormation would delete both of two equal rules if the port
    changed.

    github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/1534
    """
    https, other = resource(TEMPLATE_DATA, "TaskSecurityGroup")["Properties"]["SecurityGroupEgress"]
    condition, prefect, otherwise = other["Fn::If"]
    port = {"Ref": "PrefectApiPort"}
    assert [(one["IpProtocol"], one["FromPort"], one["ToPort"]) for one in (https, prefect)] == [
        ("tcp", 443, 443),
        ("tcp", port, port),
    ]
    assert TEMPLATE_DATA["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [port, 443]}]}
    assert otherwise == {"Ref": "AWS::NoValue"}


def test_only_tasks_may_use_the_endpoints() -> None:
    (rule,) = resource(TEMPLATE_DATA, "EndpointSecurityGroup")["Properties"]["SecurityGroupIngress"]
    assert (rule["FromPort"], rule["ToPort"]) == (443, 443)
    assert rule["SourceSecurityGroupId"] == {"Ref": "TaskSecurityGroup"}
    assert "CidrIp" not in rule


# --- a customer key -----------------------------------------------------------------------------------------------


def with_key(value: object) -> object:
    """Return the value that a property has if a customer key is given."""
    assert isinstance(value, Mapping), value
    condition, yes, _ = value["Fn::If"]
    assert condition == "HasKey"
    return yes


def test_a_customer_key_encrypts_everything_that_is_stored() -> None:
    key = {"Ref": "KmsKeyArn"}
    for bucket in BUCKETS.values():
        (rule,) = bucket["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert with_key(rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"]) == "aws:kms"
        assert with_key(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]) == key
    for queue in QUEUES.values():
        assert with_key(queue["Properties"]["KmsMasterKeyId"]) == key
    for group in resources_of(TEMPLATE_DATA, "AWS::Logs::LogGroup").values():
        assert with_key(group["Properties"]["KmsKeyId"]) == key
    assert with_key(resource(TEMPLATE_DATA, "AlarmTopic")["Properties"]["KmsMasterKeyId"]) == key
    images = resource(TEMPLATE_DATA, "ImageRepository")["Properties"]["EncryptionConfiguration"]
    assert (with_key(images["EncryptionType"]), with_key(images["KmsKey"])) == ("KMS", key)


# --- buckets and queues -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUCKETS)
def test_a_bucket_is_private_encrypted_and_versioned(name: str) -> None:
    properties = BUCKETS[name]["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    assert properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


@pytest.mark.parametrize("name", BUCKETS)
def test_a_bucket_deletes_old_versions_and_unfinished_uploads_and_outlives_the_stack(name: str) -> None:
    rules = BUCKETS[name]["Properties"]["LifecycleConfiguration"]["Rules"]
    assert any("AbortIncompleteMultipartUpload" in rule for rule in rules)
    assert any("NoncurrentVersionExpiration" in rule for rule in rules)
    assert not any("ExpirationInDays" in rule for rule in rules), "current data must never expire"
    assert BUCKETS[name]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert BUCKETS[name]["UpdateReplacePolicy"] == "Retain"


@pytest.mark.parametrize("name", [*BUCKETS, *QUEUES])
def test_plain_http_is_rejected(name: str) -> None:
    policies = resources_of(TEMPLATE_DATA, "AWS::S3::BucketPolicy") | resources_of(
        TEMPLATE_DATA, "AWS::SQS::QueuePolicy"
    )
    targets = {
        text_of(target): policy["Properties"]["PolicyDocument"]
        for policy in policies.values()
        for target in [*policy["Properties"].get("Queues", []), policy["Properties"].get("Bucket")]
        if target
    }
    (statement,) = (one for one in targets[f"${{{name}}}"]["Statement"] if one["Sid"] == "TlsOnly")
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert f"${{{name}.Arn}}" in [text_of(arn) for arn in listed(statement["Resource"])]


def test_the_task_cannot_overwrite_a_receipt_or_an_index_entry_unconditionally() -> None:
    """The bucket policy enforces conditional writes:
    docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html"""
    document = resource(TEMPLATE_DATA, "PublishedBucketPolicy")["Properties"]["PolicyDocument"]
    (statement,) = (one for one in document["Statement"] if one["Sid"] == "NoBlindWrites")
    assert statement["Effect"] == "Deny"
    assert [text_of(arn) for arn in statement["Principal"]["AWS"]] == ["${TaskRole.Arn}", "${ReconcileRole.Arn}"]
    assert {text_of(arn) for arn in statement["Resource"]} == {
        "${PublishedBucket.Arn}/receipts/*",
        "${PublishedBucket.Arn}/index/*",
    }
    assert statement["Condition"] == {"Null": {"s3:if-match": "true", "s3:if-none-match": "true"}}


def test_the_task_cannot_replace_a_contract_that_was_used() -> None:
    document = resource(TEMPLATE_DATA, "PublishedBucketPolicy")["Properties"]["PolicyDocument"]
    (statement,) = (one for one in document["Statement"] if one["Sid"] == "KeptContractsStay")
    assert (statement["Effect"], text_of(statement["Principal"]["AWS"])) == ("Deny", "${TaskRole.Arn}")
    assert (statement["Action"], text_of(statement["Resource"])) == (
        "s3:PutObject",
        "${PublishedBucket.Arn}/contracts/used/*",
    )
    assert statement["Condition"] == {"Null": {"s3:if-none-match": "true"}}


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_is_encrypted(name: str) -> None:
    """A queue is encrypted with SQS's key unless a customer key is given, because SQS accepts only one of the two."""
    assert QUEUES[name]["Properties"]["SqsManagedSseEnabled"] == {"Fn::If": ["HasKey", False, True]}


def test_the_dead_letter_queue_keeps_messages_longer_than_the_upload_queue() -> None:
    """A message keeps its original enqueue time when it is moved, so with an equal retention period it would be deleted
    too early."""
    upload, dead = (QUEUES[name]["Properties"] for name in ("UploadQueue", "DeadLetterQueue"))
    assert dead["MessageRetentionPeriod"] > upload["MessageRetentionPeriod"]
    assert text_of(upload["RedrivePolicy"]["deadLetterTargetArn"]) == "${DeadLetterQueue.Arn}"


def test_the_landing_bucket_notifies_only_about_uploads_below_the_prefix() -> None:
    (notification,) = BUCKETS["LandingBucket"]["Properties"]["NotificationConfiguration"]["LambdaConfigurations"]
    assert notification["Event"] == "s3:ObjectCreated:*"
    (rule,) = notification["Filter"]["S3Key"]["Rules"]
    assert (rule["Name"], rule["Value"]) == ("prefix", {"Ref": "IncomingPrefix"})


@pytest.mark.parametrize("prefix", ["incoming/year=2026/", "incoming/a b/", "einkäufe/", "incoming/a+b/"])
def test_a_prefix_that_s3_expects_percent_encoded_is_rejected(prefix: str) -> None:
    """S3 stores such a filter unchanged, and no event ever matches it.

    Configuring event notifications using object key name filtering:
    docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-filtering.html
    """
    pattern = TEMPLATE_DATA["Parameters"]["IncomingPrefix"]["AllowedPattern"]
    assert not re.fullmatch(pattern, prefix)
    assert re.fullmatch(pattern, "incoming/shop-1/v2.0_a/")


def test_only_one_bucket_of_this_account_may_invoke_the_lambda() -> None:
    (permission,) = resources_of(TEMPLATE_DATA, "AWS::Lambda::Permission").values()
    assert permission["Properties"]["SourceAccount"] == {"Ref": "AWS::AccountId"}
    assert "SourceArn" in permission["Properties"]


def test_an_event_that_the_lambda_gives_up_on_is_kept() -> None:
    (retries,) = resources_of(TEMPLATE_DATA, "AWS::Lambda::EventInvokeConfig").values()
    destination = retries["Properties"]["DestinationConfig"]["OnFailure"]["Destination"]
    assert text_of(destination) == "${TriggerFailures.Arn}"


# --- logs, traces, alarms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STATE_MACHINES)
def test_a_state_machine_is_logged_without_data_and_traced(name: str) -> None:
    properties = STATE_MACHINES[name]["Properties"]
    logging = properties["LoggingConfiguration"]
    assert logging["Level"] == "ALL"
    assert logging["IncludeExecutionData"] is False, "keys of files may name people"
    assert logging["Destinations"]
    assert properties["TracingConfiguration"] == {"Enabled": True}


def test_every_log_expires_and_every_component_has_its_own() -> None:
    groups = resources_of(TEMPLATE_DATA, "AWS::Logs::LogGroup")
    assert all(group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"} for group in groups.values())
    function = resource(TEMPLATE_DATA, "TriggerFunction")["Properties"]
    used = [
        text_of(function["LoggingConfig"]["LogGroup"]),
        text_of(CONTAINER["LogConfiguration"]["Options"]["awslogs-group"]),
        text_of(
            STATE_MACHINES["DrainMachine"]["Properties"]["LoggingConfiguration"]["Destinations"][0][
                "CloudWatchLogsLogGroup"
            ]["LogGroupArn"]
        ).replace(".Arn", ""),
    ]
    assert sorted(used) == sorted(f"${{{name}}}" for name in groups)
    assert function["LoggingConfig"]["LogFormat"] == "JSON", (
        "otherwise, each line of a traceback would be a separate event"
    )


def test_every_alarm_notifies_the_topic() -> None:
    alarms = resources_of(TEMPLATE_DATA, "AWS::CloudWatch::Alarm")
    watched = {
        (alarm["Properties"]["MetricName"], text_of(alarm["Properties"]["Dimensions"][0]["Value"]))
        for alarm in alarms.values()
    }
    assert watched == {
        ("ApproximateNumberOfMessagesVisible", "${DeadLetterQueue.QueueName}"),
        ("ApproximateNumberOfMessagesVisible", "${TriggerFailures.QueueName}"),
        ("ApproximateAgeOfOldestMessage", "${UploadQueue.QueueName}"),
        ("UploadsFailed", "${AWS::StackName}"),
        ("OutcomesNotAnnounced", "${AWS::StackName}"),
        ("ExecutionsFailed", "${DrainMachine}"),
        ("ExecutionsTimedOut", "${DrainMachine}"),
    }
    for name, alarm in alarms.items():
        assert alarm["Properties"]["AlarmActions"] == [{"Ref": "AlarmTopic"}], name
        assert alarm["Properties"]["TreatMissingData"] == "notBreaching", name


def test_a_rejected_file_notifies_nobody_by_default() -> None:
    """The cause is the data, so a thousand rejected files would send a thousand emails to people who cannot do anything
    about it."""
    rules = resources_of(TEMPLATE_DATA, "AWS::Events::Rule")
    detail_types = [kind for rule in rules.values() for kind in rule["Properties"]["EventPattern"]["detail-type"]]
    alarms = resources_of(TEMPLATE_DATA, "AWS::CloudWatch::Alarm").values()
    assert OutcomeStatus.REJECTED.detail_type not in detail_types
    assert OutcomeStatus.REJECTED.metric not in [alarm["Properties"]["MetricName"] for alarm in alarms]


def test_a_failed_upload_of_this_stack_is_sent_to_the_topic_with_its_reason() -> None:
    (rule,) = resources_of(TEMPLATE_DATA, "AWS::Events::Rule").values()
    pattern: Mapping[str, Any] = rule["Properties"]["EventPattern"]
    assert (pattern["source"], pattern["detail-type"]) == ([EVENT_SOURCE], [OutcomeStatus.FAILED.detail_type])
    assert text_of(pattern["detail"]["stack"][0]) == "${AWS::StackName}"
    (target,) = rule["Properties"]["Targets"]
    assert text_of(target["Arn"]) == "${AlarmTopic}"
    assert target["InputTransformer"]["InputPathsMap"]["reason"] == "$.detail.error.message"


def test_the_topic_accepts_alarms_of_this_account_and_events_without_a_condition() -> None:
    """If the topic's policy has a condition for EventBridge, EventBridge does not deliver, and does not report an
    error."""
    (policy,) = resources_of(TEMPLATE_DATA, "AWS::SNS::TopicPolicy").values()
    said = {one["Principal"]["Service"]: one for one in statements_of(policy["Properties"]["PolicyDocument"])}
    assert set(said) == {"cloudwatch.amazonaws.com", "events.amazonaws.com"}
    this_account = {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert said["cloudwatch.amazonaws.com"]["Condition"] == this_account
    assert "Condition" not in said["events.amazonaws.com"]


def test_resources_that_the_deploying_role_finds_by_name_start_with_the_stacks_name() -> None:
    """The names that CloudFormation generates for these resources do not start with the stack's name."""
    kinds = {"AWS::StepFunctions::StateMachine": "StateMachineName", "AWS::Scheduler::Schedule": "Name"}
    for kind, name in kinds.items():
        for named in resources_of(TEMPLATE_DATA, kind).values():
            assert text_of(named["Properties"][name]).startswith("${AWS::StackName}-")


def test_the_first_dry_run_of_an_account_can_send_the_template_with_the_call() -> None:
    """There is no bucket yet from which CloudFormation could read a larger template."""
    short = json.loads(without_texts(template_body(TEMPLATE)))
    assert short["Resources"] == json.loads(template_body(TEMPLATE))["Resources"]
    assert len(json.dumps(short, separators=(",", ":")).encode()) <= MAX_INLINE_BYTES


def test_the_default_of_the_ignored_names_is_that_of_the_code() -> None:
    assert TEMPLATE_DATA["Parameters"]["IgnoredNames"]["Default"] == IGNORED_NAMES
