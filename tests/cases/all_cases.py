"""The cases of all modules."""

from __future__ import annotations

from tests.cases import csv_text, workbooks

CASES = (*csv_text.CASES, *workbooks.CASES)
