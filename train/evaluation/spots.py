"""The highest scores where nobody annotated an event: what is probably missing.

Enters: a run, splits. Leaves: spots in order of their scores. A spot of a detection or shift label
is a segment of scores that reach the threshold; of an onset or interval label it is the window in
which the event is expected, of the highest row of an alarm. None shares time with an event of the
class that the label asks for, or with one that may be such an event.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from laughstore.bouts import Times
from laughstore.errors import ConfigError, NotFound
from laughstore.index import Index, Stream
from laughstore.labels import LabelSpec, asked_of, awaited_us, target_bouts, unknown_events
from laughstore.other_annotations import Annotate, read_other_annotations, tables_digest
from laughstore.spots import Spot
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..probe import PROBES
from ..runs.checkpoint import checkpoint_sha256
from ..runs.looks import is_counted, record_look
from ..runs.run import Run
from ..runs.trained import index_for, load_trained, other_annotations
from ..scoring.score import StreamScores
from ..streaming.device import choose_device
from .events.anticipation import raise_alarms
from .events.segments import SegmentRule, Segments, find_segments, touches
from .scored_split import SplitScorer
from .spot_search import SpotSearch

_SEGMENTED: Final = ("detection", "shift")
_BUCKET_US: Final = 60 * US_PER_SECOND


@dataclass(frozen=True)
class FoundSpots:
    """What a search found."""

    spots: tuple[Spot, ...]
    """The highest score first."""
    splits: tuple[str, ...]
    index: Index
    """That was searched, with the annotations that spots are held against."""
    label: LabelSpec
    are_windows: bool
    """An event is expected to begin in each; else each is expected to be an event."""
    threshold: float
    num_reaching: int
    """Spots of the whole search, before the most that were wanted are taken."""
    num_reviewed: int
    """Others, which somebody has decided before."""
    num_rows: int
    """That were scored."""
    other_annotations: str | None
    """One line, when labels may be others than those that the run was trained with."""

    def annotated(self, spot: Spot) -> Times:
        """Return what is, or may be, annotated of the class in the stream of a spot."""
        recording = self.index.recording(spot.recording_id)
        stream = next(item for item in recording.streams if item.assignment == spot.assignment)
        return _annotated(self.index, stream, self.label)


def find_spots(
    run: Path,
    search: SpotSearch | None = None,
    *,
    reviewed: Sequence[Spot] = (),
    shards: Path | str | None = None,
    checkpoint: str = "best",
    device: str = "auto",
    annotations: Path | None = None,
    annotate: Annotate = read_other_annotations,
    cache: Path | None = None,
    cache_gb: float = 50.0,
    progress: Callable[[int, int], None] | None = None,
) -> FoundSpots:
    """Return the spots with the highest scores, in the same order every time.

    Args:
        run: folder of the run.
        search: which are wanted.
        reviewed: spots that somebody decided: none that may be the same event is found again.
        shards: shards folder or URL; the run's own if None.
        checkpoint: `best`, `last`, or the path of a checkpoint.
        device: as in TrainConfig.
        annotations: to hold spots against instead of those that the run was trained with.
        annotate: reads them; see `train`.
        cache: folder of this machine that keeps blocks of remote shards; none if None.
        cache_gb: bound of that folder, in units of 10^9 bytes.
        progress: called with (rows done, rows) of each split.

    Raises:
        NotFound, ConfigError, SpecMismatch, CorruptData: as `train.evaluate`; a ConfigError, too,
            when the label is of numbers, or nobody chose a threshold.
    """
    search = search or SpotSearch()
    opened = Run.open(run)
    label = _check_run(opened)
    here = opened.config.shards
    if shards is None and isinstance(here, Path) and not here.exists():
        raise NotFound(f"{here} is gone, the shards of {run}; say where they are: --shards STORE")
    index = index_for(opened, shards, annotations, annotate)
    splits = search.splits_of(index)
    trained = load_trained(opened, checkpoint)
    threshold = trained.threshold if search.threshold is None else search.threshold
    if threshold is None:
        raise ConfigError(
            f"{trained.path} has no threshold, as no validation chose one: say from which score on"
            " there is a spot, such as --threshold 0.5"
        )
    model = trained.model.to(choose_device(device))
    found: list[Spot] = []
    num_rows = 0
    for split in splits:
        # One after the other, so that the scores of one alone are in memory.
        scorer = SplitScorer(opened, model, cache=cache, cache_gb=cache_gb, progress=progress)
        streams = scorer.score(index, split).streams
        if is_counted(split):
            record_look(
                opened,
                split,
                checkpoint=trained.path,
                checkpoint_sha256=checkpoint_sha256(trained.path),
                index_id=index.index_id,
                annotations_sha256=tables_digest(index),
                by="spots",
            )
        num_rows += sum(len(item.row) for item in streams)
        for scores in streams:
            found.extend(_spots_of(index, scores, label, threshold, search.min_distance.us))
    distinct, num_reviewed = _distinct(found, reviewed)
    return FoundSpots(
        spots=_highest(distinct, search),
        splits=splits,
        index=index,
        label=label,
        are_windows=label.kind not in _SEGMENTED,
        threshold=threshold,
        num_reaching=len(distinct),
        num_reviewed=num_reviewed,
        num_rows=num_rows,
        other_annotations=other_annotations(
            index, opened, annotations or opened.config.annotations
        ),
    )


def _check_run(opened: Run) -> LabelSpec:
    config = opened.config
    if config.probe:
        name = config.probes[0].name
        raise ConfigError(
            f"{opened.path} holds {len(config.probes)} probes: search with one of them, such as"
            f" {opened.path / PROBES / name}"
        )
    if config.label.kind == "regression":
        raise ConfigError(
            f"{opened.path} was trained for {config.label.label}: its scores are numbers, and say"
            " of no stretch that an event is there; train with --label detection or onset:0.8s"
        )
    return config.label


def _annotated(index: Index, stream: Stream, label: LabelSpec) -> Times:
    """Bouts of the events that are asked for, and events that may be such, in no order."""
    tables = index.tables(index.recording(stream.recording_id))
    roles = {"main": stream.main, "other": stream.other}
    bouts, unknown = target_bouts(label, tables, **roles), unknown_events(label, tables, **roles)
    return Times(
        np.concatenate([bouts.start_us, unknown.start_us]),
        np.concatenate([bouts.end_us, unknown.end_us]),
    )


def _spots_of(
    index: Index, scores: StreamScores, label: LabelSpec, threshold: float, distance_us: int
) -> Iterator[Spot]:
    """Yield the spots of one stream, unranked."""
    stream = scores.stream
    asked = _asked(label, stream)
    if asked == ():
        return  # the other's events, and there is no other
    known = _annotated(index, stream, label)
    near = Times(known.start_us - distance_us, known.end_us + distance_us)
    if label.kind in _SEGMENTED:
        rule = SegmentRule(threshold, merge_gap_us=label.merge_gap.us)
        found = find_segments(scores.row, scores.score, rule, lead=label.lead_frames)
        ignored = (scores.row[~scores.eligible] + label.lead_frames) * FRAME_US
        blocked = touches(found, near) | touches(found, Times(ignored, ignored + FRAME_US))
    else:
        found, reach = _windows(scores, label, threshold)
        tables = index.tables(index.recording(stream.recording_id))
        moments = awaited_us(label, tables, main=stream.main, other=stream.other)
        blocked = touches(reach, near) | touches(reach, Times(moments, moments + 1))
    recording = index.recording(stream.recording_id)
    end_us = min(stream.num_frames * FRAME_US, index.tables(recording).duration_us)
    free = found.only(~blocked)
    for start, end, score in zip(
        free.start_us.tolist(), free.end_us.tolist(), free.score.tolist(), strict=True
    ):
        start_us, stop_us = max(start, 0), min(end, end_us)
        if start_us < stop_us:
            yield Spot(
                rank=0,
                recording_id=recording.id,
                recording=recording.name,
                split=recording.split,
                assignment=stream.assignment,
                speaker=asked[0] if asked is not None and len(asked) == 1 else None,
                asked=asked,
                start_us=start_us,
                end_us=stop_us,
                score=score,
            )


def _asked(label: LabelSpec, stream: Stream) -> tuple[str, ...] | None:
    """Return whose events a label asks for in a stream; None: everybody's."""
    whose = asked_of(label.whose, stream.main)
    names = {"main": (stream.main,), "other": (stream.other,), "pair": (stream.main, stream.other)}
    return None if whose == "any" else tuple(name for name in names[whose] if name is not None)


