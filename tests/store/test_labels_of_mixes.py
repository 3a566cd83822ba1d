"""Labels of a stream that hears everybody: all events are its own."""

import pytest

from laughstore.errors import ConfigError
from laughstore.labels import LabelSpec, asked_of, check_whose, frame_targets, target_bouts
from laughstore.naming import MIX

from .test_labels import NUM_FRAMES, drawn, frames, recording, tables_of


@pytest.mark.parametrize("whose", ["main", "other", "pair", "any"])
@pytest.mark.parametrize("label", ["detection", "onset:5f"])
def test_in_a_mix_all_events_are_its_own_whatever_is_asked(whose, label):
    events = frames(4, 6, "ann"), frames(14, 16, "bob"), frames(24, 26, None)
    spec, anyone = LabelSpec(label, whose=whose), LabelSpec(label, whose="any")
    tables = tables_of(recording(*events))
    mixed = frame_targets(spec, tables, main=MIX, other=None, num_frames=NUM_FRAMES)
    expected = frame_targets(anyone, tables, main="ann", other="bob", num_frames=NUM_FRAMES)
    assert drawn(mixed) == drawn(expected)
    if label == "detection":
        assert drawn(mixed) == "-4 +2 -8 +2 -8 +2 -14"
    bouts = target_bouts(spec, tables, main=MIX, other=None)
    assert bouts.start_us.tolist() == [event.start_us for event in events]


def test_an_event_that_is_uncertain_is_unknown_in_a_mix_too():
    tables = tables_of(recording(frames(4, 6), frames(14, 16, "bob", 0.3)))
    spec = LabelSpec(min_confidence=0.5)
    mixed = frame_targets(spec, tables, main=MIX, other=None, num_frames=NUM_FRAMES)
    assert drawn(mixed) == "-4 +2 -8 .2 -24"


def test_whose_events_a_stream_is_asked_for():
    for whose in ("main", "other", "pair", "any"):
        assert asked_of(whose, "ann") == whose
        assert asked_of(whose, MIX) == "any"


def test_a_store_of_mixes_needs_no_speakers_of_events_but_one_with_any_other_stream_does():
    nameless = tables_of(recording(frames(1, 2, None)))
    check_whose(LabelSpec(), [nameless], [MIX])
    check_whose(LabelSpec(whose="other"), iter([nameless]), iter([MIX, MIX]))
    for mains in ([MIX, "ann"], ["ann"], []):
        with pytest.raises(ConfigError, match="use --whose any"):
            check_whose(LabelSpec(), [nameless], mains)
