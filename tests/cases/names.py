"""Cases with column names in various scripts, and with names that differ only slightly from those in the contract."""

from __future__ import annotations

from tests.cases.case import Case

_DECLARED = {"columns": {"id": "integer", "Störung": "string"}}
_NEAR_MISSES = {
    "in a different case": ("ID,Störung", "as 'ID', in a different case"),
    "with a no-break space": ("id,Störung\u00a0", "as 'Störung\\u00a0', with a no-break space (U+00A0) after it"),
    "with a space in front": ("id, Störung", "as ' Störung', with a space (U+0020) in front"),
    "with a second byte order mark": ("\ufeff\ufeffid,Störung", "as '\\ufeffid', with a byte order mark in front"),
    "decomposed": ("id,Sto\u0308rung", "as 'Sto\\u0308rung', in Unicode's other form (NFD)"),
    "without accents": ("id,Storung", "as 'Storung', with other accents or punctuation"),
}
CASES = (
    *(
        Case(
            "names",
            f"a declared column {name}",
            f"{header}\n1,x\n".encode(),
            None,
            _DECLARED,
            codes=["missing_columns"],
            mentions=[hint],
        )
        for name, (header, hint) in _NEAR_MISSES.items()
    ),
    Case(
        "names",
        "in several scripts",
        "番号,Имя,الاسم,Größe,ชื่อ\n1,a,b,2,c\n".encode(),
        {"番号": [1], "имя": ["a"], "الاسم": ["b"], "grosse": [2], "ชื่อ": ["c"]},
    ),
)
