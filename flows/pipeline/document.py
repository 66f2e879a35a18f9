"""The base class of the JSON documents in the published bucket: receipts, index entries, attempts and batch notes."""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.refinery.errors import TerminalError


class Document(BaseModel):
    """A JSON document with a schema version. Sluice rejects a document with unknown fields or a different version."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    noun: ClassVar[str]  # the type of document as messages name it, such as "a receipt"
    unreadable: ClassVar[type[TerminalError]]  # the error for a document that this release cannot read

    # This field is first, so that the error for a later release's document names the version, not some other field.
    schema_version: Literal[1] = Field(1, alias="schema", description="the version of this document's schema")

    def to_json(self) -> str:
        """Return the JSON text that is stored in S3."""
        return self.model_dump_json(by_alias=True, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a document from JSON. Raise `unreadable` if that fails; the message names the first invalid field."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the document"
            raise cls.unreadable(f"not {cls.noun} that this release can read: {where}: {first['msg']}") from error
