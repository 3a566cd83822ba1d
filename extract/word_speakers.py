"""Who says each word: the speaker whose segments overlap it most."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from laughstore.annotations import Segment, Speaker, Word


def with_speakers(
    words: Sequence[Word], speakers: Sequence[Speaker], segments: Sequence[Segment]
) -> tuple[Word, ...]:
    """Return the words, those of nobody with the speaker of their largest overlap, if any."""
    found = word_speakers(
        np.array([word.start_us for word in words], np.int64),
        np.array([word.end_us for word in words], np.int64),
        speakers,
        segments,
    )
    return tuple(
        word if word.speaker is not None or name is None else replace(word, speaker=name)
        for word, name in zip(words, found, strict=True)
    )


def word_speakers(
    start_us: NDArray[np.int64],
    end_us: NDArray[np.int64],
    speakers: Sequence[Speaker],
    segments: Sequence[Segment],
) -> list[str | None]:
    """Return, for each word, the speaker whose segments overlap it most.

    Args:
        start_us: i64[W].
        end_us: i64[W], none before its start.
        speakers: of the recording; those who tie are taken in this order.
        segments: when each of them speaks; they may overlap.

    Returns:
        W names; None where nobody speaks. A word of no length belongs to who speaks at its middle.
    """
    rank = {speaker.name: place for place, speaker in enumerate(speakers)}
    names = sorted({item.speaker for item in segments}, key=lambda n: (rank.get(n, len(rank)), n))
    if not names or not start_us.size:
        return [None] * start_us.size
    # A word of no length becomes one microsecond, so that half-open segments hold it or do not.
    stop_us = np.maximum(end_us, start_us + 1)
    overlap = np.stack(
        [
            covered(stop_us) - covered(start_us)
            for covered in (_Coverage(segments, name) for name in names)
        ]
    )
    best = overlap.argmax(axis=0)
    heard = overlap.max(axis=0) > 0
    return [names[k] if any_heard else None for k, any_heard in zip(best, heard, strict=True)]


def spoken_us(segments: Sequence[Segment], speaker: str) -> int:
    """Return for how many microseconds a speaker speaks; overlapping segments count once."""
    return _Coverage(segments, speaker).total_us


class _Coverage:
    """How many microseconds one speaker has spoken before each of some moments."""

    def __init__(self, segments: Sequence[Segment], speaker: str) -> None:
        spans = sorted((s.start_us, s.end_us) for s in segments if s.speaker == speaker)
        merged: list[list[int]] = []
        for start_us, end_us in spans:
            if merged and start_us <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end_us)
            elif end_us > start_us:
                merged.append([start_us, end_us])
        edges = np.array(merged, np.int64).reshape(-1, 2)
        self._edges_us = edges.ravel()
        # Spoken time at each edge: grows between a start and its end, stands still until the next.
        lengths = edges[:, 1] - edges[:, 0]
        after = np.cumsum(lengths)
        self._spoken_us = np.stack([after - lengths, after], axis=1).ravel()
        self.total_us = int(lengths.sum())

    def __call__(self, moments_us: NDArray[np.int64]) -> NDArray[np.int64]:
        if not self._edges_us.size:
            return np.zeros_like(moments_us)
        place = np.searchsorted(self._edges_us, moments_us, side="right") - 1
        edge = np.maximum(place, 0)
        inside = (place >= 0) & (place % 2 == 0)
        since = np.where(inside, moments_us - self._edges_us[edge], 0)
        return np.where(place >= 0, self._spoken_us[edge], 0) + since
