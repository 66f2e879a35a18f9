"""Gives tasks the secrets in task definitions that CloudFormation created. MiniStack 1.5.33 loses these secrets,
because it converts the container definitions in a template to the format of ECS's API, but not their secrets.
docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-ecs-taskdefinition-secret.html
"""

from typing import Any

from ministack.services.cloudformation import provisioners


def install() -> None:
    normalize = provisioners._normalize_container_defs

    def normalized(definitions: Any) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = normalize(definitions)
        for definition in result:
            secrets = definition.get("secrets") or []
            definition["secrets"] = [{name[0].lower() + name[1:]: one[name] for name in one} for one in secrets]
        return result

    provisioners._normalize_container_defs = normalized
