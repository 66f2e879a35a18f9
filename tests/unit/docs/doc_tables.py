"""Generates the tables in the documentation from the models, the template and the state machines.

    python -m tests.unit.docs.doc_tables

This writes each table between the comments `<!-- made: NAME -->` and `<!-- end -->`. test_docs.py checks that the
tables are up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from blocks.settings import PipelineSettings
from deployment import PROJECT_ROOT
from flows.pipeline.receipt import Receipt
from flows.process_upload import process_upload
from flows.reconcile import reconcile
from flows.refinery import errors
from flows.refinery.contract import model
from flows.refinery.preprocess.steps import BUILT_IN
from flows.refinery.read import rejections
from flows.refinery.read.partition import Limits
from flows.refinery.validate.expectation_faults import gx_arguments
from flows.refinery.validate.rules import METHODS, UNSUPPORTED, Method, level_of
from tests.benchmarks.memory_peaks import recorded_peaks
from tests.infra.template import listed, load_template, statements_of
from tests.unit.docs import cost_tables

_MARKED = re.compile(r"(?P<begin><!-- made: (?P<name>[a-z_]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)
_SERVICE_ROLES = {
    "TriggerRole": "the Lambda",
    "DrainRole": "the drain's execution",
    "TaskRole": "the container",
    "TaskExecutionRole": "Fargate, to start the container",
    "SweepTimerRole": "the sweep's schedule",
    "ReconcileRole": "a task that reconciles",
    "ContractPublisherRole": "people and pipelines that publish contracts",
}


# --- small helpers ------------------------------------------------------------------------------------------


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header)]
    lines.append(["---"] * len(lines[0]))
    lines += [[_cell(cell) for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _plain(text: str) -> str:
    """Escape the characters in globs and placeholders that Markdown would treat as markup."""
    return text.replace("<", "&lt;").replace("*", "\\*")


def _code(text: object) -> str:
    return f"`{text}`"


def _first_sentence(documented: object) -> str:
    text = " ".join((documented.__doc__ or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", text)[0]


def type_name(annotation: Any) -> str:
    """Describe a Python type in words that a reader of YAML or JSON knows."""
    if get_origin(annotation) is Annotated:
        return type_name(get_args(annotation)[0])
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(type_name(part) for part in parts if part is not NoneType)
    if origin is Literal:
        return ", ".join(_code(part) for part in parts)
    if origin is tuple:
        return f"list of {type_name(parts[0])}"
    if origin is dict:
        return "mapping of field to value" if parts[1] is Any else f"{type_name(parts[1])} by name"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything", Path: "path"}
    if annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, str):
        return "text"
    return _words(getattr(annotation, "__name__", str(annotation)))


def _words(camel: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", camel).lower()
    return words.removeprefix("written ").removesuffix(" options")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or isinstance(value, BaseModel):
        return ""
    return _code(json.dumps(value, ensure_ascii=False, default=list))


# --- contracts ----------------------------------------------------------------------------------------------


def _fields_of(model: type[BaseModel], *, without: frozenset[str] = frozenset()) -> str:
    return _table(
        ("field", "type", "default", "meaning"),
        (
            (_code(name), type_name(field.annotation), _default(field), _plain(field.description or ""))
            for name, field in model.model_fields.items()
            if name not in without
        ),
    )


def contract_fields() -> str:
    return _fields_of(model.Contract, without=frozenset({"folder"}))


def column_fields() -> str:
    return _fields_of(model.Column)


def format_fields() -> str:
    return _fields_of(model.FileFormat)


def bad_rows_fields() -> str:
    return _fields_of(model.BadRows)


def output_fields() -> str:
    return _fields_of(model.OutputOptions)


def steps() -> str:
    return _table(
        ("step", "arguments", "what it does"),
        (
            (
                _code(name),
                ", ".join(_code(argument) for argument in step.model_fields if argument != "label"),
                _first_sentence(step),
            )
            for name, step in BUILT_IN.items()
        ),
    )


def expectations() -> str:
    """List the expectations that a contract may use, with the arguments of each."""
    shared = {"mostly", "row_condition", "condition_parser", "ignore_row_if", "severity"}
    return _table(
        ("expectation", "judges", "arguments (the bold ones are required)"),
        (
            (
                _code(name),
                "each row" if level_of(name) == "row" else "the file",
                ", ".join(
                    f"**{_code(argument)}**" if field.required else _code(argument)
                    for argument, field in sorted(gx_arguments(name).items())
                    if argument not in shared
                ),
            )
            for name in sorted(METHODS)
        ),
    )


def expectations_unsupported() -> str:
    """List the expectations of GX that a contract must not use, with the reasons."""
    return _table(("expectation", "why not"), ((_code(name), why) for name, why in sorted(UNSUPPORTED.items())))


def expectation_methods() -> str:
    """List how expectations are checked on a file that is read in partitions."""
    return _table(
        ("how", "expectations"),
        ((method.value, ", ".join(_code(name) for name, its in METHODS.items() if its is method)) for method in Method),
    )


def limits() -> str:
    """List the limits that apply to a file, with the descriptions from the docstring of `Limits`."""
    text = Limits.__doc__ or ""
    described = dict(re.findall(r"^ +(\w+): (.+?)(?=\n +\w+: |\Z)", text, re.MULTILINE | re.DOTALL))
    bounds = Limits()
    return _table(
        ("limit", "value", "applies to"),
        (
            (_code(name), _amount(name, getattr(bounds, name)), " ".join(what.split()))
            for name, what in described.items()
        ),
    )


def _amount(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        for unit, size in (("GiB", 1024**3), ("MiB", 1024**2)):
            if value >= size:
                return f"{value / size:g} {unit}"
    return f"{value:,.0f}"


def rejected_files() -> str:
    """List the reasons why a file cannot be read as a table."""
    classes = [
        kind
        for kind in vars(rejections).values()
        if isinstance(kind, type) and issubclass(kind, errors.FileRejected) and kind is not errors.FileRejected
    ]
    return _table(("code", "the file"), ((_code(kind.code), _first_sentence(kind)) for kind in classes))


# --- receipts -----------------------------------------------------------------------------------------------


def receipt_fields() -> str:
    """List every field of a receipt by its path."""
    return _table(("field", "type", "meaning"), _receipt_rows(Receipt, ""))


def _receipt_rows(model: type[BaseModel], above: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        path = f"{above}{field.alias or name}"
        inner = _model_in(field.annotation)
        if inner is None:
            yield _code(path), type_name(field.annotation), field.description or ""
            continue
        several = get_origin(field.annotation) is tuple
        yield _code(path), "list of objects" if several else "object", field.description or ""
        yield from _receipt_rows(inner, f"{path}[]." if several else f"{path}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


# --- stack --------------------------------------------------------------------------------------------------


def states() -> str:
    """List the states of the drain's state machine, and those of the tasks that its state `Launch` starts."""
    machine = json.loads((PROJECT_ROOT / "stepfunctions" / "drain.asl.json").read_text(encoding="utf-8"))
    launch = machine["States"]["Launch"]["ItemProcessor"]
    return "\n".join(
        f"**{title}**\n\n" + _table(("state", "type", "then"), _state_rows(states))
        for title, states in (("The drain", machine["States"]), ("Each task", launch["States"]))
    )


