"""Talks of two people, laughs that nothing foretells, and the same talks with one thing changed.

Each recording is one sound: two synthetic voices that take turns, and laughs mixed over them at
times drawn uniformly, without regard to speech or to each other. No recording of a person is in it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from extract.synthetic.conversation import plan_turns
from extract.synthetic.voices import Track, Voice
from laughstore.timebase import SAMPLE_RATE

LAUGHS_PER_MINUTE = 8
CUE_S = 0.9
"""Length of the tone, which ends where a laugh begins."""
_CUE_HZ, _CUE_GAIN = 900.0, 0.05
_SPEECH_GAIN, _LAUGH_GAIN = 0.1, 0.1
_GRID = SAMPLE_RATE // 100
"""Laughs begin at whole 10 ms, so that no time is rounded."""
_LEAD_S = 0.1
_SILENT = 1e-5


@dataclass(frozen=True)
class Talk:
    """One recording in its parts, each of N samples at 24 kHz, whose sum is heard."""

    name: str
    speech: NDArray[np.float32]
    laughs: NDArray[np.float32]
    cues: NDArray[np.float32]
    """A soft tone before each laugh."""
    spans: tuple[tuple[int, int], ...]
    """Samples [start, stop) of each laugh, in the order of their starts."""

    @classmethod
    def drawn(cls, name: str, seconds: float, seed: tuple[int, ...]) -> "Talk":
        """Return a talk of this length."""
        rng = np.random.default_rng(seed)
        num_samples = math.ceil(seconds * SAMPLE_RATE)
        people = [Track(Voice.random(rng), num_samples, rng) for _ in range(2)]
        _, phrases = plan_turns(rng, seconds)
        for phrase in phrases:
            people[phrase.speaker].speak(phrase.start_s, phrase.end_s)
        speech = sum((person.render() for person in people), np.zeros(num_samples, np.float32))
        laughs, cues = np.zeros_like(speech), np.zeros_like(speech)
        spans = []
        for _ in range(round(LAUGHS_PER_MINUTE * seconds / 60)):
            clip = _laugh(people[int(rng.integers(2))].voice, rng)
            start = _GRID * int(rng.integers(0, (num_samples - len(clip)) // _GRID))
            laughs[start : start + len(clip)] += clip
            tone = _tone()[-start:] if start else _tone()[:0]
            cues[start - len(tone) : start] += tone
            spans.append((start, start + len(clip)))
        return cls(name, speech, laughs, cues, tuple(sorted(spans)))

    def sound(self, *, cues: bool, laughs: bool = True) -> NDArray[np.float32]:
        """Return f4[N]: what is heard, with or without some of the parts."""
        heard = _SPEECH_GAIN * self.speech
        if laughs:
            heard = heard + _LAUGH_GAIN * self.laughs
        if cues:
            heard = heard + _CUE_GAIN * self.cues
        return np.clip(heard, -1, 1).astype(np.float32)


def draw_talks(counts: Mapping[str, int], seconds: float, seed: int) -> dict[str, list[Talk]]:
    """Return so many talks of each split."""
    return {
        split: [
            Talk.drawn(f"{split} talk {number}", seconds, (seed, place, number))
            for number in range(count)
        ]
        for place, (split, count) in enumerate(counts.items())
    }


def write_talks(
    out: Path, talks: Mapping[str, list[Talk]], *, cues: bool, laughs: bool = True
) -> Path:
    """Write a data set of the layout `manifest`. Muted laughs stay annotated."""
    out.mkdir(parents=True)
    lines = []
    for split, items in talks.items():
        for talk in items:
            path = f"{talk.name.replace(' ', '-')}.wav"
            sound = talk.sound(cues=cues, laughs=laughs)
            soundfile.write(out / path, sound, SAMPLE_RATE, subtype="PCM_16")
            events = [
                {"start_s": start / SAMPLE_RATE, "end_s": stop / SAMPLE_RATE, "label": "Laughter"}
                for start, stop in talk.spans
            ]
            lines.append({"name": talk.name, "split": split, "audio": path, "events": events})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / "manifest.jsonl").write_text(text)
    return out


def _laugh(voice: Voice, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a laugh from its first sound to its last, whole grid steps long."""
    length_s = float(rng.uniform(0.5, 1.3))
    track = Track(voice, math.ceil((length_s + 2 * _LEAD_S) * SAMPLE_RATE), rng)
    track.laugh(_LEAD_S, _LEAD_S + length_s)
    sound = track.render()
    heard = np.flatnonzero(np.abs(sound) > _SILENT)
    clip = sound[heard[0] : heard[-1] + 1]
    return np.pad(clip, (0, -len(clip) % _GRID))


def _tone() -> NDArray[np.float32]:
    at = np.arange(round(CUE_S * SAMPLE_RATE))
    return (np.sin(2 * np.pi * _CUE_HZ * at / SAMPLE_RATE) * np.hanning(len(at))).astype(np.float32)
