"""How recordings are read ahead, call by call."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from extract.feeding import CALLS_AHEAD, Call, Source
from laughstore.timebase import SAMPLES_PER_FRAME

from .counting import CountingTrack, Tracks, fed, feeder, no_thread_is_left, summary, tracks

__all__ = ["no_thread_is_left", "tracks"]  # fixtures

PATIENCE_S = 20


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.01)


def test_sources_enter_free_seats_at_calls_and_the_last_call_of_each_is_short(
    tracks: Tracks,
) -> None:
    sources = [tracks.source("a", 9), tracks.source("b", 4), tracks.source("c", 3)]
    assert summary(fed(sources, slots=2)) == ["!a:0+4 !b:0+4", "a:4+4 !c:0+3", "a:8+1 -"]
    assert tracks.all_closed


def test_where_state_begins_anew_a_call_ends_short(tracks: Tracks) -> None:
    sources = [tracks.source("a", 12), tracks.source("b", 2)]
    assert summary(fed(sources, restart_frames=5)) == [
        *("!a:0+4", "a:4+1", "!a:5+4", "a:9+1", "!a:10+2"),
        "!b:0+2",
    ]


def test_audio_and_text_of_each_side_stand_in_their_frames_and_the_rest_is_nothing(
    tracks: Tracks,
) -> None:
    text = np.arange(100, 110, dtype=np.int16).reshape(2, 5)
    told = tracks.source("told", 5, CountingTrack, CountingTrack, text=lambda: text)
    first, second = fed([told, tracks.source("untold", 9)], slots=2, restart_frames=3)[:2]
    assert isinstance(first, Call)
    assert isinstance(second, Call)
    frames = [call.audio.reshape(2, 2, 4, SAMPLES_PER_FRAME) for call in (first, second)]
    assert all((item == item[..., :1]).all() for item in frames)
    numbers = [item[..., 0].tolist() for item in frames]
    assert numbers[0] == [[[0, 1, 2, 0]] * 2, [[0, 1, 2, 0], [0, 0, 0, 0]]]
    assert numbers[1] == [[[3, 4, 0, 0]] * 2, [[3, 4, 5, 0], [0, 0, 0, 0]]]
    assert first.text is not None
    assert second.text is not None
    padding = [[3, 3, 3, 3]] * 2
    assert first.text.tolist() == [[[100, 101, 102, 3], [105, 106, 107, 3]], padding]
    assert second.text.tolist() == [[[103, 104, 3, 3], [108, 109, 3, 3]], padding]
    assert [p.num_assignments for p in first.passages if p] == [2, 1]
    untold = fed([tracks.source("untold", 5)])[0]
    assert isinstance(untold, Call)
    assert untold.text is None


@pytest.mark.parametrize("length", [0, 1, 4, 6])
def test_text_of_another_length_is_our_own_bug(tracks: Tracks, length: int) -> None:
    text = np.full((2, length), 7, np.int16)
    with pytest.raises(AssertionError):
        fed([tracks.source("a", 5, text=lambda: text)])
    assert tracks.all_closed


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_no_more_calls_are_read_ahead_than_the_bound(tracks: Tracks, taken: int) -> None:
    source = tracks.source("long", 400)
    with feeder([source]) as calls:
        stream = iter(calls)
        for _ in range(taken):
            next(stream)
        wanted = 4 * (taken + CALLS_AHEAD + 1)
        until(lambda: bool(tracks.opened) and tracks.opened[0].frame >= wanted)
        time.sleep(0.3)
        assert tracks.opened[0].frame == wanted
    assert tracks.all_closed


def test_a_call_keeps_its_audio_until_the_next_one_is_asked_for(tracks: Tracks) -> None:
    num_calls = 12
    with feeder([tracks.source("a", 4 * num_calls)], stage=lambda audio: audio) as calls:
        for number, call in enumerate(calls):
            assert isinstance(call, Call)
            # Until the feeder has read all that it may: it waits for room then.
            wanted = min(4 * (number + 1 + CALLS_AHEAD + 1), 4 * num_calls)
            while tracks.opened[0].frame < wanted:
                time.sleep(0.001)
            time.sleep(0.01)
            frames = call.audio[0, 0].reshape(4, -1)
            assert np.array_equal(frames[:, 0], np.arange(4 * number, 4 * number + 4))
            assert np.array_equal(frames[:, 0], frames[:, -1])


def test_sources_are_taken_and_opened_only_when_a_seat_is_free(tracks: Tracks) -> None:
    taken: list[str] = []

    def sources() -> Iterator[Source]:
        for number in range(6):
            taken.append(str(number))
            yield tracks.source(str(number), 40)

    with feeder(sources(), slots=2) as calls:
        stream = iter(calls)
        next(stream)
        time.sleep(0.1)
        assert taken == ["0", "1"]
        for _ in stream:
            assert sum(not track.closed for track in tracks.opened) <= 2
    assert len(taken) == 6
    assert tracks.all_closed
