"""All test cases, collected from the modules in this folder."""

from __future__ import annotations

from tests.cases import csv_text, folders, json_forms, names, packed, parquet, typed_text, workbooks

CASES = (
    *csv_text.CASES,
    *workbooks.CASES,
    *parquet.CASES,
    *folders.CASES,
    *json_forms.CASES,
    *names.CASES,
    *packed.CASES,
    *typed_text.CASES,
)
