"""Requests to one remote place: repeated where that helps, checked, with our own errors.

obstore (Rust's object_store) makes the requests and repeats those that fail: refused and reset
connections, timeouts, answers 408, 429 and 5xx, and bodies cut short where the object has an ETag.
The rest is ours: bodies cut short without one, answers for another range than was asked, and the
check that exactly the promised bytes came. What a client says may hold credentials, so none of its
words reach a message before they are stripped.

Objects are taken to be immutable: a size is asked for once, and parts of an object that was
replaced in between are refused. Reading one as a whole gives the newest.
"""

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from ..daemon_threads import DaemonThreads, interruptibly
from ..errors import ConfigError, NotFound, Unreachable
from .errors import Failure, explain

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_log = logging.getLogger(__name__)

_OWN_ATTEMPTS = 3
"""Of what obstore does not repeat itself."""

_LIST_FROM = 8
"""Files of one folder whose sizes are asked for together."""
_SIDE_BY_SIDE = 16

_PART_BYTES = 8 << 20
"""Of a body; so much may come behind its promised end before it is broken off."""
_MAX_WHOLE_BYTES = 64 << 20
"""Of an object that is read without saying how much of it. Larger ones are read in parts."""

_process_of_clients: int | None = None
"""The process that made the first request; its children by fork would wait for ever."""


@dataclass(frozen=True)
class Patience:
    """How long a remote side is waited for, and how often it is asked."""

    max_retries: int = 8
    """Of one request; the pauses between double, with jitter."""
    total_s: float = 120.0
    """After this long no further attempt is made."""
    connect_s: float = 10.0
    silence_s: float = 20.0
    """Without a single byte."""
    request_s: float = 300.0
    """One request with its whole answer."""
    first_pause_s: float = 0.1
    longest_pause_s: float = 10.0

    def client_options(self, *, allow_http: bool) -> "ClientConfig":
        """Return the timeouts in obstore's words."""
        return {
            "allow_http": allow_http,
            "connect_timeout": timedelta(seconds=self.connect_s),
            "read_timeout": timedelta(seconds=self.silence_s),
            "timeout": timedelta(seconds=self.request_s),
        }

    def retry_config(self) -> "RetryConfig":
        """Return the repetitions in obstore's words."""
        return {
            "max_retries": self.max_retries,
            "retry_timeout": timedelta(seconds=self.total_s),
            "backoff": {
                "init_backoff": timedelta(seconds=self.first_pause_s),
                "max_backoff": timedelta(seconds=self.longest_pause_s),
                "base": 2,
            },
        }


