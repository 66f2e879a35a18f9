"""Adds IAM condition keys that MiniStack lacks: a role's permissions boundary and the preconditions of PutObject.

docs.aws.amazon.com/service-authorization/latest/reference/list_awsidentityandaccessmanagementiam.html
docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
"""

from typing import Any

from ministack.core import iam_actions
from ministack.services import iam

_GIVEN = ("iam:CreateRole", "iam:PutRolePermissionsBoundary")
_OF_THE_ROLE = (
    "iam:AttachRolePolicy",
    "iam:DeleteRolePermissionsBoundary",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:PutRolePolicy",
)
_PRECONDITIONS = ("if-match", "if-none-match")


def install() -> None:
    tags_of, s3_context_of = iam_actions.request_tag_context, iam_actions.s3_service_context

    def with_boundary(service: str, action: str, body: bytes, params: dict[str, Any]) -> dict[str, Any]:
        boundary = _boundary(action, params)
        known: dict[str, Any] = tags_of(service, action, body, params)
        return known | ({"iam:PermissionsBoundary": boundary} if boundary else {})

    def with_preconditions(
        action: str, query: Any, path: str = "", headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        known: dict[str, Any] = s3_context_of(action, query, path, headers)
        if action != "s3:PutObject":
            return known
        given = {name.lower(): value for name, value in (headers or {}).items()}
        return known | {f"s3:{name}": given[name] for name in _PRECONDITIONS if name in given}

    iam_actions.request_tag_context, iam_actions.s3_service_context = with_boundary, with_preconditions


def _boundary(action: str, params: dict[str, Any]) -> str | None:
    if action in _GIVEN:
        return _value(params, "PermissionsBoundary")
    if action in _OF_THE_ROLE:
        role = iam._roles.get(_value(params, "RoleName") or "") or {}
        return str(role["PermissionsBoundary"]) if role.get("PermissionsBoundary") else None
    return None


def _value(params: dict[str, Any], name: str) -> str | None:
    value = params.get(name)
    return str(value[0] if isinstance(value, list) else value) if value else None
