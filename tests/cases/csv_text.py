"""CSV: encodings, quotes, decimal marks, headers."""

from __future__ import annotations

from tests.cases.case import Case

CASES = (
    Case(
        "encoding",
        "UTF-8 with other scripts",
        "id,name\n1,Łukasz\n2,Ζωή\n".encode(),
        {"id": [1, 2], "name": ["Łukasz", "Ζωή"]},
    ),
    Case(
        "encoding",
        "ISO-8859-2, declared",
        "id,name\n1,Łukasz Wąsik\n2,śliwa\n".encode("iso8859-2"),
        {"id": [1, 2], "name": ["Łukasz Wąsik", "śliwa"]},
        contract={"format": {"encoding": "iso8859-2"}},
    ),
)
