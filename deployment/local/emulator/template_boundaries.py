"""Sets the permissions boundary of roles that CloudFormation creates. MiniStack 1.5.33 ignores it.

docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-iam-role.html
"""

from typing import Any

from ministack.services import iam
from ministack.services.cloudformation import provisioners


def install() -> None:
    role = provisioners._RESOURCE_HANDLERS["AWS::IAM::Role"]
    create, update = role["create"], role["update"]

    def create_bounded(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
        made = create(logical_id, props, stack_name)
        iam._roles[made[0]]["PermissionsBoundary"] = props.get("PermissionsBoundary")
        return made

    def update_bounded(physical_id: str, old: dict[str, Any], new: dict[str, Any], *rest: Any, **more: Any) -> Any:
        made = update(physical_id, old, new, *rest, **more)
        iam._roles[made[0]]["PermissionsBoundary"] = new.get("PermissionsBoundary")
        return made

    role.update(create=create_bounded, update=update_bounded)
