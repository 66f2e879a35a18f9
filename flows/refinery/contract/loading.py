"""Load contracts from contract.yaml, report errors with line numbers, and find the contract for an object key.

Only the structure of a contract is checked here, without pandas or Great Expectations.
flows/refinery/check_contract.py checks the rest.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from flows.refinery.contract.globs import glob_to_regex, globs_overlap
from flows.refinery.contract.model import (
    DEFAULT_DATASET,
    STEPS_FILE,
    BadRows,
    Column,
    Contract,
    FileFormat,
    OutputOptions,
)
from flows.refinery.contract.suite import SuiteUnreadable, read_suite
from flows.refinery.contract.yaml_with_lines import LocatedYaml, YamlUnreadable, not_text
from flows.refinery.errors import TerminalError
from flows.refinery.suggestions import did_you_mean

CONTRACT_FILE = "contract.yaml"
_MODELS: dict[str, type[BaseModel]] = {
    "columns": Column,
    "format": FileFormat,
    "bad_rows": BadRows,
    "output": OutputOptions,
}
Place = tuple[int | str, ...]
Fault = tuple[Place, str]
"""The position of an error in a contract (keys and indices), and a sentence that describes the error."""


class ContractInvalid(TerminalError):
    """A contract does not exist or is invalid. The message gives the place of the error, and usually its correction."""


@dataclass(frozen=True)
class UnusableContract:
    """An invalid contract, and the globs of the keys that it applies to. Uploads with such keys wait until the contract
    is corrected."""

    dataset: str
    sources: tuple[str, ...]
    fault: str
    is_default = property(lambda self: self.dataset == DEFAULT_DATASET)


class Contracts:
    """The contracts of all datasets, usable or not. Iteration yields only the usable contracts.

    Raises:
        ContractInvalid: there is no contract named `default`, or the keys that an unusable contract applies to are
            unknown, so that it might apply to any key.
    """

    def __init__(self, contracts: Iterable[Contract | UnusableContract]) -> None:
        self._by_name = {contract.dataset: contract for contract in contracts}
        if DEFAULT_DATASET not in self._by_name:
            raise ContractInvalid(
                f"there is no contract named {DEFAULT_DATASET!r}; files that match no other contract need it"
            )
        unusable = [one for one in self._by_name.values() if isinstance(one, UnusableContract)]
        if for_any_key := [one.fault for one in unusable if not one.sources and not one.is_default]:
            raise ContractInvalid("\n".join(for_any_key))
        self._globs = sorted(
            (
                (glob, glob_to_regex(glob), contract)
                for contract in self._by_name.values()
                if not contract.is_default
                for glob in contract.sources
            ),
            key=lambda entry: _precedence(entry[0], entry[2].dataset),
        )

    @classmethod
    def load(cls, root: Path) -> Contracts:
        """Load the contracts in `root`/*/contract.yaml. Raise ContractInvalid with the errors in all of them, or if
        there is no `default`."""
        contracts = contracts_in(root)
        if faults := [one.fault for one in contracts if isinstance(one, UnusableContract)]:
            raise ContractInvalid("\n".join(faults))
        return cls(contracts)

    def for_key(self, key: str) -> Contract:
        """Return the contract whose `source` matches the object key. If several match, return the one whose glob has
        the most literal characters; if none matches, return the default. Raise ContractInvalid if the contract to
        return is unusable."""
        for _, pattern, contract in self._globs:
            if pattern.fullmatch(key):
                return _usable(contract)
        return _usable(self._by_name[DEFAULT_DATASET])

    def named(self, dataset: str) -> Contract:
        """Return the contract of a dataset. Raise ContractInvalid if there is none or it is unusable."""
        if dataset not in self._by_name:
            raise ContractInvalid(
                f"there is no contract named {dataset!r}{did_you_mean(dataset, self._by_name)}"
                f" (there are: {', '.join(sorted(self._by_name))})"
            )
        return _usable(self._by_name[dataset])

    def shared_with(self, contract: Contract) -> Iterator[tuple[str, str, str, str]]:
        """Yield each overlap between a glob of this contract and a glob of a different dataset. Each tuple has this
        glob, the other glob, the other dataset, and the dataset to which files that match both globs belong."""
        for mine in () if contract.is_default else contract.sources:
            for theirs, _, other in self._globs:
                if other.dataset != contract.dataset and globs_overlap(mine, theirs):
                    both = ((mine, contract.dataset), (theirs, other.dataset))
                    yield mine, theirs, other.dataset, min(both, key=lambda one: _precedence(*one))[1]

    def __iter__(self) -> Iterator[Contract]:
        return (contract for contract in self._by_name.values() if isinstance(contract, Contract))


def _precedence(glob: str, dataset: str) -> tuple[int, str, str]:
    """Return the sort key of a glob, by which globs with more literal characters come first."""
    return -len(re.sub(r"[*?]", "", glob)), glob, dataset


def _usable(contract: Contract | UnusableContract) -> Contract:
    if isinstance(contract, UnusableContract):
        raise ContractInvalid(contract.fault)
    return contract


def contracts_in(root: Path) -> list[Contract | UnusableContract]:
    """Load the contract from each folder in `root` that has a contract.yaml. Invalid ones become UnusableContracts."""
    return [_contract_in(path.parent) for path in sorted(root.glob(f"*/{CONTRACT_FILE}"))]


