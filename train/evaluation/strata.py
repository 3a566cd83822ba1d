"""The same scores by kind of laugh, and by show: where a model is good, and where it is not.

Of a kind of laugh, the positive rows about such laughs stand against all negative rows, so that
average precision is to be read beside the stratum's own base rate. A show has its own rows alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from laughstore.index import Index
from laughstore.kinds import TargetArray
from laughstore.labels import LabelSpec

from ..scoring.metrics import FrameMetrics, frame_metrics
from ..scoring.score import StreamScores, counted_rows
from ..scoring.scored_rows import NOBODY_CHOSE
from .events.outcomes import Outcomes
from .laugh_traits import TRAITS, UNKNOWN, LaughMoments, has_moments

SHOW: Final = "show"
DIVISION_TITLES: Final = {
    "laugh_length": "length of the laugh",
    "confidence": "confidence of the annotation",
    "speaking_at_onset": "who speaks at the onset",
    "first_or_answer": "first laugh or answer (2 s or less behind another's)",
}
"""Of all but SHOW, by name."""
_OF_POSITIVES: Final = ("base_rate", "average_precision", "lift", "auroc", "recall")
"""Metrics that say something of some positive rows among all negative ones."""


@dataclass(frozen=True)
class Stratum:
    """Some of the positive rows, and some of the events."""

    metrics: FrameMetrics
    num_events: int | None
    """That could be found; None where nothing says whether events were."""
    num_found: int | None

    @classmethod
    def of(cls, metrics: FrameMetrics, found: NDArray[np.bool_] | None) -> Self:
        """Return a stratum whose events were found or not (bool[E])."""
        if found is None:
            return cls(metrics, None, None)
        return cls(metrics, len(found), int(np.count_nonzero(found)))

    @property
    def event_recall(self) -> float | None:
        """Share of events that were found; None without any."""
        if self.num_found is None or not self.num_events:
            return None
        return self.num_found / self.num_events

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            **self.metrics.to_json(),
            "events": self.num_events,
            "events_found": self.num_found,
            "event_recall": self.event_recall,
        }


@dataclass(frozen=True)
class Division:
    """One way to divide laughs, or shows."""

    strata: Mapping[str, Stratum]
    """By name, all that there are, those without a positive row too."""
    num_unknown: int
    """Positive rows of which nobody knows the stratum; they are in none."""
    reason: str | None = None
    """Why there are no strata."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        return {
            "strata": {name: item.to_json() for name, item in self.strata.items()},
            "unknown_positives": self.num_unknown,
            "reason": self.reason,
        }


def strata_of(
    index: Index,
    streams: Sequence[StreamScores],
    label: LabelSpec,
    *,
    threshold: float | None,
    outcomes: Sequence[Outcomes] | None,
    no_threshold: str = NOBODY_CHOSE,
) -> dict[str, Division]:
    """Return the divisions of an evaluation, by the names in `TRAITS` and SHOW.

    Args:
        index: of the streams.
        streams: that were scored.
        label: of their targets.
        threshold: of recall and the like; None: there is none.
        outcomes: of the events of each stream; None where nothing says whether they were found.
        no_threshold: why there is none.
    """
    found: dict[str, Division] = {}
    measure = partial(frame_metrics, threshold=threshold, no_threshold=no_threshold)
    if has_moments(label):
        paired = zip(streams, outcomes or [None] * len(streams), strict=True)
        laughs = [_Laughs.of(index, *pair, label) for pair in paired]
        rows, has_outcomes = counted_rows(streams), outcomes is not None
        for name in TRAITS:
            found[name] = _by_trait(name, laughs, rows, measure, has_outcomes=has_outcomes)
    else:
        reason = "legacy rules know no bouts" if label.legacy else "targets are numbers"
        found = dict.fromkeys(TRAITS, Division({}, 0, f"{reason}: no laugh stands behind a row"))
    return found | {SHOW: _by_show(index, streams, label, measure, outcomes)}


@dataclass(frozen=True, eq=False)
class _Laughs:
    """One stream, with the laughs behind its rows and events."""

    traits: Mapping[str, NDArray[np.int64]]
    """i64[K + 1]: stratum of each laugh; UNKNOWN behind them, which number -1 finds."""
    positive: NDArray[np.int64]
    """i64[P]: laugh behind each positive row that counts; -1: none."""
    event: NDArray[np.int64]
    """i64[E]: of each event that could be found."""
    is_found: NDArray[np.bool_]
    """bool[E]."""

    @classmethod
    def of(
        cls, index: Index, scores: StreamScores, outcomes: Outcomes | None, label: LabelSpec
    ) -> "_Laughs":
        stream = scores.stream
        tables = index.tables(index.recording(stream.recording_id))
        moments = LaughMoments.of(label, tables, stream)
        asked_us, found = outcomes or (moments.moment_us[:0], np.empty(0, np.bool_))
        return cls(
            {name: np.append(each, UNKNOWN) for name, each in moments.traits.items()},
            moments.of_rows(scores.row[scores.eligible & (scores.y > 0)]),
            np.searchsorted(moments.moment_us, asked_us),
            found,
        )


def _by_trait(
    name: str,
    laughs: Sequence[_Laughs],
    rows: tuple[TargetArray, NDArray[np.float32]],
    measure: Callable[..., FrameMetrics],
    *,
    has_outcomes: bool,
) -> Division:
    y, score = rows
    stratum = np.full(len(y), UNKNOWN)
    stratum[y > 0] = np.concatenate([item.traits[name][item.positive] for item in laughs])
    event = np.concatenate([item.traits[name][item.event] for item in laughs])
    is_found = np.concatenate([item.is_found for item in laughs])
    strata = {}
    for number, title in enumerate(TRAITS[name]):
        taken = (y == 0) | (stratum == number)
        metrics = measure(y[taken], score[taken]).only(_OF_POSITIVES)
        strata[title] = Stratum.of(metrics, is_found[event == number] if has_outcomes else None)
    num_unknown = int(np.count_nonzero(stratum[y > 0] == UNKNOWN))
    return Division(strata, num_unknown)


def _by_show(
    index: Index,
    streams: Sequence[StreamScores],
    label: LabelSpec,
    measure: Callable[..., FrameMetrics],
    outcomes: Sequence[Outcomes] | None,
) -> Division:
    shows: dict[str, list[int]] = {}
    for number, item in enumerate(streams):
        shows.setdefault(index.recording(item.stream.recording_id).group, []).append(number)
    strata = {}
    for name, numbers in sorted(shows.items()):
        metrics = measure(*counted_rows([streams[number] for number in numbers]), label)
        found = None
        if outcomes is not None:
            found = np.concatenate([outcomes[number].found for number in numbers])
        strata[name] = Stratum.of(metrics, found)
    return Division(strata, 0)
