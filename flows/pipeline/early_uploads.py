"""Uploads outputs while their file is still being refined, so that they do not all have to fit on the disk at once.

Each is a multipart upload, which does not become an S3 object until the publish stage completes it. So if the file is
rejected or the worker is killed, no one ever sees its rows. See docs/decisions/0023-outputs-larger-than-the-disk.md.
"""

from collections.abc import Callable
from contextlib import suppress

from blocks.object_store import ObjectStore, PendingUpload
from flows.refinery.errors import SluiceError
from flows.refinery.output_files import OutputFile


class EarlyUploads:
    """The outputs of one attempt that are uploaded before its publish stage.

    Args:
        store: where the outputs are uploaded to; None for a dry run, in which full files are only deleted.
        key_of: returns the object key of an output file, given its kind (data or quarantine) and the file.
    """

    def __init__(self, store: ObjectStore | None, key_of: Callable[[str, OutputFile], str]) -> None:
        self._store, self._key_of = store, key_of
        self._pending: dict[str, PendingUpload | None] = {}  # None once it is completed

    def take(self, kind: str, file: OutputFile) -> None:
        """Upload an output file that is full, and delete it from the disk."""
        if self._store:
            key = self._key_of(kind, file)
            self._pending[key] = self._store.begin_upload(key, file.path, sha256=file.sha256)
        file.path.unlink()

    def complete(self, key: str) -> bool:
        """Complete the early upload of this key, so that it becomes an S3 object. Return False if there is no early
        upload of this key. Calling this again is harmless."""
        pending = self._pending.get(key)
        if pending and self._store:
            self._store.complete_upload(pending)
            self._pending[key] = None
        return key in self._pending

    def close(self) -> None:
        """Abort the uploads that were not completed. If S3 is unavailable, the bucket's lifecycle rule deletes them
        later."""
        for pending in filter(None, self._pending.values()):
            with suppress(SluiceError):
                if self._store:
                    self._store.abort_upload(pending)