def _state_rows(states: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for state, body in states.items():
        kind = body["Type"]
        if kind == "Task":
            kind = _code(body["Resource"].removeprefix("arn:${Partition}:states:::").removeprefix("aws-sdk:"))
        targets = [body.get("Next"), *(choice["Next"] for choice in body.get("Choices", ())), body.get("Default")]
        caught = [catch["Next"] for catch in body.get("Catch", ())]
        then = ", ".join(dict.fromkeys(target for target in targets if target))
        if caught:
            then = f"{then or 'succeeds'}; on errors: {', '.join(dict.fromkeys(caught))}"
        if kind == "Fail":
            then = f"fails with {_code(body['Error'])}"
        yield state, kind, then or "succeeds"


def roles() -> str:
    """List the actions that each role in the template may perform."""
    resources = load_template()["Resources"]
    found = {name for name, resource in resources.items() if resource["Type"] == "AWS::IAM::Role"}
    if found != set(_SERVICE_ROLES):
        raise ValueError(f"the template's roles are {sorted(found)}; add what each one is for to _SERVICE_ROLES")
    return _table(
        ("role", "used by", "may"),
        (
            (_code(name), who, ", ".join(_code(action) for action in _actions(resources[name])))
            for name, who in _SERVICE_ROLES.items()
        ),
    )


def _actions(role: Mapping[str, Any]) -> list[str]:
    policies = (policy["PolicyDocument"] for policy in role["Properties"]["Policies"])
    actions = (
        action for policy in policies for statement in statements_of(policy) for action in listed(statement["Action"])
    )
    return list(dict.fromkeys(actions))


def parameters() -> str:
    return _table(
        ("parameter", "default", "meaning"),
        (
            (_code(name), _parameter_default(parameter), parameter["Description"])
            for name, parameter in load_template()["Parameters"].items()
        ),
    )


def _parameter_default(parameter: Mapping[str, Any]) -> str:
    default = parameter.get("Default")
    if default is None:
        return "required"
    return "empty" if default == "" else _code(default)


def alarms() -> str:
    resources = load_template()["Resources"]
    return _table(
        ("alarm", "metric", "meaning"),
        (
            (
                _code(name),
                _code(resource["Properties"]["MetricName"]),
                resource["Properties"]["AlarmDescription"],
            )
            for name, resource in resources.items()
            if resource["Type"] == "AWS::CloudWatch::Alarm"
        ),
    )


def settings() -> str:
    """List the settings of the container as environment variables."""
    return _table(
        ("variable", "default", "meaning"),
        (
            (
                _code(f"SLUICE_{name.upper()}"),
                "the shipped one" if name == "contracts_folder" else _default(field),
                field.description or "",
            )
            for name, field in PipelineSettings.model_fields.items()
        ),
    )


def flow_parameters() -> str:
    """List the parameters of `process_upload`, which can be set when a run is started manually."""
    return _parameters_of(process_upload.fn)


def reconcile_parameters() -> str:
    """List the parameters of the flow `reconcile`."""
    return _parameters_of(reconcile.fn)


def _parameters_of(function: Callable[..., object]) -> str:
    hints = get_type_hints(function)
    shown = parameter_schema(function).properties  # what Prefect's form shows
    return _table(
        ("parameter", "type", "meaning"),
        ((_code(name), type_name(hints[name]), _plain(field.get("description", ""))) for name, field in shown.items()),
    )


def memory() -> str:
    """List and plot the peak memory that `make bench-memory RECORD=1` has recorded."""
    names = {"csv": "CSV", "json lines": "JSON Lines", "parquet": "Parquet", "all, in turns": "all three, in turns"}
    return _table(
        ("format", "files", "MB", "read", "CPU s", "with readers, MB", "peak MB", ""),
        (
            (
                names[peak.format] + (", unique values" if peak.is_unique else ""),
                str(peak.files),
                f"{peak.megabytes:,}",
                "in ranges" if peak.in_ranges else "copied",
                str(peak.cpu_seconds),
                str(peak.with_readers_mb) if peak.format in ("parquet", "all, in turns") else "",
                str(peak.peak_mb),
                peak.bar,
            )
            for peak in recorded_peaks()
        ),
    )


# --- pages --------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        contract_fields,
        column_fields,
        format_fields,
        bad_rows_fields,
        output_fields,
        steps,
        expectations,
        expectations_unsupported,
        expectation_methods,
        limits,
        rejected_files,
        receipt_fields,
        states,
        roles,
        parameters,
        alarms,
        settings,
        flow_parameters,
        reconcile_parameters,
        cost_tables.cost_at_rest,
        cost_tables.cost_alone,
        cost_tables.cost_together,
        cost_tables.cost_a_month,
        cost_tables.cost_of_metrics,
        cost_tables.quotas,
        memory,
    )
}


def pages() -> list[Path]:
    """Return the Markdown pages in the project root and below docs/."""
    return [*sorted(PROJECT_ROOT.glob("*.md")), *sorted((PROJECT_ROOT / "docs").rglob("*.md"))]


def with_tables(text: str) -> str:
    """Return the text of a page with its tables regenerated."""

    def generated(match: re.Match[str]) -> str:
        return f"{match['begin']}\n{TABLES[match['name']]()}\n{match['end']}"

    return _MARKED.sub(generated, text)


def tables_of(text: str) -> list[str]:
    """Return the names of the generated tables in the text of a page."""
    return [match["name"] for match in _MARKED.finditer(text)]


def main() -> None:
    """Regenerate the tables of all pages."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        made = with_tables(text)
        if made != text:
            page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
