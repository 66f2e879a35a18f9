"""Cases with CSV files: encodings, quotes, decimal and thousands separators, headers, delimiters and file ends."""

from __future__ import annotations

from typing import Any

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
            mentions=["`encoding: ", "line 2, byte"],
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
        Case(
            "encoding",
            f"{encoding} with a byte order mark",
            mark + _named(names, encoding),
            {"id": [1, 2], "name": names},
        )
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
        for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
    ),
    Case(
        "encoding",
        "the same characters in cp1250 and cp1252",
        "Kunde;Ort\nMüller;Köln\nWeiß;Gräfelfing\n".encode("cp1252"),
        None,
        codes=["encoding_unknown"],
        mentions=["`encoding: cp1252`"],
    ),
    Case(
        "encoding",
        "iso2022_jp, not declared",
        _named(["東京", "大阪"], "iso2022_jp"),
        None,
        codes=["encoding_unknown"],
        mentions=["`encoding: iso2022_jp`", "line 2"],
    ),
    Case(
        "encoding",
        "iso2022_jp, declared",
        _named(["東京", "大阪"], "iso2022_jp"),
        {"id": [1, 2], "name": ["東京", "大阪"]},
        contract={"format": {"encoding": "iso2022_jp"}},
    ),
    Case(
        "encoding",
        "iso2022_jp, only after 64 KiB",
        b"id,name\n" + 10_000 * b"1,Tokyo\n" + "2,大阪\n".encode("iso2022_jp"),
        {"id": 10_000 * [1], "name": 10_000 * ["Tokyo"]},
        quarantined=[10_001],
    ),
    Case(
        "encoding",
        "the byte order mark of UTF-8 where cp1252 is declared",
        _named(["a", "b"], "utf-8-sig"),
        None,
        contract={"format": {"encoding": "cp1252"}},
        codes=["text_undecodable"],
        mentions=["`encoding: utf-8`"],
    ),
    Case(
        "encoding",
        "one invalid byte in UTF-8",
        "id,name\n1,Łukasz\n2,Ζωή\n".encode() + b"3,\xff\n",
        {"id": [1, 2], "name": ["Łukasz", "Ζωή"]},
        quarantined=[3],
    ),
)

_SPARK = b'id,text\n1,"say \\"hi\\" now"\n2,"a\\\\b"\n'
_SHEETS = b'item\tqty\n5" pipe\t3\n"quoted\t4\n'
_BACKSLASH = b'id,text,n\n1,"say \\"hi\\" now",5\n2,"a, b",6\n3,"C:\\\\x\\n",7\n'
_QUOTES = (
    Case(
        "quotes",
        "an open quote that swallows records",
        b'sku,label,price\n101,"12 inch,3.50\n102,ok,5.25\n103,"x",1.00\n104,y,2\n',
        None,
        codes=["quote_misplaced"],
        mentions=["line 4, column 6"],
    ),
    Case(
        "quotes",
        "backslashes before quotes, not declared",
        b'id,text,n\n1,"say \\"hi\\" now",5\n2,"a, b",6\n',
        {"id": [2], "text": ["a, b"], "n": [6]},
        quarantined=[1],
    ),
    Case(
        "quotes",
        "backslashes before quotes and before backslashes, not declared",
        _SPARK,
        None,
        codes=["quote_misplaced"],
        mentions=["line 2, column 10", "`escape: "],
    ),
    Case(
        "quotes",
        "backslashes before quotes and before backslashes, declared",
        _SPARK,
        {"id": [1, 2], "text": ['say "hi" now', "a\\b"]},
        {"format": {"escape": "\\"}},
    ),
    Case(
        "quotes",
        "quotes as Google Sheets writes them into TSV",
        _SHEETS,
        None,
        codes=["unclosed_quote"],
        mentions=['`quote: "\\x01"`'],
    ),
    Case(
        "quotes",
        "quotes as Google Sheets writes them into TSV, declared",
        _SHEETS,
        {"item": ['5" pipe', '"quoted'], "qty": [3, 4]},
        {"format": {"quote": "\x01"}},
    ),
    Case(
        "quotes",
        "a backslash before a quote in a string of two lines, not declared",
        b'id,text\n1,"say \\"hi\nmore\\" x"\n2,"a"\n',
        None,
        codes=["quote_misplaced"],
        mentions=["line 2, column 10", "`escape: "],
    ),
    Case(
        "quotes",
        "backslashes, declared",
        _BACKSLASH,
        {"id": [1, 2, 3], "text": ['say "hi" now', "a, b", "C:\\x\\n"], "n": [5, 6, 7]},
        contract={"format": {"escape": "\\"}},
    ),
    Case(
        "quotes",
        "backslashes outside quotes and in strings of several lines, declared",
        b'id,text\n1,a\\,b\n2,"x \\"y\n\\"z\\""\n3,\\N\n',
        {"id": [1, 2, 3], "text": ["a,b", 'x "y\n"z"', None]},
        contract={"format": {"escape": "\\", "missing_values": ["\\N"]}},
    ),
    Case(
        "quotes",
        "spaces after a closing quote, doubled quotes and line ends in quotes",
        b'id,text\n1,"a" \n2,"say ""hi"""\n3,"x\ny"\n4,5" pipe\n',
        {"id": [1, 2, 3, 4], "text": ["a ", 'say "hi"', "x\ny", '5" pipe']},
    ),
)

