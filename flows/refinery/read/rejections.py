"""Why a file cannot be read as a table: one error class per cause. No message holds a value of the data."""

from __future__ import annotations

from flows.refinery.errors import FileRejected


class EmptyFile(FileRejected):
    """The file has no bytes, or nothing but blank lines."""

    code = "empty_file"


class FileTooLarge(FileRejected):
    """The file, or what it expands to, is larger than the limit."""

    code = "file_too_large"


class ExpandsTooMuch(FileRejected):
    """The compressed file grows far more than data does: a decompression bomb."""

    code = "expands_too_much"


class CompressionBroken(FileRejected):
    """The compressed file is damaged, cut short, or compressed twice."""

    code = "compression_broken"


class FormatNotAllowed(FileRejected):
    """The content is none of CSV, JSON, JSON Lines, Parquet and XLSX; pickles among them, which are never loaded."""

    code = "format_not_allowed"


class FormatMismatch(FileRejected):
    """The content is in another format than the contract declares."""

    code = "format_mismatch"


class TextUndecodable(FileRejected):
    """The text is not in the encoding that the contract gives or that was found out."""

    code = "text_undecodable"


class HeaderInvalid(FileRejected):
    """A column has no name, two have the same, or one has a name that Sluice reserves."""

    code = "header_invalid"


class TooManyColumns(FileRejected):
    """The table has more columns than the limit."""

    code = "too_many_columns"


class TooManyRows(FileRejected):
    """The table has more rows than the limit."""

    code = "too_many_rows"


class RecordTooLong(FileRejected):
    """One record is longer than the limit, as in a file without line ends."""

    code = "record_too_long"


class UnclosedQuote(FileRejected):
    """A quote opens a CSV field and is never closed: where the records after it begin cannot be known."""

    code = "unclosed_quote"


class JsonBroken(FileRejected):
    """The JSON document breaks off or is malformed outside of its rows."""

    code = "json_broken"


class ParquetBroken(FileRejected):
    """The Parquet file is damaged or uses what the reader does not know."""

    code = "parquet_broken"


class WorkbookBroken(FileRejected):
    """The XLSX file is damaged, encrypted, or packed in a way that no spreadsheet program does."""

    code = "workbook_broken"


class SheetMissing(FileRejected):
    """The workbook has no sheet of the name or index that the contract gives."""

    code = "sheet_missing"
