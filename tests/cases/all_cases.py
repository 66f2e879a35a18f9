"""The cases of all modules."""

from __future__ import annotations

from tests.cases import csv_text, names, packed, parquet, typed_text, workbooks

CASES = (*csv_text.CASES, *workbooks.CASES, *parquet.CASES, *names.CASES, *packed.CASES, *typed_text.CASES)
