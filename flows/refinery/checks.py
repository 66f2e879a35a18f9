"""The parts of a receipt that describe how a file was read, what each rule found, and why the file was rejected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flows.refinery.errors import TerminalError

Basis = Literal["declared", "proven", "assumed"]


class Decision(BaseModel):
    """One decision of the reader about how a file is written, such as its delimiter, with the basis of the decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="format, compression, encoding, delimiter, quote, header on line, sheet, ...")
    value: Any = Field(description="the value that was used to read the file")
    basis: Basis = Field(
        description="declared by the contract, proven by the file, or assumed because nothing contradicts it"
    )

    @property
    def text(self) -> str:
        """Return the name and the value. A string is quoted unless it begins with a letter or digit, to show spaces."""
        is_sign = isinstance(self.value, str) and not self.value[:1].isalnum()
        return f"{self.name} {self.value!r}" if is_sign else f"{self.name} {self.value}"


def by_basis(decisions: Iterable[Decision]) -> dict[str, list[str]]:
    """Return the text of each decision, grouped by basis."""
    found: dict[str, list[str]] = {}
    for decision in decisions:
        found.setdefault(decision.basis, []).append(decision.text)
    return found


class Check(BaseModel):
    """The result of one rule of the contract for the whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str = Field(description="the rule's ID, also used in `quarantined`, in the quarantine file and in the UI")
    expectation: str = Field(description="the name in Great Expectations, or missing_value, not_a_number, ...")
    column: str | None = Field(description="null if the rule concerns several columns or the whole table")
    kind: str = Field(description="row, table, coercion, decode or columns")
    severity: str = Field(description="info, warning or critical")
    success: bool
    rows_evaluated: int | None = Field(None, description="the number of checked rows; null if the rule counts no rows")
    rows_failing: int | None = Field(None, description="the number of these rows that failed")
    observed: Any = Field(None, description="what the file has")
    expected: Any = Field(None, description="what the contract requires")


class RejectionReason(BaseModel):
    """One reason why a file was rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(description="the rule that was broken, or the error's name in snake_case")
    message: str = Field(description="a sentence without any value from the data")
    observed: Any = Field(None, description="what the file has")
    expected: Any = Field(None, description="what the contract requires")
    part: str | None = Field(
        "validate", description="the part of refine that rejected the file; null when another stage did"
    )

    @classmethod
    def of(cls, error: TerminalError) -> RejectionReason:
        """Convert the error that rejected a file into a rejection reason."""
        return cls(code=error.code, message=str(error), part=error.part)
