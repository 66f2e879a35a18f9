"""Finds archaic and idiosyncratic words in what people read, and suggests plain ones.

    python -m tests.linters.plain_english          check everything
    python -m tests.linters.plain_english FOLDER   check some folders or files

It reads documentation, YAML, TOML, SVG and build scripts line by line. In Python files it reads comments, docstrings
and messages (strings that contain a space). A comment that gives a reason exempts its line: `plain: quoted from AWS`.
Generated pages and tables are not read, because their words come from files that are read.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

PROJECT_ROOT = Path(__file__).parents[2]

# Files that are generated, or that are about the words themselves.
NOT_READ = (
    "docs/errors.md",
    "docs/faults.md",
    "tests/linters/plain_english.py",
    "tests/unit/docs/test_plain_english.py",
)

# Regular expression for words that are nearly always wrong in this project → what an engineer writes instead.
BETTER = {
    r"told|tells": "report, notify, state",
    r"said|says": "state, report, show, according to",
    r"of (?:its|their|our|one's|his) own(?! (?!and|or|with|that|which|is|in|on|at|for|to|by|as|than|whose|so)[a-z])": (
        "its own ..., separate, dedicated"
    ),
    r"stands": "is",
    r"lies": "is",
    r"whoever|whosoever": "anyone who, the caller, the user",
    r"anew": "again",
    r"mend(?:s|ed|ing)?": "fix, patch",
    r"condemn(?:s|ed|ing)?": "reject, quarantine",
    r"for want of": "without, because of a missing ...",
    r"reckon(?:s|ed|ing)?": "estimate, calculate",
    r"boxes": "containers",
    r"doors?": "entry point, dispatch",
    r"hand(?:s|ed|ing)? (?:\w+ )?over": "pass, queue again, resend",
    r"there it is|must be there": "is required, exists",
    r"(?:is|are) to (?:come|be)": "should be, is expected",
    r"wish(?:es|ed)?": "option, request, want",
    r"beside": "next to, besides",
    r"(?:and|or) the like": "and similar",
    r"in (?:its|their|our|his|one's) hands": "holds, works on",
    r"great(?![ -]Expectations|$)": "large",
    r"once more": "again",
    r"(?:take|takes|took|taken|taking) (?:it |them )?in": "pick up, process",
    r"hears? of|heard of": "is notified of",
    r"(?:make|makes|made|making) good": "recover, repair",
    r"in good order": "cleanly",
    r"signs? of life": "heartbeat",
    r"what (?:it|they) (?:holds?|bears?)": "its contents, the type",
    r"knows? (?:no|none|nothing|of)": "has no",
    r"(?:speak|speaks|spoke|spoken) of": "mention, refer to",
    r"forgets?|forgotten": "delete, clear",
    r"what (?:becomes?|became|has become) of": "what happened to, the outcome of",
    r"(?:is|are) no trouble": "does not matter",
    r"gives? back|giv(?:en|ing) back": "return",
    r"hereby|herein|thereof|therein|whence|lest|seldom|ere|hitherto": "a plain word",
}
# One combined search for all entries is five times faster than one search for each.
_WORDS = re.compile(
    rf"\b(?:{'|'.join(f'(?P<w{number}>{words})' for number, words in enumerate(BETTER))})\b", re.IGNORECASE
)
_LET = re.compile(r"\s*Let\b")
_GENERATED = re.compile(r"<!-- made: .*?<!-- end -->", re.DOTALL)
_ALLOWED = re.compile(r"plain: \S")

Line = tuple[int, str]


def texts_of_python(source: str, module: ast.Module) -> Iterator[Line]:
    """Yield each line of a module's comments and of its strings that contain a space, with its line number."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(module):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            for offset, line in enumerate(node.value.splitlines()):
                yield node.lineno + offset, line


def docstrings_of(module: ast.Module) -> Iterator[Line]:
    """Yield the first line of each docstring in a module, with its line number."""
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield node.body[0].lineno, text.splitlines()[0]


def findings(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, word, suggestion) for each word in a file that is not plain English."""
    source = _GENERATED.sub(lambda table: "\n" * table.group().count("\n"), path.read_text(encoding="utf-8"))
    lines = source.splitlines()
    module = ast.parse(source) if path.suffix == ".py" else None
    for number, text in texts_of_python(source, module) if module else enumerate(lines, 1):
        for found in _WORDS.finditer(text):
            if not _ALLOWED.search(lines[number - 1]):
                yield number, found.group(), list(BETTER.values())[int(str(found.lastgroup)[1:])]
    if module:
        for number, text in docstrings_of(module):
            if _LET.match(text):
                yield number, "Let ...", "a verb: Add, Keep, Allow, Return"


def files() -> list[str]:
    """Return every tracked file to check, as a path relative to the project root."""
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    return [
        name
        for name in listed.stdout.splitlines()
        if (Path(name).suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".svg"} or name in {"Makefile", ".ci/run"})
        and name not in NOT_READ
        and (PROJECT_ROOT / name).is_file()
    ]


def is_within(name: str, folders: Iterable[str]) -> bool:
    """Return whether a file is one of `folders`, or is inside one of them; an entry "" matches every file."""
    return any(folder in ("", name) or name.startswith(f"{folder}/") for folder in folders)


def main() -> None:
    """Check everything, or only the given folders and files, and exit with 1 if a word is found."""
    folders = sys.argv[1:]
    wrong = [
        f"{name}:{line}: {word!r}: better {better}"
        for name in files()
        if not folders or is_within(name, folders)
        for line, word, better in findings(PROJECT_ROOT / name)
    ]
    if wrong:
        print("\n".join(wrong))
        sys.exit("Write what a native engineer would write, or give the reason on the line: plain: <reason>")


if __name__ == "__main__":
    main()
