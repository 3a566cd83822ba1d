"""Streams that go on where others stopped: how long to the batch that comes next.

Each run is a new stream that is given a saved state and asked for one batch. The batch is compared,
bit by bit, with the one that a stream yields there which was never stopped.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.streaming.batch import Batch
from train.streaming.stream import FrameStream

from .data import SPLIT
from .large_index import LargeStore
from .measure import Contestant, Unit
from .planning import order_of

_MS = (Unit("ms", 1e3, is_rate=False),)


@dataclass(frozen=True)
class Place:
    """Where a stream goes on: at a step of an epoch, both from 0."""

    epoch: int
    step: int

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.step:,}"


@dataclass(frozen=True)
class _Expected:
    """What comes at a place."""

    state: str
    """Saved after the batch before, as JSON."""
    frame: Tensor
    """i64[B]: which rows."""
    values: tuple[Tensor, ...]
    """Bits of features, targets, weights; none where only the rows are known."""

    def check(self, batches: Sequence[Batch]) -> None:
        """Raise unless these, of one rank after the other, are what comes."""
        found = [(batch.frame, *_values(batch)) for batch in batches]
        joined = [torch.cat(parts) for parts in zip(*found, strict=True)]
        expected = (self.frame, *self.values)
        if not all(map(torch.equal, joined[: len(expected)], expected)):
            raise AssertionError("a stream that went on yields another batch than one that ran on")


class Seeks:
    """Streams over one store that go on at places.

    Args:
        store: whose split `train` is streamed.
        global_batch: rows of a step.
        group: of all results.
        bits: compare features, targets and weights with those of a stream that came to the place by
            itself; else only the rows, with those of a plan that was asked for all steps before.
    """

    def __init__(self, store: Path, global_batch: int, group: str, *, bits: bool) -> None:
        self._store, self._global_batch = store, global_batch
        self._group, self._bits = group, bits
        with self._open() as stream:
            self.num_steps = stream.num_steps
        self.limit = self._contestant("limit: first batch of a new stream", Place(0, 0))

    def places(self) -> list[Place]:
        """Return step 1, the middle of the first epoch, and that of the fourth."""
        middle = self.num_steps // 2
        return [Place(0, 1), Place(0, middle), Place(3, middle)]

    def contestant(self, place: Place, far: int | None = None) -> Contestant:
        """Return a stream that goes on at a place; `far`: steps from the first epoch's on."""
        where = str(place) if far is None else f"step {far:,} of all epochs ({place})"
        return self._contestant(f"first batch of a stream that goes on at {where}", place)

    def of_two(self, place: Place) -> Contestant:
        """Return the first of two ranks, which goes on where one process stopped.

        Afterwards the other one does; both together must give what one process would have had.
        """
        return self._contestant(f"the same on the first of two ranks, {place}", place, 2)

    def _contestant(self, name: str, place: Place, world_size: int = 1) -> Contestant:
        is_new = place == Place(0, 0)
        expected = self._expected_bits(place) if self._bits else self._expected_rows(place)
        opened: list[FrameStream] = []
        batches: list[Batch] = []

        def first(rank: int) -> None:
            stream = self._open(rank, world_size)
            opened.append(stream)
            if not is_new:
                stream.load_state_dict(json.loads(expected.state))
            running = iter(stream)
            batches.append(next(running))
            running.close()

        def run() -> float:
            first(0)
            return 1.0

        def check() -> None:
            for rank in range(1, world_size):
                first(rank)
            expected.check(batches)
            for stream in opened:
                stream.close()
            opened.clear()
            batches.clear()

        limit = None if is_new else self.limit
        return Contestant(name, run, _MS, self._group, limit, check=check)

    def _expected_bits(self, place: Place) -> _Expected:
        with self._open() as stream:
            stream.set_epoch(place.epoch)
            batches = iter(stream)
            state = stream.state_dict()
            for batch in islice(batches, place.step):
                state = stream.state_dict(after=batch) if batch.step == place.step - 1 else state
            batch = next(batches)
            values = tuple(value.clone() for value in _values(batch))
            batches.close()
            return _Expected(json.dumps(state), batch.frame, values)

    def _expected_rows(self, place: Place) -> _Expected:
        with self._open() as stream:
            state = stream.state_dict() | {"epoch": place.epoch, "step": place.step}
            selection = stream.selection
            plan = order_of(
                selection.block_counts,
                selection.targets,
                global_batch=self._global_batch,
                epoch=place.epoch,
            ).plan
            positions = next(islice(plan.batches(), place.step, None))
            frame = torch.from_numpy(selection.frames_of(positions))
            return _Expected(json.dumps(state), frame, ())

    def _open(self, rank: int = 0, world_size: int = 1) -> FrameStream:
        return FrameStream(
            self._store,
            SPLIT,
            global_batch=self._global_batch,
            rank=rank,
            world_size=world_size,
        )


def planned_seeks(store: LargeStore, global_batch: int, steps: Sequence[int]) -> list[Contestant]:
    """Return plans of an epoch of a large index, and the rows of one of its steps.

    No store is there: a plan is made of the numbers of frames. The rows are compared with those of
    a plan that was asked for all steps before.

    Args:
        store: whose blocks are planned.
        global_batch: rows of a step.
        steps: rising; plans from the others on have that from the first on as their limit.
    """
    counts = store.block_frames
    targets = np.zeros(0, np.uint8)  # without balance nobody looks at them
    unbroken = order_of(counts, targets, global_batch=global_batch).plan.batches()
    expected = {
        step: positions
        for step, positions in zip(range(steps[-1] + 1), unbroken, strict=False)
        if step in steps
    }
    got: list[NDArray[np.int64]] = []

    def contestant(step: int, limit: Contestant | None) -> Contestant:
        def run() -> float:
            plan = order_of(counts, targets, global_batch=global_batch).plan
            plan.reads(step)
            got[:] = [next(plan.batches(step))]
            return 1.0

        def check() -> None:
            if not np.array_equal(got.pop(), expected[step]):
                raise AssertionError(f"step {step} has other rows than it has in its turn")

        name = f"{'limit: ' if limit is None else ''}plan of an epoch, from step {step:,} on"
        group = f"{store.num_recordings} recordings, {counts.sum():,} frames"
        return Contestant(name, run, _MS, group, limit, check=check)

    first = contestant(steps[0], None)
    return [first, *(contestant(step, first) for step in steps[1:])]


def _values(batch: Batch) -> tuple[Tensor, ...]:
    return batch.x.view(torch.int16), batch.y, batch.weight
