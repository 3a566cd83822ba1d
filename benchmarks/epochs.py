"""Epochs as contestants: of our stream, and of somebody else's loader."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.streaming.choices import Verify
from train.streaming.stream import FrameStream

from .consuming import Consumer, check_claimed, check_once
from .data import FRAME_BYTES, SPLIT, BenchData
from .warmth import read_files, touch_frames


class StreamEpochs:
    """Epochs of one FrameStream, or (`reopen`) the first epoch of a new one each time."""

    def __init__(
        self,
        data: BenchData,
        batch: int,
        verify: Verify,
        *,
        reopen: bool = False,
        drops: bool = True,
        threads: int = 1,
    ) -> None:
        self._data, self._batch, self._reopen, self._threads = data, batch, reopen, threads
        self._verify: Verify = verify
        self._epoch = -1
        self._frames: list[Tensor] = []
        self._consumer = Consumer(drops=drops)
        self._stream = self._open()
        if self._stream.selection.num_rows != data.num_frames:
            raise AssertionError("the label leaves frames out; contestants would differ")

    def before(self) -> None:
        """Put frames in memory; open the stream anew if each run is to be a first epoch."""
        if self._reopen:
            read_files(self._data.shards)
            self._stream.close()
            self._stream = self._open()
        else:
            self._stream.source.prepare(np.arange(self._data.index.num_blocks))
            touch_frames(self._stream.source.gather, self._data.frame_ids)
        self._epoch += 1

    def run(self) -> float:
        """Deliver an epoch. Returns its bytes."""
        self._stream.set_epoch(self._epoch)
        self._frames = []
        self._consumer.take(self._batches())
        return float(self._data.num_frames * FRAME_BYTES)

    def check(self) -> None:
        """Every frame came once, and was the one that its batch said."""
        said = torch.cat(self._frames).numpy()
        real = said >= 0
        if not np.array_equal(self._consumer.ids()[real], said[real]):
            raise AssertionError("FrameStream delivered other frames than it said")
        check_once(said[real], self._data)

    def ids_of_batches(self) -> list[NDArray[np.int64]]:
        """Return the ids of the last epoch, batch by batch, without rows of padding."""
        return [part[part >= 0] for part in (said.numpy() for said in self._frames)]

    def order(self) -> NDArray[np.int64]:
        """Return i64[N]: global ids of the frames in the order of epoch 0."""
        with self._open() as stream:
            said = torch.cat([batch.frame for batch in stream]).numpy()
        return said[said >= 0]

    def close(self) -> None:
        """Let go of the mapped files."""
        self._stream.close()

    def _batches(self) -> Iterator[Tensor]:
        for batch in self._stream:
            self._frames.append(batch.frame)
            yield batch.x.view(torch.int16)
            del batch

    def _open(self) -> FrameStream:
        # The default, and the trainer's way: memory of batches that were dropped is used again.
        return FrameStream(
            self._data.index,
            SPLIT,
            global_batch=self._batch,
            verify=self._verify,
            copy=False,
            threads=self._threads,
        )


class RivalEpochs:
    """Epochs of somebody else's loader.

    Args:
        data: whose frames it delivers.
        epoch: makes the batches of the epoch of a number.
        claimed: returns the ids of the frames that this epoch delivers; None: all.
    """

    def __init__(
        self,
        data: BenchData,
        epoch: Callable[[int], Iterator[Tensor]],
        claimed: Callable[[int], NDArray[np.int64]] | None = None,
    ) -> None:
        self._data, self._make, self._claimed = data, epoch, claimed
        self._consumer = Consumer()
        self.next_epoch = 0

    def run(self) -> float:
        """Deliver an epoch. Returns its bytes."""
        self._consumer.take(self._make(self.next_epoch))
        self.next_epoch += 1
        return float(self._consumer.num_rows * FRAME_BYTES)

    def ids(self) -> NDArray[np.int64]:
        """Return i64[N]: which frames the last epoch delivered, in their order."""
        return self._consumer.ids()

    def ids_of_batches(self) -> list[NDArray[np.int64]]:
        """Return the same, batch by batch."""
        return self._consumer.ids_of_batches()

    def check(self) -> None:
        """Every frame came once, or every frame that was claimed, and no other."""
        if self._claimed is None:
            check_once(self.ids(), self._data)
        else:
            check_claimed(self.ids(), self._claimed(self.next_epoch - 1))
