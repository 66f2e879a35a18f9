"""`sluice contract publish`, `rollback` and `show`: change and show the contracts that a stack uses, without deploying
a new image."""

from collections.abc import Callable

from rich.console import Console

from blocks.object_store import ObjectStore, StoredObject
from blocks.settings import CONTRACTS
from deployment.commands.contract_diff import show_changes
from deployment.commands.contract_files import contract_of
from deployment.commands.prefect_session import prefect_of
from deployment.deployed_stack import DeployedStack, store_of
from flows.pipeline import published_contracts as published
from flows.pipeline.commit import read_receipt
from flows.pipeline.published_contracts import ContractNotKept, LiveContracts
from flows.pipeline.run_ids import find_run
from flows.refinery.contract.loading import ContractInvalid, parse_contract, text_of
from flows.refinery.contract.model import Contract
from flows.refinery.errors import SluiceError, TerminalError, TransientError

_SOON = "Tasks use it within a minute."
Confirm = Callable[[str], bool]


class SourceTaken(TerminalError):
    """The contract has the same pattern in `source` as another dataset's contract, so only one of the two datasets
    would get the files."""


class PrefectNotUpdated(TransientError):
    """The contract is live, but the dataset's deadline and concurrency limit in Prefect could not be updated."""


def publish(console: Console, stack: DeployedStack, contract: Contract, confirm: Confirm) -> bool:
    """Check a contract, show its changes and, if they are confirmed, make it live; return False if they are not. If the
    contract refers to a suite file, the expectations in it become part of the published contract.

    Raises:
        ContractInvalid: the contract is invalid.
        SourceTaken: another dataset's contract has the same pattern in `source`.
        ContractMoved: someone else published a contract for this dataset in the meantime.
        PrefectNotUpdated: the contract is live, but Prefect could not be updated.
    """
    from flows.refinery.check_contract import check_contract  # takes seconds

    store, dataset, text = store_of(stack), contract.dataset, text_of(contract)
    folder = contract.folder or CONTRACTS / dataset
    contract = parse_contract(text.encode(), f"{dataset}.yaml", folder)
    check_contract(contract)
    live = published.live_contract(store, dataset)
    before = _parsed(console, live or published.last_used(store, dataset))
    _show_shared_files(console, store, before, contract)
    if live is not None and live.body == text.encode():
        console.print(f"This contract of {dataset} is already live.")
    else:
        _show_changes(console, before, contract, is_published=live is not None)
        if not confirm(f"Publish this contract of {dataset}?"):
            console.print("Nothing was changed.")
            return False
        published.publish(store, dataset, text, live)
        console.print(f"[green]published[/]  the contract of {dataset}. {_SOON}")
        console.print(f"To go back to the previous contract: sluice contract rollback {dataset}", style="dim")
    if any(step.is_own for step in contract.preprocess):
        console.print(
            "Custom steps are not published: tasks run those in the deployed image. Deploy new or changed steps first.",
            style="yellow",
        )
    _follow(console, stack, before, contract)
    return True


def rollback(console: Console, stack: DeployedStack, dataset: str, confirm: Confirm) -> bool:
    """Go back to the contract that the live one replaced; return False if that is not confirmed.

    Raises:
        NothingToRollBack: no contract is published, or the previous one is unknown or has expired.
        ContractMoved: someone else published a contract for this dataset in the meantime.
        PrefectNotUpdated: the contract is live, but Prefect could not be updated.
    """
    store = store_of(stack)
    live = published.live_contract(store, dataset)
    earlier = published.version_before(store, dataset, live)
    before, after = _parsed(console, live), _parsed(console, earlier)
    if earlier is None:
        console.print(
            f"The previous contract of {dataset}, if any, is the one in the deployed image or, in the local cloud, the"
            " one that is in this folder now."
        )
        after = contract_of(dataset) if (CONTRACTS / dataset).is_dir() else None
    elif after:
        _show_changes(console, before, after, is_published=True)
    if live is None or not confirm(f"Roll back the contract of {dataset}?"):
        console.print("Nothing was changed.")
        return False
    published.roll_back(store, dataset, live, earlier)
    console.print(f"[green]rolled back[/]  the contract of {dataset}. {_SOON}")
    _follow(console, stack, before, after or Contract(dataset=dataset))
    return True


