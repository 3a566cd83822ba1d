"""Files written to a repository of the Hugging Face hub, through its own client.

Data go up as large files and in commits of some hundred each; what makes the new generation visible
is one last commit, on top of the commits of this push only: whoever commits in between makes it
fail. The repository must exist: a push makes none, so that nothing becomes public by accident.
"""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError, LaughstoreError, NotFound
from ..folders import LocalFolder
from .errors import Failure
from .folder import open_url
from .hub import HubFolder, check_address, failure_of, find_commit
from .target import FileToSend, RemoteFile, altered, missing_is_told, read_checked

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

_FILES_A_COMMIT = 200
INLINE_BYTES = 1 << 20
"""Larger files are uploaded on their own, before the commit that names them."""
_ATTEMPTS = 4
_FIRST_PAUSE_S = 1.0
_REVISION = re.compile(r"(?:(?:datasets|spaces)/)?[^/@]+/[^/@]+@(refs/(?:convert|pr)/\w+|[^/]+)")


class HubTarget:
    """A folder of a repository that is written to. Safe to use from several threads."""

    def __init__(self, url: str) -> None:
        """Connect with the first request.

        Raises:
            ConfigError: the URL is not well formed.
        """
        self._url = url.rstrip("/")
        self._address = self._url.removeprefix("hf://")
        open_url(url)  # refuses queries and the like
        check_address(self._address)
        revision = _REVISION.match(self._address)
        self._revision = revision[1] if revision else "main"
        if re.fullmatch(r"[0-9a-f]{40}", self._revision):
            raise ConfigError(f"{url} names one commit, which does not change; give a branch")
        self._where: HubFolder | None = None
        self._head = ""
        self._pending: list[CommitOperationAdd] = []
        self._lock = threading.Lock()
        self._message = "Add files of a store"

    def describe(self, path: str = "") -> str:
        """Return the URL of a file, for messages."""
        return f"{self._url}/{path}" if path else self._url

    def list(self) -> dict[str, RemoteFile]:
        """Return every file below the URL, at the newest commit, which the push builds on.

        Raises:
            NotFound: there is no such repository or branch.
            Unreachable: the hub does not answer.
        """
        where = self._where = self._ask(lambda: find_commit(self._address))
        self._head = where.commit
        return self._tree(where, where.commit)

    def is_same(self, folder: LocalFolder, item: FileToSend, there: RemoteFile) -> bool:
        """Tell whether a file there holds what ours holds: by SHA-256, or by Git's name for it."""
        if there.num_bytes != item.num_bytes:
            return False
        if there.sha256 is not None:
            return there.sha256 == item.sha256
        return there.e_tag == _git_name(read_checked(folder, item))

    def read_version(self, path: str) -> tuple[bytes, RemoteFile] | None:
        """Return a whole file of the newest commit; None if there is none."""
        try:
            data = open_url(self._url).read(path)
        except NotFound:
            return None
        return data, RemoteFile(len(data))

    def put_file(
        self, folder: LocalFolder, item: FileToSend, advance: Callable[[int], None]
    ) -> None:
        """Send a file; it is seen with one of the next commits.

        Raises:
            CorruptData: it is not what the store says.
            IncompleteStore: it is missing.
            Unreachable: the hub does not take it.
        """
        from huggingface_hub import CommitOperationAdd

        where = self._listed()
        if item.num_bytes <= INLINE_BYTES:
            self._add(item.path, read_checked(folder, item))
            advance(item.num_bytes)
            return
        with missing_is_told(folder, item.source):
            num_bytes = folder.size(item.source)
        addition = CommitOperationAdd(self._inside(item.path), str(folder.path(item.source)))
        if num_bytes != item.num_bytes or addition.upload_info.sha256.hex() != item.sha256:
            raise altered(folder, item)
        self._ask(
            lambda: self._api().preupload_lfs_files(
                where.repo_id,
                [addition],
                repo_type=where.repo_type,
                revision=self._revision,
                num_threads=1,
            )
        )
        advance(item.num_bytes)
        self._append(addition)

    def copy(self, item: FileToSend, source: str) -> bool:
        """Return False: the hub holds equal files once, and is told of them as of new ones."""
        return False

    def replace(self, path: str, data: bytes, before: RemoteFile | None) -> bool:
        """Write a file with the last commit, which succeeds if nobody else has written."""
        self._add(path, data)
        return True

    def finish(self) -> None:
        """Make the last commit."""
        with self._lock:
            self._message = "Publish a generation of a store"
            self._commit()

    def _add(self, path: str, data: bytes) -> None:
        from huggingface_hub import CommitOperationAdd

        self._append(CommitOperationAdd(self._inside(path), data))

    def _append(self, addition: "CommitOperationAdd") -> None:
        with self._lock:
            if len(self._pending) >= _FILES_A_COMMIT:
                self._commit()
            self._pending.append(addition)

    def _commit(self) -> None:
        """Commit what is pending. Callers hold the lock."""
        where, additions = self._listed(), self._pending
        if not additions:
            return

        def ask() -> str:
            return str(
                self._api()
                .create_commit(
                    where.repo_id,
                    additions,
                    commit_message=self._message,
                    repo_type=where.repo_type,
                    revision=self._revision,
                    parent_commit=self._head,
                )
                .oid
            )

        try:
            self._head = self._ask(ask)
        except _Overtaken:
            now = self._ask(lambda: find_commit(self._address)).commit
            # An earlier attempt may have got through, but its answer did not.
            if not self._adds_just(where, now, additions):
                raise LaughstoreError(
                    f"{self._url}: somebody else committed to it meanwhile; push again"
                ) from None
            self._head = now
        self._pending = []

    def _adds_just(
        self, where: HubFolder, commit: str, additions: "Sequence[CommitOperationAdd]"
    ) -> bool:
        """Tell whether a commit has what ours had in the folder, these files, and nothing else."""
        expected, found = self._tree(where, self._head), self._tree(where, commit)
        inside = len(self._inside(""))
        for addition in additions:
            path = addition.path_in_repo[inside:]
            there = found.get(path)
            if there is None or not _is_same(addition, there):
                return False
            expected[path] = there
        return found == expected

    def _tree(self, where: HubFolder, commit: str) -> dict[str, RemoteFile]:
        """Every file of the folder at a commit."""
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        def ask() -> dict[str, RemoteFile]:
            try:
                found = list(
                    self._api().list_repo_tree(
                        where.repo_id,
                        where.path or None,
                        recursive=True,
                        repo_type=where.repo_type,
                        revision=commit,
                    )
                )
            except EntryNotFoundError:
                return {}
            inside = len(where.path) + 1 if where.path else 0
            return {
                item.path[inside:]: RemoteFile(
                    item.size, e_tag=item.blob_id, sha256=item.lfs.sha256 if item.lfs else None
                )
                for item in found
                if isinstance(item, RepoFile)
            }

        return self._ask(ask)

    def _inside(self, path: str) -> str:
        folder = self._listed().path
        return f"{folder}/{path}" if folder else path

    def _listed(self) -> HubFolder:
        assert self._where is not None, "what is there is listed before anything is sent"
        return self._where

    @staticmethod
    def _api():  # noqa: ANN205 (a class of the hub's client, imported late)
        from huggingface_hub import HfApi, constants

        return HfApi(endpoint=constants.ENDPOINT)

    def _ask[T](self, work: Callable[[], T]) -> T:
        """Return what `work` returns, repeated while that may help; its failure as ours."""
        attempt = 1
        while True:
            try:
                return work()
            except LaughstoreError:
                raise
            except Exception as error:
                # Which classes come depends on the client's version (requests or httpx).
                status = getattr(getattr(error, "response", None), "status_code", 0)
                if status in (409, 412):
                    raise _Overtaken from None
                failure = error if isinstance(error, Failure) else failure_of(error, self._url)
            if isinstance(failure, LaughstoreError):
                raise failure
            if failure.kind != "transient" or attempt == _ATTEMPTS:
                break
            time.sleep(_FIRST_PAUSE_S * 2 ** (attempt - 1))
            attempt += 1
        raise failure.as_error(self._url)


def _is_same(addition: "CommitOperationAdd", there: RemoteFile) -> bool:
    """Tell whether a file there holds what an addition does."""
    if there.sha256 is not None:
        return there.sha256 == addition.upload_info.sha256.hex()
    with addition.as_file() as file:
        return there.e_tag == _git_name(file.read())


def _git_name(data: bytes) -> str:
    """Git's name for a file with this content."""
    return hashlib.sha1(b"blob %d\x00" % len(data) + data, usedforsecurity=False).hexdigest()


class _Overtaken(Exception):
    """The branch is not where this push left it."""
