"""`sluice contract publish`, `rollback` and `show` change and show the contracts that a stack uses."""

import io
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from rich.console import Console

from deployment.commands import contract_publish
from deployment.commands.contract_files import found_contract
from deployment.commands.contract_publish import PrefectNotUpdated, SourceTaken, publish, rollback, show
from deployment.commands.upload import upload
from deployment.commands.uploads import TrackedUpload, Uploads
from deployment.deployed_stack import AwsStack, store_of
from flows.pipeline.published_contracts import ContractNotKept, LiveContracts, NothingToRollBack, live_contract
from flows.pipeline.run_ids import RunUnknown
from flows.refinery.contract.loading import ContractInvalid, load_contract
from flows.refinery.contract.model import Contract
from tests.chain.files import good_orders
from tests.unit.deployment.commands.test_repair_command import deployed
from tests.unit.flows.conftest import PUBLISHED, Account, account

__all__ = ["account", "deployed"]


@pytest.fixture
def stack(deployed: AwsStack) -> AwsStack:
    boto3.client("s3").put_bucket_versioning(Bucket=PUBLISHED, VersioningConfiguration={"Status": "Enabled"})
    return deployed


def contract(folder: Path, more: str = "", dataset: str = "orders") -> Contract:
    (folder / dataset).mkdir(exist_ok=True)
    (folder / dataset / "contract.yaml").write_text(f"# by hand\ndataset: {dataset}\n{more}")
    return load_contract(folder / dataset)


def no(_question: str) -> bool:
    return False


def yes(_question: str) -> bool:
    return True


def shown(stack: AwsStack, dataset: str | None = None, content_hash: str | None = None, run: str | None = None) -> str:
    output = io.StringIO()
    show(Console(file=output, width=200), stack, dataset, content_hash, run)
    return output.getvalue()


def test_a_contract_is_live_with_its_comments_once_it_is_confirmed(
    account: Account, stack: AwsStack, tmp_path: Path
) -> None:
    first = account.process(account.upload("incoming/orders/1.csv", good_orders(2)))
    rule = "expectations:\n  - expect_table_row_count_to_equal: {value: 3, severity: critical}\n"
    strict, output = contract(tmp_path, rule), io.StringIO()
    console = Console(file=output, width=200)
    assert not publish(console, stack, strict, no)
    assert live_contract(store_of(stack), "orders") is None
    assert publish(console, stack, strict, yes)
    assert "stricter" in output.getvalue(), "compared with the contract that judged the last file"
    assert shown(stack, "orders") == f"# orders: published\n# by hand\ndataset: orders\n{rule}"
    assert "orders  published" in shown(stack)
    assert shown(stack, run=first.run_id) == shown(stack, content_hash=first.contract.content_hash[:8])
    assert "add_revenue" in shown(stack, run=first.run_id[:8])


def test_an_unknown_run_has_no_contract_to_show(stack: AwsStack) -> None:
    with pytest.raises(RunUnknown):
        shown(stack, run="monday")
    with pytest.raises(RunUnknown):
        shown(stack, run="0" * 8)
    with pytest.raises(ContractNotKept):
        shown(stack, run="0" * 32)


def test_publishing_again_changes_nothing_and_rolling_back_ends_at_the_contract_of_the_image(
    stack: AwsStack, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO())
    publish(console, stack, contract(tmp_path), yes)
    before = live_contract(store_of(stack), "orders")
    assert publish(console, stack, contract(tmp_path), no)
    assert live_contract(store_of(stack), "orders") == before
    assert not rollback(console, stack, "orders", no)
    assert rollback(console, stack, "orders", yes)
    assert live_contract(store_of(stack), "orders") is None
    with pytest.raises(NothingToRollBack):
        rollback(console, stack, "orders", yes)


def test_a_contract_that_no_file_could_pass_is_not_published(stack: AwsStack, tmp_path: Path) -> None:
    impossible = contract(
        tmp_path,
        "columns: {n: integer}\nexpectations: [expect_column_values_to_be_between: {column: n, min_value: x}]\n",
    )
    with pytest.raises(ContractInvalid):
        publish(Console(file=io.StringIO()), stack, impossible, yes)
    assert live_contract(store_of(stack), "orders") is None


