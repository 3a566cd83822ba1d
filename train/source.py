"""Frames of a split as torch tensors: the one place where mapped memory is read.

Blocks must be prepared (paged in, and checked if asked) before frames of them are gathered: that is
what turns a cut file or a flipped bit into an error instead of a crash or a wrong number.
"""

from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore.index import Index
from laughstore.rows import open_rows

from .config import Verify


class FrameSource:
    """The frames of one split, mapped. A context manager.

    Args:
        index: of the shards.
        split: one of the index's.
        verify: when checksums are computed.

    Raises:
        ConfigError, IncompleteStore, CorruptData: as `laughstore.rows.open_rows`.
    """

    def __init__(self, index: Index, split: str, *, verify: Verify = "first") -> None:
        self._rows = open_rows(index, split)
        self._verify: Verify = verify
        self.dim = index.dim
        self.block_frames = index.block_frames
        # DLPack, because torch.from_numpy warns of read-only memory; nothing here writes to it.
        self._matrix: Tensor = torch.from_dlpack(self._rows.matrix.view(np.int16))

    def prepare(self, blocks: NDArray[np.int64]) -> None:
        """Make frames of these blocks (i64[K], global numbers) ready to be gathered. Thread safe.

        Raises:
            CorruptData: a block was altered or cut; the message names shard and sample.
        """
        self._rows.prepare(blocks, verify=self._verify == "always")
        if self._verify == "first":
            self._rows.prepare_once(blocks)

    def gather(self, frames: NDArray[np.int64], out: Tensor) -> None:
        """Copy frames into rows of a tensor.

        Args:
            frames: i64[N] global frame ids of prepared blocks; negative ids are pad rows.
            out: int16[N, D], the bits of bfloat16; pad rows become zeros.
        """
        pads = np.flatnonzero(frames < 0)
        if len(pads) == len(frames):
            out.zero_()
            return
        if len(pads):
            # One gather for all rows is quicker than a gather of some: pads copy any real row.
            frames = frames.copy()
            frames[pads] = frames.max()
        rows = torch.from_numpy(self._rows.row_numbers(frames))
        torch.index_select(self._matrix, 0, rows, out=out)
        if len(pads):
            out[torch.from_numpy(pads)] = 0

    def close(self) -> None:
        """Let go of the mapped files."""
        self._matrix = torch.empty(0, self.dim, dtype=torch.int16)
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
