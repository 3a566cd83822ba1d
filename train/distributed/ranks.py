"""What the processes that train one model say to each other.

Every rank makes the same calls in the same order: each of these methods is called by all ranks or
by none. What changes the course of a run is decided on the first rank and told to all. A rank that
dies or hangs ends the others with an error that names it and the step, not with a wait without end.

One process alone makes the same calls; they cost it nothing.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

from laughstore import errors
from laughstore.errors import ConfigError, LaughstoreError

from .meeting import NotMetError, meet
from .one_ahead import OneAhead
from .place import ALONE, Place
from .signals import Interruptible

TOLD: Final = 3
"""Numbers at the end of a step's sum: the step, and how many ranks got which signal."""
_STEPS: Final = 1 << 12
"""Steps are told modulo this, so that float32 holds their sum over 4,096 ranks exactly."""
_GRACE_S: Final = 3.0
"""Ranks that lose another notice it within this time of each other."""


class RankLost(LaughstoreError):
    """Another rank died, hangs or is somewhere else."""


class Ranks:
    """All ranks, seen from one of them. A context manager: they meet when it is entered.

    Args:
        place: of this process.
        interruptible: knows which signal this process got.
    """

    def __init__(
        self,
        place: Place = ALONE,
        interruptible: Interruptible | None = None,
    ) -> None:
        self.rank, self.world_size = place.rank, place.world_size
        self.local_world_size = place.local_world_size
        self._place = place
        self.interruptible = interruptible or Interruptible()
        """What signals of this process go through."""
        self._store: dist.PrefixStore | None = None  # pyright: ignore[reportPrivateImportUsage]
        self._all_attempts: dist.TCPStore | None = None  # pyright: ignore[reportPrivateImportUsage]
        self._agreed: int | None = None
        self._meanwhile: Callable[[], object] = _nothing
        """What this rank does while others come to a step. It raises nothing."""

    @property
    def told(self) -> int | None:
        """The signal that waits on this rank until all have agreed to end."""
        return self.interruptible.pending

    @property
    def _signals(self) -> list[bool]:
        return [self.told == signal.SIGINT, self.told == signal.SIGTERM]

    def sum_step(self, values: Tensor, step: int) -> None:
        """Sum a step's numbers over ranks, in place, and learn of signals; see `end_if_told`.

        Args:
            values: f32[n + TOLD] on the CPU; the last ones are filled here.
            step: that is made, from 1.

        Raises:
            RankLost: another rank did not come, or is at another step.
        """
        if self.world_size == 1:
            return
        values[-TOLD:] = torch.tensor([step % _STEPS, *self._signals], dtype=torch.float32)
        doing, begun = f"step {step}", []
        self._together(doing, lambda: begun.append(dist.all_reduce(values, async_op=True)))
        self._meanwhile()
        self._together(doing, begun[0].wait)
        found = values[-TOLD:].tolist()
        if found[0] != step % _STEPS * self.world_size:
            raise RankLost(
                f"rank {self.rank} is at step {step}, and another one is not: they no longer train"
                " one model; go on from the last checkpoint: --resume"
            )
        self._agree_on(found[1:])

    @contextmanager
    def made_meanwhile[Item](self, items: Iterator[Item]) -> Iterator[Iterator[Item]]:
        """Hand on items, each made while the others come to the step before, if there are others.

        It may be made although nobody will ask for it. What making it raises is raised in its
        place: the step before is made.
        """
        ahead = OneAhead(items)
        self._meanwhile = ahead.make
        try:
            yield ahead
        finally:
            self._meanwhile = _nothing

    def agree(self, doing: str) -> None:
        """End on all ranks when one of them got a signal; else wait until all are here.

        Raises:
            KeyboardInterrupt, SystemExit: one did.
            RankLost: another rank did not come.
        """
        if self.world_size == 1:
            return
        values = torch.tensor(self._signals, dtype=torch.float32)
        self._together(doing, lambda: dist.all_reduce(values))
        self._agree_on(values.tolist())
        self.end_if_told()

    def end_if_told(self) -> None:
        """Raise the signal that the last `sum_step` told of, if any did."""
        if self._agreed is not None:
            self.interruptible.end(self._agreed)

    def first[T](self, make: Callable[[], T], doing: str) -> T | None:
        """Return what `make` returns on the first rank, and None on the others.

        An error of this package that it raises there is raised on all.
        """
        if self.world_size == 1:
            return make()
        value, raised = None, b""
        if self.rank == 0:
            try:
                value = make()
            except LaughstoreError as error:
                raised = json.dumps([type(error).__name__, str(error)]).encode()
        told = self._broadcast(raised, doing)
        if told:
            name, text = json.loads(told)
            raise getattr(errors, name, LaughstoreError)(text)
        return value

    def share(self, make: Callable[[], bytes], doing: str) -> bytes:
        """Return, on all ranks, what `make` returns on the first; errors as `first`."""
        value = self.first(make, doing)
        return self._broadcast(value or b"", doing) if self.world_size > 1 else value or b""

    def decide[T](self, make: Callable[[], T], doing: str) -> T:
        """Return, on all ranks, the JSON value that `make` returns on the first; see `first`."""
        return json.loads(self.share(lambda: json.dumps(make()).encode(), doing))

    def gather(self, data: bytes, doing: str) -> list[bytes]:
        """Return what every rank gave, in the order of ranks."""
        if self.world_size == 1:
            return [data]
        counts = self.gather_rows(np.array([len(data)], np.float64), [1] * self.world_size, doing)
        rows = self.gather_rows(
            np.frombuffer(data, np.uint8), [int(count) for count in counts], doing
        )
        ends = np.cumsum(counts.astype(np.int64))[:-1]
        return [part.tobytes() for part in np.split(rows, ends)]

    def gather_rows[T: np.generic](
        self, rows: NDArray[T], counts: Sequence[int], doing: str
    ) -> NDArray[T]:
        """Return the rows of all ranks one behind the other.

        Args:
            rows: [counts[rank]] of this rank.
            counts: rows of each rank.
            doing: what for, for messages.
        """
        if self.world_size == 1:
            return rows
        padded = np.zeros(max(*counts, 1), rows.dtype)
        padded[: len(rows)] = rows
        parts = [torch.from_numpy(np.empty_like(padded)) for _ in counts]
        self._together(doing, lambda: dist.all_gather(parts, torch.from_numpy(padded)))
        return np.concatenate([part.numpy()[:n] for part, n in zip(parts, counts, strict=True)])

    def num_with(self, name: str, doing: str) -> int:
        """Return how many ranks give the same name as this one, itself among them."""
        return self.gather(name.encode(), doing).count(name.encode())

    def keep_in_mind(self, name: str) -> None:
        """Let later attempts of the same launch by torchrun `remember` this."""
        if self._all_attempts is not None:
            self._all_attempts.set(name, "")

    def remember(self, name: str) -> bool:
        """Whether an attempt of this launch has kept this in mind."""
        return self._all_attempts is not None and self._all_attempts.check([name])

    def part(self, number: int, rank: int | None = None) -> range:
        """Return a rank's share (default: this one's) of so many things: neighbours."""
        rank = self.rank if rank is None else rank
        return range(rank * number // self.world_size, (rank + 1) * number // self.world_size)

    def _agree_on(self, found: Sequence[float]) -> None:
        interrupted, terminated = found
        self._agreed = signal.SIGTERM if terminated else signal.SIGINT if interrupted else None

    def _broadcast(self, data: bytes, doing: str) -> bytes:
        """Bytes of the first rank, on all."""
        size = torch.tensor([len(data)])
        self._together(doing, lambda: dist.broadcast(size, 0))
        payload = torch.empty(int(size), dtype=torch.uint8)
        if self.rank == 0:
            payload = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else payload
        if len(payload):
            self._together(doing, lambda: dist.broadcast(payload, 0))
        return payload.numpy().tobytes()

    def _together(self, doing: str, call: Callable[[], object]) -> None:
        """Make a call that all ranks make.

        Raises:
            RankLost: it failed, or took longer than ranks wait.
        """
        started_s = time.monotonic()
        what = f"rank {self.rank} waits at {doing} for others that do not come"
        try:
            with self.interruptible.waits.waiting(what):
                call()
        except RuntimeError as error:
            raise self._lost(doing, time.monotonic() - started_s, error) from error

    def _lost(self, doing: str, waited_s: float, error: RuntimeError) -> RankLost:
        """The error that names who did not come. Those who did say so in the store."""
        reason = " ".join(str(error).split("\n", 1)[0].split())
        if self._store is None:
            return RankLost(
                f"rank {self.rank} does not reach the place where the ranks meet,"
                f" {self._place.host} port {self._place.port} ({reason}); see to it that this port"
                " is free on that host and open to the others, and go on with --resume"
            )
        came: set[int] = {self.rank}
        thread = threading.Thread(
            target=self._roll_call, args=(self._store, doing, came), daemon=True
        )
        thread.start()
        thread.join(2 * _GRACE_S)  # its keeper may be the one who hangs
        missing = sorted(set(range(self.world_size)) - came)
        if not missing:
            return RankLost(f"rank {self.rank}: the ranks lost each other at {doing} ({reason})")
        return self._missing(missing, doing, waited_s)

    def _missing(self, ranks: Sequence[int], doing: str, waited_s: float) -> RankLost:
        names = ", ".join(str(rank) for rank in ranks)
        who = f"rank {names}" if len(ranks) == 1 else f"ranks {names}"
        return RankLost(
            f"{who} of {self.world_size} did not come to {doing}: rank {self.rank} has waited"
            f" {waited_s:.0f} s (at most {self._place.timeout_s:g}: --rank-timeout-s): ended,"
            " with an error of its own, or hanging; go on from the last checkpoint: --resume"
        )

    def _roll_call(self, store: Store, doing: str, came: set[int]) -> None:
        until_s = time.monotonic() + _GRACE_S
        try:
            store.set(f"{doing}/{self.rank}", "here")
            while len(came) < self.world_size and time.monotonic() < until_s:
                for rank in set(range(self.world_size)) - came:
                    if store.check([f"{doing}/{rank}"]):
                        came.add(rank)
                time.sleep(0.05)
        except RuntimeError:  # who kept it has ended
            came.discard(0)

    def __enter__(self) -> Self:
        if self.world_size > 1:
            if dist.is_initialized():
                raise ConfigError(
                    "this process is in a group of torch.distributed already, and ranks meet in one"
                    " of their own; end it before: torch.distributed.destroy_process_group()"
                )
            self._together("the start", self._join)
        return self

    def _join(self) -> None:
        place, timeout = self._place, timedelta(seconds=self._place.timeout_s)
        store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
            place.host,
            place.port,
            place.world_size,
            is_master=place.keeps_store,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=place.listener,
        )
        self._all_attempts = store
        try:
            name = meet(store, self.rank, self.world_size, timeout_s=place.timeout_s)
        except NotMetError as error:
            raise self._missing(error.ranks, "the start", place.timeout_s) from None
        self._store = dist.PrefixStore(  # pyright: ignore[reportPrivateImportUsage]
            name, store
        )
        with _no_output():
            dist.init_process_group(
                "gloo",
                store=self._store,
                rank=place.rank,
                world_size=place.world_size,
                timeout=timeout,
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # One that is alone has met nobody: a group that is there is somebody else's.
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _nothing() -> None:
    """Do nothing."""


@contextmanager
def _no_output() -> Iterator[None]:
    """Keep what gloo prints, each time it has connected, out of the results on stdout."""
    sys.stdout.flush()
    ours, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(ours, 1)
        os.close(ours)
        os.close(nowhere)
