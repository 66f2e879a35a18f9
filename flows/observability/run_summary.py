"""Strings that Prefect shows about an upload: names, messages, tags, and a Markdown summary with links to AWS."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from flows.pipeline.attempts import Attempt
from flows.pipeline.job import TaskLog
from flows.pipeline.receipt import Receipt, Status, receipt_key
from flows.refinery.checks import Check, RejectionReason, by_basis
from flows.refinery.words import counted, shortened

_REAL_QUEUE = re.compile(r"https://(sqs\.(?P<region>[a-z0-9-]+)|(?P<older>[a-z0-9-]+)\.queue)\.amazonaws\.com(\.cn)?/")
# From docs.aws.amazon.com/general/latest/gr/console-endpoints and the pages of the two partitions.
_CONSOLES = {"cn-": "console.amazonaws.cn", "us-gov-": "console.amazonaws-us-gov.com"}
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class ConsoleLinks:
    """Creates links to the AWS console for an upload's objects, execution, task and log."""

    region: str | None  # the AWS region; None in the local cloud (an AWS emulator), which has no console
    published_bucket: str
    task_log: TaskLog | None = None  # where the task logs; None outside of a task

    @classmethod
    def of(cls, queue_url: str, published_bucket: str, task_log: TaskLog | None = None) -> ConsoleLinks:
        """Return the links for the region in the queue's URL. In the local cloud, an AWS emulator, the URL has no
        region, and nothing is linked."""
        real = _REAL_QUEUE.match(queue_url)
        region = real["region"] or real["older"] if real else None
        return cls(region, published_bucket, task_log)

    def object(self, bucket: str, key: str, version_id: str | None = None) -> str:
        """Return an object's S3 URI in Markdown, linked to its page in the AWS console unless `region` is None."""
        name = inline_code(f"s3://{bucket}/{key}")
        if self.region is None:
            return name
        version = f"&versionId={quote(version_id)}" if version_id else ""
        return f"[{name}]({self._console}/s3/object/{bucket}?region={self.region}&prefix={quote(key)}{version})"

    def execution(self, arn: str) -> str:
        """Return the name of a Step Functions execution in Markdown, linked to its page in the AWS console unless
        `region` is None."""
        where = f"/states/home?region={self.region}#/v2/executions/details/{quote(arn, safe=':')}"
        return self._linked(arn.rsplit(":", 1)[-1], where)

    def task(self, arn: str) -> str:
        """Return the ID of an ECS task in Markdown, linked to its page in the AWS console unless `region` is None. The
        ARN ends in :task/CLUSTER/ID."""
        cluster, _, task_id = arn.rsplit(":task/", 1)[-1].partition("/")
        where = f"/ecs/v2/clusters/{cluster}/tasks/{task_id}/configuration?region={self.region}"
        return self._linked(task_id or cluster, where)

    @property
    def log(self) -> str | None:
        """Return the name of the task's log stream in Markdown, linked to its page in the AWS console unless `region`
        is None. Return None if the log stream is unknown."""
        if self.task_log is None:
            return None
        names = (self.task_log.group, self.task_log.stream)
        # The console's own notation: percent-encoded twice, with $ for %.
        group, stream = (quote(quote(name, safe=""), safe="").replace("%", "$") for name in names)
        where = f"/cloudwatch/home?region={self.region}#logsV2:log-groups/log-group/{group}/log-events/{stream}"
        return self._linked(self.task_log.stream, where)

    @property
    def _console(self) -> str:
        region = self.region or ""
        host = next((host for start, host in _CONSOLES.items() if region.startswith(start)), "console.aws.amazon.com")
        return f"https://{region}.{host}"

    def _linked(self, text: str, where: str) -> str:
        return f"[{inline_code(text)}]({self._console}{where})" if self.region else inline_code(text)


