"""Compares what roles may do with what they did, to find missing and unused permissions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.privileges.calls import Call, Record

Statements = Sequence[Mapping[str, Any]]

# Queues that the fault tests create and whose policies they change, and objects that no role may write.
_TESTS_OWN = re.compile(
    r"arn:aws:sqs:.*:sluice-fault-\d+(-dead)?|arn:aws:s3:::[^/]+/(outside-every-role/.*|.*/forged\.\w+)"
)


@dataclass(frozen=True, order=True)
class Grant:
    """One action on one resource that a statement allows.

    Attributes:
        place: the index of the resource in its statement, because the ARN itself differs between stacks.
    """

    role: str
    sid: str
    action: str
    place: int
    resource: str

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Return an identifier of the grant that is the same in every stack."""
        return self.role, self.sid, self.action, self.place

    def covers(self, call: Call) -> bool:
        """Return whether the grant allows a call. It ignores conditions, which the cloud has already evaluated."""
        same_action = self.action.lower() == call.action.lower()
        return self.role == call.role and same_action and bool(_pattern(self.resource).fullmatch(call.resource))


def _pattern(resource: str) -> re.Pattern[str]:
    wild = {"*": ".*", "?": "."}
    return re.compile("".join(wild.get(character, re.escape(character)) for character in resource), re.DOTALL)


def grants_of(policies: Mapping[str, Statements]) -> list[Grant]:
    """Return one grant for each action and resource that a stack's policies allow."""
    return [
        Grant(role, str(statement["Sid"]), action, place, resource)
        for role, statements in policies.items()
        for statement in statements
        for action in _listed(statement["Action"])
        for place, resource in enumerate(_listed(statement["Resource"]))
    ]


def missing(records: Iterable[Record]) -> list[Call]:
    """Return the denied calls that no policy of the stack allows, except those on resources of the tests.

    A denied call that a policy allows is left out, because a test removed that permission on purpose.
    """
    found = {
        call
        for record in records
        for call in record.calls
        if not call.allowed
        and not _TESTS_OWN.fullmatch(call.resource)
        and not any(grant.covers(call) for grant in grants_of(record.policies))
    }
    return sorted(found, key=lambda call: (call.role, call.action, call.resource))


def unused(records: Iterable[Record]) -> list[Grant]:
    """Return the grants that no role used in any of the stacks."""
    seen: dict[tuple[str, str, str, int], Grant] = {}
    used: set[tuple[str, str, str, int]] = set()
    for record in records:
        allowed = [call for call in record.calls if call.allowed]
        for grant in grants_of(record.policies):
            seen.setdefault(grant.key, grant)
            if any(grant.covers(call) for call in allowed):
                used.add(grant.key)
    return sorted(grant for key, grant in seen.items() if key not in used)


def _listed(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]
