"""Creates the shipped permissions boundary in a local cloud, so that whole test suites run with it."""

from __future__ import annotations

from deployment.aws.deploy_stack import TEMPLATE
from deployment.local.cloud import LocalCloud

BOUNDARY_TEMPLATE = TEMPLATE.with_name("boundary.yaml")


def make_boundary(cloud: LocalCloud, stack_name: str, **parameters: str) -> str:
    """Create the permissions boundary for a stack's roles from the shipped template, and return its ARN."""
    cloudformation = cloud.client("cloudformation")
    given = {"StackName": stack_name, **parameters}
    cloudformation.create_stack(
        StackName=f"{stack_name}-boundary",
        TemplateBody=BOUNDARY_TEMPLATE.read_text(encoding="utf-8"),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
    )
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName=f"{stack_name}-boundary", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    (stack,) = cloudformation.describe_stacks(StackName=f"{stack_name}-boundary")["Stacks"]
    return str(stack["Outputs"][0]["OutputValue"])
