"""Tests that the role for GitHub has the permissions that CloudFormation requires for each resource type, and can
neither read data nor extend its own permissions."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import cfnlint
import pytest
import yaml
from botocore.exceptions import ClientError

from deployment import PROJECT_ROOT
from deployment.aws.artifact_bucket import artifact_bucket_name, upload_artifacts
from deployment.aws.deploy_stack import TEMPLATE, Clients, deploy_stack
from deployment.local.cloud import LocalCloud
from tests.chain.boundary import BOUNDARY_TEMPLATE, make_boundary
from tests.emulator.records import EXTENSIONS, decisions_of
from tests.infra.template import listed, load_template, resource, resources_of, statements_of, text_of
from tests.infra.waiting import eventually
from tests.privileges.calls import Call
from tests.privileges.compare import grants_of

ROLE_TEMPLATE = TEMPLATE.with_name("github_role.yaml")
ROLE = load_template(ROLE_TEMPLATE)
POLICIES = resources_of(ROLE, "AWS::IAM::ManagedPolicy")
BOUNDARIES = resources_of(load_template(BOUNDARY_TEMPLATE), "AWS::IAM::ManagedPolicy")
PEOPLE = resources_of(load_template(TEMPLATE.with_name("people.yaml")), "AWS::IAM::ManagedPolicy")
MAX_POLICY_CHARACTERS = 6_144  # without white space: docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html

# Permissions in CloudFormation's schemas for features that the template does not use: pattern → feature.
NOT_USED = {
    "cloudwatch:TagMuteRule": "mute rules",
    "ec2:*VpnGateway*": "VPN",
    "ec2:AssociateSubnetCidrBlock": "IPv6",
    "ec2:DisassociateSubnetCidrBlock": "IPv6",
    "ec2:*VpcEncryptionControl*": "encryption controls of VPCs",
    "ec2:ModifyVpcTenancy": "dedicated hardware",
    "ec2:DescribeInstances": "security groups of machines",
    "vpc-lattice:*": "VPC Lattice",
    "vpce:*": "endpoints of several regions",
    "ecr:*RepositoryPolicy": "repositories that other accounts read",
    "ecs:PutAccountSetting*": "settings of the whole account",
    "iam:AttachRolePolicy": "managed policies: the stack's roles have inline ones only",
    "iam:DetachRolePolicy": "managed policies",
    "iam:DeleteRolePermissionsBoundary": "nobody takes a boundary away, least of all a pipeline",
    "elasticfilesystem:*": "file systems in a Lambda",
    "s3files:*": "file systems in a Lambda",
    "kms:Encrypt": "the Lambda's environment with a customer key",
    "lambda:*CodeSigning*": "signed code",
    "lambda:GetLayerVersion": "layers",
    "lambda:AssociateRuntimeAlias": "pinned runtimes",
    "lambda:PassCapacityProvider": "Lambdas on customer machines",
    "lambda:PublishVersion": "versions",
    "lambda:PutFunctionRecursionConfig": "loop detection other than Lambda's own",
    "lambda:PutFunctionScalingConfig": "scaling other than Lambda's own",
    "lambda:PutRuntimeManagementConfig": "pinned runtimes",
    "logs:*DataProtectionPolicy": "masking of logs, which hold no data here",
    "logs:*IndexPolicy": "indexed fields of logs",
    "logs:*ResourcePolicy": "log groups that other services write to in their own name",
    "logs:CreateLogDelivery": "the state machines' roles do that",
    "logs:PutBearerTokenAuthentication": "logs from elsewhere",
    "logs:PutLogGroupDeletionProtection": "protection from deletion",
    "firehose:*": "logs to elsewhere",
    "s3:REST.PUT.OBJECT": "logs to elsewhere",
    "s3tables:*": "metadata tables",
    "s3:*Metadata*": "metadata tables",
    "s3:*Abac": "access by tags",
    "s3:*Website": "websites",
    "s3:*Cors*": "browsers",
    "s3:*CORS": "browsers",
    "s3:PutAccelerateConfiguration": "acceleration",
    "s3:*Analytics*": "analytics",
    "s3:*IntelligentTiering*": "tiering",
    "s3:PutInventoryConfiguration": "inventories",
    "s3:*Metrics*": "metrics by request",
    "s3:*Replication*": "replication",
    "s3:PutObjectLockConfiguration": "object lock",
    "s3:PutBucketObjectLockConfiguration": "object lock",
    "s3:PutBucketAcl": "access lists, which the buckets refuse",
    "s3:PutObjectAcl": "access lists, which the buckets refuse",
    "s3:DeleteBucketEncryption": "buckets that are not encrypted",
    "s3:DeleteBucketLifecycle": "buckets that keep remains",
    "s3:DeleteBucketTagging": "no action of S3's: removing tags takes s3:PutBucketTagging",
    "s3:DeleteObject": "emptying a bucket",
    "s3:GetObjectVersion": "artifacts by version: their names tell their content",
    "sns:PutDataProtectionPolicy": "masking of notices",
}


@cache
def needed() -> dict[str, set[str]]:
    """Return the permissions that CloudFormation needs to create, read, update, delete and tag a resource, by resource
    type."""
    types = {one["Type"] for one in load_template()["Resources"].values()}
    found: dict[str, set[str]] = {}
    for path in (Path(cfnlint.__file__).parent / "data" / "schemas" / "resources").glob("*.json"):
        schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if schema["typeName"] in types:
            handlers = {name: one for name, one in schema.get("handlers", {}).items() if name != "list"}
            found[schema["typeName"]] = {
                action
                for one in (*handlers.values(), schema.get("tagging", {}))
                for action in one.get("permissions", ())
            }
    assert set(found) == types
    return found


def allowed() -> set[str]:
    documents = (policy["Properties"]["PolicyDocument"] for policy in POLICIES.values())
    return {
        action
        for document in documents
        for statement in statements_of(document)
        for action in listed(statement["Action"])
    }


def matches(action: str, patterns: set[str]) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


@pytest.mark.parametrize("kind", sorted({one["Type"] for one in load_template()["Resources"].values()}))
def test_the_role_has_what_cloudformation_needs_for_each_type_of_resource(kind: str) -> None:
    assert {action for action in needed()[kind] if not matches(action, allowed() | set(NOT_USED))} == set()


def test_associating_private_dns_names_is_not_limited_to_a_region() -> None:
    """ec2:CreateVpcEndpoint depends on route53:AssociateVPCWithHostedZone. Route 53 is global, so its requests count as
    requests to us-east-1.

    Actions, resources, and condition keys for Amazon EC2:
    docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html (dependent actions)
    AWS global condition context keys:
    docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html (aws:RequestedRegion)
    """
    document = POLICIES["RolesAndNetworkPolicy"]["Properties"]["PolicyDocument"]
    (names,) = (one for one in statements_of(document) if "route53:AssociateVPCWithHostedZone" in listed(one["Action"]))
    assert "Condition" not in names


def test_features_that_are_not_used_are_not_allowed_except_to_read_them() -> None:
    exact = {action for action in allowed() if "*" not in action}
    assert {action for action in exact if matches(action, set(NOT_USED))} <= ALLOWED_TO_READ


# CloudFormation calls these whenever it reads a resource, whether or not the template uses the feature.
ALLOWED_TO_READ = {
    "ec2:DescribeVpnGateways",
    "ecr:GetRepositoryPolicy",
    "lambda:GetFunctionCodeSigningConfig",
    "logs:GetDataProtectionPolicy",
    "s3:GetAnalyticsConfiguration",
    "s3:GetIntelligentTieringConfiguration",
    "s3:GetMetricsConfiguration",
    "s3:GetReplicationConfiguration",
}


def test_only_one_repository_in_one_environment_can_assume_the_role() -> None:
    """The subject claim contains the names of the owner and the repository. Since 15 July 2026, it can also contain
    their IDs.

    github.blog/changelog/2026-04-23-immutable-subject-claims-for-github-actions-oidc-tokens
    """
    (trust,) = resource(ROLE, "DeployRole")["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    claims = trust["Condition"]["StringEquals"]
    assert trust["Action"] == "sts:AssumeRoleWithWebIdentity"
    names, numbers = claims["token.actions.githubusercontent.com:sub"]
    assert text_of(names) == "repo:${Repository}:environment:${Environment}"
    condition, (subject, variables), otherwise = (
        numbers["Fn::If"][0],
        numbers["Fn::If"][1]["Fn::Sub"],
        numbers["Fn::If"][2],
    )
    assert subject == "repo:${Owner}@${OwnerId}/${Name}@${RepositoryId}:environment:${Environment}"
    assert set(variables) == {"Owner", "Name"}
    assert (condition, otherwise) == ("HasIds", {"Ref": "AWS::NoValue"})
    assert claims["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"


def test_the_smoke_tests_file_may_be_put_where_the_stack_looks_for_files() -> None:
    stacks, roles = (template["Parameters"]["IncomingPrefix"] for template in (load_template(), ROLE))
    assert [roles[name] for name in ("Default", "AllowedPattern")] == [
        stacks[name] for name in ("Default", "AllowedPattern")
    ]
    document = POLICIES["DeployPolicy"]["Properties"]["PolicyDocument"]
    (drop,) = (one for one in statements_of(document) if one["Sid"] == "UploadTestFile")
    assert text_of(drop["Resource"]).endswith(":${StackName}-landing-*/${IncomingPrefix}*")


def test_the_workflow_builds_pushes_and_deploys_with_the_command_that_people_use() -> None:
    workflow = yaml.safe_load((PROJECT_ROOT / ".github" / "workflows" / "deploy.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for step in workflow["jobs"]["deploy"]["steps"] if "run" in step]
    assert commands == ["make setup", ".venv/bin/sluice deploy production --yes"]


def characters_of(document: Mapping[str, Any]) -> int:
    """Return the number of characters in a policy's statements, without white space and with the longest possible names
    filled in."""
    longest = {"Partition": "aws-us-gov", "Region": "ap-northeast-1", "AccountId": "1" * 12, "StackName": "s" * 32}
    text = "".join(
        json.dumps({**statement, "Resource": [text_of(arn) for arn in listed(statement["Resource"])]})
        for statement in statements_of(document)
    )
    for name, value in longest.items():
        text = text.replace("${AWS::" + name + "}", value).replace("${" + name + "}", value)
    return len("".join(text.split()))


@pytest.mark.parametrize("name", [*POLICIES, *BOUNDARIES, *PEOPLE])
def test_a_policy_fits_and_every_wildcard_has_its_reason(name: str) -> None:
    policy = (POLICIES | BOUNDARIES | PEOPLE)[name]
    document = policy["Properties"]["PolicyDocument"]
    assert characters_of(document) < MAX_POLICY_CHARACTERS
    wild = {
        statement["Sid"]
        for statement in statements_of(document)
        if any("*" in text_of(arn) for arn in listed(statement["Resource"]))
    }
    assert wild == set(policy["Metadata"]["Sluice"]["WildcardReasons"])


def test_the_role_can_neither_read_data_nor_extend_its_own_permissions() -> None:
    """The role may change only roles whose names start with the stack's name and a hyphen. Its own name contains an
    underscore, which no stack name can contain."""
    assert text_of(resource(ROLE, "DeployRole")["Properties"]["RoleName"]) == "github_deploys_${StackName}"
    for policy in POLICIES.values():
        for statement in statements_of(policy["Properties"]["PolicyDocument"]):
            arns = [text_of(arn) for arn in listed(statement["Resource"])]
            if any(action.startswith("s3:GetObject") for action in listed(statement["Action"])):
                assert all(
                    arn.endswith(
                        (
                            "/receipts/*",
                            "/attempts/*",
                            "/batches/*",
                            "/contracts/live/*",
                            "-${AWS::Region}/${StackName}/*",
                        )
                    )
                    for arn in arns
                ), statement["Sid"]
            if any(action.startswith("iam:") for action in listed(statement["Action"])):
                assert all(":role/${StackName}-*" in arn or "aws-service-role" in arn for arn in arns), statement["Sid"]
    assert "iam:DeleteRolePermissionsBoundary" not in allowed()


def test_the_role_decrypts_and_grants_only_through_the_services_that_a_deployment_calls() -> None:
    """A grant could allow anyone to decrypt, so kms:CreateGrant is allowed only through ECR, for the image repository.

    The KMS developer guide explains the condition kms:ViaService.
    """
    via: dict[str, list[str]] = {}
    for statement in statements_of(POLICIES["DeployPolicy"]["Properties"]["PolicyDocument"]):
        services = statement.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService", [])
        for action in listed(statement["Action"]):
            if action.startswith("kms:"):
                via[action] = [text_of(one).partition(".")[0] for one in services]
    assert via == {
        "kms:Decrypt": ["s3", "secretsmanager"],
        "kms:GenerateDataKey": ["s3", "secretsmanager"],
        "kms:DescribeKey": [],
        "kms:RetireGrant": [],
        "kms:CreateGrant": ["ecr"],
    }


# --- in the local cloud -----------------------------------------------------------------------------------------

ROLE_NAME = "github_deploys_piped"
_ACCOUNT = "000000000000"
# For a change set that is named by its ARN, MiniStack checks permissions on "*". AWS checks the ARN of the stack or of
# the change set.
_CHANGE_SETS = {
    "Effect": "Allow",
    "Action": ["cloudformation:DescribeChangeSet", "cloudformation:ExecuteChangeSet"],
    "Resource": "*",
}
_ANYBODY = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
_EVERYTHING = {"Effect": "Allow", "Action": ["s3:*", "iam:*", "sts:*"], "Resource": "*"}


def policy_of(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@dataclass(frozen=True)
class Deployer:
    """The deployment role in a local cloud, and the permissions boundary that it must set on the roles that it
    creates."""

    cloud: LocalCloud
    boundary: str

    def client(self, service: str, role: str = ROLE_NAME) -> Any:
        """Return a client with the credentials of the deployment role, or of another role."""
        arn = f"arn:aws:iam::{_ACCOUNT}:role/{role}"
        lent = self.cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="pipeline")["Credentials"]
        return self.cloud.client(
            service,
            aws_access_key_id=lent["AccessKeyId"],
            aws_secret_access_key=lent["SecretAccessKey"],
            aws_session_token=lent["SessionToken"],
        )


@pytest.fixture(scope="module")
def deployer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployer]:
    """Create the boundary and the role from the shipped templates, with IAM enforced."""
    folder = tmp_path_factory.mktemp("deployer") / "cloud"
    with LocalCloud(folder, with_prefect=False, emulator_extensions=EXTENSIONS) as cloud:
        boundary = make_boundary(cloud, "piped")
        given = {
            "Repository": "owner/name",
            "StackName": "piped",
            "ProviderArn": f"arn:aws:iam::{_ACCOUNT}:oidc-provider/token.actions.githubusercontent.com",
            "PermissionsBoundaryArn": boundary,
        }
        cloud.client("cloudformation").create_stack(
            StackName="role",
            TemplateBody=ROLE_TEMPLATE.read_text(encoding="utf-8"),
            Capabilities=["CAPABILITY_NAMED_IAM"],
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
        )
        iam = cloud.client("iam")
        assert eventually(lambda: role_named(iam, ROLE_NAME), seconds=60)
        iam.update_assume_role_policy(RoleName=ROLE_NAME, PolicyDocument=policy_of(_ANYBODY))
        iam.put_role_policy(RoleName=ROLE_NAME, PolicyName="emulator", PolicyDocument=policy_of(_CHANGE_SETS))
        # As described in docs/production.md, a person makes the first deployment, which creates the bucket.
        bucket = artifact_bucket_name(_ACCOUNT, cloud.client("s3").meta.region_name)
        upload_artifacts(
            cloud.client("s3"), bucket, (), account_id=_ACCOUNT, region=cloud.client("s3").meta.region_name
        )
        yield Deployer(cloud, boundary)


@pytest.fixture(scope="module")
def outputs(deployer: Deployer) -> dict[str, str]:
    """Deploy the stack with the role. In the AWS emulator, CloudFormation's own requests are made as root."""
    parameters = {
        "ImageUri": "sluice:1",
        "PrefectApiUrl": "http://127.0.0.1:4200/api",
        "PermissionsBoundaryArn": deployer.boundary,
    }
    return dict(deploy_stack(Clients.made_by(deployer.client), stack_name="piped", parameters=parameters))


