"""The data model of contract.yaml. loading.py reads the file; check_contract.py makes the checks that need GX."""

from __future__ import annotations

import codecs
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import to_jsonable_python

from flows.refinery.contract.time_formats import EPOCHS, TimeFormat, TimeZone, names_a_zone
from flows.refinery.contract.yaml_with_lines import LocatedYaml
from flows.refinery.suggestions import did_you_mean

DEFAULT_DATASET = "default"
STEPS_FILE = "steps.py"

KEEP = "keep"
"""An argument that Sluice adds to the expectations in UNIQUE. It selects which of the rows with the same key passes."""
KEPT = ("first", "last", "none")
UNIQUE = ("expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique")

BUILT_IN_STEPS = frozenset(
    {
        "clean_column_names",
        "strip_whitespace",
        "rename",
        "select",
        "drop_columns",
        "drop_duplicates",
        "fill_missing",
        "drop_missing",
        "clip",
        "map_values",
        "parse_dates",
        "cast",
        "standardize",
        "min_max_scale",
        "one_hot_encode",
        "ordinal_encode",
        "train_test_split",
    }
)

ColumnType = Literal["string", "integer", "number", "boolean", "timestamp", "date", "time", "json"]
ChangePolicy = Literal["evolve", "freeze", "quarantine"]
FormatType = Literal["auto", "csv", "json", "jsonl", "parquet", "xlsx"]
Severity = Literal["info", "warning", "critical"]
Fraction = Annotated[float, Field(ge=0, le=1)]
ONE_OR_SEVERAL = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
SAME_MARKS = {" ": "\u00a0\u2009\u202f", "'": "\u2019"}
"""The thousands separators space and apostrophe, each with the characters that are treated as the same separator."""
OneCharacter = Annotated[str, Field(min_length=1, max_length=1)]

_MISSING = ("missing_values", "missing_unless_text")
_OPTIONS_OF: dict[str, frozenset[str]] = {
    "csv": frozenset(
        {
            *("delimiter", "trailing_delimiter", "quote", "escape", "decimal", "thousands"),
            *("encoding", *_MISSING, "skip_lines", "header"),
        }
    ),
    "json": frozenset({"encoding", *_MISSING, "records_path"}),
    "jsonl": frozenset({"encoding", *_MISSING, "records_path"}),
    "parquet": frozenset(),
    "xlsx": frozenset({"sheet", "skip_lines", *_MISSING}),
}


