"""Cases with Parquet files: types that pandas does not have, nested values, bytes, encodings and a file cut short."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.cases.case import Case


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    """Return the bytes of a Parquet file with the given columns."""
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content, **options)
    return content.getvalue()


_UTC = dt.UTC
_FAR = [dt.datetime(year, 12, 31, tzinfo=_UTC) for year in (9999, 2021, 1000)]
_NESTED = {
    "id": [1, 2, 3],
    "list": pa.array([[1.5, float("nan"), None], [float("inf")], None], pa.list_(pa.float64())),
    "struct": pa.array([{"a": 1}, {"a": None}, None]),
}
_TEXTS = ["alpha", "alphabet", None, "beta"]

CASES = (
    Case(
        "parquet",
        "INT96 timestamps in distant years",
        parquet({"t": pa.array(_FAR, pa.timestamp("us"))}, use_deprecated_int96_timestamps=True),
        {"t": _FAR},
    ),
    Case(
        "parquet",
        "NaN and infinity in nested values",
        parquet(_NESTED),
        {"id": [1, 3], "list": ["[1.5, null, null]", None], "struct": ['{"a": 1}', None]},
        quarantined=(2,),
    ),
    Case(
        "parquet",
        "bytes that are not text",
        parquet({"id": [1, 2], "b": pa.array([b"\xff", b"ab"], pa.binary())}),
        None,
        codes=("bytes_without_text",),
    ),
    Case(
        "parquet",
        "an interval as DuckDB writes it",
        parquet({"id": [1], "b": pa.array([b"\x01\0\0\0\x02\0\0\0\0\0\0\0"], pa.binary(12))}),
        None,
        codes=("bytes_without_text",),
    ),
    Case(
        "parquet",
        "bytes that are not text in a struct",
        parquet({"id": [1], "b": pa.array([{"x": b"\xff"}], pa.struct({"x": pa.binary()}))}),
        None,
        codes=("bytes_without_text",),
    ),
    Case(
        "parquet",
        "strings stored as bytes, as old writers do",
        parquet(
            {
                "b": pa.array(["ä".encode(), b"\\xff", None], pa.binary()),
                "f": pa.array([b"ab", b"cd", None], pa.binary(2)),
            }
        ),
        {"b": ["ä", "\\xff", None], "f": ["ab", "cd", None]},
    ),
    Case(
        "parquet",
        "times and timestamps in nanoseconds",
        parquet(
            {
                "time": pa.array([45_296_123_456_789, None], pa.time64("ns")),
                "at": pa.array([1_000_000_001, None], pa.timestamp("ns", "UTC")),
            }
        ),
        {"time": [dt.time(12, 34, 56, 123456), None], "at": [dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=_UTC), None]},
    ),
    *(
        Case(
            "parquet",
            f"{encoding}{' in pages of version 2' if version == '2.0' else ''}",
            parquet(
                {"s": _TEXTS, "n": [1, 2, 3, 2**40], "d": ["x", "x", "y", None]},
                use_dictionary=["d"],
                column_encoding={"s": encoding, "n": "DELTA_BINARY_PACKED"},
                data_page_version=version,
            ),
            {"s": _TEXTS, "n": [1, 2, 3, 2**40], "d": ["x", "x", "y", None]},
        )
        for encoding in ("DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY")
        for version in ("1.0", "2.0")
    ),
    Case(
        "parquet",
        "decimals without a fraction",
        parquet(
            {
                "id": pa.array([Decimal(1), None], pa.decimal128(38, 0)),
                "great": pa.array([Decimal(10**30), Decimal(1)], pa.decimal128(38, 0)),
                "price": pa.array([Decimal("1.50"), Decimal(2)], pa.decimal128(10, 2)),
            }
        ),
        {"id": [1, None], "great": ["1" + "0" * 30, "1"], "price": ["1.50", "2.00"]},
    ),
    Case(
        "parquet",
        "cut short",
        parquet({"a": [1, 2, 3]})[:-10],
        None,
        codes=("parquet_broken",),
        mentions=("cut short",),
    ),
)