@pytest.mark.cloud
def test_the_role_suffices_for_every_call_of_a_deployment(deployer: Deployer, outputs: dict[str, str]) -> None:
    assert outputs["QueueUrl"]
    mine = [one for one in decisions_of(deployer.cloud.state_dir) if one["role"] == ROLE_NAME]
    assert [one for one in mine if not one["allowed"]] == []
    assert {"s3:PutObject", "cloudformation:ExecuteChangeSet"} <= {one["action"] for one in mine}


@pytest.mark.cloud
@pytest.mark.parametrize("key", ["other/template/1.json", "template/1.json", "piped-two/lambda/1.zip"])
def test_the_role_cannot_change_what_another_stack_is_deployed_from(deployer: Deployer, key: str) -> None:
    s3 = deployer.client("s3")
    bucket = artifact_bucket_name(_ACCOUNT, s3.meta.region_name)
    s3.put_object(Bucket=bucket, Key="piped/template/1.json", Body=b"{}")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"{}")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_bucket_policy(Bucket=bucket, Policy=policy_of(_EVERYTHING))


@pytest.mark.cloud
def test_the_boundary_allows_what_the_stacks_roles_do_and_nothing_else(
    deployer: Deployer, outputs: dict[str, str]
) -> None:
    """The stack has no customer key and no secrets, so the statements for these are not compared."""
    iam = deployer.cloud.client("iam")
    version = iam.get_policy_version(PolicyArn=deployer.boundary, VersionId="v1")["PolicyVersion"]
    limits = grants_of({"all": version["Document"]["Statement"]})
    stack = deployer.cloud.client("cloudformation").list_stack_resources(StackName="piped")["StackResourceSummaries"]
    roles = [one["PhysicalResourceId"] for one in stack if one["ResourceType"] == "AWS::IAM::Role"]
    assert outputs["TaskRoleArn"].rpartition("/")[2] in roles
    grants = grants_of({role: statements_in(iam, role) for role in roles})
    outside = [
        one
        for one in grants
        if not any(limit.covers(Call("all", one.action, one.resource.replace("*", "any"), True)) for limit in limits)
    ]
    assert (bool(grants), outside) == (True, [])
    assert {limit.action for limit in limits} == {one.action for one in grants}