class _Frozen(BaseModel):
    """Base class for the parts of a contract. Unknown fields are rejected, and fields cannot be reassigned."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


class Column(_Frozen):
    """The type and the other properties of one column."""

    type: ColumnType = Field(description="The type that every value must have or be convertible to.")
    nullable: bool = Field(
        True, description="Whether values may be missing; if not, rows without a value are quarantined."
    )
    required: bool = Field(
        True,
        description="Whether every file must have the column. An optional column that a file lacks is filled with"
        " missing values.",
    )
    format: TimeFormat | None = Field(
        None,
        description="The format of timestamps, dates and times, in strftime codes; default: ISO 8601. For numbers that"
        " count from 1970: epoch_seconds, epoch_milliseconds or epoch_microseconds.",
    )
    timezone: TimeZone | None = Field(
        None,
        description="The time zone of timestamps that do not contain one, for example Europe/Berlin; default: UTC.",
    )
    missing_values: tuple[str, ...] | None = Field(
        None, description="The strings that mean 'missing' in this column. They replace those of the format."
    )
    description: str | None = Field(None, description="What the column means. It is only documentation.")

    @model_validator(mode="after")
    def _time_options_fit_the_type(self) -> Column:
        if self.format is not None and self.type not in ("timestamp", "date", "time"):
            raise ValueError(f"format is for timestamps, dates and times; this column has type {self.type}")
        if self.timezone is not None and self.type != "timestamp":
            raise ValueError(f"timezone is for timestamps; this column has type {self.type}")
        if self.format in EPOCHS and (self.type != "timestamp" or self.timezone is not None):
            raise ValueError(f"format {self.format} is for timestamps without timezone: it counts from 1970 in UTC")
        if self.type == "time" and self.format is not None and names_a_zone(self.format):
            raise ValueError(f"format {self.format!r} has a time zone, which a time cannot keep; use the type string")
        return self


class FileFormat(_Frozen):
    """How a dataset's files are written. The type, the encoding, the delimiter and the separators in numbers are
    detected from the beginning of each file unless they are given."""

    type: FormatType = Field("auto", description="The file's format; auto detects it from the content.")
    delimiter: Annotated[str, Field(min_length=1, max_length=8)] | None = Field(
        None, description="The delimiter between CSV fields: one or more characters, such as `||`."
    )
    trailing_delimiter: bool = Field(
        False, description="Whether each CSV record ends with an extra delimiter, after the last value."
    )
    quote: OneCharacter = Field('"', description="The quote around CSV fields that contain delimiters.")
    escape: OneCharacter | None = Field(
        None,
        description="The escape character in CSV, such as a backslash. A quote or delimiter after it is field text.",
    )
    encoding: str | None = Field(None, description="The encoding of the text, by its name in Python.")
    decimal: Literal[".", ","] | None = Field(None, description="The decimal separator of numbers in CSV.")
    thousands: OneCharacter | None = Field(
        None, description="The thousands separator of numbers in CSV. A space also matches no-break and thin spaces."
    )
    missing_values: tuple[str, ...] = Field(
        ("",), description="The strings that mean 'missing' in every column that has no missing_values."
    )
    missing_unless_text: tuple[str, ...] = Field(
        (),
        description="The strings that mean 'missing' in columns that the contract does not list. They are kept as"
        " values if the column also has other text, where NA may mean Namibia.",
    )
    skip_lines: int = Field(0, ge=0, le=10_000, description="The number of lines to skip before the header.")
    header: bool = Field(
        True, description="Whether CSV files have a header. If not, `columns` must name all columns in order."
    )
    sheet: str | int = Field(
        0, description="The sheet to read in an XLSX file: its name, or its index (from 0) among the visible sheets."
    )

    records_path: str | None = Field(
        None,
        pattern=r"^[^.]+(\.[^.]+)*$",
        description="The path to the array of records in a JSON object: names joined by dots, such as data.results.",
    )

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str | None) -> str | None:
        if encoding is not None and not _is_text_encoding(encoding):
            known = ("utf-8", "utf-16", "latin-1", "cp1252", "iso-8859-15", "shift_jis")
            raise ValueError(f"{encoding!r} is not an encoding that Python knows{did_you_mean(encoding, known)}")
        return encoding

    @field_validator("thousands", mode="before")
    @classmethod
    def _thousands_mark_is_the_plain_one(cls, mark: Any) -> Any:
        return next(
            (plain for plain, same in SAME_MARKS.items() if isinstance(mark, str) and mark in tuple(same)), mark
        )

    @field_validator("thousands")
    @classmethod
    def _thousands_mark_is_no_part_of_a_number(cls, mark: str | None) -> str | None:
        if mark is not None and (mark.isalnum() or mark in "+-"):
            raise ValueError(f"{mark!r} cannot be the thousands separator: it is a letter, a digit or a sign")
        return mark

    @field_validator("missing_unless_text")
    @classmethod
    def _no_number_is_missing(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if numbers := [text for text in texts if any(map(str.isdigit, text))]:
            raise ValueError(f"{numbers[0]!r} may be a valid number; list it in missing_values of its column instead")
        return texts

    @field_validator("delimiter", "quote", "escape", "thousands")
    @classmethod
    def _marks_are_ascii(cls, mark: str | None) -> str | None:
        if mark is not None and (not mark.isascii() or any(sign in mark for sign in "\r\n\0")):
            raise ValueError(f"{mark!r} cannot be used; use ASCII characters other than line breaks")
        return mark

    @model_validator(mode="after")
    def _options_fit_the_type(self) -> FileFormat:
        if self.type != "auto":
            for option in sorted(self.model_fields_set - {"type"} - _OPTIONS_OF[self.type]):
                raise ValueError(f"{option} is not an option of {self.type} files")
        delimiter = self.delimiter or ""
        if self.quote in delimiter or self.quote == self.thousands:
            raise ValueError("quote must differ from delimiter and thousands")
        if self.escape is not None and (self.escape in self.quote + delimiter or self.escape.isspace()):
            raise ValueError("escape must differ from quote and delimiter, and must not be white space")
        if self.thousands is not None and self.thousands == (self.decimal or "."):
            raise ValueError(f"decimal and thousands are both {self.thousands!r}")
        return self


class Expectation(_Frozen):
    """One expectation, with its name and arguments in Great Expectations. In YAML it is a mapping with one key,
    `expect_column_values_to_not_be_null: {column: order_id}`, or only the name if it needs no argument."""

    name: str = Field(description="The expectation's name in snake_case, as in the GX documentation.")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="The arguments for GX, without severity and description."
    )
    severity: Severity = Field(
        "warning",
        description="critical: a failure rejects the file. warning: failing rows are quarantined. info: failures are"
        " only counted.",
    )
    description: str | None = Field(None, description="The reason for the expectation. It is only documentation.")

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        return _named_entry(value, "expectation", own_fields=("severity", "description"))

    @model_validator(mode="after")
    def _keep_is_for_keys(self) -> Expectation:
        if KEEP in self.arguments:
            if self.name not in UNIQUE:
                raise ValueError(f"{KEEP} is an argument of {' and '.join(UNIQUE)} only")
            if self.arguments[KEEP] not in KEPT:
                raise ValueError(f"{KEEP} is {self.arguments[KEEP]!r}; possible values: {', '.join(KEPT)}")
        return self

    @property
    def columns(self) -> list[str]:
        """Return the columns that the arguments column, column_A, column_B and column_list name, in this order."""
        single = [self.arguments.get(name) for name in ("column", "column_A", "column_B")]
        several = self.arguments.get("column_list")
        names = [*single, *(several if isinstance(several, list | tuple) else ())]
        return [name for name in names if isinstance(name, str)]


class WrittenStep(_Frozen):
    """One preprocessing step. In YAML it is a name, or a mapping from the name to the arguments. `steps.<function>` is
    a function in the dataset's steps.py."""

    name: str = Field(description="The name of a built-in step, or steps.<function> for a function in steps.py.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="The step's keyword arguments.")

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        return _named_entry(value, "step", own_fields=())

    @model_validator(mode="after")
    def _step_is_known(self) -> WrittenStep:
        if not self.is_own and self.name not in BUILT_IN_STEPS:
            raise ValueError(
                f"{self.name!r} is not a step{did_you_mean(self.name, BUILT_IN_STEPS)}"
                f" (built in: {', '.join(sorted(BUILT_IN_STEPS))}; your own function is steps.<function>)"
            )
        if self.is_own and not self.function.isidentifier():
            raise ValueError(f"{self.name!r} does not name a function; write steps.<function>")
        return self

    @property
    def is_own(self) -> bool:
        """Return whether the step is a function in the dataset's steps.py, not a built-in step."""
        return self.name.startswith("steps.")

    @property
    def function(self) -> str:
        """Return the name of the step's function in steps.py, without the prefix `steps.`."""
        return self.name.removeprefix("steps.")


class BadRows(_Frozen):
    """The policy for rows that break a rule, and the limits on their number."""

    policy: Literal["quarantine", "reject_file"] = Field(
        "quarantine",
        description="quarantine: bad rows are quarantined. reject_file: one bad row rejects the file.",
    )
    max_fraction: Fraction | None = Field(
        None, description="The fraction of bad rows above which the file is rejected; default: no limit."
    )
    max_count: int | None = Field(
        None, ge=0, description="The number of bad rows above which the file is rejected; default: no limit."
    )

    @model_validator(mode="after")
    def _thresholds_fit_the_policy(self) -> BadRows:
        if self.policy == "reject_file" and (self.max_fraction or self.max_count):
            raise ValueError("policy reject_file allows no bad row; remove max_fraction and max_count")
        return self


class OutputOptions(_Frozen):
    """How the clean rows are written."""

    format: Literal["parquet", "csv"] = Field("parquet", description="The file format of the clean rows.")
    compression: Literal["zstd", "gzip", "snappy", "none"] | None = Field(
        None, description="The compression; default: zstd for Parquet and none for CSV."
    )
    partition_by: Annotated[tuple[str, ...], ONE_OR_SEVERAL] = Field(
        (),
        description="Columns whose values become folders, for example country=DE/; `day(column)` makes daily folders.",
    )
    max_file_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="The size in bytes at which a published or quarantine file is full; further rows go into a new"
        " file.",
    )

    @field_validator("partition_by")
    @classmethod
    def _each_column_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"{list(names)} names a column twice")
        return names

    @model_validator(mode="after")
    def _compression_fits_the_format(self) -> OutputOptions:
        if self.format == "csv" and self.compression == "snappy":
            raise ValueError("snappy is for Parquet; CSV is compressed with zstd, gzip or none")
        return self

    @property
    def effective_compression(self) -> Literal["zstd", "gzip", "snappy", "none"]:
        """Return the compression to use: the one in the contract, or else the default of the format."""
        return self.compression or ("zstd" if self.format == "parquet" else "none")


