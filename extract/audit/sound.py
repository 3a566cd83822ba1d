"""Listening to laughs: is there a sound in their speaker's track, and if not, where is it?

In: a recording, its annotations and cleaned laughs. Out: counts in `Audibility`, and findings. Only
the laughs are decoded, and 48 half seconds of each file to know its level.

What is measured is the standard deviation of pieces of 10 ms, so that a constant offset is no
sound. A laugh is

- silent when none of its pieces is above -80 dB of full scale (16-bit dither lies below that, and
  the masks of diarized tracks are exact zeros);
- cut when more than half of its pieces are silent;
- quiet when the mean power of its pieces lies more than 30 dB below the file's level: the mean
  power of pieces that are not silent while the speaker speaks (over the whole file, where nobody
  knows when that is);
- audible otherwise.

Of an event longer than 10 s its first 10 s are listened to.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from laughstore.annotations import Event
from laughstore.errors import BadRecording
from laughstore.timebase import US_PER_SECOND

from ..datasets import DatasetRecording
from ..sound.decoding import ForwardSound
from ..sound.files import open_sound
from ..sound.tracks import MAX_MAGNITUDE, AudioFile
from .findings import Findings
from .look import LookedAt, where
from .report import Audibility

SILENCE = 1e-4
"""Standard deviation; full scale is 1."""
QUIET_POWER = 1e-3
"""Of the speaker's own level: -30 dB."""
_PIECES_PER_SECOND = 100
_FULL_SCALE = 0.999
_CLIPPED_SHARE = 0.01
_LEVEL_PLACES = 48
_LEVEL_US = US_PER_SECOND // 2
_MAX_EVENT_US = 10 * US_PER_SECOND

Verdict = Literal["audible", "silent", "cut", "quiet"]
type _Span = tuple[int, int]  # microseconds


def listen(looked: LookedAt, found: Findings, counts: Audibility) -> None:
    """Count which laughs of a recording can be heard.

    Args:
        looked: the recording; its files are opened.
        found: receives findings.
        counts: receives counts.

    Raises:
        BadRecording: a file cannot be decoded where a laugh is.
        OSError: the disk or its server fails.
    """
    recording = looked.recording
    with ExitStack() as stack:
        mix = None if recording.mix is None else _open(recording.mix, looked, stack)
        if mix is not None:
            mix.measure_level([])
        tracks: dict[str, _Ear] = {}
        for name, file in recording.tracks.items():
            ear = _open(file, looked, stack)
            if ear is None:
                continue
            tracks[name] = ear
            segments = [item for item in looked.annotations.segments if item.speaker == name]
            ear.measure_level([(item.start_us, item.end_us) for item in segments])
            found.out_of("track-silent", int(bool(segments)))
            if ear.level is None and segments:
                found.add("track-silent", f"{recording.name}: {name}")
        listener = _Listener(recording, tracks, mix, found, counts)
        counts.recordings += 1
        for laugh in sorted(looked.laughs, key=lambda event: event.start_us):
            if looked.roles.is_mix:
                listener.hear_in_mix(laugh, looked.roles.files)
            elif laugh.speaker is None:
                listener.hear_in_any_track(laugh)
            elif laugh.speaker in tracks:
                listener.hear_in_own_track(laugh, laugh.speaker)


def _open(file: AudioFile, looked: LookedAt, stack: ExitStack) -> "_Ear | None":
    """Return a file opened; None when it cannot be and no build needs it. Raises BadRecording."""
    try:
        return _Ear(file, stack)
    except BadRecording:
        if file in looked.roles.files:
            raise
        return None