_LATE = "k;betrag\n" + "".join(f"{n};{n % 9 + 1}.{n % 1000:03}\n" for n in range(9_000)) + "9000;12,50\n9001;1.234,56\n"
_NUMBERS = {"columns": {"k": "string", "betrag": "number"}}
_SEPARATORS = (
    Case(
        "separators",
        "German, with grouped whole numbers",
        b"land;faelle;inzidenz\nBayern;2.155;19,47\nHessen;1.020;8,5\nBerlin;6;0,3\n",
        {"land": ["Bayern", "Hessen", "Berlin"], "faelle": ["2.155", "1.020", "6"], "inzidenz": [19.47, 8.5, 0.3]},
    ),
    Case(
        "separators",
        "three digits after each separator",
        b"day;a;b\n2024-01-15;1.250;1,250\n2024-01-16;3.400;3,400\n",
        {"day": ["2024-01-15", "2024-01-16"], "a": ["1.250", "3.400"], "b": ["1,250", "3,400"]},
    ),
    Case(
        "separators",
        "three digits after each point, declared as a decimal separator",
        b"a;b\n1.250;x\n3.400;y\n",
        {"a": [1.25, 3.4], "b": ["x", "y"]},
        contract={"format": {"decimal": "."}},
    ),
    Case(
        "separators",
        "three digits after each point, declared as a thousands separator",
        b"a;b\n1.250;x\n3.400;y\n",
        {"a": [1250, 3400], "b": ["x", "y"]},
        contract={"format": {"thousands": ".", "decimal": ","}, "columns": {"a": "integer", "b": "string"}},
    ),
    Case(
        "separators",
        "three digits after each point in a declared column, with nothing that shows which separator it is",
        b"k;betrag\na;1.250\nb;3.400\n",
        None,
        contract=_NUMBERS,
        codes=["marks_ambiguous"],
        mentions=["`decimal: "],
    ),
    Case(
        "separators",
        "the first decimal comma far from the beginning of the file",
        _LATE.encode(),
        None,
        contract=_NUMBERS,
        codes=["marks_ambiguous"],
        mentions=["`decimal: "],
    ),
    Case(
        "separators",
        "decimal points and decimal commas",
        b"a;b\n10.5;3,25\n",
        None,
        codes=["marks_contradict"],
        mentions=["`decimal: "],
    ),
    Case("separators", "ordinary decimals", b"a,b\n1.5,1.250\n2.25,3.400\n", {"a": [1.5, 2.25], "b": [1.25, 3.4]}),
    Case(
        "separators", "a decimal below 1 among decimals with three digits", b"a\n0.125\n1.250\n", {"a": [0.125, 1.25]}
    ),
)

