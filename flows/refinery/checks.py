"""What was decided and found about a file, and why it is rejected: the values that receipts hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.refinery.errors import TerminalError

Basis = Literal["declared", "proven", "assumed"]


class Decision(BaseModel):
    """One thing that the reader decided about how a file is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="format, compression, encoding, delimiter, quote, header on line, sheet, ...")
    value: Any = Field(description="what the file was read with")
    basis: Basis = Field(
        description="declared by the contract, proven by the file, or assumed because nothing speaks against it"
    )

    @property
    def text(self) -> str:
        """Name and value; signs in quotes, so that a blank or a tab can be seen."""
        is_sign = isinstance(self.value, str) and not self.value[:1].isalnum()
        return f"{self.name} {self.value!r}" if is_sign else f"{self.name} {self.value}"


def by_basis(decisions: Iterable[Decision]) -> dict[str, list[str]]:
    """Return the texts of decisions, by what they rest on."""
    found: dict[str, list[str]] = {}
    for decision in decisions:
        found.setdefault(decision.basis, []).append(decision.text)
    return found


class Check(BaseModel):
    """What one rule of the contract found in the whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str = Field(description="its name everywhere: in quarantined, in the quarantine file, in the UI")
    expectation: str = Field(description="Great Expectations' name, or missing_value, not_a_number, ...")
    column: str | None = Field(description="null where it is about several columns or the table")
    kind: str = Field(description="row, table, coercion, decode or columns")
    severity: str = Field(description="info, warning or critical")
    success: bool
    rows_evaluated: int | None = Field(None, description="rows that it judged; null for rules on the whole table")
    rows_failing: int | None = Field(None, description="of these, rows that broke it")
    observed: Any = Field(None, description="what the file has")
    expected: Any = Field(None, description="what the contract wants")


class RejectionReason(BaseModel):
    """One reason why a file was rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(description="the rule that was broken, or the error's name in snake_case")
    message: str = Field(description="a sentence; holds no value of the data")
    observed: Any = Field(None, description="what the file has")
    expected: Any = Field(None, description="what the contract wants")
    part: str | None = Field(
        "validate", description="the part of refine that rejected the file; null when another stage did"
    )

    @classmethod
    def of(cls, error: TerminalError) -> RejectionReason:
        """Return an error as a reason."""
        return cls(code=error.code, message=str(error), part=error.part)
