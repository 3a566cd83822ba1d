"""Where a stream stands, as its process and the workers of its DataLoaders see it.

Workers hold copies of a stream, made when they start. What they must learn afterwards (another
epoch, for workers that stay) and what the stream must learn of them (that the place of a resume was
used) goes through a few words of memory that all of them share.
"""

import mmap
import multiprocessing
from contextlib import AbstractContextManager, nullcontext
from multiprocessing.context import get_spawning_popen
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .batch import Batch

_WORDS: Final = (
    "epoch",
    "start",
    "version",
    "taken_version",
    "taken_by",
    "num_left",
    "worker_version",
)
_VERSION, _TAKEN, _TAKEN_BY, _NUM_LEFT, _BY_WORKERS = range(2, len(_WORDS))
_HERE: Final = 1
"""`taken_by` of this process itself. Of a loader, `num_left` workers have not yet come."""


class Position:
    """Epoch and first step of the next iteration. Starts at (0, 0)."""

    def __init__(self) -> None:
        self._memory: torch.Tensor | None = None
        self._words = _anonymous()
        self._lock = _lock("fork")
        """Of the words: loaders that are started at once must not both find the start untaken."""
        self._is_spawned = False
        """Whether the lock can be handed to workers that are spawned."""
        self.epoch = self._start = 0
        self._version = 1
        """Counts what was set; the words below hold the same."""
        self._used_version = 0
        """Of a worker: that of its last iteration."""
        self._num_begun = 0
        """Counts iterations of this process, and what voids them: that a place was set."""
        self._reached: tuple[int, int] | None = None
        """(epoch, step) behind the last batch of the newest of them."""
        self._write()

    @property
    def start(self) -> int:
        """Step at which the next iteration begins: 0 once one has begun where it was set."""
        return 0 if int(self._words[_TAKEN]) == self._version else self._start

    @property
    def reached(self) -> tuple[int, int]:
        """(epoch, step) behind the last batch that this process was given, of its newest iteration.

        Where that begins, before its first batch; where the next one will, if none has begun since
        the position was set.
        """
        return self._reached or (self.epoch, self.start)

    @property
    def read_by_workers(self) -> bool:
        """Whether workers read since the position was set: they are ahead of what was used."""
        return int(self._words[_BY_WORKERS]) == self._version

    def set(self, epoch: int, start: int) -> None:
        """Choose where the next iteration begins."""
        self.epoch, self._start = epoch, start
        self._version += 1
        self._num_begun += 1
        self._reached = None
        self._write()

    def take(self) -> tuple[int, int]:
        """Begin an iteration in the stream's own process; return its first step and its number."""
        with self._lock:
            start = self.start
            self._words[_TAKEN], self._words[_TAKEN_BY] = self._version, _HERE
        self._num_begun += 1
        self._reached = self.epoch, start
        return start, self._num_begun

    def reach(self, number: int, batch: Batch) -> Batch:
        """Return a batch that an iteration yields, remembered if no later one has begun."""
        if number == self._num_begun:
            self._reached = batch.epoch, batch.step + 1
        return batch

    def take_in_worker(self, loader: int, num_workers: int) -> int:
        """Begin an iteration in a worker; return the first step of all workers together.

        Args:
            loader: a number that the workers of one loader share, and no other's beside it. One
                behind it may have the same: it is drawn, by a generator that may be seeded anew.
            num_workers: of the loader.
        """
        with self._lock:
            words = self._words
            if self._used_version:  # the first iteration is where the stream stood at the start
                self.epoch, self._start, self._version = (int(n) for n in words[: _VERSION + 1])
            if self._used_version == self._version:
                return 0
            self._used_version = self._version
            # If not, the stream has moved on, and later iterations will.
            is_now = int(words[_VERSION]) == self._version
            if is_now:
                words[_BY_WORKERS] = self._version
            loader += _HERE + 1
            if int(words[_TAKEN]) == self._version:
                if int(words[_TAKEN_BY]) != loader or not words[_NUM_LEFT]:
                    return 0
                words[_NUM_LEFT] -= np.uint64(1)
            elif is_now:
                taken = self._version, loader, num_workers - 1
                words[_TAKEN], words[_TAKEN_BY], words[_NUM_LEFT] = taken
            return self._start

    def _write(self) -> None:
        with self._lock:
            # Who has taken the place before is still told: a worker may be late.
            self._words[: _VERSION + 1] = self.epoch, self._start, self._version

    def __getstate__(self) -> dict[str, Any]:  # Any: attributes
        state = {name: value for name, value in vars(self).items() if name not in _NOT_COPIED}
        if get_spawning_popen() is None:
            # A plain copy: a stream of its own. Ours stays where workers look for it.
            return state | {"_words": self._words.copy()}
        if self._memory is None:  # what a spawned worker inherits would not do
            memory = torch.zeros(len(_WORDS), dtype=torch.int64).share_memory_()
            words = memory.numpy().view(np.uint64)
            words[:] = self._words
            self._memory, self._words = memory, words
        if not self._is_spawned:
            self._lock, self._is_spawned = _lock("spawn"), True
        return state | {"_memory": self._memory, "_lock": self._lock}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._memory = state.get("_memory")
        self._is_spawned = self._memory is not None
        if self._memory is None:
            self._words, self._lock = _anonymous(), _lock("fork")
            self._words[:] = state["_words"]
        else:
            self._words = self._memory.numpy().view(np.uint64)


_NOT_COPIED: Final = ("_memory", "_words", "_lock")


def _anonymous() -> NDArray[np.uint64]:
    """Return memory that children by fork share."""
    return np.frombuffer(mmap.mmap(-1, 8 * len(_WORDS)), np.uint64)


def _lock(method: Literal["fork", "spawn"]) -> AbstractContextManager[Any]:  # Any: not used
    """Return a lock that children of this method share."""
    try:
        return multiprocessing.get_context(method).Lock()
    except (ImportError, OSError, ValueError):  # no semaphores, or no such method: no such children
        return nullcontext()
