"""Processes that train together and wait between epochs, so that rounds cost them no start."""

import socket
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from train.distributed.place import Place

from .process_memory import fresh_processes
from .training import opened

_WAIT_S = 120.0
_EPOCH, _WEIGHTS, _END = "epoch", "weights", "end"


class RankProcesses:
    """Ranks of one training, each a fresh process. A context manager.

    Args:
        store: whose frames they train on.
        out: folder of the run, which does not exist.
        num_ranks: processes.
        threads: that torch may use in each.
    """

    def __init__(self, store: Path, out: Path, num_ranks: int, threads: int) -> None:
        context = fresh_processes()
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.num_ranks, self.num_epochs = num_ranks, 0
        self._ends: list[Connection] = []
        self._processes = []
        for rank in range(num_ranks):
            place = Place(
                rank=rank,
                local_rank=rank,
                world_size=num_ranks,
                port=port,
                keeps_store=rank == 0,
                timeout_s=_WAIT_S,
            )
            ours, theirs = context.Pipe()
            arguments = (theirs, store, out, place, threads)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def train_epoch(self) -> int:
        """Train one epoch. Returns the rows of all ranks."""
        self.num_epochs += 1
        return self._ask(_EPOCH)[0]

    def weights(self) -> NDArray[np.float32]:
        """Return f4[D], which all ranks share."""
        first, *others = self._ask(_WEIGHTS)
        for other in others:
            if not np.array_equal(first, other):
                raise AssertionError("ranks hold different weights")
        return first

    def _ask(self, what: str) -> list[Any]:  # Any: numbers of rows, or weights
        for end in self._ends:
            end.send(what)
        return [end.recv() for end in self._ends]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end, process in zip(self._ends, self._processes, strict=True):
            if process.is_alive():
                end.send(_END)
        for process in self._processes:
            process.join(_WAIT_S)


def _work(end: Connection, store: Path, out: Path, place: Place, threads: int) -> None:
    torch.set_num_threads(threads)
    with opened(store, out, "cpu", place) as training:
        while (asked := end.recv()) != _END:
            end.send(training.train_epoch() if asked == _EPOCH else training.weights())
            if asked == _EPOCH:
                training.check_rows()
