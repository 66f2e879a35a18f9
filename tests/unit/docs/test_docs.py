"""The documentation is correct: its commands exist, its output is real, and its tables match the code."""

from __future__ import annotations

import ast
import inspect
import io
import re
import shlex
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import botocore.session
import pytest
import typer
import yaml
from botocore import xform_name
from rich.console import Console

from deployment import PROJECT_ROOT, cli
from deployment.commands.demo import SAMPLES
from deployment.commands.show import print_outcomes
from deployment.commands.upload_files import LocalFile, dataset_of, datasets
from deployment.commands.uploads import TrackedUpload, UploadState
from flows.composition import assemble
from flows.process_upload import process_upload
from flows.reconcile import reconcile
from tests.unit.docs.doc_tables import TABLES, pages, roles, tables_of, with_tables
from tests.unit.flows.conftest import Account, account  # noqa: F401 (a fixture is used by its name)

PRODUCTION = PROJECT_ROOT / "docs" / "production.md"
README = PROJECT_ROOT / "README.md"
PAGES = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(PROJECT_ROOT)))

_FENCE = re.compile(r"^ *```(?P<kind>\w*) ?(?P<name>\S*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A code block in a page.

    Attributes:
        kind: the language, such as sh.
        name: the name after the language, or "".
        text: the content, without common indentation.
    """

    kind: str
    name: str
    text: str


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path) -> list[Block]:
    return [
        Block(found["kind"], found["name"], textwrap.dedent(found["text"]).strip("\n"))
        for found in _FENCE.finditer(read(page))
    ]


def block_of_readme(kind: str, name: str) -> str:
    (found,) = (block for block in blocks_of(README) if (block.kind, block.name) == (kind, name))
    return found.text + "\n"


def commands_of(page: Path) -> list[str]:
    """Return the commands of a page: the lines of its shell blocks, and inline code such as `make test`."""
    in_blocks = [line for block in blocks_of(page) if block.kind == "sh" for line in block.text.splitlines() if line]
    prose = _FENCE.sub("", read(page))
    in_text = re.findall(r"`((?:make|sluice|prefect|python -m) [^`]+)`", prose)
    return [*in_blocks, *in_text]


# --- commands -----------------------------------------------------------------------------------------------


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE))
    wanted = [word for word in words[1:] if "=" not in word]
    assert set(wanted) <= targets, f"the Makefile has no {set(wanted) - targets}"


def check_sluice(words: list[str]) -> None:
    command: Any = typer.main.get_command(cli.app)
    context = None
    name, rest = "sluice", words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-") and rest[0] != "COMMAND":
        context = typer.Context(command, parent=context, info_name=name)
        assert rest[0] in command.commands, f"{name} has no command {rest[0]}"
        name, command, rest = rest[0], command.commands[rest[0]], rest[1:]
    # Prose may mention a command without its required arguments, so arguments are checked only if there are any.
    command.make_context(name, list(rest), parent=context, resilient_parsing=not rest or hasattr(command, "commands"))


# The Prefect commands that the tests in tests/chain run.
_PREFECT_COMMANDS = {
    ("deploy", "--all"),
    ("flow-run", "execute"),
    ("flow-run", "retry"),
    ("work-pool", "create"),
    ("worker", "start"),
}


def check_prefect(words: list[str]) -> None:
    if words[1:3] == ["deployment", "run"]:
        text = (PROJECT_ROOT / "prefect.yaml").read_text().replace("{{ $SLUICE_STACK }}", "sluice")
        declared = yaml.safe_load(text)["deployments"]
        flows = {deployment["entrypoint"].rpartition(":")[2]: deployment["name"] for deployment in declared}
        runnable = {f"{flow.name}/{flows[flow.fn.__name__]}": flow.fn for flow in (process_upload, reconcile)}
        assert words[3] in runnable
        given = {words[place + 1].partition("=")[0] for place, word in enumerate(words) if word == "-p"}
        assert given <= set(inspect.signature(runnable[words[3]]).parameters)
    else:
        command = tuple(word for word in words[1:] if word != "--no-prompt")[:2]
        assert command in _PREFECT_COMMANDS, f"nothing runs {shlex.join(words)}"


def check_aws(words: list[str]) -> None:
    service = botocore.session.Session().get_service_model(words[1])
    operations = {xform_name(name, "-"): name for name in service.operation_names}
    assert words[2] in operations
    shape = service.operation_model(operations[words[2]]).input_shape
    members = shape.members if shape else {}
    options = {word.removeprefix("--") for word in words[3:] if word.startswith("--")}
    assert options - {"query"} <= {xform_name(member, "-") for member in members}


def check_python(words: list[str]) -> None:
    assert words[1] == "-m"
    module = PROJECT_ROOT / words[2].replace(".", "/")
    assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), f"there is no module {words[2]}"


def check_pytest(words: list[str]) -> None:
    assert all((PROJECT_ROOT / word).exists() for word in words[1:] if not word.startswith("-"))


def check_export(words: list[str]) -> None:
    known = yaml.safe_load((PROJECT_ROOT / "prefect.yaml").read_text())
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name == "PREFECT_API_URL":
            assert value == "http://127.0.0.1:4200/api", "the address that make up prints"
        else:
            assert f"${name} " in str(known), f"prefect.yaml does not use {name}"


def check_builder(words: list[str]) -> None:
    """Check that an image build command has the form that all three container tools accept.

    The tests in tests/image build the image with one of these tools.
    """
    assert words[1:3] == ["build", "-f"]
    assert (PROJECT_ROOT / words[3]).is_file()
    assert (words[4], words[-1]) == ("-t", ".")


CHECKS: dict[str, Callable[[list[str]], None]] = {
    "make": check_make,
    "sluice": check_sluice,
    "prefect": check_prefect,
    "aws": check_aws,
    "python": check_python,
    "pytest": check_pytest,
    "export": check_export,
    "docker": check_builder,
    "podman": check_builder,
    "buildah": check_builder,
}


@PAGES
def test_every_command_exists_with_the_options_that_it_is_given(page: Path) -> None:
    for command in commands_of(page):
        words = shlex.split(command)
        if ">" in words:
            words = words[: words.index(">")]
        words[0] = words[0].removeprefix(".venv/bin/")
        written = {block.name for block in blocks_of(page)} | {"FILE", "SAMPLE"}
        # README.md, which exists, takes the place of each file that a reader would have.
        words = [str(README) if word in written else word for word in words]
        assert words[0] in CHECKS, f"{command!r}: add a check for {words[0]!r} to CHECKS"
        try:
            CHECKS[words[0]](words)
        except Exception as error:
            raise AssertionError(f"{command!r}: {error}") from error


@pytest.mark.parametrize("name", ["production.md", "first-hour-on-aws.md"])
def test_a_walk_through_names_the_region_before_it_creates_anything(name: str) -> None:
    """A stack cannot use what was created in another region, because the permissions boundary names the region."""
    page = read(PROJECT_ROOT / "docs" / name)
    assert 0 < page.index("export AWS_REGION=") < page.index("\naws cloudformation ")


def test_the_secret_for_prefect_is_created_before_its_arn_is_needed() -> None:
    page = read(PROJECT_ROOT / "docs" / "production.md")
    assert page.index("create-secret --name prefect-api-key") < page.index("PrefectSecretArn=ARN")


def test_every_command_is_in_the_readme() -> None:
    named = read(README)
    missing = [f"sluice {name}" for name in sorted(typer.main.get_command(cli.app).commands)]  # type: ignore[attr-defined]
    missing = [name for name in missing if name not in named and name.replace("sluice", "make") not in named]
    assert missing == []


# --- links, images, names -----------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@PAGES
def test_every_relative_link_has_a_target(page: Path) -> None:
    for target in (found["target"] for found in _LINK.finditer(_FENCE.sub("", read(page)))):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(PROJECT_ROOT), f"{target} leaves the project"
        assert there.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors_of(there), f"{target}: no such heading"


@PAGES
def test_no_page_names_a_path_of_the_machine_it_was_written_on(page: Path) -> None:
    assert re.findall(r"(?<![\w.~:/-])/(?:home|root|work|tmp|Users|usr|opt)/\S*", read(page)) == []


@PAGES
def test_every_path_and_test_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(
        r"`((?:tests|flows|blocks|deployment|lambda_trigger|stepfunctions|docs|container)/[^`<>… ]*)`", read(page)
    ):
        path, _, test = name.partition("::")
        if path in {block.name for block in blocks_of(page)}:
            continue  # the page shows how to create it
        assert (PROJECT_ROOT / path).exists(), f"{name} does not exist"
        if test:
            tree = ast.parse((PROJECT_ROOT / path).read_text(encoding="utf-8"))
            assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"no {name}"


@pytest.mark.parametrize("image", sorted((PROJECT_ROOT / "docs" / "images").glob("*")), ids=lambda path: path.name)
def test_every_image_is_valid_and_shown_on_a_page(image: Path) -> None:
    if image.suffix == ".svg":
        root = ET.parse(image).getroot()  # noqa: S314 (our own file)
        assert root.tag.endswith("}svg")
        assert root.find("{http://www.w3.org/2000/svg}title") is not None, (
            "an image needs a title for people who cannot see it"
        )
        assert "prefers-color-scheme: dark" in image.read_text(encoding="utf-8")
    else:
        assert image.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert any(f"images/{image.name})" in read(page) for page in pages()), "no page shows it"


def test_every_decision_is_listed_under_its_title() -> None:
    folder = PROJECT_ROOT / "docs" / "decisions"
    listed = read(folder / "README.md")
    for record in sorted(folder.glob("0*.md")):
        title = read(record).splitlines()[0].removeprefix("# ")
        assert f"[{title}]({record.name})" in listed
        assert all(f"**{part}.**" in read(record) for part in ("What", "Why", "What else")), record.name


def test_the_decision_on_ministack_names_every_patch() -> None:
    record = read(PROJECT_ROOT / "docs" / "decisions" / "0009-differences-between-ministack-and-aws.md")
    modules = {path.name for path in (PROJECT_ROOT / "deployment" / "local" / "emulator").glob("[!_]*.py")}
    assert {name for name in modules if f"`{name}`" not in record} == set()


# --- tables -------------------------------------------------------------------------------------------------


@PAGES
def test_tables_match_the_code(page: Path) -> None:
    assert set(tables_of(read(page))) <= set(TABLES)
    assert with_tables(read(page)) == read(page), "run python -m tests.unit.docs.doc_tables"


def test_every_table_is_on_a_page() -> None:
    assert {name for page in pages() for name in tables_of(read(page))} == set(TABLES)


def test_the_readme_names_only_actions_that_some_role_may_do() -> None:
    named = set(re.findall(r"`((?:s3|sqs|ecs|states|iam):\w+)`", read(README)))
    assert named
    assert named <= set(re.findall(r"`(\w+:\w+)`", roles()))


# --- output -------------------------------------------------------------------------------------------------


def outcome_of(pipeline_account: Account, path: Path, key: str, name: str) -> Iterator[str]:
    """Process a file, and yield the lines that the commands print about it, except the S3 URI of its receipt."""
    upload = pipeline_account.upload(key, path.read_bytes())
    receipt = pipeline_account.process(upload)
    followed = TrackedUpload(name, upload, stage=UploadState(str(receipt.status)), receipt=receipt)
    printed = io.StringIO()
    cloud = cast("Any", SimpleNamespace(outputs={"PublishedBucket": "published"}))
    print_outcomes(Console(file=printed, width=1000), cloud, [followed])
    yield from (line.rstrip() for line in printed.getvalue().splitlines() if not line.strip().startswith("s3://"))


def test_the_files_of_the_demo_give_the_output_in_the_readme(account: Account, tmp_path: Path) -> None:  # noqa: F811 (the fixture)
    printed: list[str] = []
    for sample in SAMPLES:
        path = tmp_path / sample.file_name
        sample.write(path)
        name = f"{sample.dataset}/{sample.file_name}"
        printed += outcome_of(account, path, f"incoming/{name}", name)
    (quoted,) = (block.text for block in blocks_of(README) if block.kind == "text" and not block.name)
    assert "\n".join(printed) == quoted


def test_the_dataset_of_the_readme_gives_the_output_in_the_readme(
    account: Account,  # noqa: F811 (the fixture)
    tmp_path: Path,
) -> None:
    contracts = tmp_path / "contracts"
    for name in ("default", "temperatures"):
        (contracts / name).mkdir(parents=True)
    shipped = PROJECT_ROOT / "flows" / "contracts" / "default" / "contract.yaml"
    (contracts / "default" / "contract.yaml").write_text(shipped.read_text())
    written = block_of_readme("yaml", "flows/contracts/temperatures/contract.yaml")
    (contracts / "temperatures" / "contract.yaml").write_text(written)
    file = tmp_path / "temperatures.csv"
    file.write_text(block_of_readme("csv", "temperatures.csv"))

    dataset = dataset_of(LocalFile(file, file.name, (), 0, str(file)), datasets(contracts))
    settings = account.parts.settings.model_copy(update={"contracts_folder": contracts})
    there = Account(assemble(settings))
    key = f"incoming/{dataset}/{file.name}"
    printed = list(outcome_of(there, file, key, file.name))
    assert "\n".join(printed) + "\n" == block_of_readme("text", "temperatures")