def checks_table(receipt: Receipt) -> str:
    """Return a Markdown table with one row for each of the receipt's checks, failed ones first."""
    rows = [
        (
            "pass" if check.success else "FAIL" if check.severity == "critical" else "fail",
            inline_code(check.rule),
            "" if check.rows_failing is None else f"{check.rows_failing:,}",
            "" if check.rows_evaluated is None else f"{check.rows_evaluated:,}",
            *(inline_code(_short(value)) if value is not None else "" for value in (check.observed, check.expected)),
        )
        for check in sorted(receipt.checks, key=lambda check: check.success)
    ]
    head = ("result", "rule", "failing rows", "of rows", "observed", "expected")
    lines = [head, ("---", "---", "---:", "---:", "---", "---"), *rows]
    return "\n".join(["### Checks", "", *(f"| {' | '.join(line)} |" for line in lines)])


def upload_summary(receipt: Receipt, links: ConsoleLinks) -> str:
    """Return a summary of one upload in Markdown. It contains the outcome, the rows, the checks, how the file was read,
    the outputs, links, and how long each stage took."""
    name = inline_code(receipt.source.key.rsplit("/", 1)[-1])
    seconds = [(stage, f"{seconds:.2f}") for stage, seconds in receipt.timings_seconds.items()]
    parts = [
        f"## {escape_markdown(outcome_name(receipt))}",
        f"{name}: {escape_markdown(outcome_message(receipt))}.",
        *([_reasons(receipt)] if receipt.reasons else []),
        _rows(receipt),
        *([checks_table(receipt)] if receipt.checks else []),
        *([_read_as(receipt)] if receipt.read_as else []),
        *([_outputs(receipt, links)] if receipt.outputs else []),
        _where(receipt, links),
        _table(("stage", "seconds"), seconds),
    ]
    return "\n\n".join(parts)


def failed_checks(checks: Sequence[Check]) -> list[str]:
    """Return a line of text for each check that failed."""
    return [
        f"Failed: {check.rule}"
        + ("" if check.rows_failing is None else f": {check.rows_failing:,} of {check.rows_evaluated or 0:,} rows")
        for check in checks
        if not check.success
    ]


def failure_summary(attempt: Attempt) -> str:
    """Return why Sluice gave up on an upload, in Markdown."""
    upload = attempt.upload
    facts = [
        ("source", inline_code(f"s3://{upload.bucket}/{upload.key}")),
        ("version", inline_code(upload.version_id or upload.etag)),
        ("error", inline_code(f"{attempt.error} ({attempt.code})")),
        ("deliveries", str(attempt.receive_count)),
        ("last attempt", attempt.at),
        ("ECS task", inline_code(attempt.task_arn) if attempt.task_arn else ""),
    ]
    lines = [f"- {name}: {value}" for name, value in facts if value]
    again = "The message is in the dead-letter queue. Remove the cause, then redrive it with `sluice redrive`."
    return "\n\n".join(["## Given up", escape_markdown(attempt.message), "\n".join(lines), again])


def outcome_name(receipt: Receipt) -> str:
    """Return the outcome in a few words, such as "Published, 3 rows quarantined"."""
    if receipt.reasons:
        # Turn the code into words: bad_rows.max_fraction becomes "bad rows".
        cause = re.split(r"[.(]", receipt.reasons[0].code)[0].replace("_", " ").removeprefix("expect ")
        return f"Rejected: {cause}"
    quarantined = receipt.rows.quarantined_total
    return f"Published, {counted(quarantined, 'row')} quarantined" if quarantined else "Published"


def outcome_message(receipt: Receipt) -> str:
    """Return how many rows were published, quarantined and dropped, or why the file was rejected."""
    if receipt.status is Status.REJECTED:
        return receipt.reason
    return f"{counted(receipt.rows.published, 'row')} published{receipt.rows.left_out}"


def state_message(receipt: Receipt, *, dry_run: bool = False) -> str:
    """Return the message of the flow run's final state, which Prefect's list of runs shows."""
    return f"Dry run, nothing was written: {outcome_message(receipt)}" if dry_run else outcome_message(receipt)