def _contract_in(folder: Path) -> Contract | UnusableContract:
    try:
        return load_contract(folder)
    except ContractInvalid as error:
        return UnusableContract(folder.name, _sources_in(folder), str(error))


def _sources_in(folder: Path) -> tuple[str, ...]:
    """Return the globs of the invalid contract in a folder, or an empty tuple if they are uncertain."""
    try:
        value = LocatedYaml.read(folder / CONTRACT_FILE).value
    except YamlUnreadable:
        return ()
    if not isinstance(value, dict) or value.get("dataset") != folder.name:
        return ()
    if "source" in value:
        return _globs_of(value)
    is_misspelt = not value.keys() <= Contract.model_fields.keys()
    return () if is_misspelt else (f"incoming/{folder.name}/**",)


def load_contract(folder: Path) -> Contract:
    """Load `folder`/contract.yaml and the suite that it refers to. The dataset's steps.py is parsed, but not executed.
    Raise ContractInvalid with one line per error, as `file:line: field: error`."""
    try:
        return _contract_of(LocatedYaml.read(folder / CONTRACT_FILE), folder)
    except YamlUnreadable as error:
        raise ContractInvalid(str(error)) from None


def parse_contract(content: bytes, name: str, folder: Path | None) -> Contract:
    """Parse a contract that is not in a local file, such as one from S3.

    Args:
        name: the contract's location, for messages.
        folder: the dataset's local folder, in which its steps.py is looked up; None to check only the contract.

    Raises:
        ContractInvalid: as for `load_contract`, or the contract refers to a suite file.
    """
    try:
        document = LocatedYaml.parse(Path(name), content)
    except YamlUnreadable as error:
        raise ContractInvalid(str(error)) from None
    if isinstance(document.value, dict) and "suite" in document.value:
        raise ContractInvalid(
            f"{document.where(('suite',))}: suite: a published contract has no files; write the suite's expectations"
            " under expectations"
        )
    return _contract_of(document, folder)


def sources_of(content: bytes) -> tuple[str, ...]:
    """Return the `source` globs of an invalid contract, or an empty tuple if it has none or they cannot be read."""
    try:
        value = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return ()
    return _globs_of(value) if isinstance(value, dict) else ()


def _globs_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    source = fields.get("source")
    listed = [source] if isinstance(source, str) else source if isinstance(source, list) else []
    return tuple(listed) if all(isinstance(glob, str) for glob in listed) else ()


def text_of(contract: Contract) -> str:
    """Return a contract as YAML: its original text, or its fields if it was changed for a run or has a suite."""
    if contract.document is not None and contract.suite is None:
        return contract.document.text
    fields = contract.model_dump(exclude_unset=True, exclude={"suite"})
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _contract_of(document: LocatedYaml, folder: Path | None) -> Contract:
    if not isinstance(document.value, dict):
        raise ContractInvalid(f"{document.path}:1: a contract is a mapping that begins with `dataset: <name>`")
    fields = dict(document.value)
    dataset = fields.get("dataset")
    if "folder" in fields:
        raise ContractInvalid(f"{document.where(('folder',))}: folder: not a field of a contract")
    if folder and isinstance(dataset, str) and dataset != folder.name:
        raise ContractInvalid(
            f"{document.where(('dataset',))}: dataset: {dataset!r} is in the folder {folder.name!r}; the two"
            " names must be the same"
        )
    if folder:
        _add_suite(folder, document, fields)
    try:
        contract = Contract.model_validate({**fields, "folder": folder})
    except ValidationError as error:
        raise ContractInvalid("\n".join(_sentences(document, error))) from None
    if folder:
        _require_own_steps(document, contract)
    return contract.read_from(document)


def fault_lines(contract: Contract, faults: Iterable[Fault]) -> list[str]:
    """Format each error as `file:line: field: error`, or as `contract: field: error` if the contract has no file."""
    document = contract.document
    if document is None:
        return [f"contract: {'.'.join(map(str, place))}: {fault}" for place, fault in faults]
    return [f"{_where(document, place)}: {place[0]}: {fault}" for place, fault in faults]


def overridden(contract: Contract, changes: Mapping[str, Any]) -> Contract:
    """Return `contract` with some fields changed for one run. A field that is a mapping keeps its other entries. Raise
    ContractInvalid if a field does not exist, cannot be changed or has an invalid value."""
    fields = contract.model_dump(exclude_unset=True)
    for name, value in changes.items():
        if name in ("dataset", "folder"):
            raise ContractInvalid(f"contract: {name} cannot be changed for a run; name another dataset instead")
        present = fields.get(name, {})
        fields[name] = {**present, **value} if isinstance(present, dict) and isinstance(value, Mapping) else value
    try:
        return Contract.model_validate({**fields, "folder": contract.folder})
    except ValidationError as error:
        raise ContractInvalid("\n".join(_sentences(None, error))) from None


