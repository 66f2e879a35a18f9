"""Makes EventBridge Scheduler start executions with the schedule's role. MiniStack starts them as the root user."""

import logging
from typing import Any

from ministack.services import eventbridge

from deployment.local.emulator.permissions import role_allows

LOG = logging.getLogger("sluice.schedules")


def install() -> None:
    invoke = eventbridge._invoke_target

    def invoke_as_role(target: dict[str, Any], event: Any, rule: dict[str, Any], *rest: Any) -> None:
        arn, role = str(target.get("Arn", "")), target.get("RoleArn")
        if role and arn.startswith("arn:aws:states:"):
            session = str(rule.get("Name", "schedule"))[:64]
            if not role_allows(role, session, "states:StartExecution", arn, asked_by="scheduler"):
                LOG.error("%s is not allowed to start %s: the schedule has no effect", role, arn)
                return
        invoke(target, event, rule, *rest)

    eventbridge._invoke_target = invoke_as_role
