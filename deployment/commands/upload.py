"""`sluice upload`: uploads files to a stack's landing bucket, and waits for their receipts."""

import shlex
from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from deployment.commands import first_of, visible_line
from deployment.commands.show import print_outcomes, print_problems, shown_bars, shown_progress
from deployment.commands.upload_files import (
    LocalFile,
    Member,
    dataset_of,
    files_to_upload,
    require_dataset,
    require_different_keys,
    words_of,
)
from deployment.commands.uploads import TrackedUpload, Uploads, UploadState
from deployment.deployed_stack import DeployedStack
from flows.refinery.errors import SluiceError, TerminalError
from lambda_trigger.ignored_names import is_ignored

_NAMES_SHOWN = 3


class NameIgnored(TerminalError):
    """All given files have names that the stack ignores, because they are not data."""


def upload(
    console: Console,
    cloud: DeployedStack,
    given: Sequence[str],
    *,
    dataset: str | None,
    wait: bool,
    deadline_seconds: float,
) -> bool:
    """Upload files, the files in folders, and the members of ZIP files.

    If `wait` is set, wait for the outcomes until the deadline, and return whether all files were published; otherwise
    return whether all were uploaded.

    Raises:
        FileUnusable, ArchiveUnusable, ArchiveUnsafe, FilesCollide: at least one file could not be uploaded, and no
            other file was uploaded.
        DatasetUnknown: the dataset has no contract.
        NameIgnored: the stack would ignore all of these files because of their names.
    """
    uploads = Uploads(cloud)
    known = uploads.datasets()
    if dataset is not None:
        require_dataset(dataset, known)
    files, in_default = _files_by_key(console, cloud, given, dataset, known)
    with shown_bars(console, files.values()):
        sent, problems = uploads.send(files)
    if not sent:
        raise next(iter(problems.values()))
    _print_destination(console, sent, cloud.outputs["IncomingPrefix"])
    print_problems(console, problems)
    _explain_default(console, in_default)
    try:
        if uploads.is_paused():
            console.print("The stack is paused: the files wait in the queue. To process them: sluice resume")
        if wait:
            _follow(console, cloud, uploads, sent, deadline_seconds)
    except SluiceError as error:  # the exit code must not say that nothing was uploaded
        console.out(f"The state of the uploaded files cannot be read: {error}", style="bold red")
    if not wait:
        console.print("To see the progress: sluice status")
        return not problems
    if len(files) > 1:
        states = Counter([*(one.stage for one in sent), *(UploadState.FAILED for _ in problems)])
        console.print(f"{len(files):,} files: {', '.join(f'{count:,} {state}' for state, count in states.items())}")
    return not problems and all(one.stage is UploadState.PUBLISHED for one in sent)


def _follow(
    console: Console,
    cloud: DeployedStack,
    uploads: Uploads,
    sent: list[TrackedUpload],
    deadline_seconds: float,
) -> None:
    """Wait for the outcomes of uploads until the deadline, and show them."""
    with shown_progress(console, sent) as on_look:
        in_time = uploads.follow(sent, deadline_seconds=deadline_seconds, on_look=on_look)
    print_outcomes(console, cloud, sent)
    for late in uploads.judged_before_publication(one.receipt for one in sent if one.receipt):
        console.out(
            f"A task used the previous contract of {late}, because it can take a minute until tasks use a published"
            " contract. Upload the files again",
            style="yellow",
        )
    if not in_time:
        console.print(f"Not finished after {deadline_seconds:.0f} seconds; processing continues. See: sluice status")


def _files_by_key(
    console: Console, cloud: DeployedStack, given: Sequence[str], dataset: str | None, known: Sequence[str]
) -> tuple[dict[str, LocalFile], list[LocalFile]]:
    """Return the files to upload by object key, and the list of those to which only the default contract applies."""
    prefix, patterns = cloud.outputs["IncomingPrefix"], cloud.outputs["IgnoredNames"]
    files, ignored = files_to_upload(given, lambda name: is_ignored(name, "", patterns))
    if not files:
        raise NameIgnored(
            f"{', '.join(given)}: the stack ignores names that match {patterns}; rename the files, or change the"
            " stack's parameter IgnoredNames"
        )
    if ignored:
        console.out(f"{ignored:,} not uploaded: the stack ignores names that match {patterns}")
    chosen = [dataset or dataset_of(file, known) for file in files]
    keys = [
        f"{prefix}{one}/{file.name}" if one else prefix + file.name for one, file in zip(chosen, files, strict=True)
    ]
    require_different_keys(keys)
    return dict(zip(keys, files, strict=True)), [file for one, file in zip(chosen, files, strict=True) if not one]


def _print_destination(console: Console, sent: Sequence[TrackedUpload], prefix: str) -> None:
    """Print the S3 URI of the uploaded file or, if there are several, the number of files in each folder."""
    first = sent[0].message
    if len(sent) == 1:
        console.out(f"uploaded to s3://{first.bucket}/{first.key}")
        return
    folders = Counter(one.message.key.removeprefix(prefix).removesuffix(one.name) for one in sent)
    counts = ", ".join(f"{count:,} to {prefix}{folder}" for folder, count in folders.items())
    console.out(f"uploaded {len(sent):,} files to s3://{first.bucket}/: {counts}")


def _explain_default(console: Console, files: Sequence[LocalFile]) -> None:
    if not files:
        return
    name = words_of(files[0].name.rsplit("/", 1)[-1].split(".", 1)[0]) or "NAME"
    sample, unpacked = shlex.quote(str(files[0].path)), ""
    if isinstance(files[0].body, Member):  # `sluice contract new` cannot read ZIP files
        sample, unpacked = shlex.quote(files[0].name.rsplit("/", 1)[-1]), f"unpack {visible_line(sample)}, "
    console.out(
        "No dataset matches these files' names, so the default contract applies, which accepts any table: "
        + ", ".join(first_of([visible_line(file.name) for file in files], _NAMES_SHOWN)),
        f"To define rules for them: {unpacked}sluice contract new {name} {visible_line(sample)}, then upload again. "
        "If they belong to a dataset that has a contract, upload them with --dataset NAME",
        sep="\n",
    )