def statements_in(iam: Any, role: str) -> list[dict[str, Any]]:
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = (iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names)
    return [{"Sid": "", **statement} for document in documents for statement in document["Statement"]]


@pytest.mark.cloud
def test_the_role_creates_and_changes_no_role_without_the_boundary(deployer: Deployer) -> None:
    iam = deployer.client("iam")
    with refused():
        iam.create_role(RoleName="piped-free", AssumeRolePolicyDocument=policy_of(_ANYBODY))
    with refused():
        iam.create_role(
            RoleName="piped-free",
            AssumeRolePolicyDocument=policy_of(_ANYBODY),
            PermissionsBoundary="arn:aws:iam::aws:policy/AdministratorAccess",
        )
    deployer.cloud.client("iam").create_role(RoleName="piped-old", AssumeRolePolicyDocument=policy_of(_ANYBODY))
    with refused():
        iam.put_role_policy(RoleName="piped-old", PolicyName="all", PolicyDocument=policy_of(_EVERYTHING))
    with refused():
        iam.put_role_permissions_boundary(
            RoleName="piped-old", PermissionsBoundary="arn:aws:iam::aws:policy/AdministratorAccess"
        )


@pytest.mark.cloud
def test_a_role_with_every_permission_stays_within_the_boundary(deployer: Deployer) -> None:
    iam = deployer.client("iam")
    iam.create_role(
        RoleName="piped-greedy",
        AssumeRolePolicyDocument=policy_of(_ANYBODY),
        PermissionsBoundary=deployer.boundary,
    )
    iam.put_role_policy(RoleName="piped-greedy", PolicyName="all", PolicyDocument=policy_of(_EVERYTHING))
    root = deployer.cloud.client("s3")
    for bucket in ("someone-elses", "piped-published-1"):
        root.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": deployer.cloud.region})
    greedy = partial(deployer.client, role="piped-greedy")
    greedy("s3").put_object(Bucket="piped-published-1", Key="data/a", Body=b"")  # the stack's roles may do this
    with refused():
        greedy("s3").put_object(Bucket="someone-elses", Key="a", Body=b"")
    with refused():
        greedy("s3").put_bucket_policy(Bucket="piped-published-1", Policy=policy_of(_ANYBODY))
    with refused():
        greedy("iam").create_role(RoleName="piped-free", AssumeRolePolicyDocument=policy_of(_ANYBODY))
    with refused():
        greedy("iam").create_user(UserName="somebody")


