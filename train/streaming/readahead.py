"""Prepare blocks in a thread, ahead of the step that needs them and never far ahead.

Blocks that are ready by themselves, as pages are that an earlier epoch left mapped, need no thread,
and one that looks at them beside a loop of short steps costs far more than its own time: each time
it or the loop comes back from the kernel, one waits for the other. So whoever waits looks itself,
and the thread works only while there is something to wait for.
"""

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from laughstore.closing import ClosedAtExit
from laughstore.reading.rows import NoRoom

BLOCKS_A_CALL = 4
"""Prepared between two looks at whether anyone still waits: a few MiB."""
_LOOKED_AT_TOGETHER = 32
"""Blocks that may be ready by themselves: a look at one is a few microseconds."""
_NEVER = 2**62
_PATIENCE_S = 1.0
"""That a reading is waited for which nobody needs any more: a remote side may stall for minutes."""


class ReadAhead(ClosedAtExit):
    """Prepare blocks in the order of the steps that need them. A context manager.

    Leaving it ends the thread, whatever state it is in, and releases what it prepared. A thread
    that a stalled reading keeps is left to itself: it releases what comes of that, and ends.

    Args:
        prepare: called with i64[k] blocks, in the thread; what it raises, `wait` raises. NoRoom, of
            blocks that no step waits for, is none: they are prepared when others were released.
        step: i64[R], not decreasing: first step that needs the block.
        block: i64[R].
        max_ahead: most blocks prepared beyond those that the step now waited for needs.
        release: called with i64[k] blocks whose steps are over, by whoever waits or closes.
        last_step: i64[R]: last step that needs the block; the first by default.
        blocks_a_call: most blocks that `prepare` is given together.
        lag: steps before the one waited for that may still be read.
        are_ready: called with i64[k] blocks, by whoever waits or in the thread: whether they can be
            read as they are. Those need not be prepared, and are not released either.
        room: how many blocks there is memory for now, beside those that are prepared. So many at
            most are prepared before a step waits for them.
    """

    def __init__(
        self,
        prepare: Callable[[NDArray[np.int64]], None],
        step: NDArray[np.int64],
        block: NDArray[np.int64],
        *,
        max_ahead: int,
        release: Callable[[NDArray[np.int64]], None] = lambda _: None,
        last_step: NDArray[np.int64] | None = None,
        blocks_a_call: int = BLOCKS_A_CALL,
        lag: int = 0,
        are_ready: Callable[[NDArray[np.int64]], bool] | None = None,
        room: Callable[[], int] = lambda: _NEVER,
    ) -> None:
        self._prepare, self._release, self._are_ready = prepare, release, are_ready
        self._room = room
        last_step = step if last_step is None else last_step
        self._by_last_step = np.argsort(last_step, kind="stable")
        self._last_step = last_step[self._by_last_step]
        self._num_released = 0
        self._next_step = 0
        self._step, self._block = step, block
        self._max_ahead, self._blocks_a_call = max_ahead, blocks_a_call
        self._lag = lag
        self._changed = threading.Condition()
        self._is_ahead = are_ready is None
        """Whether the thread runs ahead; if not, all blocks of late were ready by themselves."""
        self._allowed = max_ahead if self._is_ahead else 0
        self._needed = 0
        """Blocks that a step waits for, or has waited for."""
        self._done = 0
        self._num_ready = 0
        """Blocks in a row that the thread need not have prepared."""
        self._error: BaseException | None = None
        self._stopped = self._left_alone = False
        self._thread = threading.Thread(target=self._run, name="laughstore-readahead", daemon=True)
        self._thread.start()

    def wait(self, step: int) -> None:
        """Return once all blocks of steps up to this one are prepared.

        Steps earlier than this one by more than `lag` are over.

        Args:
            step: not less than before.

        Raises:
            Exception: what preparing one of them raised.
        """
        if step < self._next_step:
            return
        # First of all, as it makes room for what is needed. Whatever is over before that step was
        # needed before it, and is prepared.
        self._release_over(self._next_step)
        needed = int(np.searchsorted(self._step, step, "right"))
        with self._changed:
            self._needed = needed
            if self._is_ahead or (self._done < needed and not self._passes(needed)):
                self._is_ahead = True
                self._allowed = max(self._allowed, needed + self._max_ahead)
                self._changed.notify_all()
            while self._done < needed and self._error is None:
                self._changed.wait()
            if self._done < needed and self._error is not None:
                raise self._error
        if step > self._next_step:  # others were passed over
            self._release_over(step)
        # Until then no block is needed anew and none is over.
        self._next_step = min(
            _at(self._step, needed, _NEVER),
            _at(self._last_step, self._num_released, _NEVER) + 1 + self._lag,
        )

    def close(self) -> None:
        """End the thread and release what is left."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        try:
            # The garbage collector closes what nobody refers to in whichever thread it runs.
            if self._thread is not threading.current_thread():
                self._thread.join(_PATIENCE_S)
        finally:  # whoever is impatient may press Ctrl-C again
            with self._changed:
                self._left_alone, done = True, self._done
            left = self._by_last_step[self._num_released :]
            left = left[left < done]
            self._num_released = len(self._block)
            if len(left):
                self._release(self._block[left])

    def _release_over(self, step: int) -> None:
        """Release the blocks of which no step from this one on, less the lag, has need."""
        over = int(np.searchsorted(self._last_step, step - self._lag))
        if over > self._num_released:
            self._release(self._block[self._by_last_step[self._num_released : over]])
            self._num_released = over

    def _passes(self, needed: int) -> bool:
        """Pass over the next blocks if they are ready by themselves; the lock is held."""
        if self._done < self._allowed:  # the thread still works at them
            return False
        assert self._are_ready is not None, "else the thread is ahead from the start"
        stop = min(needed + min(_LOOKED_AT_TOGETHER, self._max_ahead), len(self._block))
        if not self._are_ready(self._block[self._done : stop]):
            return False
        self._done = stop
        return True

    def _run(self) -> None:
        try:
            while (part := self._next_part()) is not None:
                blocks = self._block[part]
                is_ready = self._are_ready is not None and self._are_ready(blocks)
                if not (is_ready or self._could_prepare(part)):
                    continue
                with self._changed:
                    if not self._left_alone:
                        self._num_ready = self._num_ready + len(blocks) if is_ready else 0
                        if self._num_ready >= self._max_ahead:
                            self._is_ahead = False
                        self._done = part.stop
                        self._changed.notify_all()
                        continue
                self._release(blocks)  # whoever closed this could not
                return
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _could_prepare(self, part: slice) -> bool:
        """Prepare blocks; False when there is no room for those that no step waits for yet."""
        try:
            self._prepare(self._block[part])
        except NoRoom:  # others may have taken of the same memory
            if part.stop <= self._needed:
                raise
            return False
        return True

    def _next_part(self) -> slice | None:
        """Wait for room; None once all is prepared or nobody waits any more."""
        with self._changed:
            # Whoever waits may have passed blocks meanwhile: those are not looked at again.
            while not self._stopped and self._done < len(self._block):
                stop = min(self._done + self._blocks_a_call, self._allowed, len(self._block))
                # For what is needed there must be room.
                stop = min(stop, max(self._needed, self._done + self._room()))
                if stop > self._done:
                    return slice(self._done, stop)
                self._changed.wait()
            return None


def _at(steps: NDArray[np.int64], place: int, default: int) -> int:
    return int(steps[place]) if place < len(steps) else default
