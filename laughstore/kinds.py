"""Kinds of labels: from the events, bouts and intervals of a stream to a target for every row.

A kind is one entry in `KINDS`. What the words mean stands in docs/labels.md: a row is ignored,
positive or negative, and where two of them apply, the first of the three holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from . import legacy
from .bouts import Frames, Times, expand, paint
from .tables import IntervalTable
from .timebase import FRAME_US, US_PER_SECOND, ceil_frame, floor_frame

TargetArray = NDArray[np.uint8 | np.float32]
Until = Literal["onset", "interval"]
"""What a regression waits for."""


@dataclass(frozen=True)
class Targets:
    """The labels of the T rows of one stream."""

    y: TargetArray
    """u1[T]: 1 positive; 0 negative or ignored. f4[T] of `regression`: above 0, at most 1, where
    positive."""
    ignored: NDArray[np.bool_]
    """bool[T]: the row is left out of training, counts and metrics."""


@dataclass(frozen=True)
class Scene:
    """What is annotated in one recording for one assignment."""

    num_frames: int
    events: Times
    """Target events; for legacy rules as they were written."""
    bouts: Times
    """In order of time; none for legacy rules."""
    unknown: Times
    """Events that may be target events; none for legacy rules."""
    intervals: IntervalTable
    """Prediction intervals of the speakers asked for, in file order; none if no rule needs them."""


@dataclass(frozen=True)
class Rules:
    """The numbers of a label, in frames unless named otherwise."""

    span: int
    """n of `onset:n`; 0 for kinds without a span."""
    guard: int
    lead: int
    edge: int
    fill_gaps: bool
    limit_us: int
    until: Until


@dataclass(frozen=True)
class Kind:
    """One kind of label: how its targets are painted, and which settings it knows."""

    paint: Callable[[Scene, Rules], Targets]
    legacy: Callable[[Scene, Rules], TargetArray]
    """The same by the rules of the scripts before laughstore, which ignore no row."""
    takes_span: bool
    options: frozenset[str]
    """Names of the `LabelSpec` fields that only some kinds know, and this one does."""
    dtype: type[np.uint8] | type[np.float32] = np.uint8
    """Of its targets."""
    leads_by_span: bool = False
    """A row is asked about the frame one span later."""
    usual_span: int | None = None
    """In frames: the one meant when none is written, and the only one that legacy rules know."""


def detection(scene: Scene, rules: Rules) -> Targets:
    """Label the frames that hold an event; gaps in a bout, edges and unknown events are ignored."""
    num_frames = scene.num_frames
    bouts = scene.bouts.frames()
    in_event = paint(num_frames, scene.events.frames())
    in_bout = paint(num_frames, bouts)
    first, stop = bouts
    in_edge = (Frames(first - rules.edge, first), Frames(stop, stop + rules.edge))
    ignored = paint(num_frames, scene.unknown.frames(), *in_edge)
    if rules.fill_gaps:
        positive = in_bout
    else:
        positive = in_event
        ignored |= in_bout & ~in_event
    return _targets(
        positive=_at_lead(positive, rules.lead, outside=False),
        ignored=_at_lead(ignored, rules.lead, outside=True),
    )


def onset(scene: Scene, rules: Rules) -> Targets:
    """Label the rows in the n frames before a bout's first, but not those that may have heard it.

    A window that reaches back into an earlier bout is cut there, since bout rows are ignored.
    """
    bouts = scene.bouts.frames()
    positive = paint(scene.num_frames, Frames(bouts.first - rules.span, bouts.first - rules.guard))
    before_onset = Frames(bouts.first - rules.guard, bouts.first)
    ignored = paint(scene.num_frames, before_onset, bouts, scene.unknown.frames())
    return _targets(positive=positive, ignored=ignored | (_unsure(scene, rules.span) & ~positive))


def interval(scene: Scene, rules: Rules) -> Targets:
    """Label the n rows before the end of an interval, but not those inside a bout.

    The rows of an interval whose turn began too early are ignored: something was to be predicted
    there, but not what this label asks for.
    """
    found = scene.intervals
    end = floor_frame(found.end_us)
    taken = found.event_start_us - found.turn_start_us < rules.limit_us
    positive = paint(scene.num_frames, Frames(end[taken] - rules.span, end[taken]))
    too_long = Frames(end[~taken] - rules.span, end[~taken])
    ignored = paint(scene.num_frames, too_long, scene.bouts.frames(), scene.unknown.frames())
    return _targets(positive=positive, ignored=ignored | (_unsure(scene, rules.span) & ~positive))


def regression(scene: Scene, rules: Rules) -> Targets:
    """Label rows with 1 / (1 + seconds) to what comes next, within n rows; 0 where nothing does."""
    num_frames, span = scene.num_frames, rules.span
    until_us = scene.bouts.start_us if rules.until == "onset" else np.sort(scene.intervals.end_us)
    # Row t waits for the first moment at 80 t ms or later, so no row waits for two. The distance is
    # at most the reach from row C(moment) - n on.
    last = floor_frame(until_us)
    behind = np.concatenate([np.full(min(1, len(last)), -1), last[:-1]])
    first = np.maximum(ceil_frame(until_us) - span, behind + 1)
    rows, owner = expand(num_frames, Frames(first, last + 1))
    y = np.zeros(num_frames, np.float32)
    y[rows] = US_PER_SECOND / (US_PER_SECOND + until_us[owner] - rows * FRAME_US)
    ignored = paint(num_frames, scene.bouts.frames(), scene.unknown.frames())
    ignored[max(0, num_frames - span) :] |= y[max(0, num_frames - span) :] == 0
    y[ignored] = 0
    return Targets(y=y, ignored=ignored)


_TEN_SECONDS: Final = round(legacy.SPAN_S * US_PER_SECOND) // FRAME_US

KINDS: Final[dict[str, Kind]] = {
    "detection": Kind(
        detection,
        lambda scene, rules: legacy.detection(scene.num_frames, scene.events, 0),
        takes_span=False,
        options=frozenset({"lead", "edge", "fill_gaps"}),
    ),
    "shift": Kind(
        detection,
        lambda scene, rules: legacy.detection(scene.num_frames, scene.events, rules.span),
        takes_span=True,
        options=frozenset({"edge", "fill_gaps"}),
        leads_by_span=True,
    ),
    "onset": Kind(
        onset,
        lambda scene, rules: legacy.onset(scene.num_frames, scene.events, rules.span),
        takes_span=True,
        options=frozenset({"guard"}),
    ),
    "interval": Kind(
        interval,
        lambda scene, rules: legacy.interval(scene.num_frames, scene.intervals),
        takes_span=True,
        options=frozenset({"limit"}),
        usual_span=_TEN_SECONDS,
    ),
    "regression": Kind(
        regression,
        lambda scene, rules: legacy.regression(scene.num_frames, scene.intervals),
        takes_span=True,
        options=frozenset({"until"}),
        dtype=np.float32,
        usual_span=_TEN_SECONDS,
    ),
}


def _targets(*, positive: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> Targets:
    """Apply the precedence: ignored, then positive, then negative."""
    return Targets(y=(positive & ~ignored).view(np.uint8), ignored=ignored)


def _unsure(scene: Scene, span: int) -> NDArray[np.bool_]:
    """bool[T]: what follows the row is not known, unless another rule knows it.

    The start of an unknown event may be an onset, and one may come just after the recording ends.
    """
    starts = floor_frame(scene.unknown.start_us)
    last_rows = Frames(np.array([scene.num_frames - span]), np.array([scene.num_frames]))
    return paint(scene.num_frames, Frames(starts - span, starts), last_rows)


def _at_lead(frames: NDArray[np.bool_], lead: int, *, outside: bool) -> NDArray[np.bool_]:
    """bool[T]: row t takes frame t + lead, or `outside` where there is no such frame."""
    if lead == 0:
        return frames
    num_frames = len(frames)
    rows = np.full(num_frames, outside)
    first, stop = max(0, -lead), min(num_frames, num_frames - lead)
    if first < stop:
        rows[first:stop] = frames[first + lead : stop + lead]
    return rows
