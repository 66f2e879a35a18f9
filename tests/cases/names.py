"""Names of columns in all scripts."""

from __future__ import annotations

from tests.cases.case import Case

CASES = (
    Case(
        "names",
        "of other scripts than Latin",
        "番号,Имя,الاسم,Größe,ชื่อ\n1,a,b,2,c\n".encode(),
        {"番号": [1], "имя": ["a"], "الاسم": ["b"], "grosse": [2], "ชื่อ": ["c"]},
    ),
)
