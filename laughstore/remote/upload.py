"""Objects written to a bucket: whole, with their SHA-256 beside them, and never an altered file.

obstore makes the requests and repeats those that fail; `client` says what went wrong. Files
up to 64 MiB are read, hashed and sent in one request, so that what was hashed is what is sent.
Larger ones are hashed while their parts are read, and the object appears with the last part: an
upload that fails is aborted, and only a killed process leaves parts behind, which a rule of the
bucket (abort incomplete multipart uploads) removes.

Each object carries the SHA-256 of its content as metadata (`sha256`). Which objects a push still
has to send is read from there: shards all have the same size.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..errors import NotFound
from ..folders import LocalFolder
from .client import Patience, RemoteClient
from .folder import open_url
from .target import FileToSend, RemoteFile, altered, missing_is_told, read_checked

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ObjectStore

UPLOAD_PATIENCE = Patience(silence_s=300.0, request_s=1800.0)
"""A server is silent while it takes in a large file."""
ONE_REQUEST_BYTES = 64 << 20
_PART_BYTES = 16 << 20
_PARTS_AT_ONCE = 4
_SHA256 = "sha256"
_MAX_COPY_BYTES = 5_000_000_000
"""S3 copies no larger object in one request."""


class BucketTarget:
    """A folder of an S3 or GCS bucket that is written to. Safe to use from several threads."""

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        """Connect with the first request.

        Raises:
            ConfigError: the URL is not well formed.
        """
        self._client: RemoteClient = open_url(url, patience or UPLOAD_PATIENCE).client

    def describe(self, path: str = "") -> str:
        """Return the URL of an object, for messages."""
        return f"{self._client.shown}/{path}" if path else self._client.shown

    def list(self) -> dict[str, RemoteFile]:
        """Return every object below the URL, 1,000 in a request.

        Raises:
            NotFound: the bucket does not exist.
            Unreachable: it does not answer, or may not be listed.
        """

        def ask(store: "ObjectStore") -> dict[str, RemoteFile]:
            import obstore

            return {
                item["path"]: RemoteFile(item["size"], item["e_tag"], item["version"])
                for page in obstore.list(store)
                for item in page
            }

        return self._client.run("", ask)

    def is_same(self, folder: LocalFolder, item: FileToSend, there: RemoteFile) -> bool:
        """Tell whether an object holds what a file holds.

        One that was put there by other means carries no SHA-256, and is read.
        """
        if there.num_bytes != item.num_bytes:
            return False
        return there.num_bytes == 0 or self._sha256(item.path) == item.sha256

    def _sha256(self, path: str) -> str:
        """Return the SHA-256 of an object: from its metadata, or by reading it."""

        def ask(store: "ObjectStore") -> str:
            import obstore

            told = obstore.get(store, path, options={"range": (0, 1)}).attributes.get(_SHA256)
            if told is not None:
                return str(told)
            digest = hashlib.sha256()
            for piece in obstore.get(store, path).stream():
                digest.update(piece)
            return digest.hexdigest()

        return self._client.run(path, ask)

    def read_version(self, path: str) -> tuple[bytes, RemoteFile] | None:
        """Return a whole object, and what `replace` takes for it; None if there is none."""

        def ask(store: "ObjectStore") -> tuple[bytes, RemoteFile]:
            import obstore

            answer = obstore.get(store, path)
            meta, data = answer.meta, answer.bytes().to_bytes()
            return data, RemoteFile(len(data), meta["e_tag"], meta["version"])

        try:
            return self._client.run(path, ask)
        except NotFound:
            return None

    def put_file(
        self, folder: LocalFolder, item: FileToSend, advance: Callable[[int], None]
    ) -> None:
        """Send a file.

        Args:
            folder: of the local store.
            item: what and where to.
            advance: told how many more bytes were sent.

        Raises:
            CorruptData: the file is not what the store says it is; nothing appears under its name.
            IncompleteStore: it is missing.
            Unreachable: the bucket does not take it, after retries.
        """
        if item.num_bytes <= ONE_REQUEST_BYTES:
            self._put(item.path, read_checked(folder, item), item.sha256)
            advance(item.num_bytes)
            return
        sent = _HighWater(advance)

        def ask(store: "ObjectStore") -> None:
            import obstore

            obstore.put(
                store,
                item.path,
                _parts(folder, item, sent),
                attributes={_SHA256: item.sha256},
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )

        self._client.run(item.path, ask)

    def replace(self, path: str, data: bytes, before: RemoteFile | None) -> bool:
        """Write an object if what is there is still `before` (None: nothing).

        Returns:
            Whether it now holds these bytes: also when another writer was first with the same.
        """
        mode: PutMode
        if before is None:
            mode = "create"
        elif before.version is not None:
            mode = {"e_tag": before.e_tag, "version": before.version}
        else:
            mode = {"e_tag": before.e_tag}
        if self._put(path, data, hashlib.sha256(data).hexdigest(), mode):
            return True
        # Also when an earlier attempt got through, but its answer did not.
        now = self.read_version(path)
        return now is not None and now[0] == data

    def copy(self, item: FileToSend, source: str) -> bool:
        """Copy an object within the bucket, metadata too. Returns False for one too large."""
        if item.num_bytes > _MAX_COPY_BYTES:
            return False

        def ask(store: "ObjectStore") -> None:
            import obstore

            obstore.copy(store, source, item.path)

        self._client.run(item.path, ask)
        return True

    def finish(self) -> None:
        """Nothing is left to do: objects are visible once they are whole."""

    def _put(self, path: str, data: bytes, sha256: str, mode: "PutMode" = "overwrite") -> bool:
        """Write an object in one request. Returns False when a condition does not hold."""

        def ask(store: "ObjectStore") -> bool:
            import obstore
            from obstore.exceptions import AlreadyExistsError, PreconditionError

            try:
                obstore.put(
                    store,
                    path,
                    data,
                    attributes={_SHA256: sha256},
                    mode=mode,
                    use_multipart=False,
                )
            except (AlreadyExistsError, PreconditionError):
                return False
            except FileNotFoundError:
                if isinstance(mode, str):  # there is no such bucket
                    raise
                return False  # what was to be replaced is gone
            return True

        return self._client.run(path, ask)


def _parts(folder: LocalFolder, item: FileToSend, sent: "_HighWater") -> Iterator[bytes]:
    """Yield the parts of a large file; raises at its end when they are not what they should be."""
    digest = hashlib.sha256()
    start = 0
    with missing_is_told(folder, item.source):
        path = folder.path(item.source)
        if folder.size(item.source) != item.num_bytes:
            raise altered(folder, item)
        with path.open("rb") as file:
            while part := file.read(_PART_BYTES):
                digest.update(part)
                start += len(part)
                if start >= item.num_bytes and digest.hexdigest() != item.sha256:
                    raise altered(folder, item)
                yield part
                sent.reached(start)
        if start != item.num_bytes or digest.hexdigest() != item.sha256:
            raise altered(folder, item)


class _HighWater:
    """Counts bytes of a file once, however often it is begun again."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance, self._reached = advance, 0

    def reached(self, num_bytes: int) -> None:
        if num_bytes > self._reached:
            self._advance(num_bytes - self._reached)
            self._reached = num_bytes
