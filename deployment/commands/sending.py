"""Uploads files to the landing bucket, several concurrently and large ones in parts, with bounded memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from boto3.s3.transfer import ProgressCallbackInvoker, TransferConfig, create_transfer_manager
from botocore.exceptions import BotoCoreError, ClientError

from blocks.aws_errors import explain_aws_error
from deployment.commands.upload_files import FileUnusable, LocalFile
from flows.refinery.errors import SluiceError
from lambda_trigger.message import UploadMessage

# S3 allows 10,000 parts per object. The classic client needs no other package, and keeps few parts in memory.
_CONFIG = TransferConfig(multipart_chunksize=16 * 1024**2, max_concurrency=8, preferred_transfer_client="classic")
_OPERATIONS = ("PutObject", "CompleteMultipartUpload")


def send(s3: Any, bucket: str, files: Mapping[str, LocalFile]) -> dict[str, UploadMessage | SluiceError]:
    """Upload files. Return, by object key, the message that identifies the stored object version, or the error if the
    file was not uploaded or if it changed during the upload. Ctrl-C aborts all uploads.

    Args:
        s3: a boto3 client for S3.
        files: the files to upload, by object key.
    """
    before = {file.path: _state(file.path) for file in files.values()}
    with _answers(s3) as answers, create_transfer_manager(s3, _CONFIG) as manager:
        bodies: dict[str, Any] = {key: file.body for key, file in files.items()}  # boto3 calls only a Member's read()
        sent = {
            key: manager.upload(bodies[key], bucket, key, subscribers=[ProgressCallbackInvoker(file.on_bytes)])
            for key, file in files.items()
        }
        outcomes = {key: _outcome(sent[key], bucket, key, file, answers) for key, file in files.items()}
    for key, file in files.items():
        if isinstance(outcomes[key], UploadMessage) and _state(file.path) != before[file.path]:
            outcomes[key] = FileUnusable(
                f"{file.path} changed during the upload: s3://{bucket}/{key} may be inconsistent; upload it again"
            )
    return outcomes


def _state(path: Path) -> tuple[int, int] | None:
    """Return a file's modification time and size, so that a change can be detected; None if it does not exist."""
    with suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size
    return None


def _outcome(
    sent: Any, bucket: str, key: str, file: LocalFile, answers: Mapping[str, Mapping[str, Any]]
) -> UploadMessage | SluiceError:
    """Wait until a file is uploaded; return the message for its object version, or the error."""
    try:
        sent.result()
    except (BotoCoreError, ClientError) as error:
        return explain_aws_error(error, f"uploading to s3://{bucket}/{key}")
    except OSError as error:
        return FileUnusable(f"{file.path} cannot be read: {error.strerror}")
    except SluiceError as error:
        return error
    return UploadMessage(
        bucket=bucket,
        key=key,
        version_id=answers[key].get("VersionId"),
        etag=answers[key]["ETag"].strip('"'),
        size_bytes=file.size_bytes,
    )


@contextmanager
def _answers(s3: Any) -> Iterator[dict[str, dict[str, Any]]]:
    """Collect S3's responses to completed uploads by object key, because boto3's transfers return neither the version
    ID nor the ETag."""
    answers: dict[str, dict[str, Any]] = {}

    def note_key(params: Mapping[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["sluice_key"] = params["Key"]

    def note_answer(parsed: dict[str, Any], context: Mapping[str, Any], **_: Any) -> None:
        answers[context["sluice_key"]] = parsed

    hooks = (("before-parameter-build", note_key), ("after-call", note_answer))
    events = [(f"{moment}.s3.{operation}", hook) for moment, hook in hooks for operation in _OPERATIONS]
    for event, hook in events:
        s3.meta.events.register(event, hook)
    try:
        yield answers
    finally:
        for event, hook in events:
            s3.meta.events.unregister(event, hook)
