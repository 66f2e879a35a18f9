"""Every error class has a docstring, and docs/errors.md matches the code."""

from __future__ import annotations

import pytest

from tests.unit.docs.error_page import PAGE, error_classes, page, state_errors


def test_the_page_of_errors_is_current() -> None:
    assert PAGE.read_text() == page(), "python -m tests.unit.docs.error_page > docs/errors.md"


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: str(error.__name__))
def test_every_error_documents_its_condition(error: type[Exception]) -> None:
    assert "__doc__" in vars(error)
    assert len((error.__doc__ or "").split()) >= 5


def test_every_failure_of_a_state_machine_has_a_cause() -> None:
    assert {error for _, error, _ in state_errors()} == {"QueueNotDrained"}
    assert all(cause for _, _, cause in state_errors())
