"""Kinds of labels: from frame ranges of events and bouts to a target for every row.

A kind is one function and one entry in `KINDS`. What the words mean stands in docs/labels.md:
a row is ignored, positive or negative, and where two of them apply, the first of the three holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .bouts import Frames, paint


@dataclass(frozen=True)
class Targets:
    """The labels of the T rows of one stream."""

    y: NDArray[np.uint8]
    """u1[T]: 1 positive; 0 negative or ignored."""
    ignored: NDArray[np.bool_]
    """bool[T]: the row is left out of training, counts and metrics."""


@dataclass(frozen=True)
class Scene:
    """What is annotated in one recording for one assignment, as ranges of frames."""

    num_frames: int
    events: Frames
    """Frames that each target event touches."""
    bouts: Frames
    """Frames that each bout touches, gaps included."""
    unknown: Frames
    """Frames that each unknown event touches."""


@dataclass(frozen=True)
class Rules:
    """The numbers of a label, in frames."""

    span: int
    """n of `onset:n`; 0 for kinds without a span."""
    guard: int
    lead: int
    edge: int
    fill_gaps: bool


@dataclass(frozen=True)
class Kind:
    """One kind of label: how its targets are painted, and which settings it knows."""

    paint: Callable[[Scene, Rules], Targets]
    takes_span: bool
    options: frozenset[str]
    """Names of the `LabelSpec` fields that only some kinds know, and this one does."""


def detection(scene: Scene, rules: Rules) -> Targets:
    """Label the frames that hold an event; gaps in a bout, edges and unknown events are ignored."""
    num_frames = scene.num_frames
    in_event = paint(num_frames, scene.events)
    in_bout = paint(num_frames, scene.bouts)
    first, stop = scene.bouts
    in_edge = (Frames(first - rules.edge, first), Frames(stop, stop + rules.edge))
    ignored = paint(num_frames, scene.unknown, *in_edge)
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
    num_frames, span = scene.num_frames, rules.span
    onsets, unknown_onsets = scene.bouts.first, scene.unknown.first
    positive = paint(num_frames, Frames(onsets - span, onsets - rules.guard))
    before_onset = Frames(onsets - rules.guard, onsets)
    ignored = paint(num_frames, before_onset, scene.bouts, scene.unknown)
    # What follows these rows is not known, unless a bout makes them positive: the start of an
    # unknown event may be an onset, and one may come just after the recording ends.
    last_rows = Frames(np.array([num_frames - span]), np.array([num_frames]))
    unsure = paint(num_frames, Frames(unknown_onsets - span, unknown_onsets), last_rows)
    return _targets(positive=positive, ignored=ignored | (unsure & ~positive))


KINDS: Final[dict[str, Kind]] = {
    "detection": Kind(detection, False, frozenset({"lead", "edge", "fill_gaps"})),
    "onset": Kind(onset, True, frozenset({"guard"})),
}


def _targets(*, positive: NDArray[np.bool_], ignored: NDArray[np.bool_]) -> Targets:
    """Apply the precedence: ignored, then positive, then negative."""
    return Targets(y=(positive & ~ignored).astype(np.uint8), ignored=ignored)


def _at_lead(frames: NDArray[np.bool_], lead: int, *, outside: bool) -> NDArray[np.bool_]:
    """bool[T]: row t takes frame t + lead, or `outside` where there is no such frame."""
    num_frames = len(frames)
    rows = np.full(num_frames, outside)
    first, stop = max(0, -lead), min(num_frames, num_frames - lead)
    if first < stop:
        rows[first:stop] = frames[first + lead : stop + lead]
    return rows
