"""CSV: encodings, quotes, decimal marks, headers."""

from __future__ import annotations

from tests.cases.case import Case

_NAMES = {
    "iso8859-2": ["Łukasz Wąsik", "śliwa"],
    "cp1250": ["Łukasz Wąsik", "śliwa"],
    "cp1252": ["João", "Conceição"],
    "cp1253": ["Γιώργος", "Αθήνα"],
    "cp1251": ["имя", "город"],
    "cp1254": ["Ayşe Yılmaz", "İzmir"],
    "cp850": ["Hélène", "Besançon"],
    "cp437": ["Hélène", "Besançon"],
    "cp866": ["имя", "город"],
    "cp1255": ["שלום", "דוד"],
    "cp1256": ["محمد", "علي"],
    "cp1257": ["Jānis", "Šiauliai"],
    "tis-620": ["สมชาย", "กรุงเทพ"],
    "shift_jis": ["表示", "ソート"],
    "gbk": ["编号", "城市"],
    "big5": ["許功蓋", "臺北"],
}


def _named(names: list[str], encoding: str) -> bytes:
    return "".join(["id,name\n", *(f"{place},{name}\n" for place, name in enumerate(names, 1))]).encode(encoding)


_ENCODINGS = (
    *(
        Case(
            "encoding",
            f"{encoding}, not declared",
            _named(names, encoding),
            None,
            codes=["encoding_unknown"],
            says=["`encoding: ", "line 2, byte"],
        )
        for encoding, names in _NAMES.items()
    ),
    *(
        Case(
            "encoding",
            f"{encoding}, declared",
            _named(names, encoding),
            {"id": [1, 2], "name": names},
            contract={"format": {"encoding": encoding}},
        )
        for encoding, names in _NAMES.items()
    ),
    *(
        Case("encoding", f"{encoding} with a mark", mark + _named(names, encoding), {"id": [1, 2], "name": names})
        for names in (["Łukasz", "Ζωή"],)
        for encoding, mark in (
            ("utf-8", b"\xef\xbb\xbf"),
            ("utf-16-le", b"\xff\xfe"),
            ("utf-16-be", b"\xfe\xff"),
            ("utf-32-le", b"\xff\xfe\0\0"),
            ("utf-32-be", b"\0\0\xfe\xff"),
        )
    ),
    *(
        Case("encoding", f"{encoding}, proven", _named(names, encoding), {"id": [1, 2], "name": names})
        for names in (["Łukasz", "Ζωή"],)
        for encoding in ("utf-8", "utf-16-le", "utf-16-be")
    ),
    Case(
        "encoding",
        "a mark of UTF-8 where cp1252 is declared",
        _named(["a", "b"], "utf-8-sig"),
        None,
        contract={"format": {"encoding": "cp1252"}},
        codes=["text_undecodable"],
        says=["`encoding: utf-8`"],
    ),
    Case(
        "encoding",
        "one broken byte among proper UTF-8",
        "id,name\n1,Łukasz\n2,Ζωή\n".encode() + b"3,\xff\n",
        {"id": [1, 2], "name": ["Łukasz", "Ζωή"]},
        quarantined=[3],
    ),
)

CASES = (*_ENCODINGS,)
