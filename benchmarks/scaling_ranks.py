"""Ranks that read one store side by side: processes that wait between epochs.

The clock runs from telling all of them to begin until the last one has its epoch. That ranks have
equally many steps, and that together they have every frame once, is checked off the clock.
"""

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from laughstore.closing import ClosedAtExit

from .consuming import UNITS
from .measure import Contestant
from .process_memory import fresh_processes
from .scaling_epochs import Epochs, Setting

_WAIT_S = 120.0
_EPOCH, _DELIVERED, _END = "epoch", "delivered", "end"


class ReadingRanks(ClosedAtExit):
    """Ranks of one stream, each a fresh process. A context manager.

    Args:
        store: that they read.
        recordings: only those whose id matches this shell pattern.
        num_ranks: processes.
    """

    def __init__(self, store: Path, recordings: str | None, num_ranks: int) -> None:
        context = fresh_processes()
        self.num_ranks = num_ranks
        self._ends: list[Connection] = []
        self._processes = []
        for rank in range(num_ranks):
            ours, theirs = context.Pipe()
            setting = Setting(recordings, rank=rank, world_size=num_ranks)
            process = context.Process(target=_work, args=(theirs, store, setting), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def run(self) -> float:
        """Have all ranks take an epoch. Returns the bytes of their frames."""
        return float(sum(self._ask(_EPOCH)))

    def check(self) -> None:
        """Raise unless steps were equal and every frame came exactly once, over all ranks."""
        answers = self._ask(_DELIVERED)
        steps = {num_steps for num_steps, _, _ in answers}
        if len(steps) != 1:
            raise AssertionError(f"ranks made {sorted(steps)} steps")
        delivered = np.concatenate([frames for _, frames, _ in answers])
        if not np.array_equal(np.sort(delivered), answers[0][2]):
            raise AssertionError("not every frame was delivered exactly once over all ranks")

    def contestant(self, name: str, limit: Contestant) -> Contestant:
        """Return these ranks' epochs as a contestant."""
        return Contestant(name, self.run, UNITS, str(self.num_ranks), limit, check=self.check)

    def _ask(self, what: str) -> list[Any]:  # Any: bytes, or what `check` compares
        for end in self._ends:
            end.send(what)
        return [end.recv() for end in self._ends]

    def close(self) -> None:
        """End the processes."""
        for end, process in zip(self._ends, self._processes, strict=True):
            if process.is_alive():
                end.send(_END)
        for process in self._processes:
            process.join(_WAIT_S)


def _work(end: Connection, store: Path, setting: Setting) -> None:
    torch.set_num_threads(1)
    epochs = Epochs(store, setting)
    while (asked := end.recv()) != _END:
        if asked == _EPOCH:
            end.send(epochs.run())
        else:
            end.send((epochs.num_steps, epochs.delivered(), epochs.frames))
    epochs.close()