def show(
    console: Console, stack: DeployedStack, dataset: str | None, content_hash: str | None, run: str | None
) -> None:
    """Print a contract or, if no argument is given, list the published contracts.

    Args:
        dataset: the dataset whose live contract to print or, if none is published, the one that was used last.
        content_hash: the beginning of the hash of a contract that a file was validated against.
        run: the beginning of the ID of the run whose contract to print.

    Raises:
        ContractNotKept: there is no such contract.
        RunUnknown: no run matches, or several do.
    """
    store = store_of(stack)
    if run is not None:
        receipt = read_receipt(store, find_run(store, run))
        if receipt is None:
            raise ContractNotKept(f"run {run} has no receipt; `sluice status` lists the runs")
        dataset, content_hash = receipt.contract.dataset, receipt.contract.content_hash
    if content_hash is not None:
        console.out(published.used_contract(store, content_hash, dataset or "").rstrip("\n"))
    elif dataset is not None:
        is_live = published.live_contract(store, dataset) is not None
        which = "published" if is_live else "not published; this is the contract that the last run used"
        console.out(f"# {dataset}: {which}")
        console.out(published.live_or_last_used(store, dataset).rstrip("\n"))
    else:
        for name, each in published.live_datasets(store).items():
            console.out(f"{name}  published {each.last_modified:%Y-%m-%d %H:%M:%S} UTC")
        console.print("All other datasets use the contracts in the deployed image.", style="dim")


def _show_changes(console: Console, before: Contract | None, after: Contract, *, is_published: bool) -> None:
    if before is None:
        console.print(f"No contract of {after.dataset} is published, and no run has used one.")
        return
    which = "the live contract" if is_published else "the contract that the last run used (none is published)"
    console.print(f"Compared with {which}:")
    show_changes(console, before, after)


def _show_shared_files(console: Console, store: ObjectStore, before: Contract | None, after: Contract) -> None:
    """Print a warning if `source` has changed and other datasets' contracts match some of the same files. Raise
    SourceTaken if another contract has the same pattern."""
    try:
        shared = list(LiveContracts(CONTRACTS, store).read().shared_with(after))
    except ContractInvalid as error:  # perhaps the live version of this contract, which is about to be corrected
        console.out(f"Not compared with the sources of other contracts: {error}", style="yellow")
        return
    for mine, theirs, other, gets_them in shared:
        if mine == theirs:
            raise SourceTaken(
                f"{after.dataset} and {other} have the same source {mine}, and only {gets_them} would get its files;"
                " change `source` in one of the two contracts"
            )
        if before is None or before.sources != after.sources:
            console.out(
                f"{after.dataset} ({mine}) and {other} ({theirs}) share files: {gets_them} gets those that match both."
                " If that is not intended, change `source` in one of the two contracts.",
                style="yellow",
            )


def _parsed(console: Console, stored: StoredObject | None) -> Contract | None:
    """Return a stored contract as a model, or None if there is none. If this release cannot read it, print the reason
    and return None."""
    if stored is None:
        return None
    try:
        return parse_contract(stored.body, "contract.yaml", None)
    except ContractInvalid as error:
        console.out(f"This release cannot read the previous contract: {error}")
        return None


def _follow(console: Console, stack: DeployedStack, before: Contract | None, after: Contract) -> None:
    """Update the dataset's deadline and concurrency limit in Prefect if the old or the new contract sets one."""
    if not any(each and (each.expected_every_hours or each.max_concurrent_uploads) for each in (before, after)):
        return
    try:
        with prefect_of(stack.environment):
            import httpx
            from prefect.exceptions import PrefectHTTPStatusError

            from deployment.prefect_setup.registration import follow_contract

            try:
                for line in follow_contract(stack.outputs["StackName"], after):
                    console.out(line, style="dim")
            except (httpx.HTTPError, PrefectHTTPStatusError) as error:
                raise PrefectNotUpdated(f"Prefect's API {stack.prefect_api_url}: {type(error).__name__}") from error
    except SluiceError as error:
        raise PrefectNotUpdated(
            f"the contract of {after.dataset} is live, but its deadline and concurrency limit in Prefect are not up to"
            f" date: {error}. Run the command again, or deploy the stack again"
        ) from error
