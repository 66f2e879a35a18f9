"""The reasons why a file cannot be read as a table: one error class per cause. No message contains a value from the
data."""

from collections.abc import Mapping, Sequence

from flows.refinery.errors import FileRejected


class EmptyFile(FileRejected):
    """The file has no bytes, or only blank lines or cells, apart from skipped lines."""


class FileTooLarge(FileRejected):
    """The file is larger than a limit, before or after decompression, or a sheet has too many cells."""


class ExpandsTooMuch(FileRejected):
    """The file expands far more than real data does, as a decompression bomb would."""


class CompressionBroken(FileRejected):
    """The compressed file is damaged, cut short, or compressed twice."""


class FormatNotAllowed(FileRejected):
    """The content is not CSV, JSON, JSON Lines, Parquet or XLSX. Pickles are also rejected, and never loaded."""


class FormatMismatch(FileRejected):
    """The content is not in the format that the contract declares."""


class TextUndecodable(FileRejected):
    """The text is not in the encoding that the contract declares or that was detected."""


class EncodingUnknown(FileRejected):
    """The text is not UTF-8, no byte order mark names its encoding, and the contract declares no encoding.

    Attributes:
        candidates: the encodings that the text may have, most likely first.
        readings: by candidate, the first line that is not ASCII, decoded with this encoding. This is data: show it
            only in the terminal of someone who has the file.
    """

    def __init__(self, message: str, candidates: Sequence[str] = (), readings: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)
        self.readings = dict(readings or {})


class HeaderInvalid(FileRejected):
    """The header cannot be read, or a column has no name or a reserved name, or two columns have the same name."""


class TooManyColumns(FileRejected):
    """The table has more columns than the limit."""


class TooManyRows(FileRejected):
    """The table has more rows than the limit."""


class RecordTooLong(FileRejected):
    """A record is longer than the limit, for instance because the file has no line ends."""


class UnclosedQuote(FileRejected):
    """A quote opens a CSV field and is never closed, so the beginning of later records cannot be determined."""


class QuoteMisplaced(FileRejected):
    """Text follows the closing quote of a CSV field, so the end of the record cannot be determined."""


class MarksContradict(FileRejected):
    """Some numbers in a CSV file have a decimal point, others a decimal comma, and the contract declares neither."""


class MarksAmbiguous(FileRejected):
    """A column declared as numbers has values such as 1.250, and the other numbers do not prove how to read them."""


class NoTable(FileRejected):
    """The file matches no dataset's contract, and its text is probably not a table with a header."""


class LayoutUnfit(FileRejected):
    """Most rows of a CSV file do not fit its header, or the header lacks columns of the contract, and there is a single
    known cause."""


class JsonBroken(FileRejected):
    """The JSON document is cut short, or malformed outside of its rows."""


class JsonNotRows(FileRejected):
    """The rows of the JSON document are not objects at the top level: they are arrays, or columns, or inside an object.

    Attributes:
        records_path: the path to an array of objects; None if there is none.
    """

    def __init__(self, message: str, records_path: str | None = None) -> None:
        super().__init__(message)
        self.records_path = records_path


class ParquetBroken(FileRejected):
    """The Parquet file is damaged or uses a feature that the reader does not support."""


class BytesWithoutText(FileRejected):
    """A column of a Parquet file contains bytes that are not text, and contracts have no type for such bytes."""


class WorkbookBroken(FileRejected):
    """The XLSX file is damaged, its ZIP archive is encrypted, or no spreadsheet program packs files in its way."""


class SheetMissing(FileRejected):
    """The workbook has no sheet with the name or index that the contract declares."""


class SheetNotChosen(FileRejected):
    """The first sheet of a workbook has no rows, and the contract does not declare which sheet to read."""


class ReaderKilled(FileRejected):
    """Two processes died while they were reading the file: it takes more memory than the task has, or it is damaged in
    a way that makes the format's library crash."""


class PathColumnUnusable(FileRejected):
    """The file's key lacks a folder for one of the contract's `path_columns`, has several, or has one whose value is
    not UTF-8, or the file itself already has this column."""
