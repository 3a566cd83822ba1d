import os
import signal
import threading
import time

import numpy as np
import pytest

from laughstore import open_shards
from laughstore.errors import CorruptData
from laughstore.reading.rows import NoRoom
from tests.stores import Episode, random_features, write_store
from train.streaming.readahead import ReadAhead
from train.streaming.source import FrameSource


def test_it_prepares_in_order_and_never_further_ahead_than_allowed():
    done: list[int] = []
    step = np.repeat(np.arange(50), 2)
    with ReadAhead(lambda b: done.extend(b.tolist()), step, np.arange(100), max_ahead=6) as ahead:
        for now in range(50):
            ahead.wait(now)
            assert len(done) >= 2 * (now + 1)
            time.sleep(0.001)
            assert len(done) <= 2 * (now + 1) + 6
    assert done == list(range(100))


def test_an_error_reaches_the_step_that_needs_the_block_and_none_before():
    def prepare(blocks):
        if (blocks >= 20).any():
            raise CorruptData("block 20 is bad")

    with ReadAhead(prepare, np.arange(40), np.arange(40), max_ahead=40) as ahead:
        for step in range(20):
            ahead.wait(step)
        with pytest.raises(CorruptData, match="block 20"):
            ahead.wait(20)


def test_leaving_it_early_ends_the_thread():
    before = threading.active_count()
    with ReadAhead(lambda _: None, np.arange(1000), np.arange(1000), max_ahead=3) as ahead:
        ahead.wait(5)
    assert threading.active_count() == before


def test_leaving_it_while_a_reading_stalls_takes_a_moment_and_what_came_is_released_later():
    stalled, goes_on = threading.Event(), threading.Event()
    released: list[int] = []

    def prepare(blocks):
        if blocks[0]:
            stalled.set()
            goes_on.wait(60)

    step = np.arange(20)
    with ReadAhead(
        prepare, step, step, max_ahead=8, release=lambda b: released.extend(b.tolist())
    ) as ahead:
        ahead.wait(0)
        assert stalled.wait(60)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 5
    assert released == [0, 1, 2, 3]
    goes_on.set()
    ahead._thread.join(60)
    assert released == list(range(8))


def test_whoever_is_impatient_while_a_reading_stalls_leaves_nothing_held():
    stalled, goes_on = threading.Event(), threading.Event()
    released: list[int] = []

    def prepare(blocks):
        if blocks[0]:
            stalled.set()
            goes_on.wait(60)

    step = np.arange(20)
    ahead = ReadAhead(
        prepare, step, step, max_ahead=8, release=lambda b: released.extend(b.tolist())
    )
    ahead.wait(0)
    assert stalled.wait(60)
    ctrl_c = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    ctrl_c.start()
    with pytest.raises(KeyboardInterrupt):
        ahead.close()
    assert released == [0, 1, 2, 3]
    goes_on.set()
    until_s = time.monotonic() + 60  # Python takes a thread for ended whose joining was broken off
    while len(released) < 8 and time.monotonic() < until_s:
        time.sleep(0.001)
    assert released == list(range(8))


def test_its_own_thread_may_close_it():
    """The garbage collector runs in any thread, and an abandoned iteration may be in a cycle."""
    released: list[int] = []
    found: list[ReadAhead] = []
    ready = threading.Event()

    def prepare(blocks):
        if blocks[0]:
            ready.wait(60)
            found.pop().close()

    step = np.arange(20)
    found.append(
        ReadAhead(prepare, step, step, max_ahead=8, release=lambda b: released.extend(b.tolist()))
    )
    thread = found[0]._thread
    found[0].wait(0)
    ready.set()
    thread.join(60)
    assert not thread.is_alive()
    assert released == list(range(8))


