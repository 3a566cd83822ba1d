"""Which row comes when: the batch stream as a pure function of a few integers. numpy only.

What enters is how many rows of each block take part; what leaves is row numbers. Nothing here knows
files, labels, ranks' processes or tensors.

    position   number of a row among the N rows that take part, blocks in their natural order
    place      number of the same row once blocks are permuted by (seed, epoch)
    lane l     places floor(l * N / L) up to floor((l + 1) * N / L): a block may be cut in two
    piece      the part of one block that lies in one lane
    window     K consecutive pieces of a lane; its rows are permuted by (seed, epoch, l, window)
    step s     rows s * q up to (s + 1) * q of every lane, q = global_batch / L

A rank owns L / world_size neighbouring lanes, so the topology decides who reads a row and never
when it comes. All lanes have the same number of steps: a lane that ends early is filled up with
pad rows (-1). Only the last step holds any.

With `mix="global"` the places are a permutation of all positions by (seed, epoch), and there are
no windows. It takes 8 bytes a row, and every block is needed from the first steps to the last.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError

from .permutation import GLOBAL_PURPOSE, Permutations

Mix = Literal["windows", "global"]
"""Whether rows are permuted within windows of every lane, or all together."""
PAD = -1
"""Position of a row that only fills up the last batch."""
_ROWS_TOGETHER = 256
"""Rows of a lane that are planned in one go."""


@dataclass(frozen=True)
class Reads:
    """The pieces a rank reads, in the order of the step that first needs them."""

    step: NDArray[np.int64]
    """i64[R], not decreasing."""
    block: NDArray[np.int64]
    """i64[R]: number of the block among the counts given to the plan."""
    last_step: NDArray[np.int64]
    """i64[R]: last step that needs the piece."""


class Plan:
    """The order of one epoch.

    Args:
        counts: i64[num_blocks], rows of each block that take part (0 is allowed).
        seed: 0 to 2**64 - 1.
        epoch: 0 to 2**64 - 1.
        global_batch: rows of a step over all ranks, a multiple of `lanes`.
        lanes: L; sets how many places of the data set a batch mixes.
        window_blocks: K; a batch mixes L * K blocks.
        mix: `windows`, or `global`: all rows are permuted together, K is not used.

    Raises:
        ConfigError: a number is out of range, or global_batch is no multiple of lanes.
    """

    def __init__(
        self,
        counts: NDArray[np.int64],
        *,
        seed: int,
        epoch: int,
        global_batch: int,
        lanes: int = 64,
        window_blocks: int = 8,
        mix: Mix = "windows",
    ) -> None:
        check_batching(global_batch, lanes, window_blocks)
        check_key(seed, epoch)
        check_mix(mix)
        self.mix: Mix = mix
        self._counts = counts
        self.num_rows = int(counts.sum())
        self.global_batch = global_batch
        self.lanes = lanes
        self._key = (seed, epoch)
        self._lane_rows = global_batch // lanes
        self._window_pieces = window_blocks

        order = Permutations(self._key).of(len(counts), 0)
        # Blocks without rows would make windows that mix fewer blocks than they should.
        order = order[counts[order] > 0]
        block_places = _starts(counts[order])  # i64[blocks + 1]
        self._lane_places = np.arange(lanes + 1, dtype=np.int64) * self.num_rows // lanes
        edges = np.union1d(block_places, self._lane_places)  # i64[pieces + 1]
        owner = np.searchsorted(block_places, edges[:-1], "right") - 1
        self._piece_places = edges
        self._piece_block = order[owner]
        # Added to a place within the piece, it gives the position.
        first_position = _starts(counts)[self._piece_block]
        self._piece_shift = first_position - block_places[owner]
        self._lane_pieces = np.searchsorted(edges, self._lane_places)  # i64[L + 1]
        longest = int(np.diff(self._lane_places).max())
        self.num_steps = -(-longest // self._lane_rows)

    def num_real(self, step: int) -> int:
        """Return how many rows of a step, over all ranks, are no pad rows."""
        return min(self.global_batch, self.num_rows - step * self.global_batch)

    def batches(
        self, start: int = 0, *, rank: int = 0, world_size: int = 1, stride: int = 1
    ) -> Iterator[NDArray[np.int64]]:
        """Yield a rank's positions of the steps start, start + stride, ...

        Starting anywhere costs a binary search and one window in every lane (`global`: the
        permutation of all rows).

        Yields:
            i64[global_batch / world_size], lane by lane; PAD at the end of lanes that have ended.
        """
        for positions in self.runs(start, rank=rank, world_size=world_size, stride=stride):
            yield from positions

    def runs(
        self, start: int = 0, *, rank: int = 0, world_size: int = 1, stride: int = 1
    ) -> Iterator[NDArray[np.int64]]:
        """Yield what `batches` does, several steps at once: small steps would be all overhead.

        Yields:
            i64[S, global_batch / world_size], S >= 1 changing from one to the next.
        """
        lanes = rank_share(self.lanes, rank, world_size)
        if self.mix == "global":
            for step in range(start, self.num_steps, stride):
                yield self._global_batch(lanes, step)[None]
            return
        permutations = Permutations(self._key)  # of this iteration: others may run beside it
        open_lanes = [_Lane(self, lane, start, permutations) for lane in lanes]
        share = self._lane_rows
        together = max(1, _ROWS_TOGETHER // share)
        for step in range(start, self.num_steps, together):
            num_steps = min(together, self.num_steps - step)
            rows = np.empty((len(lanes), num_steps, share), np.int64)
            for out, lane in zip(rows.reshape(len(lanes), -1), open_lanes, strict=True):
                lane.take(out)
            taken = rows[:, (start - step) % stride :: stride]
            if taken.shape[1]:
                yield taken.swapaxes(0, 1).reshape(taken.shape[1], -1)

    def reads(
        self, start: int = 0, *, rank: int = 0, world_size: int = 1, stride: int = 1
    ) -> Reads:
        """Return which blocks the steps start, start + stride, ... of a rank need, and when."""
        lanes = rank_share(self.lanes, rank, world_size)
        if self.mix == "global":
            block, first_step, last_step = self._global_reads(lanes, start, stride)
        else:
            block, first_step, last_step = self._window_reads(lanes)
        # Only steps of the stride count.
        step = np.maximum(first_step, start)
        step += (start - step) % stride
        last_step = last_step - (last_step - start) % stride
        used = np.flatnonzero(last_step >= step)
        used = used[np.argsort(step[used], kind="stable")]
        return Reads(step[used], block[used], last_step[used])

    def _window_reads(
        self, lanes: range
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (block, first step, last step) of each piece of these lanes, i64[pieces] each."""
        first, last = self._lane_pieces[lanes.start], self._lane_pieces[lanes.stop]
        piece = np.arange(first, last)
        lane = np.searchsorted(self._lane_pieces, piece, "right") - 1
        lane_piece, lane_place = self._lane_pieces[lane], self._lane_places[lane]
        # A window's rows are permuted, so its first step needs all its pieces.
        opening = lane_piece + (piece - lane_piece) // self._window_pieces * self._window_pieces
        closing = np.minimum(opening + self._window_pieces, self._lane_pieces[lane + 1])
        first_step = (self._piece_places[opening] - lane_place) // self._lane_rows
        last_step = (self._piece_places[closing] - 1 - lane_place) // self._lane_rows
        return self._piece_block[piece], first_step, last_step

    def _global_reads(
        self, lanes: range, start: int, stride: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (block, first step, last step) of each block that these steps need, i64 each."""
        places = np.arange(self._lane_places[lanes.start], self._lane_places[lanes.stop])
        lane = np.searchsorted(self._lane_places, places, "right") - 1
        step = (places - self._lane_places[lane]) // self._lane_rows
        used = (step >= start) & ((step - start) % stride == 0)
        step = step[used]
        block = np.searchsorted(_starts(self._counts), self._order[places[used]], "right") - 1
        first_step = np.full(len(self._counts), self.num_steps, np.int64)
        last_step = np.full(len(self._counts), -1, np.int64)
        np.minimum.at(first_step, block, step)
        np.maximum.at(last_step, block, step)
        blocks = np.flatnonzero(last_step >= 0)
        return blocks, first_step[blocks], last_step[blocks]

    def _global_batch(self, lanes: range, step: int) -> NDArray[np.int64]:
        first = self._lane_places[lanes.start : lanes.stop, None]
        end = self._lane_places[lanes.start + 1 : lanes.stop + 1, None]
        places = first + (step * self._lane_rows + np.arange(self._lane_rows))
        real = places < end
        return np.where(real, self._order[np.where(real, places, 0)], PAD).reshape(-1)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """i64[N]: the position that stands at each place of `global`."""
        return Permutations(self._key).of(self.num_rows, GLOBAL_PURPOSE)

    def window(self, lane: int, window: int, permutations: Permutations) -> NDArray[np.int64]:
        """Return the positions of one window of a lane in the order in which they come."""
        pieces = self._window_slice(lane, window)
        edges = self._piece_places[pieces.start : pieces.stop + 1]
        positions = np.arange(edges[0], edges[-1])
        positions += np.repeat(self._piece_shift[pieces], edges[1:] - edges[:-1])
        return positions[permutations.of(len(positions), lane + 1, window)]

    def _window_slice(self, lane: int, window: int) -> slice:
        first = int(self._lane_pieces[lane]) + window * self._window_pieces
        return slice(first, min(first + self._window_pieces, int(self._lane_pieces[lane + 1])))

    def seek(self, lane: int, step: int) -> tuple[int, int]:
        """Return (window, rows of it that earlier steps took) at which a lane's step begins."""
        place = min(
            int(self._lane_places[lane]) + step * self._lane_rows, int(self._lane_places[lane + 1])
        )
        piece = int(np.searchsorted(self._piece_places, place, "right")) - 1
        window = (piece - int(self._lane_pieces[lane])) // self._window_pieces
        opening = self._window_slice(lane, window).start
        return window, place - int(self._piece_places[opening])

    def num_windows(self, lane: int) -> int:
        """Return how many windows a lane has."""
        pieces = int(self._lane_pieces[lane + 1] - self._lane_pieces[lane])
        return -(-pieces // self._window_pieces)


class _Lane:
    """Where one lane stands: the open window and how much of it is taken."""

    def __init__(self, plan: Plan, lane: int, step: int, permutations: Permutations) -> None:
        self._plan, self._lane, self._permutations = plan, lane, permutations
        self._num_windows = plan.num_windows(lane)
        self._window, self._taken = plan.seek(lane, step) if self._num_windows else (0, 0)
        self._rows = self._open()

    def take(self, out: NDArray[np.int64]) -> None:
        """Fill `out` with the lane's next positions, then with PAD."""
        filled = 0
        while filled < len(out):
            part = self._rows[self._taken : self._taken + len(out) - filled]
            if len(part):
                out[filled : filled + len(part)] = part
                filled += len(part)
                self._taken += len(part)
            elif self._window < self._num_windows:
                self._window, self._taken = self._window + 1, 0
                self._rows = self._open()
            else:
                out[filled:] = PAD
                return

    def _open(self) -> NDArray[np.int64]:
        if self._window >= self._num_windows:
            return np.empty(0, np.int64)
        return self._plan.window(self._lane, self._window, self._permutations)


def rank_share(lanes: int, rank: int, world_size: int) -> range:
    """Return the lanes of one rank: `lanes / world_size` neighbours of 0 to lanes - 1.

    Args:
        lanes: L, of the plan.
        rank: 0 to world_size - 1.
        world_size: number of ranks, which divides L.

    Returns:
        range of L / world_size lane numbers; those of all ranks, in order, are range(L).

    Raises:
        ConfigError: lanes is no multiple of world_size, or rank is out of range.
    """
    if not 0 <= rank < world_size:
        raise ConfigError(
            f"rank is {rank}; it must lie in 0 to {world_size - 1}, world_size being {world_size}"
        )
    if lanes % world_size:
        raise ConfigError(
            f"lanes is {lanes}, which {world_size} ranks cannot share evenly;"
            f" the nearest values that work are {nearest_multiples(lanes, world_size)}"
        )
    share = lanes // world_size
    return range(rank * share, (rank + 1) * share)


def check_batching(global_batch: int, lanes: int, window_blocks: int) -> None:
    """Check the numbers that shape a plan.

    Raises:
        ConfigError: one is below 1 or no whole number, or global_batch is no multiple of lanes.
    """
    check_whole("global_batch", global_batch)
    for name, value in (("lanes", lanes), ("window_blocks", window_blocks)):
        check_whole(name, value)
        if value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    if global_batch < 1 or global_batch % lanes:
        raise ConfigError(
            f"global_batch is {global_batch}, which is no multiple of lanes ({lanes});"
            f" the nearest values that work are {nearest_multiples(global_batch, lanes)}"
        )


def check_key(seed: int, epoch: int) -> None:
    """Check the numbers that key a plan.

    Raises:
        ConfigError: one is no whole number, negative or has more than 64 bits.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        check_whole(name, value)
        if not 0 <= value < 2**64:
            raise ConfigError(f"{name} is {value}; it must be at least 0 and below 2**64")


def check_mix(mix: str) -> None:
    """Raise a ConfigError unless this is a way to mix."""
    if mix not in get_args(Mix):
        raise ConfigError(f"mix is {mix!r}; use windows or global")


def check_whole(name: str, value: object) -> None:
    """Raise a ConfigError unless this is a whole number."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}; it must be a whole number")


def nearest_multiples(value: int, multiple_of: int) -> str:
    """Return the multiples on both sides of a value, those above 0, for messages."""
    below = value // multiple_of * multiple_of
    return " and ".join(str(n) for n in (below, below + multiple_of) if n > 0)


def _starts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return i64[n + 1]: where each of n runs begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
