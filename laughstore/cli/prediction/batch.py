"""Scores of whole recordings: files stream through the model side by side, at constant memory.

What is kept of a recording is its scores: 4 bytes a frame, 180 kB an hour. The calls have the shape
that the store was built with, so features are the same bits on the same kind of device.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from extract.features import FeatureChunk, FeatureFailure, Source, extract_features
from extract.numerics import computing_as
from train.scoring.call_scorer import CallScorer, one_answer

from ...errors import BadRecording
from .heard import Heard
from .opened import OpenedRun

Text = Callable[[Heard], NDArray[np.int16]]
"""Returns i16[2, T], the text of both sides of a recording."""


@dataclass(frozen=True, eq=False)
class Scored:
    """A recording whose scores are all there."""

    heard: Heard
    score: NDArray[np.float32]
    """f4[T], of each row."""


@dataclass(frozen=True)
class Unusable:
    """A recording that could not be scored."""

    heard: Heard
    error: BadRecording


def score_recordings(
    opened: OpenedRun,
    recordings: Sequence[Heard],
    *,
    text: Text | None = None,
    advance: Callable[[int], None] = lambda num_frames: None,
) -> Generator[Scored | Unusable]:
    """Score recordings, several side by side, and yield each as it ends.

    Args:
        opened: the run.
        recordings: taken in this order.
        text: of runs that hear words; may raise BadRecording.
        advance: told of frames that have been scored.

    Raises:
        ConfigError: a score is not finite, because training the head diverged.
    """
    how = opened.how
    going: dict[str, _Going] = {}
    with (
        computing_as(how.numerics),
        closing(
            extract_features(
                opened.features,
                _sources(recordings, text),
                slots=how.numerics.slots,
                chunk_frames=how.numerics.chunk_frames,
                assignments=opened.slot_assignments,
                stream_order=how.stream_order,
                restart_frames=opened.spec.restart_frames,
            )
        ) as items,
    ):
        for item in items:
            heard = recordings[int(item.source.key)]
            if isinstance(item, FeatureFailure):
                going.pop(item.source.key, None)
                yield Unusable(heard, item.error)
                continue
            begun = going.get(item.source.key)
            if begun is None:
                begun = going[item.source.key] = _Going.of(opened, heard)
            begun.take(item)
            advance(item.features.shape[1])
            if begun.is_whole:
                del going[item.source.key]
                yield Scored(heard, begun.score)


def _sources(recordings: Sequence[Heard], text: Text | None) -> Iterator[Source]:
    for number, heard in enumerate(recordings):
        yield Source(
            str(number),
            heard.num_frames,
            partial(heard.pair.open, heard.lengths),
            num_assignments=heard.pair.num_assignments,
            text=None if text is None else lambda heard=heard: text(heard),
            name=heard.name,
        )


@dataclass
class _Going:
    """A recording that is being scored."""

    scorers: Sequence[CallScorer]
    """Of each assignment."""
    score: NDArray[np.float32]
    num_scored: int = field(default=0)

    @classmethod
    def of(cls, opened: OpenedRun, heard: Heard) -> "_Going":
        call_frames, model = opened.how.numerics.chunk_frames, opened.trained.model
        scorers = [CallScorer(model, call_frames) for _ in range(heard.pair.num_assignments)]
        return cls(scorers, np.empty(heard.num_frames, np.float32))

    @property
    def is_whole(self) -> bool:
        return self.num_scored == len(self.score)

    def take(self, chunk: FeatureChunk) -> None:
        assert chunk.start_frame == self.num_scored, "chunks come in order"
        each = [
            scorer.score(features)
            for scorer, features in zip(self.scorers, chunk.features, strict=True)
        ]
        stop = self.num_scored + len(each[0])
        self.score[self.num_scored : stop] = one_answer(each)
        self.num_scored = stop
