"""Synthetic sound of one person: speech-like, laughter-like, breaths, coughs. No recording in it.

In: a `Voice` and a plan of who makes which sound when. Out: one track, f32[N] at 24 kHz. A source
(pulses at the pitch, or noise) is shaped by resonances, as in a vocal tract; `Track` paints the
controls (pitch, loudness, breath, hiss, resonances) at 100 Hz, and `render` turns them into sound
by filtering windows of 20 ms in the frequency domain. Deterministic for the generator given.

Speech: syllables at 3 to 5 Hz, vowels, hissed consonants, pitch that falls over a phrase. Laughter:
bursts of "ha" at 4 to 6 Hz, each beginning as breath, with higher and gliding pitch, growing softer
(after Bachorowski et al. 2001, doi 10.1121/1.1391244). It is to be told from speech by its spectrum
and its rhythm, not by its loudness.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from laughstore.timebase import SAMPLE_RATE

CONTROL_RATE = 100
"""Control points a second."""
HOP = SAMPLE_RATE // CONTROL_RATE
_WINDOW = 2 * HOP
_FFT = 1024
_LEAD = (_FFT - _WINDOW) // 2
_FRAMES_AT_ONCE = 2_000

_VOWELS_HZ = np.array(
    [[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [570, 840, 2410]],
    np.float32,
)
"""First three formants of five vowels of men (Peterson and Barney 1952)."""
_HA_HZ = np.array([850, 1350, 2600], np.float32)
_FORMANT_GAINS = np.array([1.0, 0.5, 0.25], np.float32)


@dataclass(frozen=True)
class Voice:
    """What differs between people."""

    pitch_hz: float
    tract: float
    """Factor on all resonances: above 1 for a shorter vocal tract."""
    syllable_hz: float
    laugh_pitch: float
    """Pitch of laughter as a multiple of `pitch_hz`."""
    laugh_hz: float
    """Laughter bursts a second."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Voice":
        """Return another person."""
        pitch_hz = float(rng.uniform(95, 225))
        return cls(
            pitch_hz=pitch_hz,
            tract=float(0.85 + 0.3 * (pitch_hz - 95) / 130 + rng.uniform(-0.05, 0.05)),
            syllable_hz=float(rng.uniform(3.2, 4.8)),
            laugh_pitch=float(rng.uniform(1.6, 2.2)),
            laugh_hz=float(rng.uniform(4.2, 5.8)),
        )


