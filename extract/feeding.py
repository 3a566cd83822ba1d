"""From tracks to the calls of the model: recordings are read ahead, in threads of their own.

A seat is what sits in one slot: a source, its open tracks, and the next frame to read. A source
enters a seat at a call boundary; when its last frame has been read the seat is free for the next.
Where state is to begin anew inside a recording (`restart_frames`), a call ends there, short.

It reads audio and text; it never sees the model.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import BadRecording, ConfigError
from laughstore.timebase import SAMPLES_PER_FRAME

from .text import PADDING_ID

SIDES = 2
"""Of a pair of speakers."""
CALLS_AHEAD = 2
"""Calls that are read before the model asks for them."""
_AUDIO_BUFFERS = CALLS_AHEAD + 2
"""Of a call: those that wait, the one being filled, and the one that the model has."""
_POLL_S = 0.2


class TrackReader(Protocol):
    """One speaker's audio, read forwards once."""

    def read(self, wave: NDArray[np.float32]) -> None:
        """Fill f32[n * 1920] with the next n frames of audio at 24 kHz, zeros after the end.

        Raises:
            BadRecording: the track cannot be read further.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


@dataclass(frozen=True)
class Source:
    """A pair of sides of a recording to extract: two speakers, or one beside silence."""

    key: str
    """Of the recording; not interpreted."""
    num_frames: int
    """T: features are delivered for frames 0 to T - 1, at least 1."""
    open_tracks: Callable[[], Sequence[TrackReader | None]]
    """Opens side 0 and, if there is one, side 1, when the source enters a slot; None is silence.
    May raise BadRecording."""
    num_assignments: int | None = None
    """1: side 0 alone is main. 2: each side is main once. None: one for each track opened."""
    first_assignment: int = 0
    """Of its assignments, among those of the recording."""
    text: Callable[[], NDArray[np.int16]] | None = None
    """Returns i16[2, T], the text of both sides, when the source enters a slot; None: padding."""
    name: str = ""
    """What messages call it; its key by default."""

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ConfigError(f"{self.key} has {self.num_frames} frames; it must have at least 1")


@dataclass(frozen=True)
class Passage:
    """Consecutive frames of a source, in one slot of a call."""

    source: Source
    num_assignments: int
    start_frame: int
    num_frames: int


@dataclass(frozen=True)
class FeatureFailure:
    """A recording that ended early; chunks already delivered of it are to be thrown away."""

    source: Source
    error: BadRecording


@dataclass(frozen=True)
class Call[Staged]:
    """What one call of the model takes."""

    audio: Staged
    text: NDArray[np.int16] | None
    """i16[S, 2, n]; None: padding everywhere."""
    restarts: NDArray[np.bool_]
    """bool[S]: slots that begin anew before this call."""
    passages: tuple[Passage | None, ...]
    """Of each slot; None is an empty one."""


class Feeder[Staged]:
    """Iterates over the calls of all sources, which a thread prepares ahead of time.

    A context manager: leaving it closes all tracks that are open.

    Args:
        sources: taken one by one, when a seat is free. None: there is none now; asked again before
            the next call, until all seats are free.
        slots: seats, S.
        chunk_frames: frames of a call, n.
        restart_frames: frames of a recording after which state begins anew; None: never.
        stage: turns the audio of a call, f32[S, 2, n * 1920], into what the model takes. It may
            be the same memory, which is filled anew once the next call has been asked for.
        threads: that read tracks side by side.
    """

    def __init__(
        self,
        sources: Iterable[Source | None],
        *,
        slots: int,
        chunk_frames: int,
        restart_frames: int | None,
        stage: Callable[[NDArray[np.float32]], Staged],
        threads: int,
    ) -> None:
        self._waiting = iter(sources)
        self._seats = [_Seat(restart_frames) for _ in range(slots)]
        self._chunk_frames = chunk_frames
        self._stage = stage
        self._ready: queue.Queue[Call[Staged] | FeatureFailure | BaseException | None]
        self._ready = queue.Queue(CALLS_AHEAD)
        self._dropped: set[str] = set()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads, "read-track")
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()

    def __iter__(self) -> Iterator[Call[Staged] | FeatureFailure]:
        while True:
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def drop(self, key: str) -> None:
        """Read no more of a recording; calls that hold some of it may still come."""
        self._dropped.add(key)

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                for seat in self._seats:
                    stack.callback(seat.leave)
                self._feed()
            self._put(None)
        except BaseException as error:  # raised again in the thread that iterates
            self._put(error)

    def _put(self, item: Call[Staged] | FeatureFailure | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return

    def _feed(self) -> None:
        shape = len(self._seats), SIDES, self._chunk_frames * SAMPLES_PER_FRAME
        ring = itertools.cycle([np.zeros(shape, np.float32) for _ in range(_AUDIO_BUFFERS)])
        for audio in ring:
            if self._stop.is_set():
                return
            audio[:] = 0
            seated = [seat for seat in self._seats if self._is_taken(seat)]
            if not seated:
                return
            restarts = np.array([seat.begins_anew for seat in self._seats])
            text = self._text_of_call()
            passages = tuple(self._passages(audio))
            self._put(Call(self._stage(audio), text, restarts, passages))

    def _is_taken(self, seat: "_Seat") -> bool:
        """Tell whether a source sits here, taking the next one if the seat is free."""
        while True:
            if seat.source is not None and seat.source.key in self._dropped:
                seat.leave()
            if seat.source is None:
                source = next(self._waiting, None)
                if source is None:
                    return False
                if source.key in self._dropped:
                    continue
                try:
                    seat.enter(source)
                except BadRecording as error:
                    self._fail(seat, source, error)
                    continue
            return True

    def _text_of_call(self) -> NDArray[np.int16] | None:
        """Return i16[S, 2, n] if any seat has text."""
        if all(seat.text is None for seat in self._seats):
            return None
        shape = (len(self._seats), SIDES, self._chunk_frames)
        text = np.full(shape, PADDING_ID, np.int16)
        for seat, row in zip(self._seats, text, strict=True):
            if seat.text is not None:
                num_frames = seat.next_frames(self._chunk_frames)
                row[:, :num_frames] = seat.text[:, seat.start_frame :][:, :num_frames]
        return text

    def _passages(self, audio: NDArray[np.float32]) -> Iterator[Passage | None]:
        """Read the next frames of every seat into f32[S, 2, N], all tracks side by side."""
        reading: list[list[Future[None]]] = []
        for seat, sides in zip(self._seats, audio, strict=True):
            num_samples_audio = seat.next_frames(self._chunk_frames) * SAMPLES_PER_FRAME
            reading.append(
                [
                    self._pool.submit(track.read, wave[:num_samples_audio])
                    for track, wave in zip(seat.tracks, sides, strict=False)
                    if track is not None
                ]
            )
        # No track is closed while it is being read, whatever another of them raises.
        wait([future for futures in reading for future in futures])
        for seat, sides, futures in zip(self._seats, audio, reading, strict=True):
            source = seat.source
            if source is None:
                yield None
                continue
            num_frames = seat.next_frames(self._chunk_frames)
            try:
                for future in futures:
                    future.result()
            except BadRecording as error:
                sides[:] = 0
                self._fail(seat, source, error)
                yield None
            else:
                yield seat.advance(num_frames)

    def _fail(self, seat: "_Seat", source: Source, error: BadRecording) -> None:
        seat.leave()
        self._dropped.add(source.key)
        self._put(FeatureFailure(source, error))


@dataclass
class _Seat:
    """What sits in one slot."""

    restart_frames: int | None
    source: Source | None = None
    tracks: list[TrackReader | None] = field(default_factory=list)
    text: NDArray[np.int16] | None = None
    start_frame: int = 0
    """The next frame to read."""

    @property
    def begins_anew(self) -> bool:
        """Whether state begins anew before the next frame."""
        if self.source is None:
            return False
        return self.start_frame % (self.restart_frames or self.source.num_frames) == 0

    def enter(self, source: Source) -> None:
        """Open a source. Raises BadRecording, and the seat stays free."""
        tracks = list(source.open_tracks())
        self.tracks = tracks
        try:
            if not 1 <= len(tracks) <= SIDES:
                raise ConfigError(
                    f"{source.key} has {len(tracks)} tracks; a recording has 1 or {SIDES}"
                )
            self.text = None if source.text is None else source.text()
            # Any other shape could be spread over the frames of a call.
            assert self.text is None or self.text.shape == (SIDES, source.num_frames)
        except BaseException:
            self.leave()
            raise
        self.source, self.start_frame = source, 0

    def next_frames(self, most: int) -> int:
        """Return how many frames the next call takes from here."""
        if self.source is None:
            return 0
        left = self.source.num_frames - self.start_frame
        if self.restart_frames is not None:
            left = min(left, self.restart_frames - self.start_frame % self.restart_frames)
        return min(most, left)

    def advance(self, num_frames: int) -> Passage:
        """Return the frames that have been read, and free the seat behind the last."""
        assert self.source is not None
        num_assignments = self.source.num_assignments or len(self.tracks)
        passage = Passage(self.source, num_assignments, self.start_frame, num_frames)
        self.start_frame += num_frames
        if self.start_frame == self.source.num_frames:
            self.leave()
        return passage

    def leave(self) -> None:
        """Close the tracks and free the seat."""
        tracks, self.tracks = self.tracks, []
        self.source, self.text, self.start_frame = None, None, 0
        with ExitStack() as stack:  # every track is closed, also when closing one fails
            for track in tracks:
                if track is not None:
                    stack.callback(track.close)
