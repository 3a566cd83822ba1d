"""Times in annotation files: the written decimals, rounded once."""

import re
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laughstore.annotation_formats.numbers import MAX_US, read_number, to_us, total


def _exact(written: str) -> Fraction:
    return Fraction(re.sub(r"\.(?=[eE]|$)", ".0", written))


def _half_even(value: Fraction) -> int:
    return round(value)  # of a Fraction: exact, half to even


decimals = st.builds(
    lambda sign, whole, part, exponent: f"{sign}{whole}.{part}{exponent}",
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 10**7 - 1),
    st.text("0123456789", max_size=40),
    st.sampled_from(["", "e0", "E-1", "e-3", "e-40"]),
)


@given(decimals, st.sampled_from([0, 3, 6]))
def test_times_are_the_written_decimals_rounded_once(written, unit):
    assert to_us(read_number(written), unit) == _half_even(_exact(written) * 10**unit)


@given(decimals, decimals)
def test_a_start_and_a_duration_are_added_before_rounding(start, length):
    exact = _exact(start) + _exact(length)
    assert to_us(total(read_number(start), read_number(length))) == _half_even(exact * 10**6)


@pytest.mark.parametrize(
    ("written", "us"),
    [
        ("0.0000005", 0),
        ("0.0000015", 2),
        ("2.0000005", 2_000_000),
        ("0.30000000000000004", 300_000),
        (" 7 ", 7_000_000),
        (".5", 500_000),
        ("-0", 0),
    ],
)
def test_halves_of_a_microsecond_go_to_the_even_one(written, us):
    assert to_us(read_number(written)) == us


@pytest.mark.parametrize(
    "written",
    ["", "nan", "inf", "-Infinity", "1_000", "0x10", "1e", "٣", "1,5", "1e9999", "1" * 101, "--1"],
)
def test_what_is_no_finite_decimal_is_no_number(written):
    assert read_number(written) is None


@pytest.mark.parametrize("written", ["1e999", "-1e999", "9" * 90, "1e30"])
def test_huge_numbers_cost_nothing_and_are_beyond_every_recording(written):
    start = time.perf_counter()
    found = to_us(total(read_number(written), read_number("1")))
    assert found is not None
    assert abs(found) > MAX_US
    assert time.perf_counter() - start < 0.1
