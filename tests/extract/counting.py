"""Recordings whose sound counts its frames, and the calls that a feeder makes of them."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from extract.feeding import Call, FeatureFailure, Feeder, Source, TrackReader
from laughstore.errors import BadRecording
from laughstore.timebase import SAMPLES_PER_FRAME


class CountingTrack:
    """Frame t of its sound is the number t; it raises once a read would reach frame `fails_at`."""

    def __init__(self, *, fails_at: int | None = None, error: BaseException | None = None) -> None:
        self.fails_at = fails_at
        self.error = error or BadRecording("the track is cut")
        self.frame = 0
        self.closed = False
        self.closed_while_read = False
        self.is_read = False

    def read(self, wave: NDArray[np.float32]) -> None:
        assert not self.closed
        self.is_read = True
        num_frames = wave.size // SAMPLES_PER_FRAME
        start, self.frame = self.frame, self.frame + num_frames
        try:
            if self.fails_at is not None and self.frame > self.fails_at:
                raise self.error
            wave[:] = self.heard(start, num_frames)
        finally:
            self.is_read = False

    def heard(self, start: int, num_frames: int) -> NDArray[np.float32]:
        frames = np.arange(start, start + num_frames, dtype=np.float32)
        return np.repeat(frames, SAMPLES_PER_FRAME)

    def close(self) -> None:
        self.closed_while_read = self.is_read
        self.closed = True


class SlowTrack(CountingTrack):
    """Takes its time to read."""

    def heard(self, start: int, num_frames: int) -> NDArray[np.float32]:
        time.sleep(0.1)
        return super().heard(start, num_frames)


class Tracks:
    """Opens the tracks of sources and remembers all of them."""

    def __init__(self) -> None:
        self.opened: list[CountingTrack] = []

    def source(
        self, key: str, num_frames: int, *make: Callable[[], CountingTrack], **options: object
    ) -> Source:
        def open_tracks() -> Sequence[TrackReader]:
            tracks = [each() for each in make or (CountingTrack,)]
            self.opened.extend(tracks)
            return tracks

        return Source(key, num_frames, open_tracks, **options)  # type: ignore[arg-type]

    @property
    def all_closed(self) -> bool:
        return all(track.closed and not track.closed_while_read for track in self.opened)


@pytest.fixture
def tracks() -> Tracks:
    return Tracks()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def feeder(
    sources: Sequence[Source | None] | Iterator[Source | None],
    *,
    slots: int = 1,
    chunk_frames: int = 4,
    restart_frames: int | None = None,
    stage: Callable[[NDArray[np.float32]], NDArray[np.float32]] = np.copy,
) -> Feeder[NDArray[np.float32]]:
    return Feeder(
        sources,
        slots=slots,
        chunk_frames=chunk_frames,
        restart_frames=restart_frames,
        stage=stage,
        threads=4,
    )


def fed(*args: object, **options: object) -> list[Call[NDArray[np.float32]] | FeatureFailure]:
    with feeder(*args, **options) as calls:  # type: ignore[arg-type]
        return list(calls)


def summary(items: list[Call[NDArray[np.float32]] | FeatureFailure]) -> list[str]:
    """Each call as `key:start+frames` a slot, `!` in front where state begins anew."""
    return [
        f"failed {item.source.key}"
        if isinstance(item, FeatureFailure)
        else " ".join(
            "-" if p is None else f"{'!' * anew}{p.source.key}:{p.start_frame}+{p.num_frames}"
            for p, anew in zip(item.passages, item.restarts.tolist(), strict=True)
        )
        for item in items
    ]
