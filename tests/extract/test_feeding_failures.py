"""Nothing stays open and no thread is left, whatever fails while recordings are read ahead."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from extract.feeding import CALLS_AHEAD, Call, FeatureFailure, Source, TrackReader
from laughstore.errors import BadRecording, ConfigError

from .counting import (
    CountingTrack,
    SlowTrack,
    Tracks,
    fed,
    feeder,
    no_thread_is_left,
    summary,
    tracks,
)

__all__ = ["no_thread_is_left", "tracks"]  # fixtures


class OurStop(BaseException):
    """Something like an interrupt."""


def test_a_recording_that_fails_frees_its_seat_and_is_told_before_the_call(
    tracks: Tracks,
) -> None:
    def cannot_open() -> Sequence[TrackReader]:
        raise BadRecording("no audio")

    def cut() -> CountingTrack:
        return CountingTrack(fails_at=6)

    items = fed(
        [
            tracks.source("cut", 20, cut),
            tracks.source("good", 13),
            Source("missing", 9, cannot_open),
            tracks.source("also cut", 20, CountingTrack, cut),
            tracks.source("last", 2),
        ],
        slots=2,
    )
    assert summary(items) == [
        "!cut:0+4 !good:0+4",
        *("failed cut", "- good:4+4"),
        *("failed missing", "!also cut:0+4 good:8+4"),
        *("failed also cut", "- good:12+1"),
        "!last:0+2 -",
    ]
    assert tracks.all_closed
    failed = [item for item in items if isinstance(item, FeatureFailure)]
    said = [str(item.error) for item in failed]
    assert said == ["the track is cut", "no audio", "the track is cut"]
    calls = [item for item in items if isinstance(item, Call)]
    for call in (calls[1], calls[3]):  # though one of its two tracks could be read
        assert not call.audio[0].any(), "nothing of a failed recording is fed on"


def test_a_seat_whose_two_tracks_fail_at_once_fails_once(tracks: Tracks) -> None:
    def cut() -> CountingTrack:
        return CountingTrack(fails_at=2)

    items = fed([tracks.source("a", 9, cut, cut), tracks.source("b", 2)])
    assert summary(items) == ["failed a", "-", "!b:0+2"]
    assert tracks.all_closed


def test_with_one_pair_of_a_recording_its_other_pairs_end_and_are_not_begun(
    tracks: Tracks,
) -> None:
    def cut() -> CountingTrack:
        return CountingTrack(fails_at=6)

    pairs = [tracks.source("a", 40), tracks.source("a", 40, cut), tracks.source("a", 40)]
    items = fed([*pairs, tracks.source("b", 2)], slots=2)
    assert summary(items) == ["!a:0+4 !a:0+4", "failed a", "a:4+4 -", "!b:0+2 -"]
    assert len(tracks.opened) == 3
    assert tracks.all_closed


def test_no_track_is_closed_while_another_thread_reads_it(tracks: Tracks) -> None:
    def cut() -> CountingTrack:
        return CountingTrack(fails_at=2)

    assert summary(fed([tracks.source("a", 9, cut, SlowTrack)])) == ["failed a", "-"]
    assert tracks.all_closed

    def broken() -> CountingTrack:
        return CountingTrack(fails_at=2, error=OSError("the disk is gone"))

    sources = [tracks.source("b", 9, broken, SlowTrack), tracks.source("c", 9, SlowTrack)]
    with pytest.raises(OSError, match="the disk is gone"):
        fed(sources, slots=2)
    assert tracks.all_closed


def test_a_recording_that_is_dropped_is_read_no_further_nor_begun_again(tracks: Tracks) -> None:
    sources = [tracks.source("a", 100), tracks.source("a", 50), tracks.source("b", 4)]
    with feeder(sources) as calls:
        items = []
        for item in calls:
            items.append(item)
            calls.drop("a")
    keys = [line.removeprefix("!").split(":")[0] for line in summary(items)]
    assert keys[-1] == "b"
    assert keys[:-1] == ["a"] * (len(keys) - 1)
    assert len(keys) <= 1 + CALLS_AHEAD + 2
    assert len(tracks.opened) == 2, "its second pair is not opened"
    assert tracks.all_closed


def test_none_means_that_there_is_nothing_now_and_the_end_when_all_seats_are_free(
    tracks: Tracks,
) -> None:
    def sources() -> Iterator[Source | None]:
        yield tracks.source("a", 12)
        yield None
        yield None
        yield tracks.source("b", 4)
        while True:
            yield None

    items = fed(sources(), slots=2)
    assert summary(items) == ["!a:0+4 -", "a:4+4 -", "a:8+4 !b:0+4"]
    assert fed([None, tracks.source("late", 4)]) == []
    assert fed([]) == []


def test_leaving_early_closes_everything(tracks: Tracks) -> None:
    sources = [tracks.source("a", 400, CountingTrack, CountingTrack), tracks.source("b", 400)]
    with feeder(sources, slots=2) as calls:
        next(iter(calls))
    assert tracks.all_closed
    assert len(tracks.opened) == 3

    def take_one() -> None:
        with feeder([tracks.source("c", 400)]) as calls:
            for _ in calls:
                raise OurStop

    with pytest.raises(OurStop):
        take_one()
    assert tracks.all_closed

    with feeder([tracks.source("d", 400)]):
        pass
    assert tracks.all_closed


def fails_in_text() -> NDArray[np.int16]:
    raise OurStop


@pytest.mark.parametrize("num_tracks", [0, 3])
def test_a_source_with_no_or_three_tracks_is_refused_and_closed(
    tracks: Tracks, num_tracks: int
) -> None:
    def open_tracks() -> Sequence[TrackReader]:
        tracks.opened.extend(CountingTrack() for _ in range(num_tracks))
        return tracks.opened[1:]

    beside = tracks.source("beside", 40)
    with pytest.raises(ConfigError, match=f"crowd has {num_tracks} tracks; a recording has 1 or 2"):
        fed([beside, Source("crowd", 4, open_tracks)], slots=2)
    assert tracks.all_closed


def test_any_other_error_ends_all_and_comes_out_where_calls_are_taken(tracks: Tracks) -> None:
    def sources() -> Iterator[Source]:
        yield tracks.source("a", 40)
        raise OurStop

    with pytest.raises(OurStop):
        fed(sources(), slots=2)
    with pytest.raises(OurStop):
        fed([tracks.source("a", 40), tracks.source("b", 40, text=fails_in_text)], slots=2)

    def stage(audio: NDArray[np.float32]) -> NDArray[np.float32]:
        raise MemoryError

    with pytest.raises(MemoryError):
        fed([tracks.source("a", 40)], stage=stage)
    assert tracks.opened
    assert tracks.all_closed


def test_calls_before_an_error_are_still_given(tracks: Tracks) -> None:
    def broken() -> CountingTrack:
        return CountingTrack(fails_at=8, error=OSError("gone"))

    with feeder([tracks.source("a", 40, broken)]) as calls:
        stream = iter(calls)
        assert [isinstance(next(stream), Call) for _ in range(2)] == [True, True]
        with pytest.raises(OSError, match="gone"):
            next(stream)
    assert tracks.all_closed


def test_a_track_that_cannot_be_closed_does_not_keep_others_open(tracks: Tracks) -> None:
    class Stuck(CountingTrack):
        def close(self) -> None:
            super().close()
            raise OSError("stuck")

    with pytest.raises(OSError, match="stuck"):
        fed([tracks.source("a", 4, Stuck, CountingTrack), tracks.source("b", 40)], slots=2)
    assert tracks.all_closed
    assert len(tracks.opened) == 3


def test_a_recording_without_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty has 0 frames; it must have at least 1"):
        Source("empty", 0, list)