def _windows(scores: StreamScores, label: LabelSpec, threshold: float) -> tuple[Segments, Segments]:
    """Return the window of each alarm's highest row, and those of all rows that it stands for.

    An alarm stands for the rows that reach the threshold up to the label's span behind it.
    """
    rules = label.rules
    reaches = scores.eligible & (scores.score >= threshold)
    places = np.flatnonzero(reaches)
    alarms = raise_alarms(scores.row, reaches, rules.span)
    first = np.searchsorted(places, alarms)
    if not len(alarms):
        none = Segments(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        return none, none
    row, score = scores.row[places], scores.score[places]
    stop = np.append(first[1:], len(places))
    highest = np.array(
        [a + int(np.argmax(score[a:b])) for a, b in zip(first, stop, strict=True)], np.int64
    )

    def window(begin: NDArray[np.int64], last: NDArray[np.int64]) -> Segments:
        """An onset that row t foretells lies in frames t + guard + 1 to t + span."""
        start, end = begin + rules.guard + 1, last + rules.span + 1
        return Segments(start * FRAME_US, end * FRAME_US, score[highest])

    return window(row[highest], row[highest]), window(row[first], row[stop - 1])


def _distinct(found: Iterable[Spot], reviewed: Sequence[Spot]) -> tuple[list[Spot], int]:
    """Return spots in their order, of those that may be one event the highest, none reviewed.

    Returns:
        The spots, and how many others were left out as reviewed.
    """
    order = sorted(
        found, key=lambda item: (-item.score, item.recording_id, item.assignment, item.start_us)
    )
    taken, decided = _Places(), _Places()
    for spot in reviewed:
        decided.add(spot)
    distinct: list[Spot] = []
    num_reviewed = 0
    for spot in order:
        if taken.meets(spot):
            continue
        taken.add(spot)
        if decided.meets(spot):
            num_reviewed += 1
        else:
            distinct.append(spot)
    return distinct, num_reviewed


class _Places:
    """Spots by recording and minute: a low threshold finds thousands in each recording."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, int], list[Spot]] = {}

    def add(self, spot: Spot) -> None:
        for key in self._keys(spot):
            self._buckets.setdefault(key, []).append(spot)

    def meets(self, spot: Spot) -> bool:
        """Tell whether one of them may be the same event."""
        return any(
            spot.overlaps(other) for key in self._keys(spot) for other in self._buckets.get(key, ())
        )

    def _keys(self, spot: Spot) -> Iterator[tuple[str, int]]:
        for minute in range(spot.start_us // _BUCKET_US, (spot.end_us - 1) // _BUCKET_US + 1):
            yield spot.recording_id, minute


def _highest(distinct: Iterable[Spot], search: SpotSearch) -> tuple[Spot, ...]:
    """Return the first spots, ranked, not more of a recording than are wanted."""
    most = search.per_recording or search.count
    taken: dict[str, int] = {}
    chosen: list[Spot] = []
    for spot in distinct:
        num_before = taken.get(spot.recording_id, 0)
        if num_before < most and len(chosen) < search.count:
            taken[spot.recording_id] = num_before + 1
            chosen.append(replace(spot, rank=len(chosen) + 1))
    return tuple(chosen)
