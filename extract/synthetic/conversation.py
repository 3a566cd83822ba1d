"""Who says, laughs and breathes when: the plan of one synthetic conversation of two people.

In: a random generator and a length. Out: spans of time in seconds, rounded to 10 ms; no sound.
Laughs are drawn one to a cell of time, without regard to turns and speech, by either person alike.
People fall silent around their own laughs, breaths and coughs; they may laugh while the other one
speaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_PEOPLE = 2
MAX_LAUGHS_PER_MINUTE = 18
"""So that a laugh of up to 2 s and a pause fit into each cell of time."""
_MARGIN_S = 0.1
"""Nobody speaks this long before and after their own laugh, breath or cough."""
_MIN_PHRASE_S = 0.3
_WORDS = ("so", "well", "then", "about", "that", "we", "can", "more", "time", "where", "think")


@dataclass(frozen=True)
class Sound:
    """A vocal event of one speaker: a group of laughter bursts, a breath or a cough."""

    kind: str
    """Class in the full vocabulary: Laughter, Breath or Noise."""
    speaker: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Span:
    """A turn or a phrase of one speaker."""

    speaker: int
    start_s: float
    end_s: float


def plan_laughs(rng: np.random.Generator, seconds: float, count: int) -> list[Sound]:
    """Return laughs of one or two groups of bursts, 0.3 to 2 s in all, one in each cell of time."""
    sounds = []
    cell_s = (seconds - 1) / max(count, 1)
    speakers = rng.permutation(np.arange(count) % NUM_PEOPLE)
    for k, speaker in enumerate(speakers.tolist()):
        if rng.random() < 0.3:
            lengths = rng.uniform(0.35, 0.8, 2).tolist()
        else:
            lengths = [float(rng.uniform(0.4, 1.4))]
        at = 0.5 + k * cell_s + float(rng.uniform(0, cell_s - 2.4))
        for length in lengths:
            start_s = round(at, 2)
            sounds.append(Sound("Laughter", speaker, start_s, round(start_s + length, 2)))
            at += length + float(rng.uniform(0.2, 0.4))
    return sounds


def plan_distractors(
    rng: np.random.Generator, seconds: float, sounds: Sequence[Sound]
) -> list[Sound]:
    """Return the sounds with breaths and coughs added, where their speaker makes none; by start."""
    planned = list(sounds)
    for kind, per_minute in (("Breath", 4), ("Noise", 3)):
        for _ in range(max(1, round(per_minute * seconds / 60))):
            start_s = round(float(rng.uniform(0.3, seconds - 1)), 2)
            end_s = round(start_s + float(rng.uniform(0.2, 0.5)), 2)
            sound = Sound(kind, int(rng.integers(NUM_PEOPLE)), start_s, end_s)
            if all(
                sound.speaker != other.speaker
                or sound.end_s + 2 * _MARGIN_S < other.start_s
                or other.end_s + 2 * _MARGIN_S < sound.start_s
                for other in planned
            ):
                planned.append(sound)
    return sorted(planned, key=lambda sound: (sound.start_s, sound.speaker))


def plan_turns(rng: np.random.Generator, seconds: float) -> tuple[list[Span], list[Span]]:
    """Return turns that alternate, and the phrases they are made of."""
    turns: list[Span] = []
    phrases: list[Span] = []
    at, speaker = 0.4, int(rng.integers(NUM_PEOPLE))
    while at < seconds - 1.5:
        start_s, stop_s = at, min(at + float(rng.uniform(2, 8)), seconds - 0.3)
        while at < stop_s - 0.5:
            end_s = min(at + float(rng.uniform(0.8, 2.5)), stop_s)
            phrases.append(Span(speaker, round(at, 2), round(end_s, 2)))
            at = end_s + float(rng.uniform(0.15, 0.45))
        turns.append(Span(speaker, round(start_s, 2), phrases[-1].end_s))
        at = phrases[-1].end_s + float(rng.uniform(0.05, 0.6))
        speaker = 1 - speaker
    return turns, phrases


def spoken_pieces(phrase: Span, sounds: Sequence[Sound]) -> list[Span]:
    """Return what is left of a phrase beside its speaker's own sounds, without scraps."""
    pieces, at = [], phrase.start_s
    for sound in sounds:
        if sound.speaker == phrase.speaker and sound.end_s > at and sound.start_s < phrase.end_s:
            pieces.append((at, sound.start_s - _MARGIN_S))
            at = sound.end_s + _MARGIN_S
    pieces.append((at, phrase.end_s))
    return [
        Span(phrase.speaker, round(start_s, 2), round(end_s, 2))
        for start_s, end_s in pieces
        if end_s - start_s >= _MIN_PHRASE_S
    ]


def word_times(
    rng: np.random.Generator, syllables: Sequence[tuple[float, float]]
) -> list[tuple[float, float, str]]:
    """Group the syllables of a phrase into words of one to three."""
    words, first = [], 0
    while first < len(syllables):
        last = min(first + int(rng.integers(1, 4)), len(syllables)) - 1
        text = _WORDS[int(rng.integers(len(_WORDS)))]
        words.append((syllables[first][0], syllables[last][1], text))
        first = last + 1
    return words