_NO_TABLES = {
    "a preamble": (
        b"Report: daily sales\nGenerated 2024-05-01\n\nday,shop,amount\n2024-05-01,A,10.5\n",
        "`skip_lines: 3`",
    ),
    "a title in the first cell": (
        b"Sales,,\n,,\nday,shop,amount\n2024-05-01,A,10.5\n2024-05-02,,\n",
        "`skip_lines: 2`",
    ),
    "lines with # before the header": (
        b"#Device: T-1000,serial 77\n#Units: C,%\nDate,Temp,Hum\n2024-05-01,20.5,40\n2024-05-02,21.5,41\n",
        "`skip_lines: 2`",
    ),
    "the header again as a row": (b"id,name\n1,a\n2,b\nid,name\n3,c\n", "repeated"),
    "the header again, with a byte order mark": (b"\xef\xbb\xbfid,name\n1,a\n\xef\xbb\xbfid,name\n2,b\n", "repeated"),
    "no header": (b"1001,Alice,2024-01-01\n1002,Bob,2024-01-02\n", "`header: false`"),
    "tildes": (b"id~name~n\n1~a~2\n2~b~3\n", 'delimiter: "~"'),
    "two bars": (b"id||name||n\n1||a||2\n2||b||3\n", 'delimiter: "||"'),
    "a preamble above tildes": (b"Report\nid~name~n\n1~a~2\n", '`skip_lines: 1` and `delimiter: "~"`'),
    "a delimiter at the end of each row": (b"A,B,C\n1,4,7,\n2,5,8,\n3,6,9,\n", "`trailing_delimiter: true`"),
    "row names as R writes them": (b'"id","v"\n"1",10,2.5\n"2",11,3.5\n', "`skip_lines: 1` and `header: false`"),
    "a delimiter at the end of the header": (b"season,day,pos,\n1,2024-01-04,1\n2,2024-01-05,2\n", "`header: false`"),
    "a web server's log": (
        b'127.0.0.1 - - [10/Oct/2000] "GET /a" 200\n::1 - - [11/Oct/2000] "GET /b" 200\n',
        "`header: false`",
    ),
    "a system log": (
        b"Dec 31 10:00:00 host app[1]: started\nDec 31 10:00:01 host app[1]: stopped\n",
        "`header: false`",
    ),
    "a record with a date as header": (b"Ann,1.5,2025-01-01\nBob,2.5,2025-01-02\n", "`header: false`"),
    "a record with an address as header": (b"Ann,a@x.com\nBob,b@x.com\n", "`header: false`"),
    "key-value pairs": (b"key: 1\nother: 2\n", "`header: false`"),
    "fixed-width columns": (b"ID    NAME      AMT\n0001  Alice    12.5\n0002  Bob       3.0\n", "delimiter"),
    "commas next to semicolons": (b"Datum;Betrag, EUR\n2024-01-01;2,50\n2024-01-02;3,75\n", "`delimiter`"),
}
_INDEX = b",name,score\n0,Ann,1.5\n1,Bob,2.5\n"
_TABLES = (
    Case("header", "an index of pandas", _INDEX, None, codes=["header_invalid"], mentions=["`header: false`"]),
    Case(
        "header",
        "an index of pandas, declared",
        _INDEX,
        {"row": [0, 1], "name": ["Ann", "Bob"], "score": [1.5, 2.5]},
        {
            "columns": {"row": "integer", "name": "string", "score": "number"},
            "format": {"header": False, "skip_lines": 1},
        },
    ),
    *(
        Case("no table", name, content, None, codes=["no_table"], mentions=[hint])
        for name, (content, hint) in _NO_TABLES.items()
    ),
    Case("no table", "one column", b"name\nAnn\nBob\n", {"name": ["Ann", "Bob"]}),
    Case("no table", "one column in quotes", b'who\n"Doe, Jo"\n"Roe, Al"\n', {"who": ["Doe, Jo", "Roe, Al"]}),
    Case("no table", "a pivot of days", b"land,2025-01-01\nA,1\n", {"land": ["A"], "_2025_01_01": [1]}),
    Case("no table", "a pivot", b"land,y2019,2020\nA,1,2\n", {"land": ["A"], "y2019": [1], "_2020": [2]}),
    Case(
        "no table",
        "no header, declared",
        b"1001,Alice\n1002,Bob\n",
        {"id": [1001, 1002], "name": ["Alice", "Bob"]},
        contract={"format": {"header": False}, "columns": {"id": "integer", "name": "string"}},
    ),
)

