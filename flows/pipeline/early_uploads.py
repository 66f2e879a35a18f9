"""Outputs that are uploaded while the file is still refined, so that they need not fit the disk together.

Each is a multipart upload, which is no object before the stage *publish* completes it: of a file that is rejected, or
whose worker is killed, nobody ever sees a row. See docs/decisions/0023-outputs-larger-than-the-disk.md.
"""

from collections.abc import Callable
from contextlib import suppress

from blocks.object_store import ObjectStore, PendingUpload
from flows.refinery.errors import SluiceError
from flows.refinery.output_files import OutputFile


class EarlyUploads:
    """The early uploads of one attempt.

    Args:
        store: None for a dry run: full files are deleted.
        key_of: returns the key of a file, given its kind and the file.
    """

    def __init__(self, store: ObjectStore | None, key_of: Callable[[str, OutputFile], str]) -> None:
        self._store, self._key_of = store, key_of
        self._pending: dict[str, PendingUpload | None] = {}  # None once it is completed

    def take(self, kind: str, file: OutputFile) -> None:
        """Upload a full file, and delete it from the disk."""
        if self._store:
            key = self._key_of(kind, file)
            self._pending[key] = self._store.begin_upload(key, file.path, sha256=file.sha256)
        file.path.unlink()

    def complete(self, key: str) -> bool:
        """Make the early upload of this key an object; return whether there is one. May be called again."""
        pending = self._pending.get(key)
        if pending and self._store:
            self._store.complete_upload(pending)
            self._pending[key] = None
        return key in self._pending

    def close(self) -> None:
        """Delete what was not completed, as far as S3 is there; the rest goes by the bucket's lifecycle rule."""
        for pending in filter(None, self._pending.values()):
            with suppress(SluiceError):
                if self._store:
                    self._store.abort_upload(pending)
