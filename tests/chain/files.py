"""Small files of orders, and one with wide rows, with known outcomes."""

from __future__ import annotations

import io
import random
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq

HEADER = "order_id,ordered_at,customer_id,country,sku,quantity,unit_price,discount"


def order(number: int, **fields: object) -> str:
    """Return a good order as a CSV line. `fields` replace the values of its columns."""
    values: dict[str, object] = {
        "order_id": f"ORD-{number:08d}",
        "ordered_at": "2026-11-02 10:00:00",
        "customer_id": f"{number:06d}",
        "country": "DE",
        "sku": "SKU-1",
        "quantity": 2,
        "unit_price": "9.50",
        "discount": "",
        **fields,
    }
    return ",".join(str(value) for value in values.values())


def orders(*lines: str) -> bytes:
    """Return a CSV file with the given lines."""
    return "\n".join([HEADER, *lines, ""]).encode()


def good_orders(count: int, start: int = 1) -> bytes:
    """Return a CSV file with `count` good orders."""
    return orders(*(order(number) for number in range(start, start + count)))


def dirty_orders() -> bytes:
    """Return a CSV file with twelve orders: nine good ones, one with a bad quantity, one whose price is not a number,
    and a duplicate."""
    return orders(
        *(order(number) for number in range(1, 10)),
        order(10, quantity=0),
        order(11, unit_price="cheap"),
        order(1),
    )


WIDE_GROUPS = 4
WIDE_ROWS = WIDE_GROUPS * 127
WIDE_CONTRACT = """
columns:
  id: {type: integer}
  note: {type: string}
output: {max_file_bytes: 1048576}
bad_rows: {max_fraction: 1}
"""


@cache
def wide_rows(*, different_notes: int = WIDE_GROUPS) -> bytes:
    """Return a Parquet file with WIDE_GROUPS row groups. Each is a partition of 8 MiB, and fills an output file of
    WIDE_CONTRACT.

    Args:
        different_notes: the number of row groups whose IDs and notes differ. The other row groups repeat them.
    """
    size = WIDE_ROWS // WIDE_GROUPS
    schema, file = pa.schema({"id": pa.int64(), "note": pa.string()}), io.BytesIO()
    with pq.ParquetWriter(file, schema) as writer:
        for group in range(WIDE_GROUPS):
            ids = range(group % different_notes * size, (group % different_notes + 1) * size)
            notes = [random.Random(number).randbytes(1 << 15).hex() for number in ids]  # random, to compress badly
            writer.write_table(pa.table({"id": ids, "note": notes}, schema=schema))
    return file.getvalue()
