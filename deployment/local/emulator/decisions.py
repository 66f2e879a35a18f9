"""Keeps a record of every decision that IAM makes about a role, so that policies can be compared with real calls.

One JSON line each: time, role (its name), principal (the session's ARN), action, resource, allowed, and by whom it
was asked: "request" for a call that the role made itself; "step functions", "ecs" and "scheduler" for what AWS does in
its name.
Calls of the account's root user are not decided by IAM, and not recorded.
"""

from __future__ import annotations

import json
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ministack.core import iam_evaluator
from ministack.core.responses import get_account_id, get_region

_evaluated: ContextVar[Any] = ContextVar("sluice_evaluated", default=None)


class Decisions:
    """The record, and the way to ask for a decision that no request asks for."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def watch_requests(self) -> None:
        """Record what MiniStack decides about signed requests."""
        enforce, evaluate = iam_evaluator.enforce, iam_evaluator.evaluate

        def remembering_evaluate(context: Any, *policies: Any) -> Any:
            _evaluated.set(context)
            return evaluate(context, *policies)

        def recording_enforce(*arguments: Any, **keywords: Any) -> Any:
            token = _evaluated.set(None)
            try:
                refusal = enforce(*arguments, **keywords)
                context = _evaluated.get()
            finally:
                _evaluated.reset(token)
            if context is not None:  # root is not evaluated, and an unknown caller has no role
                self._write(context, allowed=refusal is None, asked_by="request")
            return refusal

        iam_evaluator.evaluate, iam_evaluator.enforce = remembering_evaluate, recording_enforce

    def allows(
        self,
        role_arn: str,
        session: str,
        action: str,
        resource: str,
        *,
        asked_by: str,
        conditions: dict[str, Any] | None = None,
    ) -> bool:
        """Ask whether a role may do something, by its own policies, its boundary and the resource's policy."""
        context, policies, limits = self._context(role_arn, session, action, resource, conditions or {})
        result = iam_evaluator.evaluate(context, policies, *limits)
        found = iam_evaluator._resource_policy(action.partition(":")[0], resource)
        if found is not None:
            result = iam_evaluator.combine_resource_policy(result, context, *found, limits=limits)
        allowed = bool(result.decision == "Allow")
        self._write(context, allowed=allowed, asked_by=asked_by)
        return allowed

    def _context(
        self, role_arn: str, session: str, action: str, resource: str, conditions: dict[str, Any]
    ) -> tuple[Any, Any, Any]:
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
            service_context={name.lower(): value for name, value in conditions.items()},
            principal_keys=principal.keys,
        )
        return context, principal.policies, principal.limits

    def _write(self, context: Any, *, allowed: bool, asked_by: str) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(),
            "role": role_of(context.principal_arn),
            "principal": context.principal_arn,
            "action": context.action,
            "resource": context.resource_arn,
            "allowed": allowed,
            "asked_by": asked_by,
        }
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def role_of(principal_arn: str) -> str:
    """Return the role's name from a session's ARN."""
    return principal_arn.rpartition(":")[2].removeprefix("assumed-role/").partition("/")[0]
