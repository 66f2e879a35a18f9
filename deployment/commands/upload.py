"""`sluice upload`: uploads one file to a stack's landing bucket and waits for its receipt."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from blocks.settings import CONTRACTS
from deployment.commands.show import print_outcomes, shown_progress
from deployment.commands.uploads import Uploads, UploadState
from deployment.deployed_stack import DeployedStack
from flows.refinery.errors import TerminalError
from flows.refinery.suggestions import did_you_mean
from lambda_trigger.ignored_names import is_ignored

_DEFAULT_CONTRACT = "default"


class DatasetUnknown(TerminalError):
    """The named dataset has no contract."""


class NameIgnored(TerminalError):
    """The stack ignores files of this name: they are not data."""


def upload(
    console: Console, cloud: DeployedStack, file: Path, *, dataset: str | None, wait: bool, deadline_seconds: float
) -> bool:
    """Upload `file`. With `wait`, return whether it was published; without it, return True at once.

    Raises:
        FileUnusable: the file cannot be read.
        DatasetUnknown: the dataset has no contract.
        NameIgnored: nothing would be started for a file of this name.
    """
    folder = dataset_of(file, dataset, CONTRACTS)
    prefix = cloud.outputs["IncomingPrefix"]
    key = f"{prefix}{folder}/{file.name}" if folder else f"{prefix}{file.name}"
    ignored = cloud.outputs["IgnoredNames"]
    if is_ignored(key, prefix, ignored):
        raise NameIgnored(f"{file.name}: the stack ignores names like {ignored}; rename it, or change IgnoredNames")
    uploads = Uploads(cloud)
    followed = uploads.upload(file, key)
    console.out(f"uploaded to s3://{followed.message.bucket}/{key}")
    if not folder:
        console.print("No dataset was given, and the file's name matches none: the default contract applies.")
    if uploads.is_paused():
        console.print("The stack is paused: the file waits in the queue until: sluice resume")
    if not wait:
        console.print("Follow it with: sluice status")
        return True
    with shown_progress(console, [followed]) as on_look:
        in_time = uploads.follow([followed], deadline_seconds=deadline_seconds, on_look=on_look)
    if not in_time:
        console.print(f"Not finished after {deadline_seconds:.0f} seconds; processing continues. See: sluice status")
        if followed.note:
            console.out(followed.note)
        return False
    print_outcomes(console, cloud, [followed])
    return followed.stage is UploadState.PUBLISHED


def dataset_of(file: Path, named: str | None, contracts: Path) -> str | None:
    """Return a file's dataset: the named one, else the one whose name the file's name starts with.

    Raises:
        DatasetUnknown: the named one has no contract.
    """
    known = datasets(contracts)
    if named is not None:
        if named in known:
            return named
        raise DatasetUnknown(
            f"There is no contract for dataset {named!r}: a new one goes into {contracts}, and without --dataset the "
            f"default contract applies; known: {', '.join(known)}{did_you_mean(named, known)}"
        )
    stem = file.name.lower()
    return next((name for name in known if stem.startswith((f"{name}.", f"{name}-", f"{name}_"))), None)


def datasets(contracts: Path) -> list[str]:
    """Return the datasets that have a contract, without the default one."""
    found = {path.parent.name for path in contracts.glob("*/contract.yaml")}
    return sorted(found - {_DEFAULT_CONTRACT})