@dataclass(eq=False)
class RemoteClient:
    """One opened URL, shared by the folders below it; connects at its first request.

    Safe to use from several threads. Its keys are paths below the URL.
    """

    url: str = field(repr=False)
    shown: str
    """The URL without credentials."""
    connect: "Callable[[Patience], ObjectStore]" = field(repr=False)
    patience: Patience
    size_by_get: bool = False
    """Servers that redirect to signed addresses may not answer a HEAD there."""
    list_folder: "Callable[[ObjectStore, str], dict[str, int]] | None" = field(
        default=None, repr=False
    )
    """Returns the bytes of each object directly in a folder; None where nobody can list."""
    sizes: dict[str, int] = field(default_factory=dict)
    _store: "ObjectStore | None" = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def size(self, key: str) -> int:
        """Return the bytes of an object."""
        if key not in self.sizes:
            import obstore

            if self.size_by_get:
                self.run(key, lambda store: self._get(store, key, (0, 1)))
            else:
                self.sizes[key] = self.run(key, lambda store: obstore.head(store, key)["size"])
        return self.sizes[key]

    def sizes_of(self, keys: Sequence[str]) -> list[int]:
        """Return the bytes of objects, in their order."""
        unknown = sorted({key for key in keys if key not in self.sizes})
        if self.list_folder is not None:
            folders = Counter(key.rpartition("/")[0] for key in unknown)
            for folder, num_keys in folders.items():
                if num_keys >= _LIST_FROM:
                    self._learn_sizes(folder, self.list_folder)
            unknown = [key for key in unknown if key not in self.sizes]
        if unknown:
            with DaemonThreads(_SIDE_BY_SIDE, "laughstore-sizes") as threads:
                for future in [threads.submit(self.size, key) for key in unknown]:
                    future.result()
        return [self.sizes[key] for key in keys]

    def _learn_sizes(
        self, folder: str, list_folder: "Callable[[ObjectStore, str], dict[str, int]]"
    ) -> None:
        """List a folder; one that must not be listed teaches nothing."""
        try:
            found = self.run(folder, lambda store: list_folder(store, folder))
        except (Unreachable, NotFound) as error:
            _log.info("%s; asking for one after the other", error)
            return
        for (
            key,
            size,
        ) in found.items():  # not another dictionary: threads are about to read this one
            self.sizes.setdefault(key, size)

    def list_names(self, folder: str) -> list[str] | None:
        """Return the names of the objects directly in a folder; None where nobody can list it."""
        list_folder = self.list_folder
        if list_folder is None:
            return None
        try:
            found = self.run(folder, lambda store: list_folder(store, folder))
        except (Unreachable, NotFound) as error:
            _log.info("%s; asking for one after the other", error)
            return None
        return sorted(key.rpartition("/")[2] for key in found)

    def read(self, key: str, span: tuple[int, int] | None = None) -> bytes:
        """Return an object (of at most 64 MiB), or its bytes from `span[0]` to before `span[1]`."""
        return self.run(key, lambda store: self._get(store, key, span))

    def _get(self, store: "ObjectStore", key: str, span: tuple[int, int] | None) -> bytes:
        import obstore

        answer = obstore.get(store, key, options={} if span is None else {"range": span})
        size = answer.meta["size"]
        if span is None:
            self.sizes[key] = size
            start, stop = 0, size
            if size > _MAX_WHOLE_BYTES:
                raise Failure("oversized", f"has {size} bytes")
        else:
            start, stop = span
            known = self.sizes.setdefault(key, size)
            if size != known:
                raise Failure("changed", f"has {size} bytes, had {known} before")
            if stop > size:
                raise Failure("short", f"has {size} bytes")
        return _body(answer, stop - start)

    def run[T](self, key: str, ask: "Callable[[ObjectStore], T]") -> T:
        """Return what `ask` returns, repeated where that may help, its failure as ours."""
        where = f"{self.shown}/{key}" if key else self.shown
        began_s = time.monotonic()
        attempt = 1
        while True:
            try:
                return interruptibly(lambda: ask(self._connected()))
            except Exception as error:
                # Every class: obstore's, ours from the checks, and the hub client's.
                failure = explain(error)
            spent_s = time.monotonic() - began_s
            if not failure.worth_repeating or attempt >= _OWN_ATTEMPTS:
                break
            if spent_s >= self.patience.total_s:
                break
            _log.info("%s: %s; asked again", where, failure.what)
            pause_s = self.patience.first_pause_s * 2**attempt * random.uniform(0.5, 1.5)
            time.sleep(min(pause_s, self.patience.longest_pause_s))
            attempt += 1
        # Outside of the handler: the client's error, which may hold credentials, ends here.
        raise failure.as_error(where)

    def _connected(self) -> "ObjectStore":
        global _process_of_clients
        if _process_of_clients is None:
            _process_of_clients = os.getpid()
        if _process_of_clients != os.getpid():  # before the lock, which may never be free here
            raise ConfigError(
                f"{self.shown}: a process forked from one that has read remote files cannot"
                " read any; start workers with the method spawn or forkserver"
            )
        with self._lock:
            if self._store is None:
                self._store = self.connect(self.patience)
            return self._store


def _body(answer: "GetResult", num_bytes: int) -> bytes:
    """Return the bytes of an answer, taken only as long as they are no more than was promised."""
    parts: list[memoryview] = []
    num_came = 0
    for part in answer.stream(min_chunk_size=min(num_bytes + 1, _PART_BYTES)):
        parts.append(memoryview(part))
        num_came += len(part)
        if num_came > num_bytes:
            raise Failure("transient", f"more than {num_bytes} bytes came")
    if num_came != num_bytes:
        raise Failure("transient", f"{num_came} of {num_bytes} bytes came")
    return b"".join(parts)