class Contract(_Frozen):
    """The rules for one dataset: which data is valid, what happens to invalid data, and what is published."""

    dataset: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="The dataset's name, also used in folders and prefixes: lower-case letters, digits, _ and -.",
    )
    description: str | None = Field(None, description="What the dataset contains. It is only documentation.")
    source: Annotated[tuple[str, ...], ONE_OR_SEVERAL] = Field(
        (),
        description="The object keys that this contract applies to, as globs: * within a folder, ** across folders."
        " Default: incoming/<dataset>/**.",
    )
    format: FileFormat = Field(
        default_factory=FileFormat,
        description="How the files are written: a format's name, or a mapping with its options.",
    )
    columns: dict[str, Column] = Field(default_factory=dict, description="The columns, by their name in the file.")
    path_columns: Annotated[tuple[str, ...], ONE_OR_SEVERAL] = Field(
        (),
        description="Names of folders in the object key that become columns: dt for `dt=2024-01-01/`, as Hive and Spark"
        " write it.",
    )
    unknown_columns: ChangePolicy = Field(
        "evolve",
        description="What happens to columns that the contract does not list. evolve: they are published, too. freeze:"
        " the file is rejected. quarantine: rows with a value in one of them are quarantined; the columns are not"
        " published.",
    )
    missing_columns: ChangePolicy = Field(
        "freeze",
        description="What happens if a file lacks required columns. freeze: the file is rejected. evolve: the columns"
        " are filled with missing values. quarantine: all rows of the file are quarantined.",
    )
    expectations: tuple[Expectation, ...] = Field(
        (),
        description="Expectations from Great Expectations, checked in this order, before any preprocessing step.",
    )
    suite: str | None = Field(
        None,
        description="The path of a GX suite in JSON, relative to the contract. Its expectations follow those in"
        " `expectations`.",
    )
    bad_rows: BadRows = Field(default_factory=BadRows, description="What happens to rows that break a rule.")
    on_reupload: Literal["replace", "append"] = Field(
        "replace",
        description="Whether the rows of a new version of an object replace those of earlier versions, or are added to"
        " them.",
    )
    expected_every_hours: float | None = Field(
        None,
        gt=0,
        le=8_760,
        description="Expected interval between files, in hours; Prefect alerts if one is overdue.",
    )
    max_concurrent_uploads: int | None = Field(
        None, ge=1, description="The maximum number of files processed at once, as a concurrency limit in Prefect."
    )
    preprocess: tuple[WrittenStep, ...] = Field(
        (), description="The steps that preprocess the valid rows, in this order."
    )
    output: OutputOptions = Field(default_factory=OutputOptions, description="How the clean rows are written.")
    folder: Path | None = Field(
        None, exclude=True, description="The folder with contract.yaml and steps.py; set when the contract is loaded."
    )
    _document: LocatedYaml | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _columns_are_named(self) -> Contract:
        if not self.format.header and not self.columns:
            raise ValueError("format: header: false needs columns, which names the file's columns in order")
        return self

    @field_validator("format", mode="before")
    @classmethod
    def _name_or_options(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @field_validator("columns", mode="before")
    @classmethod
    def _type_or_options(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: {"type": rule} if isinstance(rule, str) else rule for name, rule in value.items()}

    @field_validator("unknown_columns")
    @classmethod
    def _known_columns_are_written(cls, policy: ChangePolicy, info: ValidationInfo) -> ChangePolicy:
        if policy != "evolve" and not info.data.get("columns"):
            raise ValueError(f"it is {policy}, but no columns are listed")
        return policy

    @property
    def document(self) -> LocatedYaml | None:
        """Return the YAML that the contract was read from, or None if there is none or the contract was changed for a
        run."""
        return self._document

    def read_from(self, document: LocatedYaml) -> Contract:
        """Return a copy of the contract that has the given YAML as its `document`."""
        contract = self.model_copy()
        contract._document = document
        return contract

    @property
    def is_default(self) -> bool:
        return self.dataset == DEFAULT_DATASET

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the globs of the object keys that this contract applies to."""
        return self.source or (f"incoming/{self.dataset}/**",)

    @property
    def steps_path(self) -> Path | None:
        """Return the path of the dataset's steps.py, or None if there is none."""
        if self.folder is None:
            return None
        path = self.folder / STEPS_FILE
        return path if path.is_file() else None

    @cached_property
    def content_hash(self) -> str:
        """Return the SHA-256 (hex) of the contract's fields and its steps.py. It does not depend on the order of
        keys, the comments or the shorthands in the YAML."""
        fields = json.dumps(to_jsonable_python(_keyed(self.model_dump())), sort_keys=True, ensure_ascii=True)
        steps = self.steps_path.read_bytes() if self.steps_path else b""
        return hashlib.sha256(fields.encode() + b"\0" + steps).hexdigest()


def _is_text_encoding(name: str) -> bool:
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return codecs.lookup(name).name not in ("idna", "punycode")  # these are for host names


def _keyed(value: Any) -> Any:
    """Return the value with every key as a distinct string, because JSON would write the YAML keys 1 and "1" alike."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else f"\0{key!r}": _keyed(part) for key, part in value.items()}
    return [_keyed(part) for part in value] if isinstance(value, list | tuple) else value


def _named_entry(value: Any, kind: str, own_fields: tuple[str, ...]) -> Any:
    """Return the fields of an entry that is written as `name` or `name: {arguments}` in YAML."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict) or isinstance(value.get("name"), str):  # from a contract that is already loaded
        return value
    if len(value) != 1:
        names = ", ".join(map(str, value)) or "none"
        raise ValueError(f"each {kind} is one name with its arguments; found {len(value)} names: {names}")
    ((name, arguments),) = value.items()
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError(f"{name} must be followed by its arguments as a mapping, for instance {{column: order_id}}")  # noqa: TRY004 pydantic collects ValueErrors
    fields = {field: arguments[field] for field in own_fields if field in arguments}
    rest = {argument: given for argument, given in arguments.items() if argument not in fields}
    return {"name": name, "arguments": rest, **fields}
