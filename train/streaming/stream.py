"""The batch stream: every frame of a split that takes part, exactly once an epoch, in plan order.

Enters: a shards folder, a split, a label, a filter and the integers of the plan. Leaves: batches of
features and targets. The stream is a pure function of what its identity holds; paths, ranks,
workers, readers and checksum settings only decide who reads and when.
"""

from collections.abc import Generator, Mapping
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from laughstore.closing import ClosedAtExit
from laughstore.errors import ConfigError
from laughstore.index import Index
from laughstore.labels import LabelSpec
from laughstore.reading.rows import Reader
from laughstore.reading.shard_cache import ShardCache
from laughstore.store import open_shards

from ..plan import Mix, check_batching, check_key, check_mix, rank_share
from .balance import check_can_balance
from .batch import Batch
from .batch_room import BatchRoom
from .buffers import BufferRing, SharedBuffers
from .choices import Preload, Verify
from .in_order import check_threads
from .making import Buffers, batches_of
from .order import Order
from .position import Position
from .preload import DeviceBuffers, Preloading
from .selection import FrameFilter, select
from .sequence_shape import SequenceShape
from .sequences import Sequences
from .skip import read_skipped_blocks, without_blocks
from .source import FrameSource
from .stream_state import identity_of, make_state, read_state, stream_fields

_LABEL: Final = LabelSpec()
_FILTER: Final = FrameFilter()


