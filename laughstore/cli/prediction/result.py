"""What is predicted of one recording: scores along time and segments, and these as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from train.evaluation.events.segments import Segments, find_segments
from train.losses import ScoreKind

from ...annotation_formats.writers import WrittenSpan, score_text, seconds_text
from ...label_spec import LabelSpec
from ...timebase import FRAME_US, US_PER_SECOND
from .heard import Heard
from .rule import Segmenting, cut_to, segment_name

PREDICTION_FORMAT: Final = "laughstore-prediction"
PREDICTION_VERSION: Final = 1
_AT_A_TIME: Final = 4096
"""Frames whose text is held."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a run says of one recording."""

    heard: Heard
    label: LabelSpec
    scores: ScoreKind
    """What scores are."""
    first_frame: int
    """That `score` begins with."""
    score: NDArray[np.float32]
    """f4[n], of consecutive frames inside the recording: a score of row t is about, and stands at,
    frame t + lead."""
    segmenting: Segmenting | None
    """None of labels that are numbers, which have no segments."""
    segments: Segments | None
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        heard: Heard,
        row_score: NDArray[np.float32],
        *,
        label: LabelSpec,
        scores: ScoreKind,
        segmenting: Segmenting | None,
        warnings: Sequence[str] = (),
    ) -> "Prediction":
        """Return the prediction that a recording's scores make.

        Args:
            heard: the recording.
            row_score: f4[T], of each row.
            label: that the head was trained for.
            scores: what scores are.
            segmenting: how segments are made.
            warnings: of the run, for every recording.
        """
        num_rows, lead = len(row_score), label.lead_frames
        first = max(0, lead)
        stop = max(first, min(num_rows, num_rows + lead))
        segments = None
        if segmenting is not None:
            rows = np.arange(num_rows)
            found = find_segments(rows, row_score, segmenting.rule, lead=lead)
            segments = cut_to(found, heard.duration_us)
        return cls(
            heard=heard,
            label=label,
            scores=scores,
            first_frame=first,
            score=row_score[first - lead : stop - lead],
            segmenting=segmenting,
            segments=segments,
            warnings=(*warnings, *heard.warnings),
        )

    @property
    def name(self) -> str:
        """Of a segment."""
        return segment_name(self.label)

    @property
    def spans(self) -> list[WrittenSpan]:
        """The segments, as files of annotations have them; none of numbers."""
        if self.segments is None:
            return []
        # Nobody knows what the speakers are called in the annotations of a store.
        return [
            WrittenSpan(start, end, self.name, score)
            for start, end, score in zip(
                self.segments.start_us.tolist(),
                self.segments.end_us.tolist(),
                self.segments.score.tolist(),
                strict=True,
            )
        ]

    @property
    def total_us(self) -> int:
        """Microseconds inside segments."""
        if self.segments is None:
            return 0
        return int((self.segments.end_us - self.segments.start_us).sum())

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers, and nulls with their reason; without frames."""
        segments = None
        if self.segments is not None:
            segments = [
                {
                    "start_s": span.start_us / US_PER_SECOND,
                    "end_s": span.end_us / US_PER_SECOND,
                    "label": span.label,
                    "score": float(score_text(span.score)),
                }
                for span in self.spans
            ]
        return {
            "format": PREDICTION_FORMAT,
            "version": PREDICTION_VERSION,
            "recording": self.heard.name,
            "duration_s": self.heard.duration_us / US_PER_SECOND,
            "num_frames": self.heard.num_frames,
            "label": self.label.identity(),
            "label_text": self.label.describe(),
            "lead_frames": self.label.lead_frames,
            "scores": self.scores,
            "segmenting": None if self.segmenting is None else self.segmenting.to_json(),
            "segments": segments,
            "no_segments_because": None
            if segments is not None
            else f"label {self.label.label} gives each frame a value",
            "warnings": list(self.warnings),
        }


def json_pieces(
    prediction: Prediction, *, frames: bool, more: Mapping[str, Any]
) -> Iterator[bytes]:
    """Yield the JSON of a recording; its frames, if wanted, a few thousand at a time.

    Args:
        prediction: of the recording.
        frames: whether the score of each frame is in it.
        more: JSON object of what it says besides.
    """
    text = json.dumps({**more, **prediction.to_json()}, allow_nan=False)
    if not frames:
        yield f'{text[:-1]}, "frames": null}}\n'.encode()
        return
    frame_s = FRAME_US / US_PER_SECOND
    yield (
        f'{text[:-1]}, "frames": {{"first_frame": {prediction.first_frame},'
        f' "frame_s": {frame_s}, "scores": ['
    ).encode()
    separator = ""
    for some in batched(prediction.score, _AT_A_TIME):
        yield (separator + ", ".join(map(score_text, some))).encode()
        separator = ", "
    yield b"]}}\n"


def frames_pieces(prediction: Prediction) -> Iterator[bytes]:
    """Yield a CSV with a row for each frame: its number, its start in seconds, its score."""
    yield b"frame,start_s,score\n"
    numbered = enumerate(prediction.score, start=prediction.first_frame)
    for some in batched(numbered, _AT_A_TIME):
        yield "".join(
            f"{frame},{seconds_text(frame * FRAME_US)},{score_text(score)}\n"
            for frame, score in some
        ).encode()
