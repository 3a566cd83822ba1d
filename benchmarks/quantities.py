"""Numbers as people read them, and tables of them."""

from collections.abc import Sequence


def quantity(value: float, unit: str) -> str:
    """Return a number for people: three digits that count, with the prefix of its unit.

    Args:
        value: any number.
        unit: `B`, `B/s`, `s`, `h`, or none.
    """
    if value < 0:
        return f"-{quantity(-value, unit)}"
    if unit in ("B", "B/s"):
        power = min(5, max(0, (len(f"{value:.0f}") - 1) // 3))
        return f"{number(value / 1e3**power)} {('', 'k', 'M', 'G', 'T', 'P')[power]}{unit}"
    if unit == "s":
        if value >= 1 or value == 0:
            return f"{number(value)} s"
        return f"{number(1e3 * value)} ms" if value >= 1e-3 else f"{number(1e6 * value)} us"
    return f"{number(value)} {unit}".strip()


def number(value: float) -> str:
    """Return three digits that count, never an exponent; thousands are set apart."""
    if value >= 1000:
        digits = len(f"{value:.0f}")
        return f"{round(value, 3 - digits):,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def markdown_table(table: Sequence[Sequence[str]]) -> str:
    """Return a table, its first row the heads; all columns but the first are right-aligned."""
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|---" + "|---:" * (len(table[0]) - 1) + "|")
    return "\n".join(lines)
