"""The few lines of all benchmarks that the project's README shows; benchmarks/README.md has all."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .quantities import markdown_table, number

Report = Mapping[str, Any]  # Any: JSON values
_THROUGHPUT = "GB/s"
_ABSENT_OF_STREAM = (
    "bare index_select",
    "bare gather of the same rows, two threads",
    "FrameStream, verify never, a plain loop",
    ".pt mapped, a sample a frame",
)
"""Beginnings of names. What stays: limits, the stream's ways, and every rival at its best.

Of the memmap both forms stay: which of them is the better one changes with batch and process.
"""


class Line(NamedTuple):
    """A result that the README shows."""

    report: str
    name: str
    """The name's beginning, which one result has."""
    words: str
    """What stands in the README."""
    group: str = ""
    unit: str = ""
    """Where a contestant has several; the first otherwise."""


LINES = (
    Line("stream_cold", "FrameStream, verify never", "delivering frames that are not in memory"),
    Line(
        "stream_start",
        "FrameStream(...) to first batch, files mapped, verify first",
        "from a path to the first batch of 4096, of a store as large as PodcastFillers",
    ),
    Line("stream_start", "planning an epoch of 13,000,000 frames", "planning 13 million frames"),
    Line(
        "resume",
        "first batch of a stream that goes on at step 1,000,000",
        "first batch of 512 after going on at step 1,000,000 of such a store",
    ),
    Line(
        "memory",
        "files mapped: anonymous memory it adds",
        "memory of a stream of 16 lanes x 4 blocks, files mapped",
    ),
    Line("memory", "window reader: anonymous memory it adds", "the same, files not mapped"),
    Line("train", "training", "training a linear head, one process"),
    Line("train", "training, 1 process, 2 torch threads", "the same, two torch threads"),
    Line("train", "training, 2 processes over gloo", "the same, two processes"),
    Line(
        "probes",
        "the command, 64 probes in one pass, beside 64 runs",
        "64 probes by one command, beside 64 commands",
    ),
    Line(
        "probes",
        "training, 64 probes in one pass, beside 64 runs",
        "64 probes in one pass, beside 64 runs, start of Python left out",
    ),
    Line("store", "UnitWriter", "writing a store, synced, all checksums"),
    Line("store", "Store.frames, blocks verified before", "reading 128 frames in a row"),
)


class FrontPageError(Exception):
    """A report has not what the README shows; the message says what to do."""


def front_page(reports: Sequence[Report]) -> str:
    """Return the README's two tables, without machine and legend.

    Raises:
        FrontPageError: a report that is there lacks a line, or has two for it.
    """
    by_name = {report["name"]: report for report in reports}
    rows = [
        _row(line, by_name[line.report], by_name["stream"])
        for line in LINES
        if line.report in by_name
    ]
    return "\n\n".join(
        [
            "**Delivering shuffled frames, GB/s (part of memcpy; with two threads, by two)**",
            _throughput(by_name["stream"]["results"]),
            "**And the rest**",
            markdown_table([("", "", "of its limit", "which is"), *rows]),
        ]
    )


def _throughput(results: Sequence[Mapping[str, Any]]) -> str:
    found = [item for item in results if item["unit"] == _THROUGHPUT]
    groups = list(dict.fromkeys(item["group"] for item in found if item["group"]))
    rows = [("", *groups)]
    for name in dict.fromkeys(item["name"] for item in found):
        if name.startswith(_ABSENT_OF_STREAM):
            continue
        mine = {item["group"]: item for item in found if item["name"] == name}
        # A limit without groups is that of all.
        cells = [mine.get(group) or mine.get("") for group in groups]
        rows.append((name, *(_cell(item) for item in cells)))
    return markdown_table(rows)


def _cell(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return ""
    part = "" if item["of_limit"] is None else f" ({item['of_limit']:.2f})"
    return f"**{number(item['median'])}**{part}"


def _result(line: Line, results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    same = [item for item in results if item["name"] == line.name]
    found = same or [item for item in results if item["name"].startswith(line.name)]
    found = [item for item in found if item["group"].startswith(line.group)]
    found = [item for item in found if item["unit"] == (line.unit or found[0]["unit"])]
    if len(found) != 1:
        raise FrontPageError(
            f"{line.report}.json has {len(found)} results that begin with {line.name!r}, the README"
            " shows one; correct LINES in benchmarks/front_page.py, or measure again"
        )
    return found[0]


def _row(line: Line, report: Report, first: Report) -> tuple[str, str, str, str]:
    item = _result(line, report["results"])
    words, value = line.words, f"**{number(item['median'])}** {item['unit']}"
    frames = report["settings"].get("frames", first["settings"]["frames"])
    if frames != first["settings"]["frames"]:
        words += f" ({frames:,} frames)"
    if report["machine"]["cpu"] != first["machine"]["cpu"]:
        words += f" ({report['machine']['cpu']})"
    if item["of_limit"] is None:
        return words, value, "", ""
    return words, value, f"{item['of_limit']:.2f}", _limit(item, report["results"])


def _limit(item: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """What an item's limit is, and how much."""
    name: str = item["limit"]
    found = [
        other
        for other in results
        if (other["name"], other["unit"]) == (name, item["unit"])
        and other["group"] in ("", item["group"])
    ]
    words = name.removeprefix("limit: ")
    if len(found) != 1:
        return words
    return f"{words}: {number(found[0]['median'])} {item['unit']}"
