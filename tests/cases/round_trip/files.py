"""Random files in random formats."""

from __future__ import annotations

from random import Random

from tests.cases.round_trip.csv_files import csv_file
from tests.cases.round_trip.table import Written
from tests.cases.round_trip.typed_files import json_file, parquet_file, xlsx_file

_FORMATS = (csv_file, csv_file, csv_file, json_file, json_file, parquet_file, xlsx_file)


def a_file(seed: int, number: int) -> tuple[Written, int]:
    """Return the file that is generated from a seed and a number, and the rows per partition to read it with."""
    random = Random(f"{seed}:{number}")
    written = random.choice(_FORMATS)(random)
    return written, random.choice([3, 100_000, 100_000])