def outcome_tags(receipt: Receipt) -> set[str]:
    """Return the tags that Prefect's pages can filter by: the dataset, the status and, if rows are in quarantine,
    `quarantined`."""
    quarantined = {"quarantined"} if receipt.rows.quarantined_total else set()
    return {receipt.contract.dataset, str(receipt.status), *quarantined}


def inline_code(text: Any) -> str:
    """Return `text` as inline code in Markdown, so that a file name is not interpreted as markup."""
    return "`" + re.sub(r"[`|\r\n]", "_", str(text)) + "`"


def escape_markdown(text: str) -> str:
    """Return `text` with Markdown's special characters escaped, because a message may quote a column name or a key."""
    return re.sub(r"([\\`*_\[\]<>|~&#!])", r"\\\1", " ".join(text.split()))


def _reasons(receipt: Receipt) -> str:
    lines = [
        f"- {escape_markdown(reason.message)} ({inline_code(reason.code)}){_compared(reason)}"
        for reason in receipt.reasons
    ]
    again = "To process it again under the current contract, press Retry or start a custom run with `force`."
    return "\n".join(["### Why", "", *lines, "", again])


def _compared(reason: RejectionReason) -> str:
    """Return the observed and the expected value of a rejection reason as text, or "" if there is no expected value."""
    if reason.expected is None:
        return ""
    observed = "nothing" if reason.observed is None else inline_code(_short(reason.observed))
    return f": observed {observed}, expected {inline_code(_short(reason.expected))}"


def _rows(receipt: Receipt) -> str:
    rows = receipt.rows
    counts = [
        ("in the file", rows.rows_in),
        ("published", rows.published),
        *((f"quarantined: {inline_code(rule)}", count) for rule, count in rows.quarantined.items()),
        *((f"dropped: {inline_code(step)}", count) for step, count in rows.dropped.items()),
    ]
    return _table(("rows", ""), [(label, f"{count:,}") for label, count in counts])


def _read_as(receipt: Receipt) -> str:
    lines = [f"- {basis}: {', '.join(map(inline_code, texts))}" for basis, texts in by_basis(receipt.read_as).items()]
    return "\n".join(["### Read as", "", *lines])


def _outputs(receipt: Receipt, links: ConsoleLinks) -> str:
    lines = [
        f"- {output.kind}: {links.object(links.published_bucket, output.key)} "
        f"({counted(output.rows, 'row')}, {output.size_bytes:,} bytes)"
        for output in receipt.outputs
    ]
    return "\n".join(["### Outputs", "", *lines])


def _where(receipt: Receipt, links: ConsoleLinks) -> str:
    source, chain = receipt.source, receipt.chain
    facts = [
        ("source", links.object(source.bucket, source.key, source.version_id)),
        ("receipt", links.object(links.published_bucket, receipt_key(receipt.run_id))),
        ("Data Docs", links.object(links.published_bucket, receipt.docs_page) if receipt.docs_page else None),
        ("attempt", str(receipt.attempt)),
        (
            "contract",
            f"{inline_code(receipt.contract.dataset)}, content {inline_code(receipt.contract.content_hash[:12])}",
        ),
        ("execution", links.execution(chain.execution_arn) if chain.execution_arn else None),
        ("ECS task", links.task(chain.task_arn) if chain.task_arn else None),
        ("log", links.log),
        ("message", inline_code(chain.message_id) if chain.message_id else None),
        ("delivery", str(chain.receive_count) if chain.receive_count else None),
    ]
    return "\n".join(["### Where", "", *(f"- {name}: {value}" for name, value in facts if value)])


def _table(head: tuple[str, str], body: list[tuple[str, str]]) -> str:
    return "\n".join([f"| {head[0]} | {head[1]} |", "|---|---:|", *(f"| {left} | {right} |" for left, right in body)])


def _short(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return shortened(text, _SHOWN_CHARACTERS)