@dataclass
class _Ear:
    """Listens to places of one sound file."""

    file: AudioFile
    stack: ExitStack
    level: float | None = None
    """Mean power of what is not silent; None when everything is."""
    _sound: ForwardSound = field(init=False)

    def __post_init__(self) -> None:
        self._sound, info = open_sound(self.file, self.stack)
        self.rate, self.num_samples = info.sample_rate, info.num_samples

    def measure_level(self, spoken: Sequence[_Span]) -> None:
        """Listen to 48 half seconds, evenly over the time of these spans or over the whole file."""
        length_us = self.num_samples * US_PER_SECOND // self.rate
        spans = [(start_us, end_us) for start_us, end_us in sorted(spoken) if end_us > start_us]
        edges = np.array(spans or [(0, length_us)], np.int64)
        lengths_us = edges[:, 1] - edges[:, 0]
        ends_us = np.cumsum(lengths_us)
        pieces: list[NDArray[np.float64]] = []
        for place in range(_LEVEL_PLACES):
            heard_us = int(ends_us[-1]) * (2 * place + 1) // (2 * _LEVEL_PLACES)
            k = int(np.searchsorted(ends_us, heard_us, side="right"))
            start_us, end_us = int(edges[k, 0]), int(edges[k, 1])
            middle_us = start_us + heard_us - int(ends_us[k] - lengths_us[k])
            around = (middle_us - _LEVEL_US // 2, middle_us + _LEVEL_US // 2)
            heard = self.samples(max(around[0], start_us), min(around[1], end_us))
            pieces.append(self.pieces(heard))
        everything = np.concatenate(pieces)
        loud = everything[everything > SILENCE]
        self.level = float((loud**2).mean()) if loud.size else None

    def samples(self, start_us: int, end_us: int) -> NDArray[np.float64]:
        """Return what is heard from one moment to another, cut at the file's ends, f64[n]."""
        start = max(start_us * self.rate // US_PER_SECOND, 0)
        stop = min(-(-end_us * self.rate // US_PER_SECOND), self.num_samples)
        if start >= stop:
            return np.zeros(0)
        try:
            read: NDArray[np.float64] = self._sound.take(stop - start, "float64", first=start)
        except soundfile.SoundFileError as error:
            raise self._fault("is damaged and cannot be decoded", start) from error
        if len(read) < stop - start:
            raise self._fault("ends, before its header says", start + len(read))
        if self.file.channel is not None:
            read = read[:, self.file.channel, None]
        if not np.isfinite(read).all():
            raise self._fault("holds NaN or infinity", start)
        loudest = np.abs(read).max(initial=0)
        if loudest > MAX_MAGNITUDE:  # as when features are extracted
            raise self._fault(f"holds {loudest:.3g}, where full scale is 1", start)
        return read.mean(axis=1)

    def pieces(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the standard deviation of each 10 ms, f64[pieces]; the last one may be shorter."""
        if not samples.size:
            return samples
        starts = np.arange(0, samples.size, max(self.rate // _PIECES_PER_SECOND, 1))
        lengths = np.diff(starts, append=samples.size)
        means = np.add.reduceat(samples, starts) / lengths
        squares = np.add.reduceat((samples - np.repeat(means, lengths)) ** 2, starts) / lengths
        return np.sqrt(squares)

    def verdict(self, event: Event) -> Verdict:
        """Tell how an event is heard."""
        pieces = self.pieces(self._samples_of(event))
        silent = pieces <= SILENCE
        if silent.all():  # also when the file has ended
            return "silent"
        if silent.mean() > 0.5:
            return "cut"
        is_quiet = self.level is not None and (pieces**2).mean() < QUIET_POWER * self.level
        return "quiet" if is_quiet else "audible"

    def is_clipped(self, event: Event) -> bool:
        """Tell whether more than 1 % of an event's samples are at full scale."""
        samples = self._samples_of(event)
        return samples.size > 0 and (np.abs(samples) >= _FULL_SCALE).mean() > _CLIPPED_SHARE

    def _samples_of(self, event: Event) -> NDArray[np.float64]:
        end_us = min(event.end_us, event.start_us + _MAX_EVENT_US)
        return self.samples(event.start_us, end_us)

    def _fault(self, what: str, sample: int) -> BadRecording:
        return BadRecording(
            f"{self.file}: {what}, from second {sample / self.rate:.3f} on; export the track"
            " again, or leave the recording out"
        )


@dataclass
class _Listener:
    """Asks the ears of one recording, and counts."""

    recording: DatasetRecording
    tracks: Mapping[str, _Ear]
    mix: _Ear | None
    found: Findings
    counts: Audibility

    def hear_in_own_track(self, laugh: Event, speaker: str) -> None:
        own = self.tracks[speaker]
        verdict = own.verdict(laugh)
        self._count(verdict, own, laugh)
        for kind in ("silent", "cut", "quiet"):
            self.found.out_of(f"laughs-{kind}", 1)
        if verdict == "audible":
            return
        if verdict == "cut":
            self.found.add("laughs-cut", where(self.recording, laugh))
            return
        others = [
            name for name, ear in self.tracks.items() if ear is not own and _hears(ear, laugh)
        ]
        in_mix = self.mix is not None and _hears(self.mix, laugh)
        self.counts.heard_in_other_track += bool(others)
        self.counts.heard_in_mix += in_mix
        self.counts.heard_nowhere += not others and not in_mix
        places = [*(f"in {name}'s track" for name in others), *(["in the mix"] if in_mix else [])]
        heard = " and ".join(places) or "nowhere else either"
        self.found.add(f"laughs-{verdict}", f"{where(self.recording, laugh)}; heard {heard}")

    def hear_in_any_track(self, laugh: Event) -> None:
        self.counts.of_nobody += 1
        self.found.out_of("laughs-in-no-track", 1)
        if not any(_hears(ear, laugh) for ear in self.tracks.values()):
            self.counts.of_nobody_in_no_track += 1
            in_mix = self.mix is not None and _hears(self.mix, laugh)
            heard = "; heard in the mix" if in_mix else ""
            self.found.add("laughs-in-no-track", f"{where(self.recording, laugh)}{heard}")

    def hear_in_mix(self, laugh: Event, files: Sequence[AudioFile]) -> None:
        ears = [self.mix] if self.mix is not None else list(self.tracks.values())
        ears = [ear for ear in ears if ear.file in files]
        self.found.out_of("laughs-silent-in-mix", 1)
        verdicts: list[tuple[Verdict, _Ear]] = [(ear.verdict(laugh), ear) for ear in ears]
        heard = next((item for item in verdicts if item[0] == "audible"), verdicts[0])
        self._count(heard[0], heard[1], laugh)
        if all(verdict == "silent" for verdict, _ in verdicts):
            self.counts.heard_nowhere += 1
            self.found.add("laughs-silent-in-mix", where(self.recording, laugh))

    def _count(self, verdict: Verdict, ear: _Ear, laugh: Event) -> None:
        self.counts.laughs += 1
        setattr(self.counts, verdict, getattr(self.counts, verdict) + 1)
        self.found.out_of("laughs-clipped", 1)
        if ear.is_clipped(laugh):
            self.found.add("laughs-clipped", where(self.recording, laugh))


def _hears(ear: _Ear, laugh: Event) -> bool:
    return ear.verdict(laugh) in ("audible", "cut")
