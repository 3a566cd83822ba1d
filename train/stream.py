"""The batch stream: every frame of a split that takes part, exactly once an epoch, in plan order.

Enters: a shards folder, a split, a label, a filter and the integers of the plan. Leaves: batches of
features and targets. The stream is a pure function of what its identity holds; paths, ranks and
checksum settings only decide who reads and when.
"""

import hashlib
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from laughstore.errors import ConfigError
from laughstore.index import Index
from laughstore.labels import LabelSpec
from laughstore.reading.shard_cache import ShardCache
from laughstore.sealed import canonical_json
from laughstore.store import open_shards

from .config import Verify
from .plan import Plan, check_batching, check_key, rank_share
from .readahead import ReadAhead
from .selection import FrameFilter, select
from .source import FrameSource

STATE_FORMAT: Final = "laughstore-stream"
STATE_VERSION: Final = 1
RING_BUFFERS: Final = 3
"""A batch's features are overwritten when the third batch after it is made."""
_LABEL: Final = LabelSpec()
_FILTER: Final = FrameFilter()


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """One step's rows of one rank: B = global_batch / world_size."""

    x: Tensor
    """bf16[B, D] features; zeros in pad rows."""
    y: Tensor
    """f32[B] targets; 0 in pad rows."""
    weight: Tensor
    """f32[B]: 1, or 0 in pad rows."""
    frame: Tensor
    """i64[B] global frame ids (see `laughstore.index`); -1 in pad rows."""
    epoch: int
    """From 0."""
    step: int
    """In the epoch, from 0."""
    num_real: int
    """Rows of the step, over all ranks, that are no pad rows."""

    def __repr__(self) -> str:
        rows, dim = self.x.shape
        return (
            f"Batch(epoch {self.epoch}, step {self.step}, x bf16[{rows}, {dim}],"
            f" {self.num_real} real over all ranks)"
        )


