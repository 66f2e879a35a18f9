"""Cases with columns whose values come from folders in the object key, such as `dt=2024-01-31/` (Hive's form)."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.cases.case import Case

_TYPED = {"path_columns": ["dt", "hour"], "columns": {"dt": "date", "hour": "integer", "id": "integer"}}
_DAY = dt.date(2024, 1, 31)


def _parquet(**columns: list[Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _folders(name: str, content: bytes, key: str, published: Any, **more: Any) -> Case:
    return Case("folders", name, content, published, **{"contract": _TYPED, "key": f"incoming/cases/{key}/f", **more})


CASES = (
    *(
        _folders(
            f"as columns of {name}", content, "dt=2024-01-31/hour=07", {"id": [1, 2], "dt": [_DAY] * 2, "hour": [7, 7]}
        )
        for name, content in (
            ("CSV", b"id\n1\n2\n"),
            ("JSON Lines", b'{"id": 1}\n{"id": 2}\n'),
            ("Parquet", _parquet(id=[1, 2])),
        )
    ),
    _folders(
        "with escapes and the missing value of Hive",
        b"id\n1\n",
        "city=K%C3%B6ln%2FBonn%3D/b=__HIVE_DEFAULT_PARTITION__/zip=01234",
        {"id": [1], "city": ["Köln/Bonn="], "b": [None], "zip": ["01234"]},
        contract={"path_columns": ["city", "b", "zip"]},
    ),
    _folders(
        "with a value that is not a date",
        b"id\n1\n",
        "dt=tomorrow/hour=7",
        None,
        codes=("no_good_row",),
    ),
    _folders("missing", b"id\n1\n", "dt=2024-01-31", None, codes=("path_column_unusable",), mentions=("hour=value/",)),
    _folders("twice", b"id\n1\n", "dt=1/dt=2/hour=7", None, codes=("path_column_unusable",)),
    _folders("also in the file", b"id,dt\n1,2\n", "dt=1/hour=7", None, codes=("path_column_unusable",)),
    _folders("not declared", b"id,v\n1,2\n", "dt=2024-01-31", {"id": [1], "v": [2]}, contract=None),
)