def test_a_contract_that_would_take_all_files_of_another_dataset_is_not_published(
    stack: AwsStack, tmp_path: Path
) -> None:
    greedy = contract(tmp_path, "source: [incoming/parcels/**, incoming/orders/**]\n", "parcels")
    with pytest.raises(SourceTaken, match=r"parcels and orders .* incoming/orders/\*\*"):
        publish(Console(file=io.StringIO()), stack, greedy, yes)
    assert live_contract(store_of(stack), "parcels") is None


def test_a_new_source_shows_once_which_files_it_shares_with_another_dataset(stack: AwsStack, tmp_path: Path) -> None:
    def printed(more: str) -> str:
        output = io.StringIO()
        publish(Console(file=output, width=200), stack, contract(tmp_path, more, "parcels"), yes)
        return output.getvalue()

    source = "source: incoming/**/late-*.csv\n"
    assert "and orders (incoming/orders/**) share files: parcels gets" in printed(source)
    assert "share files" not in printed(f"{source}description: the same files\n")
    assert "share files" not in printed("source: incoming/parcels/**\n")


def test_a_contract_is_published_although_the_local_folder_has_an_invalid_one(
    stack: AwsStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed, _ = contract(tmp_path), contract(tmp_path, dataset="default")
    (tmp_path / "orders" / "contract.yaml").write_text("dataset: [orders\n")
    monkeypatch.setattr(contract_publish, "CONTRACTS", tmp_path)
    assert publish(Console(file=io.StringIO()), stack, fixed, yes)


def test_the_expectations_of_a_suite_are_published_with_the_contract(
    account: Account, stack: AwsStack, tmp_path: Path
) -> None:
    entry = {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 3}, "severity": "info"}
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders" / "suite.json").write_text(json.dumps({"expectations": [entry]}))
    publish(Console(file=io.StringIO()), stack, contract(tmp_path, "suite: suite.json\n"), yes)
    (expectation,) = account.parts.contracts.named("orders").expectations
    assert (expectation.arguments, expectation.severity) == ({"value": 3}, "info")


def test_upload_shows_that_a_task_used_the_previous_contract(
    account: Account, stack: AwsStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "orders.csv"
    file.write_bytes(good_orders(2))
    task = [account]

    def process(self: Uploads, tracked: list[TrackedUpload], **_: object) -> bool:
        task[0].process(tracked[0].message)
        self.look(tracked)
        return tracked[0].done

    def uploaded() -> str:
        output = io.StringIO()
        upload(Console(file=output), stack, [str(file)], dataset=None, wait=True, deadline_seconds=5)
        return output.getvalue()

    monkeypatch.setattr(Uploads, "follow", process)
    assert "used the previous contract" not in uploaded()
    publish(Console(file=io.StringIO()), stack, contract(tmp_path, "on_reupload: append\n"), yes)
    assert "used the previous contract of orders" in uploaded()
    # As in a task that starts now.
    live = LiveContracts(account.parts.settings.contracts_root, account.parts.store)
    task[0] = Account(replace(account.parts, read_contracts=live.read, keep_contract=live.keep))
    assert "used the previous contract" not in uploaded()


def test_status_names_the_published_contracts(stack: AwsStack, tmp_path: Path) -> None:
    publish(Console(file=io.StringIO()), stack, contract(tmp_path), yes)
    assert Uploads(stack).published_contracts() == ["orders"]


def test_a_published_contract_is_found_by_its_name(account: Account, stack: AwsStack, tmp_path: Path) -> None:
    publish(Console(file=io.StringIO()), stack, contract(tmp_path, "description: the live one\n"), yes)
    with found_contract("live:orders", tmp_path, lambda: nullcontext(stack)) as found:
        assert found.description == "the live one"
    account.process(account.upload("incoming/penguins/a.csv", b"species\n1\n"))
    with found_contract("live:penguins", tmp_path, lambda: nullcontext(stack)) as found:
        assert found.columns
    with (
        pytest.raises(ContractNotKept),
        found_contract("live:nothing", tmp_path, lambda: nullcontext(stack)),
    ):
        pass


def test_a_contract_is_published_even_if_prefect_cannot_be_reached(stack: AwsStack, tmp_path: Path) -> None:
    away = replace(stack, parameters={"PrefectApiUrl": "http://127.0.0.1:9/api"})
    with pytest.raises(PrefectNotUpdated):
        publish(Console(file=io.StringIO()), away, contract(tmp_path, "expected_every_hours: 26\n"), yes)
    assert live_contract(store_of(stack), "orders")