@dataclass
class Track:
    """One person's sound on a timeline: paint it, then `render` it."""

    voice: Voice
    num_samples: int
    rng: np.random.Generator
    pitch_hz: NDArray[np.float32] = field(init=False)
    voiced: NDArray[np.float32] = field(init=False)
    """Loudness of the pulses."""
    breath: NDArray[np.float32] = field(init=False)
    """Loudness of noise that goes through the resonances."""
    hiss: NDArray[np.float32] = field(init=False)
    """Loudness of noise around 5 kHz."""
    formants_hz: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        points = self.num_samples // HOP + 2
        self.pitch_hz = np.full(points, self.voice.pitch_hz, np.float32)
        self.voiced = np.zeros(points, np.float32)
        self.breath = np.zeros(points, np.float32)
        self.hiss = np.zeros(points, np.float32)
        self.formants_hz = np.tile(_VOWELS_HZ[0] * self.voice.tract, (points, 1))

    def speak(self, start_s: float, end_s: float) -> list[tuple[float, float]]:
        """Paint a phrase; return the (start, end) of its syllables in seconds."""
        rng = self.rng
        wanted = max(1, round((end_s - start_s) * self.voice.syllable_hz))
        lengths = rng.uniform(0.75, 1.3, wanted)
        edges = (
            start_s
            + np.concatenate([[0.0], np.cumsum(lengths)]) * (end_s - start_s) / lengths.sum()
        )
        syllables = list(pairwise(edges.tolist()))
        loudness = float(rng.uniform(0.7, 1.2))
        for place, (begin, end) in enumerate(syllables):
            at, x = self._points(begin, end)
            onset = float(rng.uniform(0.15, 0.3))
            vowel = (x - onset) / (1 - onset)
            shape = loudness * rng.uniform(0.6, 1.0) * _hump(vowel) ** 0.6
            self.voiced[at] = shape
            self.breath[at] = 0.06 * shape
            if rng.random() < 0.6:
                self.hiss[at] = 0.35 * loudness * _hump(x / onset)
            fall = 1.12 - 0.24 * (place + x) / len(syllables)
            accent = 1 + rng.uniform(-0.06, 0.12) * _hump(x)
            self.pitch_hz[at] = self.voice.pitch_hz * fall * accent
            vowel_hz = _VOWELS_HZ[rng.integers(len(_VOWELS_HZ))] * rng.uniform(0.95, 1.05)
            self.formants_hz[at] = vowel_hz * self.voice.tract
        return syllables

    def laugh(self, start_s: float, end_s: float) -> None:
        """Paint one group of laughter bursts."""
        rng = self.rng
        bursts = max(1, round((end_s - start_s) * self.voice.laugh_hz))
        edges = np.linspace(start_s, end_s, bursts + 1).tolist()
        loudness = float(rng.uniform(0.6, 1.0))
        height = self.voice.pitch_hz * self.voice.laugh_pitch * float(rng.uniform(0.9, 1.15))
        glide = float(rng.uniform(0.2, 0.4))
        for place, (begin, end) in enumerate(pairwise(edges)):
            at, x = self._points(begin, end)
            done = (place + x) / bursts
            soft = loudness * (1 - 0.55 * done)
            self.breath[at] = soft * (0.9 * _hump(x / 0.45) + 0.5) * (x < 0.9)
            self.hiss[at] = 0.25 * self.breath[at]
            self.voiced[at] = 0.8 * soft * _hump((x - 0.3) / 0.5) ** 0.7
            self.pitch_hz[at] = height * (1 + 0.12 * _hump(x)) * (1 - glide * done)
            self.formants_hz[at] = _HA_HZ * self.voice.tract * rng.uniform(0.95, 1.05)

    def breathe(self, start_s: float, end_s: float) -> None:
        """Paint an audible breath."""
        at, x = self._points(start_s, end_s)
        self.breath[at] = self.rng.uniform(0.1, 0.25) * _hump(x) ** 2
        self.hiss[at] = 0.3 * self.breath[at]

    def cough(self, start_s: float, end_s: float) -> None:
        """Paint a cough: a burst of noise that begins at once and dies away."""
        at, x = self._points(start_s, end_s)
        self.breath[at] = self.rng.uniform(0.9, 1.4) * np.exp(-4 * x) * (1 - x)
        self.hiss[at] = 0.4 * self.breath[at]
        self.formants_hz[at] = _VOWELS_HZ[3] * self.voice.tract

    def render(self) -> NDArray[np.float32]:
        """Return the sound, f32[num_samples]; exactly 0 where nothing is painted nearby."""
        points = self.voiced.size
        out = np.zeros((points + _FFT // HOP + 2) * HOP, np.float32)
        pulses = self._pulses(points * HOP + _WINDOW)
        noise = self.rng.standard_normal(points * HOP + _WINDOW, np.float32)
        active = np.flatnonzero((self.voiced + self.breath + self.hiss) > 1e-4)
        window = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
        for first in range(0, active.size, _FRAMES_AT_ONCE):
            at = active[first : first + _FRAMES_AT_ONCE]
            spectrum = self._shape(at, _frames(pulses, at) * window, _frames(noise, at) * window)
            # The filters have no delay: turn what rings before a frame from the end to the front.
            pieces = np.roll(np.fft.irfft(spectrum, _FFT), _LEAD, axis=1)
            padded = np.zeros((at.size, -(-_FFT // HOP) * HOP), np.float32)
            padded[:, :_FFT] = pieces
            rows = out.reshape(-1, HOP)
            for k in range(padded.shape[1] // HOP):  # points are distinct: no index twice
                rows[at + k] += padded[:, k * HOP : (k + 1) * HOP]
        # A frame is centred on its control point.
        return out[HOP + _LEAD : HOP + _LEAD + self.num_samples]

    def _points(self, start_s: float, end_s: float) -> tuple[slice, NDArray[np.float32]]:
        """Return the control points inside a time and their places in it, 0 to 1."""
        first = round(start_s * CONTROL_RATE)
        stop = min(max(round(end_s * CONTROL_RATE), first + 1), self.voiced.size)
        x = (np.arange(max(stop - first, 0)) + 0.5) / max(stop - first, 1)
        return slice(first, first + x.size), x.astype(np.float32)

    def _pulses(self, num_samples: int) -> NDArray[np.float32]:
        """Return pulses at the pitch with a little jitter, of power 1: f32[num_samples]."""
        points = np.arange(self.pitch_hz.size) * HOP
        jittered = self.pitch_hz * (1 + 0.01 * self.rng.standard_normal(self.pitch_hz.size))
        pitch_hz = np.interp(np.arange(num_samples) - HOP, points, jittered)
        cycles = np.floor(np.cumsum(pitch_hz / SAMPLE_RATE))
        return (np.diff(cycles, prepend=0) * np.sqrt(SAMPLE_RATE / pitch_hz)).astype(np.float32)

    def _shape(
        self, at: NDArray[np.int64], pulses: NDArray[np.float32], noise: NDArray[np.float32]
    ) -> NDArray[np.complexfloating]:
        """Return the spectra of frames `at` (K): pulses and noise f32[K, W] to c[K, bins]."""
        hz = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE).astype(np.float32)
        tract = np.zeros((at.size, hz.size), np.float32)
        for formant, gain in enumerate(_FORMANT_GAINS):
            centre = self.formants_hz[at, formant, None]
            tract += gain / np.sqrt(1 + ((hz - centre) / (40 + 0.05 * centre)) ** 2)
        glottis = _unit_power(tract / (1 + hz / 400))
        mouth = _unit_power(tract * (hz / (hz + 600)) + 0.04 * (hz > 800))
        hiss = _unit_power(np.exp(-(((hz - 5_200) / 1_600) ** 2))[None])
        shaped = np.fft.rfft(pulses, _FFT) * (glottis * self.voiced[at, None])
        shaped += np.fft.rfft(noise, _FFT) * (
            mouth * self.breath[at, None] + hiss * self.hiss[at, None]
        )
        return shaped


def _hump(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return half a sine wave over 0 to 1, and 0 outside."""
    # Rounding puts sin(pi) below 0, where a fractional power would be NaN.
    return np.maximum(np.sin(np.pi * np.clip(x, 0, 1)), 0)


def _unit_power(response: NDArray[np.floating]) -> NDArray[np.floating]:
    """Scale each response [K, bins] so that white noise keeps its power."""
    return response / np.sqrt(np.mean(response**2, axis=1, keepdims=True))


def _frames(source: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the windows of a source that begin at control points: f32[K, W]."""
    return sliding_window_view(source, _WINDOW)[at * HOP]
