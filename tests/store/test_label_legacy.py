"""Legacy labels against their rules, written out literally in plain Python floats.

Expected rows come from lists of seconds as the files had them, walked one row at a time; nothing of
`laughstore` takes part in making them.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from laughstore.annotations import Annotations, Event, Interval, Segment, Speaker
from laughstore.bouts import expand
from laughstore.errors import ConfigError
from laughstore.labels import LabelSpec, Whose, frame_targets
from laughstore.naming import MIX
from laughstore.tables import RecordingTables, Vocabulary, recording_tables
from laughstore.timebase import Span
from laughstore.turns import legacy_rows


@dataclass(frozen=True)
class Stretch:
    """An event or an interval, in seconds as a JSON file has them."""

    speaker: str | None
    start_s: float
    end_s: float
    turn_s: float = 0.0
    label: str = "Laughter"


def f(x: float) -> int:
    return int(x * 12.5)


def is_ours(stretch: Stretch, whose: str, main: str, other: str | None) -> bool:
    if stretch.label != "Laughter":
        return False
    if whose == "any":
        return True
    if stretch.speaker is None:
        return False
    return stretch.speaker in {"main": [main], "other": [other], "pair": [main, other]}[whose]


def by_the_rules(kind: str, n: int, ours: list[Stretch], num_rows: int) -> list[float]:
    y = [0.0] * num_rows
    for item in ours:
        b, e = item.start_s, item.end_s
        if kind == "detection":
            marked = range(max(0, f(b)), min(num_rows, f(e)))
        elif kind == "shift":
            marked = range(max(0, f(b) - n), min(num_rows, f(e) - n))
        elif kind == "onset":
            marked = range(max(0, f(b) - n), min(num_rows, f(b)))
        elif kind == "interval":
            marked = range(max(0, f(e - 10)), min(num_rows - 1, f(e)) + 1)
            if not b - item.turn_s < 10:
                marked = range(0)
        else:
            for t in range(max(0, f(max(0, e - 10))), min(num_rows - 1, f(e)) + 1):
                d = e - t / 12.5
                if d >= 0:
                    y[t] = float(np.float32(1 / (d + 1)))
            continue
        for t in marked:
            y[t] = 1.0
    return y


def us(x: float) -> int:
    return round(x * 1_000_000)


def tables_of(
    events: list[Stretch], intervals: list[Stretch] | None, turn_ends_s: list[float] | None = None
) -> RecordingTables:
    annotations = Annotations(
        "an episode",
        30_000_000,
        (Speaker("ann", 2), Speaker("bob", 1)),
        tuple(
            Event(us(item.start_s), us(item.end_s), item.label, item.label, item.speaker)
            for item in events
        ),
        turns=None
        if turn_ends_s is None
        else tuple(Segment(us(end_s) - 1, us(end_s), "ann") for end_s in turn_ends_s),
        intervals=None
        if intervals is None
        else tuple(
            Interval(item.speaker or "cyd", us(item.start_s), us(item.turn_s), us(item.end_s))
            for item in intervals
        ),
    )
    return recording_tables(annotations, Vocabulary.of([annotations]))


moments_us = st.one_of(
    st.integers(-1_000_000, 35_000_000),
    # On frame boundaries, where floats go wrong, and beside them.
    st.builds(lambda frame, nudge: frame * 80_000 + nudge, st.integers(0, 400), st.integers(-1, 1)),
)
moments_s = moments_us.map(lambda time_us: time_us / 1_000_000)


@st.composite
def stretches(draw: st.DrawFn) -> Stretch:
    start_us = draw(moments_us)
    waited_us = draw(
        st.one_of(st.sampled_from([9_999_999, 10_000_000]), st.integers(0, 12_000_000))
    )
    return Stretch(
        draw(st.sampled_from(["ann", "ann", "bob", "cyd", None])),
        start_us / 1_000_000,
        draw(moments_s),
        (start_us - waited_us) / 1_000_000,
        draw(st.sampled_from(["Laughter", "Laughter", "Laughter", "Breath"])),
    )


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["detection", "shift", "onset", "interval", "regression"]),
    n=st.integers(1, 40),
    items=st.lists(stretches(), max_size=6),
    whose=st.sampled_from(get_args(Whose)),
    other=st.sampled_from(["bob", None]),
    num_rows=st.sampled_from([0, 1, 130, 375, 500]),
)
@example("regression", 1, [Stretch("ann", 0, 5.6), Stretch("ann", 0, 5.0)], "main", None, 130)
@example("shift", 9, [Stretch("ann", 0.1, 0.3)], "main", None, 130)
def test_legacy_labels_are_those_of_the_rules(kind, n, items, whose, other, num_rows):
    if kind in ("interval", "regression"):  # an interval has a speaker, and no class
        items = [
            Stretch(item.speaker or "cyd", item.start_s, item.end_s, item.turn_s) for item in items
        ]
    spec = LabelSpec(kind if kind not in ("shift", "onset") else f"{kind}:{n}f", legacy=True)
    spec = LabelSpec(spec.label, whose=whose, legacy=True)
    targets = frame_targets(
        spec, tables_of(items, items), main="ann", other=other, num_frames=num_rows
    )
    assert not targets.ignored.any()
    ours = [item for item in items if is_ours(item, whose, "ann", other)]
    assert targets.y.tolist() == by_the_rules(kind, n, ours, num_rows)


def test_floats_put_a_time_on_a_frame_boundary_one_frame_early_and_parity_keeps_that():
    early = next(k for k in range(1, 1000) if int(k * 80_000 / 1_000_000 * 12.5) == k - 1)
    laugh = Stretch("ann", early * 80_000 / 1_000_000, (early + 2) * 80_000 / 1_000_000)
    tables = tables_of([laugh], None)
    old, new = LabelSpec(legacy=True), LabelSpec()
    rows = [
        np.flatnonzero(frame_targets(s, tables, main="ann", other=None, num_frames=1000).y).min()
        for s in (old, new)
    ]
    assert rows == [early - 1, early]


@given(st.integers(10_080_000, 100_000_000))
def test_a_legacy_interval_has_126_rows(end_us):
    end_s = end_us / 1_000_000
    tables = tables_of([], [Stretch("ann", end_s, end_s, end_s)])
    spec = LabelSpec("interval", legacy=True)
    targets = frame_targets(spec, tables, main="ann", other=None, num_frames=2000)
    assert np.count_nonzero(targets.y) == 126


def test_an_interval_outside_the_limit_is_negative_in_legacy_and_ignored_otherwise():
    tables = tables_of([], [Stretch("ann", 20.0, 20.0, 10.0), Stretch("ann", 25.0, 24.0, 20.0)])
    old = frame_targets(
        LabelSpec("interval", legacy=True), tables, main="ann", other=None, num_frames=400
    )
    assert np.flatnonzero(old.y).tolist() == list(range(175, 301))
    assert not old.ignored.any()
    new = frame_targets(LabelSpec("interval"), tables, main="ann", other=None, num_frames=400)
    assert np.flatnonzero(new.y).tolist() == list(range(250, 300))
    assert np.flatnonzero(new.ignored).tolist() == [*range(125, 250), *range(300, 400)]


def test_in_a_mix_legacy_labels_are_about_everybody():
    items = [Stretch("bob", 1.0, 2.0), Stretch(None, 3.0, 4.0)]
    spec = LabelSpec(legacy=True)
    targets = frame_targets(spec, tables_of(items, None), main=MIX, other=None, num_frames=100)
    assert np.flatnonzero(targets.y).tolist() == [*range(12, 25), *range(37, 50)]


def pointer_rows(turn_ends_s: list[float], num_rows: int) -> list[bool]:
    ends = [f(end_s) for end_s in turn_ends_s[:-1]]
    pointer = 0
    kept = [False] * num_rows
    for t in range(3000, num_rows):
        while pointer < len(ends) and ends[pointer] < t - 3000:
            pointer += 1
        kept[t] = pointer < len(ends) and ends[pointer] < t
    return kept


@settings(deadline=None, max_examples=60)
@given(
    ends_s=st.lists(
        st.integers(0, 720_000_000).map(lambda time_us: time_us / 1_000_000), max_size=8
    ),
    in_order=st.booleans(),
    num_rows=st.sampled_from([0, 100, 3000, 3001, 9000]),
)
@example(ends_s=[300.0, 10.0, 500.0, 1.0], in_order=False, num_rows=9000)
def test_the_legacy_filter_is_one_pointer_that_never_goes_back(ends_s, in_order, num_rows):
    ends_s = sorted(ends_s) if in_order else ends_s
    found = legacy_rows(tables_of([], None, ends_s), num_rows, where="here")
    assert found.tolist() == pointer_rows(ends_s, num_rows)


def test_the_legacy_filter_needs_turns():
    with pytest.raises(ConfigError, match=r"^an episode has no turns.*--turn-within 240s"):
        legacy_rows(tables_of([], None), 10, where="an episode")


def test_ranges_are_expanded_in_their_order_and_cut_to_the_recording():
    from laughstore.bouts import Frames

    first, stop = np.array([3, -2, 5, 8, 20]), np.array([5, 1, 4, 12, 30])
    rows, owner = expand(10, Frames(first, stop))
    assert rows.tolist() == [3, 4, 0, 8, 9]
    assert owner.tolist() == [0, 0, 1, 3, 3]
    rows, owner = expand(0, Frames(first, stop))
    assert (rows.tolist(), owner.tolist()) == ([], [])


@pytest.mark.parametrize("label", ["detection", "shift:3f", "onset:4f", "interval", "regression"])
def test_an_identity_of_a_legacy_label_tells_that_it_is_one_and_reads_back(label):
    spec = LabelSpec(label, legacy=True)
    assert spec.identity()["legacy"] is True
    assert LabelSpec.from_identity(spec.identity()).identity() == spec.identity()
    assert spec.identity() != LabelSpec(label).identity()
    assert spec.describe().endswith("legacy rules")
    assert Span("10s").frames == LabelSpec("interval", legacy=True).rules.span
