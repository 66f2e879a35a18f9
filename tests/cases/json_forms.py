"""Cases with JSON: consecutive objects and arrays, tables in objects, pandas' layouts, comments and broken JSON."""

from __future__ import annotations

from typing import Any

from tests.cases.case import Case

_ROWS: dict[str, list[Any]] = {"id": [1, 2, 3], "v": [2.5, 3.5, 4.0]}
_RECORDS = b'[{"id":1,"v":2.5},{"id":2,"v":3.5},{"id":3,"v":4.0}]'


def _rejected(name: str, content: bytes, *mentions: str, code: str = "json_not_rows") -> Case:
    return Case("JSON", name, content, None, codes=(code,), mentions=mentions)


def _rows(name: str, content: bytes, **options: object) -> Case:
    return Case("JSON", name, content, _ROWS, {"format": {"type": "auto", **options}} if options else None)


CASES = (
    _rows("objects one after the other, as Firehose writes them", b'{"id":1,"v":2.5}{"id":2,"v":3.5}{"id":3,"v":4.0}'),
    _rows("two objects on a later line", b'{"id":1,"v":2.5}\n{"id":2,"v":3.5}{"id":3,"v":4.0}\n'),
    _rows(
        "objects over several lines, as jq writes them",
        b'{\n "id": 1,\n "v": 2.5\n}\n{\n "id": 2,\n "v": 3.5\n}\n{"id": 3, "v": 4}',
    ),
    _rows("arrays one after the other", b'[{"id":1,"v":2.5},{"id":2,"v":3.5}]\n[{"id":3,"v":4.0}]\n'),
    _rows("lines that end with CR", b'{"id":1,"v":2.5}\r{"id":2,"v":3.5}\r{"id":3,"v":4.0}\r'),
    _rows("a text sequence (RFC 7464)", b'\x1e{"id":1,"v":2.5}\n\x1e{"id":2,"v":3.5}\n\x1e{"id":3,"v":4.0}\n'),
    _rows("records in an object", b'{"count": 3, "results": %s, "next": null}' % _RECORDS, records_path="results"),
    _rows("records deep in an object", b'{"a": {"b": {"c": 1, "rows": %s}}}' % _RECORDS, records_path="a.b.rows"),
    _rows(
        "records in every line's object",
        b'{"page": 1, "rows": [{"id":1,"v":2.5}]}\n{"page": 2, "rows": [{"id":2,"v":3.5},{"id":3,"v":4.0}]}\n',
        type="jsonl",
        records_path="rows",
    ),
    Case(
        "JSON",
        "an object with an array, declared as one row",
        b'{"id": 1, "items": [{"n": 2}]}\n',
        {"id": [1], "items": ['[{"n": 2}]']},
        {"columns": {"id": "integer", "items": "json"}},
    ),
    Case("JSON", "one object with strings in an array", b'{"id": 1, "tags": ["a"]}', {"id": [1], "tags": ['["a"]']}),
    Case("JSON", "one object with an object", b'{"id": 1, "by": {"id": 2}}', {"id": [1], "by": ['{"id": 2}']}),
    _rejected("a key twice in the only row", b'[{"id": 1, "id": 2}]', "duplicate_key", code="no_good_row"),
    _rejected("an array of arrays", b'[["id","v"],[1,2],[3,4]]', 'orient="records"'),
    _rejected("an array per line", b'[1,"a"]\n[2,"b"]\n', 'orient="records"'),
    _rejected("pandas, split", b'{"columns":["id","v"],"index":[0,1],"data":[[1,2],[3,4]]}', 'orient="records"'),
    _rejected("pandas, columns", b'{"id":{"0":1,"1":2},"v":{"0":2.5,"1":3.5}}', 'orient="records"'),
    _rejected("pandas, index", b'{"0":{"id":1,"v":2.5},"1":{"id":2,"v":3.5}}', 'orient="records"'),
    _rejected("records in an object, not declared", b'{"n":1,"results":[{"id":1}]}', "`records_path: results`"),
    _rejected(
        "records in an object on a line, not declared", b'{"n":1,"results":[{"id":1}]}\n', "`records_path: results`"
    ),
    _rejected("records in an object's object", b'{"d":{"rows":[{"id":1}]}}', "`records_path: d.rows`"),
    _rejected("an object followed by an array", b'{\n"made": "today"}\n[{"id":1}]\n', "line 3", code="json_broken"),
    _rejected("an array followed by other characters", b'[{"id":1}] end', "column 12", code="json_broken"),
    _rejected("comments", b'// exported\n[{"id":1}]\n', "comments", code="format_not_allowed"),
    _rejected("a comment of several lines", b'/* by\n x */ {"id":1}\n', "comments", code="format_not_allowed"),
    Case(
        "JSON",
        "a records_path that does not exist",
        b'{"result": [{"id": 1}]}',
        None,
        {"format": {"type": "json", "records_path": "results"}},
        codes=("json_not_rows",),
        mentions=("result", "records_path"),
    ),
    Case(
        "JSON",
        "a records_path to a number",
        b'{"results": 7}',
        None,
        {"format": {"type": "json", "records_path": "results"}},
        codes=("json_not_rows",),
    ),
)