class FrameStream(IterableDataset[Batch]):
    """Stream the frames of a split in batches, each in memory of its own.

    With `copy=False`, features stand in a ring of RING_BUFFERS buffers instead, which is faster:
    a batch's `x` holds until the third batch after it is made, so it must be used at once and never
    collected.

    Each iteration yields what is left of the current epoch when its first batch is asked for: all
    of it, or, for the first iteration after `load_state_dict`, what the saved batch had not
    reached. Set another epoch for another order. A context manager; leaving it closes the files.

    Args:
        shards: a store, its shards folder (a path or a URL), or its index.
        split: one of the index's.
        label: which rows are positive, negative or ignored.
        frames: which rows may take part.
        global_batch: rows of a step over all ranks; a multiple of lanes.
        lanes: places of the data set that a batch mixes; a multiple of world_size.
        window_blocks: blocks of a lane whose rows are shuffled together.
        seed: of the order.
        rank: of this process.
        world_size: number of ranks that share each step.
        verify: when checksums of blocks are checked.
        copy: yield features in fresh memory, not in the ring.
        pin_memory: page-locked buffers, for asynchronous copies to a GPU.
        cache: keeps what is fetched of remote shards on a disk of this machine.

    Raises:
        NotFound, CorruptData: as `laughstore.open_shards`.
        ConfigError: a setting cannot work, or no row is left.
    """

    def __init__(
        self,
        shards: Path | str | Index,
        split: str,
        *,
        label: LabelSpec = _LABEL,
        frames: FrameFilter = _FILTER,
        global_batch: int = 4096,
        lanes: int = 64,
        window_blocks: int = 8,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        verify: Verify = "first",
        copy: bool = True,
        pin_memory: bool = False,
        cache: ShardCache | None = None,
    ) -> None:
        check_batching(global_batch, lanes, window_blocks)
        check_key(seed, 0)
        self._share = len(rank_share(lanes, rank, world_size)) * (global_batch // lanes)
        index = shards if isinstance(shards, Index) else open_shards(shards)
        self.selection = select(index, split, label, frames)
        self.rank, self.world_size = rank, world_size
        self.global_batch, self.lanes, self.window_blocks = global_batch, lanes, window_blocks
        self.seed = seed
        self.copy, self.pin_memory = copy, pin_memory
        self._source = FrameSource(index, split, verify=verify, cache=cache)
        self._identity: dict[str, Any] = {  # Any: JSON values
            "features": self.selection.features_digest,
            "targets": self.selection.targets_digest,
            "label": label.identity(),
            "frames": frames.identity(),
            "seed": seed,
            "global_batch": global_batch,
            "lanes": lanes,
            "window_blocks": window_blocks,
            "mix": "windows",
        }
        self._ring = deque[Tensor]()
        self._epoch = 0
        self._start = 0
        self._plan = self._make_plan()

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration yields."""
        return self._epoch

    @property
    def num_steps(self) -> int:
        """Steps of a whole epoch, on every rank."""
        return self._plan.num_steps

    @property
    def source(self) -> FrameSource:
        """Where the frames are read from; closed with the stream."""
        return self._source

    def __len__(self) -> int:
        """Batches that the next iteration yields."""
        return self._plan.num_steps - self._start

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; another one than the current begins at its first step.

        Raises:
            ConfigError: the epoch is negative.
        """
        check_key(self.seed, epoch)
        if epoch != self._epoch:
            self._epoch, self._start = epoch, 0
            self._plan = self._make_plan()

    def __iter__(self) -> Generator[Batch]:
        """Yield the batches that are left of the epoch.

        Raises:
            ConfigError: called in a worker of a DataLoader.
            CorruptData: a block was altered or cut.
            ValueError: the stream was closed.
        """
        if get_worker_info() is not None:
            raise ConfigError(
                "FrameStream reads ahead in a thread of its own: use"
                " DataLoader(stream, batch_size=None, num_workers=0), or iterate over it"
            )
        return self._batches()

    def _batches(self) -> Generator[Batch]:
        # Runs at the first `next`: an iterator that is never used takes no position away.
        plan, epoch, start, self._start = self._plan, self._epoch, self._start, 0
        selection, source = self.selection, self._source
        topology = {"rank": self.rank, "world_size": self.world_size}
        reads = plan.reads(start, **topology)
        blocks = selection.blocks[reads.block]
        # One round of windows: while one is read, the next is prepared.
        max_ahead = self.lanes // self.world_size * self.window_blocks
        # An iteration that begins while another still runs gets buffers of its own.
        ring, self._ring = self._ring, deque[Tensor]()
        try:
            with ReadAhead(
                source.prepare,
                reads.step,
                blocks,
                max_ahead=max_ahead,
                release=source.release,
                last_step=reads.last_step,
                blocks_a_call=source.blocks_a_call,
            ) as ahead:
                for step, positions in enumerate(plan.batches(start, **topology), start):
                    ahead.wait(step)
                    full = len(ring) == RING_BUFFERS
                    bits = ring.popleft() if full else self._buffer()
                    if not self.copy:
                        ring.append(bits)
                    real = positions >= 0
                    frames = np.where(real, selection.frames[positions], -1)
                    y = np.where(real, selection.targets[positions], 0).astype(np.float32)
                    source.gather(frames, bits)
                    yield Batch(
                        x=bits.view(torch.bfloat16),
                        y=torch.from_numpy(y),
                        weight=torch.from_numpy(real.astype(np.float32)),
                        frame=torch.from_numpy(frames),
                        epoch=epoch,
                        step=step,
                        num_real=plan.num_real(step),
                    )
        finally:
            self._ring = ring

    def _buffer(self) -> Tensor:
        shape = (self._share, self._source.dim)
        return torch.empty(shape, dtype=torch.int16, pin_memory=self.pin_memory)

    def _make_plan(self) -> Plan:
        return Plan(
            self.selection.block_counts,
            seed=self.seed,
            epoch=self._epoch,
            global_batch=self.global_batch,
            lanes=self.lanes,
            window_blocks=self.window_blocks,
        )

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that decides which rows come when, with which targets."""
        return hashlib.sha256(canonical_json(self._identity)).hexdigest()

    def state_dict(self, after: Batch | None = None) -> dict[str, Any]:  # Any: JSON values
        """Return where the stream stands, as a JSON object.

        Args:
            after: the last batch that was used, of whatever epoch; None for the place where the
                next iteration begins.
        """
        here = (self._epoch, self._start) if after is None else (after.epoch, after.step + 1)
        return {
            "format": STATE_FORMAT,
            "version": STATE_VERSION,
            "epoch": here[0],
            "step": here[1],
            "identity": self.identity,
            "fields": self._identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # Any: JSON values
        """Continue behind the batch of a saved state.

        Raises:
            ConfigError: the state is of a stream with another identity; the message names the
                fields that differ.
        """
        if (state.get("format"), state.get("version")) != (STATE_FORMAT, STATE_VERSION):
            raise ConfigError(
                f"not a state of this release's FrameStream (format {state.get('format')!r},"
                f" version {state.get('version')!r}); give what state_dict() returned"
            )
        if state["identity"] != self.identity:
            theirs = state["fields"]
            differ = [key for key, mine in self._identity.items() if theirs.get(key) != mine]
            raise ConfigError(
                "the saved stream cannot go on here, because it yields other rows:"
                f" {', '.join(_difference(name, theirs, self._identity) for name in differ)};"
                " use the settings and data it was saved with"
            )
        self.set_epoch(state["epoch"])
        if not 0 <= state["step"] <= self.num_steps:
            raise ConfigError(f"the saved step is {state['step']} of {self.num_steps}")
        self._start = state["step"]

    def close(self) -> None:
        """Let go of the mapped files."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"FrameStream({self.selection!r}, bf16[{self._share}, {self._source.dim}] a batch,"
            f" {self.num_steps} steps an epoch)"
        )


def _difference(name: str, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    return f"{name} was {theirs.get(name)!r} and is {mine[name]!r}"
