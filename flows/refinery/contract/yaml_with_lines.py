"""Parse YAML with the line number of each field, and reject duplicate keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.refinery.errors import TerminalError

MAX_BYTES = 1 << 20
_MAX_PLACES = 100_000  # aliases can make a small file expand to billions of values
_MAX_DEPTH = 40
_Place = tuple[int | str, ...]


class YamlUnreadable(TerminalError):
    """A YAML file is missing, too large, nested too deeply, not UTF-8 or not YAML, or it has a duplicate key."""


@dataclass(frozen=True)
class LocatedYaml:
    """A YAML file's content, with the line number (from 1) of each value. A value's position is given by the keys and
    indices that lead to it."""

    path: Path
    text: str
    value: Any
    lines: dict[_Place, int]

    @classmethod
    def read(cls, path: Path) -> LocatedYaml:
        """Read and parse a file. Raise YamlUnreadable if that fails."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise YamlUnreadable(f"{path}: cannot be read: {error.strerror}") from None
        return cls.parse(path, content)

    @classmethod
    def parse(cls, path: Path, content: bytes) -> LocatedYaml:
        """Parse a file's content; `path` is only used in messages. Raise YamlUnreadable if parsing fails."""
        if len(content) > MAX_BYTES:
            raise YamlUnreadable(f"{path}: larger than {MAX_BYTES} bytes, the limit for a contract")
        lines: dict[_Place, int] = {}
        value = None
        try:
            text = content.decode("utf-8-sig")
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            if node is not None:
                # This comes first, because constructing the value changes nodes that have merge keys.
                _collect(path, node, (), lines)
                value = loader.construct_document(node)
        except UnicodeDecodeError as error:
            raise YamlUnreadable(f"{path}: not UTF-8 at byte {error.start}") from None
        except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
            mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
            line = f":{mark.line + 1}" if mark else ""
            raise YamlUnreadable(f"{path}{line}: not YAML: {problem or error}") from None
        return cls(path, text, value, lines)

    def where(self, place: tuple[int | str, ...]) -> str:
        """Return `file:line` of the value at a position, or else of the innermost value around it that has a line."""
        for length in range(len(place), 0, -1):
            line = self.lines.get(tuple(place[:length]))
            if line is not None:
                return f"{self.path}:{line}"
        return f"{self.path}:1"


def not_text(key: Any) -> str:
    """Return the error message for a key that YAML does not parse as a string."""
    flags = " (YAML reads yes, no, on and off as true and false)" if isinstance(key, bool) else ""
    return f"a name must be text, but YAML reads this one as {key!r}; put quotes around it{flags}"


def _collect(path: Path, node: yaml.Node, place: _Place, lines: dict[_Place, int]) -> None:
    if len(place) > _MAX_DEPTH or len(lines) > _MAX_PLACES:
        raise YamlUnreadable(f"{path}:{node.start_mark.line + 1}: nested too deeply, or too long, for a contract")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise YamlUnreadable(f"{path}:{line}: a key must be plain text")
            if key.value in seen:
                raise YamlUnreadable(
                    f"{path}:{line}: {key.value!r} is written twice; only one of the two would take effect"
                )
            seen.add(key.value)
            lines[(*place, key.value)] = line
            _collect(path, child, (*place, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            lines[(*place, index)] = child.start_mark.line + 1
            _collect(path, child, (*place, index), lines)
