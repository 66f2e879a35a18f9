"""Great Expectations is imported only when needed, prints nothing, and is used without modification."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.refinery.validate.expectations import Judge
from flows.refinery.validate.gx import gx
from flows.refinery.validate.rules import rules_of
from tests.unit.flows.refinery.tables import a_contract

pytestmark = pytest.mark.heavy


def run(code: str, home: Path) -> str:
    """Run code in a new Python process with this home folder, and return what it prints."""
    environment = {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_refinery_does_not_import_great_expectations(tmp_path: Path) -> None:
    code = "import sys, flows.refinery.refine; print('great_expectations' in sys.modules)"
    assert run(code, tmp_path) == "False"


def test_using_great_expectations_sends_nothing_writes_nothing_and_starts_no_thread(tmp_path: Path) -> None:
    code = """
import socket, threading
def refuse(*arguments): raise AssertionError("a connection was tried")
socket.socket.connect = refuse
import numpy as np, pandas as pd
from flows.refinery.validate.expectations import Judge
from flows.refinery.validate.rules import rules_of
from flows.refinery.contract.model import Contract
expectation = {"expect_column_values_to_not_be_null": {"column": "a"}}
judge = Judge(rules_of(Contract.model_validate({"dataset": "x", "expectations": [expectation]})))
print(judge.judge(pd.DataFrame({"a": [1.0, None]}), np.arange(2))[0].failing.tolist(), threading.active_count())
"""
    assert run(code, tmp_path) == "[1] 1"
    assert list(tmp_path.iterdir()) == []


def test_modules_that_importing_gx_deferred_can_be_used_afterwards(tmp_path: Path) -> None:
    code = """
from flows.refinery.validate.gx import gx
gx()
import scipy.stats, altair
print(scipy.stats.norm.cdf(0), altair.Chart.__name__, type(scipy.stats).__name__)
"""
    assert run(code, tmp_path) == "0.5 Chart module"


@pytest.mark.parametrize(
    ("column", "bounds"),
    [
        (pd.Series([1, 2, None, 5], dtype="Int64"), {"min_value": 2, "max_value": 5, "strict_max": True}),
        (pd.Series([1, 2, None, 5], dtype="Int64"), {"min_value": 2, "strict_min": True}),
        (
            pd.Series(["2024-01-01", "2024-01-03", None, "9999-12-31"], dtype="datetime64[us]"),
            {"min_value": pd.Timestamp("2024-01-02").to_pydatetime()},
        ),
        (
            pd.Series(["2024-01-01", "2024-01-03", None], dtype="datetime64[us]"),
            {"max_value": pd.Timestamp("2024-01-03").to_pydatetime(), "strict_max": True},
        ),
    ],
)
def test_between_compares_whole_columns_as_gx_compares_single_values(column: pd.Series, bounds: dict[str, Any]) -> None:
    values = column.dropna()
    one_by_one = inspect.unwrap(gx().ColumnValuesBetween._pandas)
    expected = one_by_one(gx().ColumnValuesBetween, values.astype(object), **bounds)
    judge = Judge(
        rules_of(a_contract(expectations=[{"expect_column_values_to_be_between": {"column": "a", **bounds}}]))
    )
    failing = judge.judge(pd.DataFrame({"a": column}), values.index.to_numpy())[0].failing
    assert failing is not None
    assert failing.tolist() == values.index[~expected.astype(bool)].tolist()


def test_an_integer_is_matched_by_its_digits_even_next_to_missing_values() -> None:
    expectation = {"expect_column_values_to_match_regex": {"column": "a", "regex": "^[0-9]$"}}
    judge = Judge(rules_of(a_contract(expectations=[expectation])))
    frame = pd.DataFrame({"a": pd.Series([1, None, 22], dtype="Int64")})
    failing = judge.judge(frame, frame.index.to_numpy())[0].failing
    assert failing is not None
    assert failing.tolist() == [2]
