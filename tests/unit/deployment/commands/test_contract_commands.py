"""`sluice contract` writes a contract that the sample file satisfies, and checks a file against a contract."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from deployment import PROJECT_ROOT, cli
from deployment.commands import contract_check
from deployment.commands.contract_files import contract_of
from flows.refinery.contract.loading import Contracts, load_contract
from tests.chain.files import dirty_orders, good_orders, order, orders

PENGUINS = PROJECT_ROOT / "deployment" / "samples" / "penguins.csv"
CONTRACTS = PROJECT_ROOT / "flows" / "contracts"
WIDE = {"COLUMNS": "200"}


def sluice(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["contract", *map(str, arguments)], env=WIDE)


def a_file(folder: Path, content: bytes, name: str = "monday.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def line_of(shown: str, *words: str) -> str:
    """Return the only line of the output that contains all of these words."""
    (line,) = [line for line in shown.splitlines() if all(word in line for word in words)]
    return line


# --- new --------------------------------------------------------------------------------------------------------------


def test_new_writes_a_contract_that_the_sample_passes(tmp_path: Path) -> None:
    written = sluice("new", "birds", PENGUINS, "--contracts", tmp_path)
    assert written.exit_code == 0, written.output
    assert "All 344 rows of the sample pass it." in written.output
    checked = sluice("check", tmp_path / "birds", PENGUINS)
    assert checked.exit_code == 0, checked.output
    assert "344 in, 344 published" in checked.output


def test_a_new_contract_is_used_along_with_the_default_contract(tmp_path: Path) -> None:
    shutil.copytree(CONTRACTS / "default", tmp_path / "default")
    sluice("new", "birds", PENGUINS, "--contracts", tmp_path)
    assert Contracts.load(tmp_path).for_key("incoming/birds/monday.csv").dataset == "birds"


def test_new_prints_a_command_that_quotes_the_name_of_the_sample(tmp_path: Path) -> None:
    sample = a_file(tmp_path, good_orders(2), "sample of monday.csv")
    written = sluice("new", "birds", sample, "--contracts", tmp_path)
    assert f"sluice contract check {tmp_path / 'birds'} '{sample}'" in written.output


def test_new_replaces_a_contract_only_with_force(tmp_path: Path) -> None:
    sluice("new", "birds", PENGUINS, "--contracts", tmp_path)
    path = tmp_path / "birds" / "contract.yaml"
    path.write_text("edited by hand")
    refused = sluice("new", "birds", PENGUINS, "--contracts", tmp_path)
    assert (refused.exit_code, path.read_text()) == (2, "edited by hand")
    assert "--force replaces it" in refused.output
    assert sluice("new", "birds", PENGUINS, "--contracts", tmp_path, "--force").exit_code == 0
    assert load_contract(path.parent).dataset == "birds"


@pytest.mark.parametrize("name", ["../elsewhere", "Birds", "a/b", ""])
def test_new_writes_nothing_under_a_name_that_no_dataset_can_have(tmp_path: Path, name: str) -> None:
    refused = sluice("new", name, PENGUINS, "--contracts", tmp_path / "contracts")
    assert refused.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Shops 1", "", "-shops", "a" * 64])
def test_new_explains_how_a_dataset_may_be_named(tmp_path: Path, name: str) -> None:
    refused = sluice("new", "--contracts", tmp_path / "contracts", "--", name, PENGUINS)
    assert refused.exit_code == 2
    assert f"named {name!r}: a name has 1 to 63 lower-case letters, digits, underscores and hyphens" in refused.output
    assert "contract.yaml" not in refused.output, "no file was written that could be at fault"


def test_new_names_a_contracts_folder_that_is_not_a_folder(tmp_path: Path) -> None:
    file = a_file(tmp_path, b"", "a-file")
    refused = sluice("new", "birds", PENGUINS, "--contracts", file)
    assert refused.exit_code == 2
    assert f"{file}/birds/contract.yaml cannot be written (Not a directory" in refused.output


def test_new_explains_why_a_sample_is_not_a_table(tmp_path: Path) -> None:
    refused = sluice("new", "birds", a_file(tmp_path, b""), "--contracts", tmp_path)
    assert refused.exit_code == 1
    assert "empty" in refused.output


def test_new_fails_if_no_row_can_be_read(tmp_path: Path) -> None:
    broken = a_file(tmp_path, b"a,b\n1,2,3\n4\n")
    failed = sluice("new", "birds", broken, "--contracts", tmp_path)
    assert failed.exit_code == 1, failed.output
    assert not (tmp_path / "birds").exists()


def test_new_shows_what_it_guessed(tmp_path: Path) -> None:
    guessed = sluice("new", "birds", a_file(tmp_path, b"id,name\n1,'Doe, J'\n2,'Roe'\n"), "--contracts", tmp_path)
    assert 'Guessed, because the file itself cannot prove it: quote: "\'"' in guessed.output
    assert "# The sample does not prove `quote`" in (tmp_path / "birds" / "contract.yaml").read_text()


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_accepts_a_good_file(tmp_path: Path) -> None:
    checked = sluice("check", "orders", a_file(tmp_path, good_orders(5)))
    assert checked.exit_code == 0, checked.output
    assert "accepted  monday.csv by orders" in checked.output
    assert "pass" in line_of(checked.output, "be_between", "quantity", "all 5 pass")


def test_check_shows_the_rows_that_break_a_rule_and_accepts_the_file(tmp_path: Path) -> None:
    checked = sluice("check", "orders", a_file(tmp_path, dirty_orders()))
    assert checked.exit_code == 0, checked.output
    lines = checked.output.splitlines()
    place = lines.index(line_of(checked.output, "FAIL", "be_between", "quantity"))
    assert lines[place].startswith("FAIL")
    assert "1 of 12 fail" in lines[place]
    assert "row 10: '0'" in lines[place + 1]
    assert "row 11: 'cheap'" in line_of(checked.output, "FAIL", "not_a_number", "unit_price")
    assert "12 in, 9 published" in checked.output
    assert "1 dropped: drop_duplicates" in checked.output


def test_check_shows_how_the_file_is_read(tmp_path: Path) -> None:
    checked = sluice("check", "orders", a_file(tmp_path, good_orders(1)))
    assert "encoding utf-8, delimiter ','" in line_of(checked.output, "read as", "proven")
    assert "quote '\"'" in line_of(checked.output, "assumed")


def test_check_shows_the_input_and_output_columns(tmp_path: Path) -> None:
    checked = sluice("check", "orders", a_file(tmp_path, good_orders(1)))
    assert line_of(checked.output, "in 8").endswith("quantity, unit_price, discount")
    assert line_of(checked.output, "out 9").endswith("discount, revenue")


def test_check_reports_why_a_file_is_rejected(tmp_path: Path) -> None:
    checked = sluice("check", "orders", a_file(tmp_path, orders(order(1), order(2, quantity=0))))
    assert checked.exit_code == 1
    assert "rejected  monday.csv by orders" in checked.output
    assert "the contract allows at most 20%" in checked.output
    assert "none published" in checked.output


def test_check_rejects_what_cannot_be_read(tmp_path: Path) -> None:
    checked = sluice("check", "orders", a_file(tmp_path, b""))
    assert checked.exit_code == 1
    assert "rejected" in checked.output


def test_check_warns_of_a_step_that_gets_the_whole_table(tmp_path: Path) -> None:
    shutil.copytree(CONTRACTS / "orders", tmp_path / "orders")
    file, steps = a_file(tmp_path, good_orders(2)), tmp_path / "orders" / "steps.py"
    assert "TaskMemory" not in sluice("check", tmp_path / "orders", file).output
    mark = "from flows.refinery.preprocess import whole_table\n\n\n@whole_table\ndef add_revenue"
    steps.write_text(steps.read_text().replace("def add_revenue", mark))
    warned = line_of(sluice("check", tmp_path / "orders", file).output, "memory", "steps.add_revenue")
    assert "TaskMemory 2048" in warned


@pytest.mark.parametrize(
    ("name", "growth_mb", "fits"),
    [("a.csv", 110, "624 MB"), ("a.parquet", 299, "265 MB"), ("a.csv", 100 + 5_000, "0 MB")],
    ids=["too little growth to measure", "Parquet", "measured"],
)
def test_check_estimates_the_largest_file_that_fits_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, growth_mb: int, fits: str
) -> None:
    shutil.copytree(CONTRACTS / "orders", tmp_path / "orders")
    steps = tmp_path / "orders" / "steps.py"
    mark = "from flows.refinery.preprocess import whole_table\n\n\n@whole_table\ndef add_revenue"
    steps.write_text(steps.read_text().replace("def add_revenue", mark))
    file = a_file(tmp_path, good_orders(2), name)
    if name.endswith("parquet"):
        pd.read_csv(file, dtype=str).to_parquet(file)
    peaks = iter([300 * 10**6, (300 + growth_mb) * 10**6])
    monkeypatch.setattr(contract_check, "_peak_bytes", lambda: next(peaks))
    warned = line_of(sluice("check", tmp_path / "orders", file).output, "memory", "steps.add_revenue")
    assert f"about {fits}" in warned


def test_check_warns_of_rows_that_wait_if_the_disk_of_a_task_is_too_small(tmp_path: Path) -> None:
    file = a_file(tmp_path, good_orders(2))
    assert "TaskEphemeralStorageGiB" not in sluice("check", "orders", file).output
    pd.read_csv(file, dtype=str).to_parquet(tmp_path / "orders.parquet")
    warned = line_of(sluice("check", "orders", tmp_path / "orders.parquet").output, "disk", "drop_duplicates")
    assert "TaskEphemeralStorageGiB=21" in warned


def test_check_warns_of_compressed_files_whose_content_is_too_large_for_the_disk(tmp_path: Path) -> None:
    packed = tmp_path / "orders.csv.gz"
    packed.write_bytes(gzip.compress(good_orders(1_000)))
    assert "compressed csv files" in line_of(sluice("check", "orders", packed).output, "disk", "drop_duplicates")


def test_check_writes_nothing_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = a_file(tmp_path, dirty_orders())
    sluice("check", "orders", file)
    assert list(tmp_path.iterdir()) == [file]


def test_check_writes_what_would_be_published_into_the_given_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    sluice("check", "orders", a_file(tmp_path, dirty_orders()), "--output", output)
    assert len(pd.read_parquet(output / "data" / "monday.parquet")) == 9
    assert len(pd.read_parquet(output / "quarantine" / "monday.parquet")) == 2


def test_check_names_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    output = a_file(tmp_path, b"", "a-file") / "below"
    refused = sluice("check", "orders", a_file(tmp_path, good_orders(3)), "--output", output)
    assert refused.exit_code == 2
    assert f"{output} cannot be written (Not a directory" in refused.output


def test_check_reports_what_is_wrong_with_a_contract(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "contract.yaml").write_text("dataset: bad\ncolumns:\n  a: {type: strin}\n")
    checked = sluice("check", tmp_path / "bad", PENGUINS)
    assert checked.exit_code == 2
    assert "contract.yaml:3" in checked.output
    assert "did you mean 'string'?" in checked.output


def test_check_reports_an_expectation_that_gx_rejects(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "contract.yaml").write_text(
        "dataset: bad\ncolumns: {a: string}\nexpectations:\n"
        "  - expect_column_values_to_be_between: {column: a, min_value: 1}\n"
    )
    checked = sluice("check", tmp_path / "bad", PENGUINS)
    assert checked.exit_code == 2
    assert "expect_column_values_to_be_between" in checked.output


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    assert sluice("check", "orders", tmp_path / "missing.csv").exit_code == 2


def test_a_contract_is_found_by_name_by_folder_and_by_file() -> None:
    names = ("orders", str(CONTRACTS / "orders"), str(CONTRACTS / "orders" / "contract.yaml"))
    found = {contract_of(name).dataset for name in names}
    assert found == {"orders"}


def test_for_an_unknown_contract_the_nearest_name_is_suggested() -> None:
    checked = sluice("check", "ordres", PENGUINS)
    assert checked.exit_code == 2
    assert "did you mean 'orders'?" in checked.output


# --- schema and help --------------------------------------------------------------------------------------------------


def test_schema_prints_the_schema_that_is_committed(tmp_path: Path) -> None:
    committed = json.loads((PROJECT_ROOT / "docs" / "contract.schema.json").read_text())
    assert json.loads(sluice("schema").output) == committed
    sluice("schema", "--output", tmp_path / "schema.json")
    assert json.loads((tmp_path / "schema.json").read_text()) == committed


def test_schema_names_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    output = tmp_path / "nosuch" / "x.json"
    refused = sluice("schema", "--output", output)
    assert refused.exit_code == 2
    assert f"{output} cannot be written (No such file or directory)" in refused.output


@pytest.mark.parametrize("command", ["new", "check", "diff", "schema"])
def test_every_option_has_a_help_message(command: str) -> None:
    shown = sluice(command, "--help")
    assert shown.exit_code == 0
    options = [line.split() for line in shown.output.splitlines() if line.strip().startswith("--")]
    assert [words[0] for words in options if len(words) < 3] == []
