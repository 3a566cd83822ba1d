"""Small pieces of text that several commands print."""

import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..buildplan import SkippedRecording
    from ..progress import Progress

SHOWN = 20
"""Lines printed of a list before the rest is only counted."""


def program(*, by_torchrun: bool = False) -> str:
    """Return what the user types to run laughstore: `uv run` puts it on no PATH of theirs."""
    name = "torchrun ... -m laughstore" if by_torchrun else "laughstore"
    return f"uv run {name}" if "UV_RUN_RECURSION_DEPTH" in os.environ else name


def human_bytes(num_bytes: float) -> str:
    """Return a size with three digits and its unit, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def percent(share: float | None) -> str:
    """Return a share as percent with two decimals, or `undefined`."""
    return "undefined" if share is None else f"{100 * share:.2f} %"


def number(value: float | None) -> str:
    """Return a score with three decimals, or `undefined`."""
    return "undefined" if value is None else f"{value:.3f}"


def counted(num: int, noun: str) -> str:
    """Return a number and its noun, which is given in the plural: `1 recording`, `2 recordings`."""
    return f"{num:,} {noun.removesuffix('s') if num == 1 else noun}"


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> list[str]:
    """Return the lines of a table, its columns two blanks apart.

    Args:
        rows: of as many words each, the header first.
        left: columns that stand to the left; all others to the right, as numbers do.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            word.ljust(width) if place in left else word.rjust(width)
            for place, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def print_some(title: str, lines: Sequence[str]) -> None:
    """Print a counted list, its first lines only.

    Args:
        title: what they are, its first word in the plural.
        lines: one for each.
    """
    if not lines:
        return
    noun, space, rest = title.partition(" ")
    print(f"{counted(len(lines), noun)}{space}{rest}:")
    for line in lines[:SHOWN]:
        print(f"  {line}")
    if len(lines) > SHOWN:
        print(f"  ... and {len(lines) - SHOWN} more")


def print_other_devices(num_recordings: Mapping[str, int]) -> None:
    """Print how many recordings were extracted on each other kind of device than the plan's."""
    for kind, num in num_recordings.items():
        print(f"extracted on another kind of device, {kind}: {counted(num, 'recordings')}")


def print_left_out(items: "Sequence[SkippedRecording]") -> None:
    """Print recordings that are not in the store, with the reason; nothing if there are none."""
    print_some("recordings left out", [f"{i.name} ({i.split}): {i.reason}" for i in items])


@contextmanager
def goes_on(
    progress: "Progress", command: str, arguments: Sequence[str], *, by_torchrun: bool = False
) -> Iterator[None]:
    """Say, where a signal ends this block, that the same command goes on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        again = f"{program(by_torchrun=by_torchrun)} {shlex.join([command, *arguments])}"
        progress.message(f"stopped; finished recordings are kept. Go on with:\n  {again}")
        raise
