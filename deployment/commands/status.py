"""`sluice status`: recent and running uploads of a stack."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.markup import escape

from deployment.commands import visible_line
from deployment.commands.show import details_of, print_unreadable, receipt_address, rows_of
from deployment.commands.uploads import Uploads
from deployment.deployed_stack import DeployedStack
from flows.pipeline.receipt import Receipt
from lambda_trigger.message import UploadMessage

_DETAILS_SHOWN = 3


def status(console: Console, cloud: DeployedStack, *, limit: int, as_json: bool) -> None:
    """Show the newest uploads, the queues and the addresses, as tables or as one JSON document."""
    uploads = Uploads(cloud)
    finished_runs = uploads.runs_with_receipt()
    running = [message for message in uploads.running() if message.run_id not in set(finished_runs)]
    receipts = list(uploads.receipts(finished_runs[:limit]))
    queues = uploads.queue_lengths()
    if as_json:
        document = json.dumps(
            _document(cloud, running, receipts, queues) | {"unreadable": uploads.unreadable}, indent=2
        )
        console.print_json(document, ensure_ascii=True) if console.is_terminal else console.out(document)
        return
    _print_uploads(console, running, receipts)
    print_unreadable(console, uploads)
    console.print(
        f"queue: {queues['waiting']} waiting, {queues['being_worked_on']} in progress, "
        f"{queues['given_up']} in the dead-letter queue",
        f"Prefect UI {cloud.prefect_ui_url}   AWS {cloud.aws_endpoint_url or cloud.region}",
        f"receipts   s3://{cloud.outputs['PublishedBucket']}/receipts/",
        sep="\n",
    )


def _print_uploads(console: Console, running: list[UploadMessage], receipts: list[Receipt]) -> None:
    if not running and not receipts:
        console.print("No uploads yet. Try: sluice upload FILE --dataset NAME")
        return
    console.print(f"{'when (UTC)':<19}  {'run':<8}  {'state':<9}  file", style="dim")
    # Lines, not a table: keys and reasons are long, and a table would truncate them on a narrow terminal.
    for message in running:
        _print_line(console, " " * 19, message.run_id, "[cyan]running[/]  ", message.key, "")
    for receipt in receipts:
        style = "green" if receipt.status == "published" else "yellow"
        when = receipt.created_at[:19].replace("T", " ")
        state = f"[{style}]{receipt.status:<9}[/]"
        _print_line(console, when, receipt.run_id, state, receipt.source.key, rows_of(receipt))
        for detail in details_of(receipt)[:_DETAILS_SHOWN]:
            console.out(f"{' ' * 42}{detail}", style="dim")


def _print_line(console: Console, when: str, run_id: str, state: str, key: str, rows: str) -> None:
    console.print(f"{when}  {run_id[:8]}  {state}  [bold]{escape(visible_line(key))}[/]  {rows}".rstrip())


def _document(
    cloud: DeployedStack, running: list[UploadMessage], receipts: list[Receipt], queues: dict[str, int]
) -> dict[str, Any]:
    return {
        "prefect_ui_url": cloud.prefect_ui_url,
        "aws_endpoint_url": cloud.aws_endpoint_url,
        "region": cloud.region,
        "queue": queues,
        "running": [{"run_id": message.run_id, "bucket": message.bucket, "key": message.key} for message in running],
        "finished": [
            {"address": receipt_address(cloud, receipt.run_id), **receipt.model_dump(mode="json", by_alias=True)}
            for receipt in receipts
        ],
    }
