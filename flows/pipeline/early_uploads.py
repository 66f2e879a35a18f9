"""Uploads outputs while their file is still being refined, so that the disk does not have to hold all of them.

Each output is a multipart upload, which becomes an S3 object only when the publish stage completes it. So if the file
is rejected or the worker is killed, no one ever sees its rows. See docs/decisions/0023-outputs-larger-than-the-disk.md.
"""

import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any, Self, TypeVar

from blocks.object_store import ObjectStore, PendingUpload
from flows.refinery.errors import SluiceError
from flows.refinery.output_files import OutputFile, TakeAway

_PART_BYTES, _PARTS_AT_ONCE = 8 * 1024**2, 2
_MAX_PARTS = 10_000  # docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html

_T = TypeVar("_T")


class _Abandoned(Exception):
    """Raised to end an upload because the outputs will not be published."""


class EarlyUploads(TakeAway):
    """The outputs of one attempt that are uploaded before its publish stage. Uploads that were not completed are
    aborted on exit.

    Args:
        store: where the outputs are uploaded to; None for a dry run, in which full files are only deleted.
        key_of: returns the object key of an output file, given its kind (data or quarantine) and the file.
    """

    def __init__(self, store: ObjectStore | None, key_of: Callable[[str, OutputFile], str]) -> None:
        self._store, self._key_of = store, key_of
        self._pending: dict[str, PendingUpload | None] = {}  # None once it is completed
        self._abandoned: Future[None] = Future()
        self._calls: list[Future[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Abort the uploads that were not completed. If S3 is unavailable, the bucket's lifecycle rule deletes them
        later. The same applies if the task is stopped, because then the message has to be returned without waiting."""
        if kind is None or issubclass(kind, Exception):
            wait(self._calls)  # S3 may keep a part that arrives after its upload was aborted
            for pending in filter(None, self._pending.values()):
                with suppress(SluiceError):
                    if self._store:
                        self._store.abort_upload(pending)

    def take(self, kind: str, file: OutputFile) -> None:
        """Upload an output file that is full, unless `abandon` was called, and delete it from the disk."""
        if self._store:
            with suppress(_Abandoned):
                self._upload(self._store, self._key_of(kind, file), file)
        file.path.unlink()

    def abandon(self) -> None:
        """End the uploads that are in progress, without waiting for S3, and start no others."""
        if not self._abandoned.done():
            self._abandoned.set_result(None)

    def complete(self, key: str) -> bool:
        """Complete the early upload of this key, so that it becomes an S3 object. Return False if there is no early
        upload of this key. Calling this again is harmless."""
        pending = self._pending.get(key)
        if pending and self._store:
            self._store.complete_upload(pending)
            self._pending[key] = None
        return key in self._pending

    def _upload(self, store: ObjectStore, key: str, file: OutputFile) -> None:
        pending = self._result(self._begun(partial(self._create, store, key, file.sha256)))
        etags: list[str] = []
        running: deque[Future[str]] = deque()
        part_bytes = max(_PART_BYTES, -(-file.size_bytes // _MAX_PARTS))
        for number in range(1, max(1, -(-file.size_bytes // part_bytes)) + 1):
            if len(running) == _PARTS_AT_ONCE:
                etags.append(self._result(running.popleft()))
            running.append(self._begun(partial(store.upload_part, pending, number, file.path, part_bytes)))
        etags.extend(map(self._result, running))
        self._pending[key] = replace(pending, etags=tuple(etags))

    def _create(self, store: ObjectStore, key: str, sha256: str) -> PendingUpload:
        pending = self._pending[key] = store.create_upload(key, sha256=sha256)
        return pending

    def _begun(self, call: Callable[[], _T]) -> Future[_T]:
        """Start a call in a daemon thread, so that not even the end of the process waits for it."""
        if self._abandoned.done():
            raise _Abandoned
        answer: Future[_T] = Future()
        self._calls.append(answer)
        context = contextvars.copy_context()

        def run() -> None:
            try:
                answer.set_result(context.run(call))
            except BaseException as error:  # noqa: BLE001 (the thread that waits for the result raises it)
                answer.set_exception(error)

        Thread(target=run, name="early-upload", daemon=True).start()
        return answer

    def _result(self, answer: Future[_T]) -> _T:
        either: tuple[Future[Any], ...] = (answer, self._abandoned)
        wait(either, return_when=FIRST_COMPLETED)
        if self._abandoned.done():
            raise _Abandoned
        return answer.result()
