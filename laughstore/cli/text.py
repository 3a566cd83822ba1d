"""Small pieces of text that several commands print."""

from collections.abc import Sequence

SHOWN = 20
"""Lines printed of a list before the rest is only counted."""


def human_bytes(num_bytes: float) -> str:
    """Return a size with three digits and its unit, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def percent(share: float | None) -> str:
    """Return a share as percent with three digits, or why there is none."""
    return "undefined" if share is None else f"{100 * share:.3g} %"


def number(value: float | None) -> str:
    """Return a score with three decimals, or `undefined`."""
    return "undefined" if value is None else f"{value:.3f}"


def print_some(title: str, lines: Sequence[str]) -> None:
    """Print a counted list, its first lines only."""
    if not lines:
        return
    print(f"{len(lines)} {title}:")
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  ... and {len(lines) - SHOWN} more")
