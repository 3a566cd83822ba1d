"""What laughstore and its peers can do, beside how fast they are: a table, and why we say so.

`python -m benchmarks.table` writes it into benchmarks/README.md. The answers stand in
`benchmarks.feature_answers`; those that say `tested` name the test that shows them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Answer = Literal["yes", "partly", "no"]

BEGIN, END = "<!-- features:begin -->", "<!-- features:end -->"
SYSTEMS = (
    "laughstore",
    "webdataset",
    "mosaicml-streaming",
    "litdata",
    "grain + array_record",
    "Hugging Face datasets",
    "zarr-python",
    "TensorStore",
    "numpy memmap",
    "`.pt` an episode",
)
"""Columns of the table, and who answers in each row."""


@dataclass(frozen=True)
class Cell:
    """One system's answer to one question.

    Raises:
        ValueError: it does not say how, or on what grounds.
    """

    answer: Answer
    how: str
    """A few words; for `partly`, the way that there is."""
    tested: str = ""
    """`file::test` below tests/, which shows it; or else"""
    read: str = ""
    """where it can be read."""

    def __post_init__(self) -> None:
        if not self.how or bool(self.tested) == bool(self.read):
            raise ValueError(f"{self}: say how, and either the test or what was read")


@dataclass(frozen=True)
class Feature:
    """A row of the table.

    Raises:
        ValueError: a system has no answer, or there are answers of others.
    """

    name: str
    question: str
    """To which `yes` is the answer."""
    cells: Mapping[str, Cell]

    def __post_init__(self) -> None:
        if tuple(self.cells) != SYSTEMS:
            raise ValueError(f"{self.name}: answers of {list(self.cells)}, not of {list(SYSTEMS)}")


def table(features: Sequence[Feature]) -> str:
    """Return the table in Markdown, the questions, and the grounds of all answers."""
    rows = [("", *SYSTEMS)]
    rows += [(feature.name, *map(_text, feature.cells.values())) for feature in features]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    lines += ["", "What is asked, and on what grounds it is answered:", ""]
    lines += [
        f"- **{feature.name}**: {feature.question} {_grounds(feature.cells)}"
        for feature in features
    ]
    return "\n".join(lines)


def filled(text: str, features: Sequence[Feature]) -> str:
    """Return a README's text with the table between its markers.

    Raises:
        ValueError: the markers are missing or not one pair.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"benchmarks/README.md needs one line {BEGIN} and, below it, one {END}")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table(features)}\n{END}{after}"


def _text(cell: Cell) -> str:
    return f"**{cell.answer}**: {cell.how}"


def _grounds(cells: Mapping[str, Cell]) -> str:
    """Return who is tested by what and read where; those with the same grounds together."""
    found: dict[str, list[str]] = {}
    for system, cell in cells.items():
        grounds = f"tested by `{cell.tested}`" if cell.tested else f"read in {cell.read}"
        found.setdefault(grounds, []).append(system)
    return "; ".join(f"{', '.join(systems)}: {grounds}" for grounds, systems in found.items()) + "."