def _add_suite(folder: Path, document: LocatedYaml, fields: dict[str, Any]) -> None:
    """Append the expectations of the contract's suite, if it has one, to the field `expectations`. Raise
    ContractInvalid if the suite cannot be read."""
    name = fields.get("suite")
    if not isinstance(name, str):
        return
    where = f"{document.where(('suite',))}: suite"
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ContractInvalid(f"{where}: {name!r} is outside the contract's folder")
    try:
        suite = read_suite(path)
    except SuiteUnreadable as error:
        raise ContractInvalid(f"{where}: {error}") from None
    written = fields.get("expectations") or []
    if isinstance(written, list):
        fields["expectations"] = [*written, *suite]


def _require_own_steps(document: LocatedYaml, contract: Contract) -> None:
    """Raise ContractInvalid if steps.py cannot be parsed, or lacks a function that is used as a step, or if the
    function cannot be called with the step's arguments."""
    own = [(index, step) for index, step in enumerate(contract.preprocess) if step.is_own]
    if not own:
        return
    functions = _functions_of(document, contract)
    for index, step in own:
        if step.function not in functions:
            raise ContractInvalid(
                f"{document.where(('preprocess', index))}: preprocess: {STEPS_FILE} has no function"
                f" {step.function!r}{did_you_mean(step.function, functions)}"
            )
        for fault in _call_faults(functions[step.function], step.arguments):
            raise ContractInvalid(f"{document.where(('preprocess', index))}: preprocess: {step.name} {fault}")


def _call_faults(taken: ast.arguments, given: Mapping[str, Any]) -> Iterator[str]:
    """Yield each reason why a function with the parameters `taken` cannot be called with a DataFrame and the keyword
    arguments `given`."""
    positional = [argument.arg for argument in [*taken.posonlyargs, *taken.args]]
    names = [*positional[1:], *(argument.arg for argument in taken.kwonlyargs)]
    if not positional and taken.vararg is None:
        yield "takes no DataFrame; its first parameter must be a DataFrame"
    for name in given:
        if name not in names and taken.kwarg is None:
            takes = f"takes {', '.join(names)}" if names else "takes only the DataFrame"
            yield f"has no parameter {name!r}{did_you_mean(name, names)} (it {takes})"
    needed = positional[1 : len(positional) - len(taken.defaults)]
    needed += [one.arg for one, value in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if value is None]
    for name in needed:
        if name not in given:
            yield f"needs the argument {name!r}"


def _functions_of(document: LocatedYaml, contract: Contract) -> dict[str, ast.arguments]:
    where = document.where(("preprocess",))
    if contract.steps_path is None:
        raise ContractInvalid(f"{where}: preprocess: there is no {STEPS_FILE} next to the contract")
    try:
        module = ast.parse(contract.steps_path.read_bytes(), filename=str(contract.steps_path))
    except (SyntaxError, ValueError) as error:
        raise ContractInvalid(f"{where}: preprocess: {STEPS_FILE} is not Python: {error}") from None
    return {node.name: node.args for node in module.body if isinstance(node, ast.FunctionDef)}


def _sentences(document: LocatedYaml | None, error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        place = fault["loc"]
        field = ".".join(str(part) for part in place) or "contract"
        where = _where(document, place) if document else "contract"
        yield f"{where}: {field}: {_sentence(fault, place)}"


def _where(document: LocatedYaml, place: Place) -> str:
    """Return `file:line` for a position; for an expectation from the suite, the suite's path and the index in it."""
    value = document.value
    own = value.get("expectations") or []
    if place[:1] == ("expectations",) and len(place) > 1 and isinstance(own, list) and isinstance(place[1], int):
        in_suite = place[1] - len(own)
        if in_suite >= 0:
            return f"{document.path.parent / value['suite']}: expectations[{in_suite}]"
    return document.where(place)


def _sentence(fault: Any, place: tuple[int | str, ...]) -> str:
    if fault["type"] == "extra_forbidden":
        known = _MODELS.get(str(place[0]), Contract) if len(place) > 1 else Contract
        fields = sorted(set(known.model_fields) - {"folder"})
        return f"not a field of a contract{did_you_mean(str(place[-1]), fields)} (fields here: {', '.join(fields)})"
    if place[-1:] == ("[key]",):
        return not_text(fault.get("input"))
    if fault["type"] == "missing":
        return "this field is required"
    message = str(fault["msg"]).removeprefix("Value error, ")
    expected = re.findall(r"'([^']*)'", str(fault.get("ctx", {}).get("expected", "")))
    given = fault.get("input")
    if fault["type"] == "literal_error" and isinstance(given, str):
        return f"{given!r} is not allowed{did_you_mean(given, expected)} (allowed: {', '.join(expected)})"
    if fault["type"] != "value_error":
        return f"{message}; found {given!r}"
    return message