@pytest.mark.cloud
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("create_policy_version", {"PolicyArn": "BOUNDARY", "PolicyDocument": policy_of(_EVERYTHING)}),
        ("set_default_policy_version", {"PolicyArn": "BOUNDARY", "VersionId": "v1"}),
        ("delete_policy", {"PolicyArn": "BOUNDARY"}),
        ("delete_role_permissions_boundary", {"RoleName": "piped-any"}),
        ("attach_role_policy", {"RoleName": "piped-any", "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}),
        ("put_role_policy", {"RoleName": ROLE_NAME, "PolicyName": "all", "PolicyDocument": policy_of(_EVERYTHING)}),
        ("update_assume_role_policy", {"RoleName": ROLE_NAME, "PolicyDocument": policy_of(_ANYBODY)}),
        ("create_user", {"UserName": "somebody"}),
    ],
)
def test_the_role_changes_neither_the_boundary_nor_itself(
    deployer: Deployer, call: str, arguments: dict[str, str]
) -> None:
    filled = {name: value.replace("BOUNDARY", deployer.boundary) for name, value in arguments.items()}
    with refused():
        getattr(deployer.client("iam"), call)(**filled)


@contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


def role_named(iam: Any, name: str) -> str | None:
    return next((str(one["Arn"]) for one in iam.list_roles()["Roles"] if one["RoleName"] == name), None)