class FrameStream(ClosedAtExit, IterableDataset[Batch]):
    """Stream the frames of a split in batches.

    A batch keeps its content for as long as it, or any tensor that shares its memory, is referred
    to; memory of batches that were dropped is used again. A loop that drops its batch (`del batch`)
    before it asks for the next gets the same memory each time, which the processor's caches hold:
    up to a quarter faster at 512 rows. (Other memory must not be used by its bare address.)

    Page-locked memory is used again for the third batch after, and a GPU copies from it when it
    comes to it, which may be later: `train.DeviceCopies` waits for that. A loop without it must not
    copy asynchronously (`non_blocking`), or would train on rows of other batches.

    Each iteration yields what is left of the current epoch when its first batch is asked for: all
    of it, or, for the first iteration after `load_state_dict`, what the saved batch had not
    reached. Set another epoch for another order. A context manager; leaving it closes the files.

    `DataLoader(stream, batch_size=None, num_workers=k)` yields the same batches in the same order:
    worker w makes the steps that are w modulo k from the first on. Call `set_epoch` and
    `load_state_dict` before `iter(loader)`; workers that stay (`persistent_workers`) learn of them.
    Each worker reads every window: mapped memory is shared, memory for windows and checksums are
    not. Give `timeout=` to a loader, which else waits for a stuck worker for ever.

    Args:
        shards: a store, its shards folder, a URL of one of them, or an index.
        split: one of the index's.
        label: which rows are positive, negative or ignored. None: every row that `frames` lets
            pass takes part, and its target is 0.
        frames: which rows may take part.
        balance: negatives for each positive row, other ones each epoch; all if None. Only for the
            split `train`.
        global_batch: rows of a step over all ranks; a multiple of lanes.
        lanes: places of the data set that a batch mixes; a multiple of world_size.
        window_blocks: blocks of a lane whose rows are shuffled together. mix="global" does not use
            it for the order, but the identity of the stream holds it all the same.
        seed: of the order.
        rank: of this process.
        world_size: number of ranks that share each step.
        mix: `windows`; or `global`, a permutation of all rows, for splits that fit in memory. It
            takes 8 bytes a row in each process, all blocks of the split in memory where files are
            not mapped, and up to global_batch / world_size blocks must be read before the first
            step.
        verify: when checksums of blocks are checked.
        reader: `map`, `window`, or `auto`: map where that is possible and the split takes less than
            0.6 of the memory.
        copy: yield features in fresh memory, always.
        sequence: yield sequences of this shape instead of rows: all that is [B] in a batch is then
            [b, C + S], rows before a sequence included. global_batch still counts target rows, and
            is a multiple of lanes times S; balance cannot be had.
        threads: that copy frames. 1: the caller's own, when it asks for a batch. More make batches
            ahead of it, one each; a step is then copied while the one before is used. Blocks that
            are fetched then stay in memory for so many steps more. Workers of a DataLoader copy by
            themselves.
        pin_memory: page-locked buffers, for asynchronous copies to a GPU (by `DeviceCopies`); not
            in workers.
        preload: where the rows that take part are loaded, once, checksums checked: `cpu`: memory of
            this process; `gpu`: a GPU, on which each batch is then made, whatever `threads` (`x` is
            there, the rest is not). The batches are the same. Not with workers of a DataLoader.
        preload_to: the GPU; the first one by default. (Any device of torch will do.)
        skip_corrupt: list of blocks to leave out, from `laughstore verify --bad-blocks`.
        cache: keeps what is fetched of remote shards on a disk of this machine.

    Raises:
        NotFound, CorruptData: as `laughstore.open_shards`; or skip_corrupt does not exist.
        ConfigError: a setting cannot work, no row is left, or a batch or rows to preload have no
            room.
    """

    def __init__(
        self,
        shards: str | Path | Index,
        split: str,
        *,
        label: LabelSpec | None = _LABEL,
        frames: FrameFilter = _FILTER,
        balance: float | None = None,
        global_batch: int = 4096,
        lanes: int = 64,
        window_blocks: int = 8,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        mix: Mix = "windows",
        verify: Verify = "first",
        reader: Reader = "auto",
        sequence: SequenceShape | None = None,
        copy: bool = False,
        threads: int = 1,
        pin_memory: bool = False,
        preload: Preload = "none",
        preload_to: torch.device | None = None,
        skip_corrupt: Path | None = None,
        cache: ShardCache | None = None,
    ) -> None:
        check_batching(global_batch, lanes, window_blocks)
        check_key(seed, 0)
        check_mix(mix)
        lane_share = len(rank_share(lanes, rank, world_size))
        index = shards if isinstance(shards, Index) else open_shards(shards)
        # Read now: states name these, and `gc` may collect this generation while the stream runs.
        _ = index.block_crc32c
        if sequence is not None:
            sequence = sequence.of_stream(index.block_frames, global_batch, lanes, balance)
        self.sequence = sequence
        """Shape of the sequences that are yielded; None: rows."""
        rows, length = (1, 1) if sequence is None else (sequence.target_rows, sequence.length)
        self._units = int(global_batch) // rows  # of the plan
        self._share = self._units // lanes * lane_share * length
        self.room = BatchRoom(self._share, index.dim, sequence, on_device=preload == "gpu")
        """Refuses batches that there is no memory for."""
        self.selection = select(index, split, label, frames)
        skipped = read_skipped_blocks(index, split, skip_corrupt)
        self.skipped_blocks = np.array(list(skipped), np.int64)
        """i64[K]: global numbers of the blocks that are left out as corrupt."""
        self.selection = without_blocks(self.selection, self.skipped_blocks)
        if balance is not None:
            check_can_balance(self.selection, balance)
        self._sequences = None if sequence is None else Sequences(self.selection, sequence)
        self.balance = balance
        self.rank, self.world_size = rank, world_size
        # int: numpy's integers are no JSON.
        self.global_batch, self.lanes = int(global_batch), int(lanes)
        self.window_blocks, self.seed = int(window_blocks), int(seed)
        self.mix: Mix = mix
        self.copy, self.pin_memory, self.threads = copy, pin_memory, check_threads(threads)
        read = self.selection if self._sequences is None else self._sequences.rows_read()
        self.preloading = Preloading(read, preload, preload_to)
        """Loads the rows at the first batch, or before."""
        self._source = FrameSource(
            index, split, verify=verify, reader=reader, damaged=bool(skipped), cache=cache
        )
        self._skipped = list(skipped.values())
        self._label, self._filter = label, frames
        self._ring: BufferRing | DeviceBuffers | None = None
        self._position = Position()
        self._order = self._make_order(0)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration yields."""
        return self._position.epoch

    @property
    def num_steps(self) -> int:
        """Steps of a whole epoch, on every rank; the same in each epoch."""
        return self._order.plan.num_steps

    @property
    def source(self) -> FrameSource:
        """Where the frames are read from; closed with the stream."""
        return self._source

    def __len__(self) -> int:
        """Batches that the next iteration yields."""
        return self.num_steps - self._position.start

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; another one than the current begins at its first step.

        Workers of a DataLoader take it at its next `iter(loader)`.

        Raises:
            ConfigError: the epoch is negative.
        """
        check_key(self.seed, epoch)
        if epoch != self.epoch:
            self._position.set(int(epoch), 0)

    def __iter__(self) -> Generator[Batch]:
        """Yield the batches that are left of the epoch; in a worker, those of its steps.

        Raises:
            ConfigError: in a worker of a DataLoader: shared memory is too small for its batches, a
                remote store would be read after a fork, or rows are preloaded.
            CorruptData: a block was altered or cut.
            ValueError: the stream was closed; with `threads`, batches in the making may come first.
        """
        worker = get_worker_info()
        if worker is None:
            return self._here()
        self.preloading.check_workers()
        start = self._position.take_in_worker(worker.seed - worker.id, worker.num_workers)
        return self._in_worker(start + worker.id, worker.num_workers)

    def _here(self) -> Generator[Batch]:
        self.preloading.load(self._source)
        # Runs at the first `next`: an iterator that is never used takes no position away.
        start, number = self._position.take()
        # An iteration that begins while another still runs gets buffers of its own.
        ring, self._ring = self._ring, None
        ring = ring or self.preloading.buffers(self._shape)
        # A device gathers by itself.
        threads = 1 if isinstance(ring, DeviceBuffers) else self.threads
        if ring is None:
            ahead = threads if threads > 1 else 0
            ring = BufferRing(
                self._shape, pin_memory=self.pin_memory, reuse=not self.copy, num_ahead=ahead
            )
        try:
            # Nothing that was yielded may be referred to here: its memory is used again.
            with closing(self._batches(start, 1, ring, threads)) as batches:
                yield from map(partial(self._position.reach, number), batches)
        finally:
            self._ring = ring

    def _in_worker(self, start: int, num_workers: int) -> Generator[Batch]:
        self._source = self._source.for_worker(num_workers)
        buffers = SharedBuffers(self._shape, num_workers)
        yield from self._batches(start, num_workers, buffers, 1)

    def _batches(
        self, start: int, stride: int, buffers: Buffers, num_threads: int
    ) -> Generator[Batch]:
        return batches_of(
            self._order_now(),
            self.selection,
            self._source,
            buffers,
            start,
            rank=self.rank,
            world_size=self.world_size,
            stride=stride,
            # One round of windows: while one is read, the next is prepared.
            max_ahead=self.lanes // self.world_size * self.window_blocks,
            num_threads=num_threads,
            sequences=self._sequences,
        )

    @property
    def _shape(self) -> tuple[int, int]:
        return self._share, self._source.dim

    def _order_now(self) -> Order:
        if self._order.epoch != self.epoch:
            self._order = self._make_order(self.epoch)
        return self._order

    def _make_order(self, epoch: int) -> Order:
        counts = self._sequences or self.selection
        return Order.of(
            counts.block_counts,
            self.selection.targets,
            balance=self.balance,
            seed=self.seed,
            epoch=epoch,
            global_batch=self._units,
            lanes=self.lanes,
            window_blocks=self.window_blocks,
            mix=self.mix,
        )

    def __getstate__(self) -> dict[str, Any]:  # Any: attributes
        # For workers that are spawned: they make their own buffers.
        return vars(self) | {"_ring": None}

    @cached_property
    def _fields(self) -> dict[str, Any]:  # Any: JSON values
        """Fields of the identity. Digests take a tenth of a second: not before they are asked."""
        return stream_fields(
            self.selection,
            label=self._label,
            frames=self._filter,
            balance=self.balance,
            seed=self.seed,
            global_batch=self.global_batch,
            lanes=self.lanes,
            window_blocks=self.window_blocks,
            mix=self.mix,
            skip=self._skipped,
            sequence=self.sequence,
        )

    @cached_property
    def identity(self) -> str:
        """SHA-256 of all that decides which rows come when, with which targets."""
        return identity_of(self._fields)

    def state_dict(self, after: Batch | None = None) -> dict[str, Any]:  # Any: JSON values
        """Return where the stream stands, as a JSON object.

        Args:
            after: the last batch that was used, of whatever epoch. None for the last one that the
                newest iteration of this process has yielded; for where that begins, if it has
                yielded none; for where the next one will, if none was begun since `set_epoch` chose
                another epoch or a state was loaded.

        Raises:
            ConfigError: no batch is given, and workers have read ahead of what was used.
        """
        if after is not None:
            here = (after.epoch, after.step + 1)
        elif self._position.read_by_workers:
            raise ConfigError(
                "workers of a DataLoader have read ahead, so the stream does not know which batch"
                " was used last; give it: state_dict(after=batch)"
            )
        else:
            here = self._position.reached
        return make_state(*here, self._fields, self.identity)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # Any: JSON values
        """Continue behind the batch of a saved state.

        Raises:
            ConfigError: the state is of a stream with another identity; the message names the
                fields that differ.
        """
        epoch, step = read_state(state, self._fields)
        check_key(self.seed, epoch)
        if not 0 <= step <= self.num_steps:
            raise ConfigError(f"the saved step is {step} of {self.num_steps}")
        self._position.set(epoch, step)

    def close(self) -> None:
        """Let go of the mapped files."""
        self._source.close()

    def __repr__(self) -> str:
        rows = self._sequences
        shown = self._share if rows is None else f"{self._share // rows.length}, {rows.length}"
        return (
            f"FrameStream({self.selection!r}, bf16[{shown}, {self._source.dim}] a batch,"
            f" {self.num_steps} steps an epoch)"
        )
