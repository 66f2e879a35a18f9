"""Each of the realistic input files in tests/cases has the expected outcome."""

from __future__ import annotations

import pytest

from tests.cases.all_cases import CASES
from tests.cases.case import Case, Verdict, run

_RIGHT = {Verdict.RIGHT, Verdict.QUARANTINED, Verdict.REJECTED}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_a_case_has_its_expected_result(case: Case) -> None:
    result = run(case)
    assert result.verdict in _RIGHT, result.details
