"""Tables of a page, which readers sort by any column; drawn by `table` of `parts.html`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from laughstore.errors import ConfigError

NOTHING: Final = "\N{EN DASH}"
"""In the place of a number that there is none of."""


@dataclass(frozen=True)
class Column:
    """What a column holds."""

    title: str
    numeric: bool = False
    """Numbers: set to the right, and the largest come first when it is sorted by for the first
    time."""
    hint: str = ""
    """What it means, where the title does not say it."""


@dataclass(frozen=True)
class Cell:
    """What stands in one place."""

    text: str
    order: float | str | None = None
    """What rows are sorted by; None: behind all others, whatever the direction."""
    href: str | None = None
    """Place of the page that it leads to, as `#timeline`."""
    hint: str = ""
    """More of it, such as why there is no number."""

    @classmethod
    def name(cls, text: str, href: str | None = None) -> "Cell":
        """Return a cell of text that is sorted by its letters."""
        return cls(text, text.casefold(), href)

    @classmethod
    def of(cls, value: float | None, digits: int = 3, *, why: str = "") -> "Cell":
        """Return a cell of a number, or of none and why there is none."""
        return cls(number(value, digits), value, hint=why if value is None else "")

    @classmethod
    def share(cls, value: float | None, digits: int = 2, *, why: str = "") -> "Cell":
        """Return a cell of a share, as percent."""
        return cls(percent(value, digits), value, hint=why if value is None else "")

    @classmethod
    def count(cls, value: int) -> "Cell":
        """Return a cell of a whole number."""
        return cls(f"{value:,}", value)


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Raises:
        ConfigError: a row has not as many cells as there are columns.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    sorted_by: int | None = None
    """Column that the rows are sorted by, as they are given; None: by none."""
    descending: bool = False

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ConfigError(
                    f"a row of {self.caption!r} has {len(row)} cells; there are"
                    f" {len(self.columns)} columns"
                )

    def direction(self, column: int) -> str:
        """Return what `aria-sort` says of a column."""
        if column != self.sorted_by:
            return "none"
        return "descending" if self.descending else "ascending"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number for people, or a dash."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share as percent, or a dash."""
    return NOTHING if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def clock(seconds: float, digits: int = 0) -> str:
    """Return a moment of a recording as min:s, or h:min:s from an hour on."""
    unit = 10**digits
    ticks = round(seconds * unit)
    sign = "-" if ticks < 0 else ""
    whole, part = divmod(abs(ticks), unit)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    tail = f".{part:0{digits}d}" if digits else ""
    if hours:
        return f"{sign}{hours}:{minute:02d}:{second:02d}{tail}"
    return f"{sign}{minute}:{second:02d}{tail}"