class Memory:
    """Room for six blocks, of which others may take some."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.num_of_others = 0
        self.was_full = threading.Event()

    def room(self) -> int:
        return 6 - self.num_of_others - len(self.held)

    def prepare(self, blocks: np.ndarray) -> None:
        if 8 in blocks and not self.was_full.is_set():
            self.num_of_others = 3
        if len(blocks) > self.room():
            self.was_full.set()
            raise NoRoom("no room")
        self.held.update(blocks.tolist())

    def release(self, blocks: np.ndarray) -> None:
        self.held.difference_update(blocks.tolist())


def test_reading_ahead_waits_for_room_and_what_is_needed_does_not():
    memory, step = Memory(), np.repeat(np.arange(20), 2)
    with ReadAhead(
        memory.prepare,
        step,
        np.arange(40),
        max_ahead=40,
        release=memory.release,
        room=memory.room,
    ) as ahead:
        for now in range(20):
            ahead.wait(now)
            assert memory.held.issuperset([2 * now, 2 * now + 1])
            if now == 3:  # 8 comes next, before anyone needs it; others were quicker
                assert memory.was_full.wait(60)
            elif now == 4:
                memory.num_of_others = 0
    assert not memory.held


def test_no_room_for_what_is_needed_is_an_error():
    memory, step = Memory(), np.repeat(np.arange(2), 7)
    with (
        ReadAhead(
            memory.prepare,
            step,
            np.arange(14),
            max_ahead=9,
            release=memory.release,
            room=memory.room,
        ) as ahead,
        pytest.raises(NoRoom),
    ):
        ahead.wait(0)
    assert not memory.held


def test_it_releases_blocks_when_their_last_step_is_over_and_the_rest_at_the_end():
    prepared: list[int] = []
    released: list[int] = []
    step = np.repeat(np.arange(10), 2)
    last_step = step + np.tile([0, 3], 10)
    with ReadAhead(
        lambda b: prepared.extend(b.tolist()),
        step,
        np.arange(20),
        max_ahead=4,
        release=lambda b: released.extend(b.tolist()),
        last_step=last_step,
    ) as ahead:
        for now in range(6):
            ahead.wait(now)
            assert sorted(released) == [b for b in range(20) if last_step[b] < now]
    assert len(prepared) < 20
    assert sorted(released) == sorted(prepared)


def test_blocks_of_steps_that_others_may_still_read_are_held():
    released: list[int] = []
    with ReadAhead(
        lambda _: None,
        np.arange(20),
        np.arange(20),
        max_ahead=4,
        release=lambda b: released.extend(b.tolist()),
        lag=3,
    ) as ahead:
        for now in range(20):
            ahead.wait(now)
            assert released == list(range(max(0, now - 3)))


def test_a_step_that_skips_others_releases_only_what_was_prepared():
    prepared: list[int] = []
    released: list[int] = []
    with ReadAhead(
        lambda b: prepared.extend(b.tolist()),
        np.arange(20),
        np.arange(20),
        max_ahead=3,
        release=lambda b: released.extend(b.tolist()),
    ) as ahead:
        ahead.wait(10)
        assert sorted(released) == list(range(10))
        assert set(released) <= set(prepared)
    assert sorted(released) == sorted(prepared)


@pytest.mark.parametrize(("codec", "together"), [("none", 4), ("zstd", 16)])
def test_what_is_fetched_is_asked_for_in_larger_parts_than_what_is_mapped(
    tmp_path, codec, together
):
    path = tmp_path / "s"
    write_store(path, [Episode("a", num_frames=128 * 40)], random_features(8), dim=8, codec=codec)
    calls: list[int] = []
    with FrameSource(open_shards(path), "train") as source:

        def prepare(blocks):
            calls.append(len(blocks))
            source.prepare(blocks)

        with ReadAhead(
            prepare,
            np.zeros(40, np.int64),
            np.arange(40),
            max_ahead=40,
            release=source.release,
            blocks_a_call=source.blocks_a_call,
        ) as ahead:
            ahead.wait(0)
    assert sum(calls) == 40
    assert max(calls) == together


class Blocks:
    """Some are ready by themselves. Tells which were prepared, and which were looked at by the
    thread."""

    def __init__(self, ready: set[int]) -> None:
        self.ready = ready
        self.prepared: list[int] = []
        self.looked_at: list[tuple[bool, int]] = []

    def prepare(self, blocks: np.ndarray) -> None:
        self.prepared.extend(blocks.tolist())

    def are_ready(self, blocks: np.ndarray) -> bool:
        by_thread = threading.current_thread() is not threading.main_thread()
        self.looked_at.extend((by_thread, block) for block in blocks.tolist())
        return self.ready.issuperset(blocks.tolist())


def test_blocks_that_are_ready_need_no_thread():
    blocks = Blocks(set(range(100)))
    step = np.arange(100)
    with ReadAhead(blocks.prepare, step, step, max_ahead=40, are_ready=blocks.are_ready) as ahead:
        for now in range(100):
            ahead.wait(now)
            assert now < len(blocks.looked_at) <= now + 1 + 40  # before it is read, not long before
    assert blocks.prepared == []
    assert blocks.looked_at == [(False, block) for block in range(100)]


@pytest.mark.parametrize(
    "ready", [range(100), [*range(30), *range(60, 100)], [5, 50], range(1, 100)]
)
@pytest.mark.parametrize("blocks_a_call", [1, 4])
def test_blocks_are_ready_or_prepared_before_their_step_whichever_they_are(ready, blocks_a_call):
    blocks = Blocks(set(ready))
    step = np.repeat(np.arange(50), 2)
    with ReadAhead(
        blocks.prepare,
        step,
        np.arange(100),
        max_ahead=6,
        blocks_a_call=blocks_a_call,
        are_ready=blocks.are_ready,
    ) as ahead:
        for now in range(0, 50, 3):
            ahead.wait(now)
            seen = {*blocks.prepared, *(block for _, block in blocks.looked_at)}
            assert seen.issuperset(range(2 * now + 2))
            assert max(seen) <= 2 * now + 2 + 6 + 2
    assert blocks.prepared == sorted(set(blocks.prepared))
    assert set(range(98)) - set(ready) <= set(blocks.prepared)


def test_the_thread_runs_ahead_while_it_has_something_to_do_and_rests_afterwards():
    blocks = Blocks(set(range(40, 200)))
    step = np.arange(200)
    with ReadAhead(
        blocks.prepare, step, step, max_ahead=8, blocks_a_call=4, are_ready=blocks.are_ready
    ) as ahead:
        for now in range(200):
            ahead.wait(now)
    assert blocks.prepared[:40] == list(range(40))
    by_thread = {block for by_thread, block in blocks.looked_at if by_thread}
    # The last eight ones that were ready told it that there is no more to do; it had been asked
    # for up to as many behind them.
    assert by_thread.issuperset(range(40))
    assert max(by_thread) < 40 + 8 + 8 + 4


def test_an_error_among_ready_blocks_reaches_the_step_that_needs_the_block():
    def prepare(blocks):
        if (blocks == 20).any():
            raise CorruptData("block 20 is bad")

    blocks = Blocks(set(range(20)) | set(range(21, 40)))
    with ReadAhead(
        prepare, np.arange(40), np.arange(40), max_ahead=40, are_ready=blocks.are_ready
    ) as ahead:
        for step in range(20):
            ahead.wait(step)
        with pytest.raises(CorruptData, match="block 20"):
            ahead.wait(20)


def test_what_was_passed_over_is_not_looked_at_again_when_there_is_something_to_prepare():
    """An epoch of ready blocks, and one whose page was taken back: the thread takes up there."""
    blocks = Blocks(set(range(100)) - {50})
    step = np.arange(100)
    with ReadAhead(blocks.prepare, step, step, max_ahead=8, are_ready=blocks.are_ready) as ahead:
        time.sleep(0.05)  # the thread waits by now, with nothing passed over yet
        for now in range(100):
            ahead.wait(now)
    assert blocks.prepared == [49, 50, 51, 52]
    # 45 to 53 were looked at together by whoever waits, and 50 was not ready.
    assert min(block for by_thread, block in blocks.looked_at if by_thread) == 45