_TWO: dict[str, list[Any]] = {"a": [1, 2], "b": ["x", "y"]}
_DELIMITERS = (
    Case("delimiter", "Excel's own first line", b"sep=;\r\na;b\r\n1;x\r\n2;y\r\n", _TWO),
    Case("delimiter", "Excel's own first line names a tilde", b'"sep=~"\na~b\n1~x\n2~y\n', _TWO),
    Case(
        "delimiter",
        "Excel's own first line, counted and skipped",
        b"sep=;\na;b\n1;x\n2;y\n",
        _TWO,
        {"format": {"skip_lines": 1}},
    ),
    Case("delimiter", "at the end of every line", b"a,b,\n1,x,\n2,y,\n", _TWO),
    Case("delimiter", "several at the end of every line", b"a;b;;\r\n1;x;;\r\n2;y;;\r\n", _TWO),
    Case(
        "delimiter",
        "at the end of every line, with a value after it in a late row",
        b'a,b,\n1,"x,",\n' + 300 * b"2,y,\n" + b"3,z,9\n4,w\n",
        {"a": [1, *300 * [2]], "b": ["x,", *300 * ["y"]]},
        quarantined=[302, 303],
    ),
    Case(
        "delimiter",
        "at the end of every row, declared",
        b"a,b\n1,x,\n2,y,\n",
        _TWO,
        {"format": {"trailing_delimiter": True}},
    ),
    Case(
        "delimiter",
        "at the end of every row, without a header, declared",
        b"1,x,\n2,y,\n",
        _TWO,
        {"format": {"trailing_delimiter": True, "header": False}, "columns": {"a": "integer", "b": "string"}},
    ),
    Case(
        "delimiter",
        "at the end of every row, where the contract declares the columns",
        b"a,b\n1,x,\n2,y,\n",
        None,
        {"columns": {"a": "integer", "b": "string"}},
        codes=["layout_unfit"],
        mentions=["`trailing_delimiter: true`"],
    ),
    Case(
        "delimiter",
        "two bars, declared",
        b'a||b\n1||x|y\n2||"p||q ""r""\n"\n3||x||y\n',
        {"a": [1, 2], "b": ["x|y", 'p||q "r"\n']},
        {"format": {"delimiter": "||"}},
        quarantined=[3],
    ),
    Case(
        "delimiter",
        "two bars and backslashes, declared",
        b'a||b\n1||x\\||y\n2||"p \\"q\\" r"\n',
        {"a": [1, 2], "b": ["x||y", 'p "q" r']},
        {"format": {"delimiter": "||", "escape": "\\"}},
    ),
    Case("delimiter", "0x01, declared", b"a\x01b\n1\x01x\n2\x01y\n", _TWO, {"format": {"delimiter": "\x01"}}),
    Case(
        "delimiter",
        "0x01",
        b"a\x01b\n1\x01x\n2\x01y\n",
        None,
        codes=["format_not_allowed"],
        mentions=['`delimiter: "\\x01"`'],
    ),
    Case(
        "delimiter",
        "other than declared",
        b"a,b\n1,x\n2,y\n",
        None,
        {"format": {"delimiter": ";"}, "columns": {"a": "integer", "b": "string"}},
        codes=["layout_unfit"],
        mentions=['`delimiter: ","`'],
    ),
    Case("delimiter", "names in brackets", b"[a],[b]\n1,x\n2,y\n", _TWO),
    Case("delimiter", "a name in braces", b"{a},b\n1,x\n2,y\n", _TWO),
)

_JOINED = {"a": [*2000 * ["1"], *2000 * ["2"]], "b": [*2000 * ["x"], *2000 * ["y"]]}
_ENDS = (
    *(
        Case(
            "end",
            f"the header again after 2,000 rows{what}",
            b"a,b\n" + 2000 * b"1,x\n" + mark + b"a,b\n" + 2000 * b"2,y\n",
            _JOINED,
            contract,
            quarantined=[2001],
        )
        for mark, what in ((b"", ""), (b"\xef\xbb\xbf", " after a byte order mark"))
        for contract in ({"columns": {"a": "string", "b": "string"}},)
    ),
    Case(
        "end",
        "the header again after 2,000 rows, no contract",
        b"a,b\n" + 2000 * b"1,x\n" + b"a,b\n2,y\n",
        {"a": [*2000 * [1], 2], "b": [*2000 * ["x"], "y"]},
        quarantined=[2001],
    ),
    Case(
        "end", "a row like the header of its only column", b"a\nb\na\n", {"a": ["b", "a"]}, {"columns": {"a": "string"}}
    ),
    Case(
        "end",
        "the first byte that is not UTF-8 is after 64 KiB",
        b"a,b\n" + 20_000 * b"1,x\n" + b"2,\xe4\n3,y\n",
        {"a": [*20_000 * [1], 3], "b": [*20_000 * ["x"], "y"]},
        quarantined=[20_001],
    ),
    Case(
        "end",
        "mostly bytes that are not UTF-8 after 64 KiB, no bad rows allowed",
        b"a,b\n" + 20_000 * b"1,x\n" + 30_000 * b"2,\xe4\n",
        None,
        {"columns": {"a": "integer", "b": "string"}, "bad_rows": {"policy": "reject_file"}},
        codes=["text_undecodable"],
        mentions=["`encoding`"],
    ),
    Case("end", "Ctrl-Z at the end", b"a,b\n1,x\n2,y\n\x1a", _TWO),
    Case(
        "end",
        "Ctrl-Z at the end of a large file",
        b"a,b\n" + 40_000 * b"1,x\n" + b"\x1a",
        {"a": 40_000 * [1], "b": 40_000 * ["x"]},
    ),
)

CASES = (*_ENCODINGS, *_QUOTES, *_SEPARATORS, *_TABLES, *_DELIMITERS, *_ENDS)
