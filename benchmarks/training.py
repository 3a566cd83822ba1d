"""A trainer over the frames, driven an epoch or a step at a time, and what it is held against."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from laughstore import open_shards
from train.config import TrainConfig
from train.distributed.place import ALONE, Place
from train.distributed.ranks import Ranks
from train.moments import Standardiser
from train.runs.records import NoRecords, Records
from train.runs.run import Run
from train.streaming.batch import Batch
from train.streaming.selection import select
from train.streaming.source import FrameSource
from train.streaming.stream import FrameStream
from train.threads import threads_for
from train.training.fitting import Parts
from train.training.progress import silent
from train.training.trainer import Trainer

from .data import DIM, SPLIT

_IN_MEMORY = 4
"""Batches of the step alone: 128 MiB, far more than a processor's cache."""
_IN_CACHE = 256
"""Rows, of 4 MiB as float32."""
_TOLERANCE = 1e-5
"""Of what float32 keeps of a sum of thousands of numbers, in whatever order."""


class Training:
    """The linear head's trainer as `laughstore train` makes it, but for validation.

    Args:
        store: whose split `train` it trains on.
        out: of its run, a folder that does not exist.
        device: to compute on.
        ranks: that train together.
        place: of this process among them.
    """

    def __init__(
        self, store: Path, out: Path, device: torch.device, ranks: Ranks, place: Place
    ) -> None:
        config = TrainConfig(shards=store, out=out, device=str(device))
        index = open_shards(store)
        self.stream = FrameStream(
            index,
            SPLIT,
            global_batch=config.global_batch,
            verify=config.verify,
            rank=place.rank,
            world_size=place.world_size,
            pin_memory=device.type == "cuda",
        )
        self._source = FrameSource(index, SPLIT, verify=config.verify)
        # Checkpoints are of time, and rounds have pauses: none within an epoch.
        records = NoRecords()
        if place.rank == 0:
            records = Records(Run.create(config, index, {}), save_every_s=float("inf"))
        self._records = records
        validation = select(index, SPLIT, config.label, config.filter)
        parts = Parts(config, self.stream, validation, self._source, device, records, ranks, silent)
        self.trainer = Trainer(parts, Standardiser.none(DIM))
        self.num_rows = self.stream.selection.num_rows
        self._device, self._is_cuda = device, device.type == "cuda"
        self._next_epoch = self._rows = 0

    def train_epoch(self) -> int:
        """Make the steps of one epoch as the trainer does. Returns the rows of all ranks."""
        before = self.trainer.interval.num_rows
        self.trainer._train(self._next_epoch)
        self._next_epoch += 1
        self._wait()
        self._rows = self.trainer.interval.num_rows - before
        return self._rows

    def check_rows(self) -> None:
        """Raise unless the last epoch, trained on or only asked for, had every row."""
        if self._rows != self.num_rows:
            raise AssertionError(f"an epoch had {self._rows} of {self.num_rows} rows")

    def stream_epoch(self) -> int:
        """Only ask for the batches of one epoch. Returns their rows."""
        self.stream.set_epoch(self._next_epoch)
        self._next_epoch += 1
        self._rows = 0
        for batch in self.stream:
            self._rows += batch.num_real
            del batch  # as the trainer does
        return self._rows

    def steps(self, batches: Sequence[Batch]) -> int:
        """Only make the trainer's steps, as many as an epoch has. Returns the rows of an epoch."""
        for number in range(self.stream.num_steps):
            with threads_for(self.trainer.model.num_outputs):
                self.trainer._update(batches[number % len(batches)])
        self._wait()
        return self.num_rows

    def copy(self, batches: Sequence[Batch]) -> int:
        """Only copy batches to the device, as many as an epoch has. Returns the rows of one."""
        for number in range(self.stream.num_steps):
            self.trainer.copies.copy(batches[number % len(batches)])
        self._wait()
        return self.num_rows

    def batches(self) -> list[Batch]:
        """Return the first batches of an epoch, in memory of their own."""
        found: list[Batch] = []
        self.stream.set_epoch(self._next_epoch)
        for batch in islice(self.stream, _IN_MEMORY):
            own = torch.empty(batch.x.shape, dtype=batch.x.dtype, pin_memory=self._is_cuda)
            found.append(replace(batch, x=own.copy_(batch.x)))
            del batch
        self._next_epoch += 1
        return found

    def on_device(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return batches in memory of the device."""
        fields = ("x", "y", "weight")
        return [
            replace(batch, **{name: getattr(batch, name).to(self._device) for name in fields})
            for batch in batches
        ]

    def check_copy(self, batch: Batch) -> None:
        """Raise unless a batch is the same on the device."""
        for mine, theirs in zip(
            self.trainer.copies.copy(batch), (batch.x, batch.y, batch.weight), strict=True
        ):
            if not torch.equal(mine.cpu(), theirs):
                raise AssertionError("the device holds another batch")

    def check_step(self, batch: Batch) -> None:
        """Raise unless the trainer's loss and gradients of a batch are those of the formula."""
        layer = self.trainer.model.head.first
        exact = [value.detach().clone().requires_grad_() for value in layer.parameters()]
        x, y, weight = self.trainer.copies.copy(batch)
        logit = F.linear(x.float(), *exact).squeeze(-1)
        rows = y * F.logsigmoid(logit) + (1 - y) * F.logsigmoid(-logit)
        loss = -(weight * rows).sum() / batch.num_real
        loss.backward()
        mine = [self.trainer._update(batch), *(value.grad for value in layer.parameters())]
        for found, expected in zip(mine, [loss, *(value.grad for value in exact)], strict=True):
            assert found is not None
            assert expected is not None
            if not bool((found - expected).norm() <= _TOLERANCE * expected.norm()):
                raise AssertionError("the trainer's step is not that of the formula")

    def weights(self) -> NDArray[np.float32]:
        """Return f4[D]: of the head, as they are now."""
        return self.trainer.model.head.first.weight.detach().cpu().numpy()[0]

    def close(self) -> None:
        """Let go of all files."""
        self._records.close()
        self.stream.close()
        self._source.close()

    def _wait(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize()


@contextmanager
def opened(store: Path, out: Path, device: str, place: Place = ALONE) -> Iterator[Training]:
    """Yield a trainer, once all ranks have met."""
    with ExitStack() as stack:
        ranks = stack.enter_context(Ranks(place))
        training = Training(store, out, torch.device(device), ranks, place)
        stack.callback(training.close)
        yield training


class BareProducts:
    """What a step cannot do without: rows made float32, times weights, and times answers.

    A few rows at a time, which stay in the cache until both products are made.

    Args:
        x: bf16[B, D], several batches.
    """

    def __init__(self, x: Sequence[Tensor]) -> None:
        self._parts = [item.split(_IN_CACHE) for item in x]
        self._copy = torch.empty(_IN_CACHE, x[0].shape[1])
        self.weight = torch.randn(1, x[0].shape[1]) / 64

    def run(self, times: int) -> int:
        """Do it for so many batches. Returns their rows."""
        num_rows = 0
        for number in range(times):
            self.by_weight = torch.zeros_like(self.weight)
            for part in self._parts[number % len(self._parts)]:
                rows = self._copy[: len(part)]
                rows.copy_(part)
                answers = rows @ self.weight.t()  # of vectors, products took twice as long
                self.by_weight.addmm_(answers.t(), rows)
                num_rows += len(part)
        self._last = self._parts[(times - 1) % len(self._parts)]
        return num_rows

    def check(self) -> None:
        """Raise unless the products of the last batch are those of 64-bit numbers."""
        expected = torch.zeros_like(self.weight, dtype=torch.float64)
        for part in self._last:
            rows = part.double()
            expected += (rows @ self.weight.t().double()).t() @ rows
        if not bool((self.by_weight - expected).norm() <= _TOLERANCE * expected.norm()):
            raise AssertionError("the products of a batch are not those of its rows")
