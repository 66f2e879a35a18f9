"""The JSON documents of the published bucket: receipts, index entries, attempts, batch notes. Pure."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.refinery.errors import TerminalError


class Document(BaseModel):
    """A document with a schema version. A release refuses another version, and fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    noun: ClassVar[str]  # what the document is
    unreadable: ClassVar[type[TerminalError]]  # the error for one that this release does not read

    # The first field: of all that is wrong with a document of a later release, the version is named.
    schema_version: Literal[1] = Field(1, alias="schema", description="of the document itself")

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a document back. Raise `unreadable`, which names the field that is wrong."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the document"
            raise cls.unreadable(f"not {cls.noun} that this release reads: {where}: {first['msg']}") from error
