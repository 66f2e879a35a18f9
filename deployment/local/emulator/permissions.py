"""Checks the IAM permissions of a role that an AWS service uses. MiniStack checks only the permissions for requests."""

from collections.abc import Callable
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id, get_region

decision_listeners: list[Callable[[Any, bool, str], None]] = []
"""Functions that are called with each decision: its context, whether the action is allowed, and the service that uses
the role."""


def role_allows(
    role_arn: str,
    session: str,
    action: str,
    resource: str,
    *,
    asked_by: str,
    conditions: dict[str, Any] | None = None,
) -> bool:
    """Return whether a role may perform an action on a resource, according to its policies, its permissions boundary
    and the resource's policy.

    Args:
        session: the name of the role session.
        action: the IAM action, such as sqs:SendMessage.
        resource: the resource's ARN.
        asked_by: the service that uses the role, which is passed to `decision_listeners`.
        conditions: the values of condition keys.
    """
    account, role_name = get_account_id(), role_arn.rsplit("/", 1)[-1]
    credential = iam_evaluator.ResolvedCredential(
        access_key_id="",
        secret_access_key="",
        account_id=account,
        principal_arn=f"arn:aws:sts::{account}:assumed-role/{role_name}/{session}",
        principal_id=f"{role_name}:{session}",
        principal_type="AssumedRole",
    )
    principal = iam_evaluator.resolve_principal("", account, credential)
    context = iam_evaluator.EvalContext(
        principal_arn=principal.arn,
        principal_type=principal.type,
        principal_account=principal.account,
        action=action,
        resource_arn=resource,
        region=get_region(),
        secure_transport=True,
        service_context={name.lower(): value for name, value in (conditions or {}).items()},
        principal_keys=principal.keys,
    )
    result = iam_evaluator.evaluate(context, principal.policies, *principal.limits)
    found = iam_evaluator._resource_policy(action.partition(":")[0], resource)
    if found is not None:
        result = iam_evaluator.combine_resource_policy(result, context, *found, limits=principal.limits)
    allowed = bool(result.decision == "Allow")
    for listener in decision_listeners:
        listener(context, allowed, asked_by)
    return allowed
