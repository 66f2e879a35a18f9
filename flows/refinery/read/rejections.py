"""Why a file cannot be read as a table: one error class per cause. No message holds a value of the data."""

from collections.abc import Mapping, Sequence

from flows.refinery.errors import FileRejected


class EmptyFile(FileRejected):
    """The file has no bytes, or nothing but blank lines."""


class FileTooLarge(FileRejected):
    """The file, or what it expands to, is larger than the limit."""


class ExpandsTooMuch(FileRejected):
    """The compressed file grows far more than data does: a decompression bomb."""


class CompressionBroken(FileRejected):
    """The compressed file is damaged, cut short, or compressed twice."""


class FormatNotAllowed(FileRejected):
    """The content is none of CSV, JSON, JSON Lines, Parquet and XLSX; pickles among them, which are never loaded."""


class FormatMismatch(FileRejected):
    """The content is in another format than the contract declares."""


class TextUndecodable(FileRejected):
    """The text is not in the encoding that the contract gives or that was found out."""


class EncodingUnknown(FileRejected):
    """The text is not UTF-8, no byte order mark names its encoding, and the contract declares no encoding.

    Attributes:
        candidates: the encodings that it may be in, the likeliest first.
        readings: by candidate, how it reads the first line that is not ASCII. It holds values of the data: only for
            the terminal of somebody who has the file.
    """

    def __init__(self, message: str, candidates: Sequence[str] = (), readings: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.candidates = tuple(candidates)
        self.readings = dict(readings or {})


class HeaderInvalid(FileRejected):
    """A column has no name, two have the same, or one has a name that Sluice reserves."""


class TooManyColumns(FileRejected):
    """The table has more columns than the limit."""


class TooManyRows(FileRejected):
    """The table has more rows than the limit."""


class RecordTooLong(FileRejected):
    """One record is longer than the limit, as in a file without line ends."""


class UnclosedQuote(FileRejected):
    """A quote opens a CSV field and is never closed: where the records after it begin cannot be known."""


class QuoteMisplaced(FileRejected):
    """Text follows the closing quote of a CSV field, and so where its record ends cannot be known."""


class MarksContradict(FileRejected):
    """Some numbers of a CSV file have a decimal point, others a decimal comma, and the contract declares neither."""


class MarksAmbiguous(FileRejected):
    """Numbers such as 1.250 in a column that the contract declares as numbers, and nothing shows which mark it is."""


class NoTable(FileRejected):
    """The file matches no dataset's contract, and its text is hardly a table with a header."""


class LayoutUnfit(FileRejected):
    """Most rows of a CSV file do not fit its header, or its header not the contract, for one cause that is named."""


class JsonBroken(FileRejected):
    """The JSON document breaks off or is malformed outside of its rows."""


class JsonNotRows(FileRejected):
    """The JSON document holds its table in another form than objects as rows: arrays, columns, or inside an object.

    Attributes:
        records_path: where an array of objects is; None if there is none.
    """

    def __init__(self, message: str, records_path: str | None = None) -> None:
        super().__init__(message)
        self.records_path = records_path


class ParquetBroken(FileRejected):
    """The Parquet file is damaged or uses what the reader does not know."""


class BytesWithoutText(FileRejected):
    """A column of a Parquet file holds bytes that are no text, and no type of a contract holds them."""


class WorkbookBroken(FileRejected):
    """The XLSX file is damaged, encrypted, or packed in a way that no spreadsheet program does."""


class SheetMissing(FileRejected):
    """The workbook has no sheet of the name or index that the contract gives."""


class SheetNotChosen(FileRejected):
    """The first sheet of a workbook has no rows, others may, and the contract does not say which one to read."""


class ReaderKilled(FileRejected):
    """Reading the file ended the process that did it, twice: it takes more memory than the task has, or is damaged in a
    way that its format's library cannot stand."""


class PathColumnUnusable(FileRejected):
    """A column of the contract's `path_columns` has no folder in the file's key, several, or is in the file, too."""
