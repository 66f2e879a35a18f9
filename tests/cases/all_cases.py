"""The cases of all modules."""

from __future__ import annotations

from tests.cases import csv_text, parquet, workbooks

CASES = (*csv_text.CASES, *workbooks.CASES, *parquet.CASES)
