"""Exact time."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laughstore.errors import ConfigError
from laughstore.timebase import (
    FRAME_US,
    SAMPLE_RATE,
    Span,
    ceil_frame,
    floor_frame,
    is_finite_time,
    microseconds,
    num_frames,
    num_samples_24k,
)

times_us = st.integers(0, 10**12)


@given(times_us)
def test_microseconds_survive_being_written_as_decimal_seconds(time_us):
    assert microseconds(float(Decimal(time_us) / 10**6)) == time_us
    assert microseconds(f"{time_us // 10**6}.{time_us % 10**6:06d}") == time_us


@given(st.integers(0, 10**7))
def test_a_time_on_a_frame_boundary_is_that_frame(frame):
    # int(x * 12.5) puts 6.6 % of these one frame early.
    seconds = float(Decimal(frame) * Decimal("0.08"))
    assert floor_frame(microseconds(seconds)) == frame
    assert ceil_frame(microseconds(seconds)) == frame


@given(times_us, times_us)
def test_frames_are_monotone_in_time(a, b):
    first, second = sorted((a, b))
    assert floor_frame(first) <= floor_frame(second)
    assert ceil_frame(first) <= ceil_frame(second)
    assert floor_frame(first) * FRAME_US <= first <= ceil_frame(first) * FRAME_US


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "soon", ""])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ConfigError, match="finite number of seconds"):
        microseconds(value)


@pytest.mark.parametrize(
    ("value", "finite"),
    [(1, True), (1.5, True), (float("nan"), False), (True, False), ("1", False), (10**400, True)],
)
def test_finite_times(value, finite):
    assert is_finite_time(value) is finite


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 1), (1920, 1), (1921, 2), (24_000, 13), (24_000 * 3600, 45_000)]
)
def test_a_ragged_end_is_a_frame(samples, frames):
    assert num_frames(samples) == frames


@given(st.integers(1, 10**9), st.integers(8_000, 192_000))
def test_resampled_length_covers_the_track_and_no_more(samples, rate):
    resampled = num_samples_24k(samples, rate)
    assert (resampled - 1) * rate < samples * SAMPLE_RATE <= resampled * rate


@pytest.mark.parametrize(
    ("text", "frames", "us"),
    [
        ("10f", 10, 800_000),
        ("0.8s", 10, 800_000),
        ("0.04s", 1, 40_000),
        ("0.03s", 1, 30_000),
        ("0.12s", 2, 120_000),
        ("0.5s", 6, 500_000),
        ("0s", 0, 0),
        ("-1f", -1, -80_000),
        ("-0.03s", -1, -30_000),
    ],
)
def test_spans_in_frames_and_microseconds(text, frames, us):
    assert Span(text).frames == frames
    assert Span(text).us == us


@pytest.mark.parametrize(
    "text", ["9" * 20 + "f", "1000000001s", "-1" + "0" * 18 + "s", "12500000001f"]
)
def test_a_span_longer_than_any_recording_is_refused(text):
    with pytest.raises(ConfigError, match="longer than any recording"):
        Span(text)


@pytest.mark.parametrize(("text", "shown"), [("3", "3s .* or 3f "), ("0.8", "0.8s .* or 10f ")])
def test_a_number_without_a_unit_is_told_both_forms_that_work(text, shown):
    with pytest.raises(ConfigError, match=shown):
        Span(text)


@pytest.mark.parametrize("text", ["3", "0.5", "3.5f", "fast", "", "3 s", "3ms", "nan s"])
def test_a_span_without_a_known_unit_is_refused(text):
    with pytest.raises(ConfigError, match="needs a unit"):
        Span(text)
