"""Numbers in annotation files: decimal text to integer microseconds, nothing lost on the way."""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal

MAX_US = 10_000_000 * 1_000_000
"""115 days: no recording is longer. Their sums always fit an i64."""
SECONDS, MILLISECONDS, MICROSECONDS = 6, 3, 0
"""Units of a time: decimal places from it to microseconds."""

_MAX_CHARS = 100
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
# Holds every number of _MAX_CHARS characters, and the sum of two below MAX_US, without rounding.
_EXACT = Context(prec=1_300, rounding=ROUND_HALF_EVEN, traps=[])


def read_number(text: str, *, decimal_comma: bool = False) -> Decimal | None:
    """Return the number that a text is, exactly; None when it is no finite number.

    Args:
        text: ASCII digits, at most 100 characters; white space around them is allowed.
        decimal_comma: read `0,5` as a half too.
    """
    text = text.strip()
    if len(text) > _MAX_CHARS:
        return None
    if decimal_comma and _COMMA.fullmatch(text):
        text = text.replace(",", ".")
    return _EXACT.create_decimal(text) if _NUMBER.fullmatch(text) else None


def in_us(value: Decimal, unit: int) -> Decimal:
    """Return a time in microseconds, exact and not rounded."""
    return value.scaleb(unit, context=_EXACT)


def total(start: Decimal | None, length: Decimal | None) -> Decimal | None:
    """Return the exact sum of a start and a length; None when one is missing."""
    if start is None or length is None:
        return None
    if max(start.adjusted(), length.adjusted()) > _MAX_CHARS:
        return max(start, length, key=Decimal.copy_abs)
    return _EXACT.add(start, length)


def to_us(value: Decimal | None, unit: int = SECONDS) -> int | None:
    """Return a time as integer microseconds, rounded half to even; None stays None.

    Times beyond every recording become one beyond `MAX_US`, whatever their size: an integer of
    10^999 has no use.

    Args:
        value: a time.
        unit: decimal places between it and microseconds.
    """
    if value is None:
        return None
    if value and value.adjusted() + unit > len(str(MAX_US)):
        return -MAX_US - 1 if value < 0 else MAX_US + 1
    scaled = in_us(value, unit)
    return int(scaled.to_integral_value(rounding=ROUND_HALF_EVEN, context=_EXACT))
