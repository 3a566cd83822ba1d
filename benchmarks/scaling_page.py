"""Fill docs/scaling.md from the committed JSON: readings, tables and plots; no number by hand.

`python -m benchmarks.table` does it with all else that is made from results.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laughstore.reading.rows import MAX_MAPPED_PIECES

from .extrapolation import (
    FRAMES_PER_HOUR,
    LM_FLOPS,
    MIMI_FLOPS,
    PEAK_FLOPS,
    PEAK_FRACTION,
    SIZES,
    Coefficients,
    Kind,
    Row,
    coefficients,
    row_frames_per_s,
    rows,
)
from .large_index import PODCAST_FILLERS as PODCAST_FILLERS_LIKE
from .large_index import SEGMENTS_PER_RECORDING
from .quantities import markdown_table, number, quantity
from .report import RESULTS
from .scale_limits import Limit, limits
from .scaling_plots import Picture, pictures, window_mib

DOCUMENT = Path(__file__).parent.parent / "docs" / "scaling.md"
AXES = ("size", "recordings", "ranks", "workers", "blocks", "windows")
_BEGIN, _END = "<!-- scaling:{}:begin -->", "<!-- scaling:{}:end -->"
_MARKS: dict[Kind, str] = {"measured": "m", "fitted": "f", "computed": "c", "assumed": "a"}
_BEYOND = "†"

Report = Mapping[str, Any]  # Any: JSON values


@dataclass(frozen=True)
class _Column:
    """Of a table: one result at every value on an axis."""

    name: str
    unit: str | None = None
    """In the JSON; None: it has only one."""
    shown: str = ""
    """Unit in the table."""
    key: str = "median"


class ScalingError(Exception):
    """A result or the document is not as it must be; the message says what to do."""


def read_reports(folder: Path = RESULTS) -> dict[str, Report]:
    """Return the report of each axis, and `cold`, of frames from a disk, if there is one.

    Raises:
        ScalingError: one is missing, or comes from a quick run.
    """
    found: dict[str, Report] = {}
    for name, stem in [*((axis, f"scaling_{axis}") for axis in AXES), ("cold", "stream_cold")]:
        path = folder / f"{stem}.json"
        if not path.is_file() and name == "cold":
            continue
        if not path.is_file():
            raise ScalingError(
                f"{path.name} is missing; make it with: uv run python -m benchmarks.bench_scaling"
            )
        found[name] = json.loads(path.read_text())
        if found[name]["settings"]["quick"]:
            raise ScalingError(f"{path.name} is of a --quick run; run without it for the page")
    return found


class Page:
    """All that docs/scaling.md shows of results."""

    def __init__(self, reports: Mapping[str, Report]) -> None:
        self._reports = reports
        self.found: Coefficients = coefficients(
            reports["recordings"], reports["size"], reports.get("cold")
        )
        self.limits: list[Limit] = limits(self.found)
        self.rows: list[Row] = rows(self.found, [size for _, size in SIZES])
        self.pictures: dict[str, Picture] = pictures(reports, self.found, self.limits)

    def parts(self) -> dict[str, str]:
        """Return the generated parts of the document, by name."""
        readings = {
            "size": self._of_size(),
            "recordings": f"{_like()}\n\n{self._of_recordings()}",
            "ranks": self._of_speeds("ranks", "FrameStream, all ranks", "rank"),
            "workers": self._of_workers(),
            "blocks": self._of_blocks(),
            "windows": self._of_windows(),
        }
        found = {
            name: f"{self.pictures[name].markdown()}\n\n{text}" for name, text in readings.items()
        }
        return {
            "machine": self._machine(),
            **found,
            "fits": self._fits(),
            "reach": self._reach(),
            "table": self._table(),
            "limits": f"{self.pictures['limits'].markdown()}\n\n{self._limits()}",
            "assumed": self._assumed(),
        }

    def filled(self, text: str) -> str:
        """Return the document's text with its generated parts.

        Raises:
            ScalingError: a part has no place in it.
        """
        for name, part in self.parts().items():
            begin, end = _BEGIN.format(name), _END.format(name)
            if (
                text.count(begin) != 1
                or text.count(end) != 1
                or text.index(begin) > text.index(end)
            ):
                raise ScalingError(
                    f"{DOCUMENT.name} needs one line {begin} and, below it, one line {end};"
                    " add them"
                )
            before, rest = text.split(begin)
            text = f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"
        return text

    def _machine(self) -> str:
        first = self._reports[AXES[0]]
        machine = first["machine"]
        virtual = " (virtual machine)" if machine["virtual"] else ""
        busy = ", ".join(f"{self._reports[axis]['others_busy_cores']:g}" for axis in AXES)
        return (
            f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g}"
            f" GiB{virtual}, {machine['kernel']}; torch {first['versions']['torch']}, one torch"
            f" thread, page cache warm, {first['repeats']} interleaved rounds, medians (bars:"
            f" lowest and highest). Other processes kept {busy} cores busy, axis by axis."
        )

    def _values(
        self, axis: str, name: str, unit: str | None = None, key: str = "median"
    ) -> list[tuple[str, float]]:
        return [
            (item["group"], item[key])
            for item in self._reports[axis]["results"]
            if item["name"] == name and unit in (None, item["unit"])
        ]

    def _of_size(self) -> str:
        columns = {
            "GB/s": _Column("FrameStream", "GB/s"),
            "frames/s": _Column("FrameStream", "frames/s"),
            "of memcpy": _Column("FrameStream", "GB/s", key="of_limit"),
            "first batch": _Column("first batch", shown="s"),
            "plan": _Column("plan an epoch", shown="s"),
            "open": _Column("open_store", shown="s"),
        }
        return self._grid("size", "GB read", columns)

    def _of_recordings(self) -> str:
        names = self.found.lines
        groups = [group for group, _ in self._values("recordings", "open_store")]
        table = [("", *(f"{int(group):,} recordings" for group in groups))]
        for name in names:
            found = dict(self._values("recordings", name))
            unit = "s" if name in _SECONDS else "B"
            cells = (quantity(found[g], unit) if g in found else "" for g in groups)
            table.append((name, *cells))
        return markdown_table(table)

    def _of_speeds(self, axis: str, name: str, what: str) -> str:
        speeds = self._values(axis, name, "GB/s")
        first = speeds[0][1]
        parts = self._values(axis, name, "GB/s", "of_limit")
        rows = [
            (group, number(speed), number(speed / first), number(part))
            for (group, speed), (_, part) in zip(speeds, parts, strict=True)
        ]
        head = (f"{what}s", "GB/s", f"times that of {speeds[0][0]}", "of limit")
        return markdown_table([head, *rows])

    def _of_workers(self) -> str:
        workers = self._of_speeds("workers", "FrameStream, DataLoader workers", "DataLoader worker")
        threads = self._of_speeds("workers", "FrameStream, threads", "thread")
        return f"{workers}\n\n{threads}"

    def _of_blocks(self) -> str:
        columns = {
            "verify never, GB/s": _Column("FrameStream, verify never", "GB/s"),
            "verify always, GB/s": _Column("FrameStream, verify always", "GB/s"),
            "first batch": _Column("first batch", shown="s"),
            "frames sharing a frame's block": _Column("frames sharing a frame's block"),
            "checksums": _Column("checksums", shown="B"),
            "columns of the index": _Column("columns of the index", shown="B"),
            "headers and tails": _Column("shards beyond their frames", shown="B"),
        }
        return self._grid("blocks", "frames of a block", columns)

    def _of_windows(self) -> str:
        columns = {
            "files mapped, GB/s": _Column("FrameStream, files mapped", "GB/s"),
            "frames sharing a frame's block": _Column("frames sharing a frame's block"),
            "memory, files mapped": _Column("memory, files mapped", shown="B"),
            "memory, window reader": _Column("memory, window reader", shown="B"),
        }
        grid = self._grid("windows", "lanes x blocks", columns)
        groups = [group for group, _ in self._values("windows", "memory, window reader")]
        head, rule, *lines = grid.split("\n")
        computed = [quantity(2**20 * window_mib(group), "B") for group in groups]
        lines = [f"{line} {held} |" for line, held in zip(lines, computed, strict=True)]
        return "\n".join([f"{head} 2 L K blocks |", f"{rule}---:|", *lines])

    def _grid(self, axis: str, what: str, columns: Mapping[str, "_Column"]) -> str:
        """Return a row a value on the axis, a column a result."""
        found = {
            head: dict(self._values(axis, column.name, column.unit, column.key))
            for head, column in columns.items()
        }
        rows = [
            (group, *(quantity(found[head][group], columns[head].shown) for head in columns))
            for group in next(iter(found.values()))
        ]
        return markdown_table([(what, *columns), *rows])

    def _fits(self) -> str:
        table = [("over recordings R", "at R = 0", "a recording", "residual", "measured at R")]
        for name, line in self.found.lines.items():
            unit = "s" if name in _SECONDS else "B"
            table.append(
                (
                    name,
                    quantity(line.at_zero, unit),
                    quantity(line.slope, unit),
                    f"{100 * line.residual:.2g} %",
                    f"{line.first:,.0f} to {line.last:,.0f}",
                )
            )
        speeds = {
            "speed of one process, frames in memory": self.found.warm_bytes_per_s,
            "speed of one process, frames from the disk": self.found.cold_bytes_per_s,
        }
        table += [
            (name, quantity(value, "B/s"), "", "", "")
            for name, value in speeds.items()
            if value is not None
        ]
        return markdown_table(table)

    def _table(self) -> str:
        passed = {
            row: [size.hours > limit.hours for _, size in SIZES]
            for limit in self.limits
            for row, what in _LIMITED.items()
            if what in limit.what
        }
        table = [("", *(name for name, _ in SIZES))]
        for row in self.rows:
            beyond = passed.get(row.what, [False] * len(SIZES))
            cells = (
                f"{quantity(value, row.unit)} {_MARKS[self._kind(row, place)]}"
                f"{_BEYOND if is_beyond else ''}"
                for place, (value, is_beyond) in enumerate(zip(row.values, beyond, strict=True))
            )
            table.append((row.what, *cells))
        return markdown_table(table)

    def _reach(self) -> str:
        million = SIZES[-1][1].recordings
        opened, started = self.found.open_s.last, self.found.first_batch_s.last
        return (
            "*m* measured; *f* fitted, also beyond what was measured: a million hours are"
            f" {number(million / opened)} times the recordings of the largest store that was"
            f" opened, {number(million / started)} times those of the largest that was streamed;"
            " *c* computed by the formulas, from measured speeds where there are any; *a* assumed:"
            f" a guess is in it. {_BEYOND} is beyond a limit of the next table, which says what"
            " happens then."
        )

    def _kind(self, row: Row, place: int) -> Kind:
        """How many recordings an amount of hours is, is assumed where it is not PodcastFillers'."""
        is_count = row.what == "recordings"
        return "assumed" if is_count and "PodcastFillers" not in SIZES[place][0] else row.kind

    def _limits(self) -> str:
        table = [("limit", "quantity", "is at most", "passed at", "then")]
        table += [
            (
                item.what,
                item.formula,
                quantity(item.limit, item.unit),
                f"{quantity(item.hours, 'h')} {_MARKS[item.kind]}",
                item.then,
            )
            for item in self.limits
        ]
        return markdown_table(table)

    def _assumed(self) -> str:
        return (
            f"{LM_FLOPS / 1e9:.1f} GFLOP a row-frame, {PEAK_FRACTION:.0%} of"
            f" {PEAK_FLOPS / 1e12:.0f} TFLOP/s: {row_frames_per_s() / 1e3:.1f} thousand row-frames"
            f" a second and GPU. Mimi ({MIMI_FLOPS / LM_FLOPS:.1%} of the operations, in float32),"
            " decoding and the writer are not in it."
        )


def _like() -> str:
    """Say what the stores of the axis of recordings are like."""
    # As many as there are kinds of lengths and events, so that these are means.
    store = PODCAST_FILLERS_LIKE
    minutes = sum(store.lengths) / FRAMES_PER_HOUR * 60 / store.num_recordings
    events = number(store.num_events / store.num_recordings)
    return (
        f"A recording of {number(minutes)} minutes has {events} events, {SEGMENTS_PER_RECORDING}"
        f" segments and as many turns, on average. From {MAX_MAPPED_PIECES:,} shards on files are"
        " not mapped, so streams are started for smaller stores only."
    )


_SECONDS = frozenset(["open_store", "select rows, make targets", "plan an epoch", "first batch"])
_LIMITED = {
    "index (JSON)": "index `index.json`",
    "columns of the index": "columns of the index",
    "manifest (JSON)": "manifest `store.json`",
    "build plan (JSON)": "one build plan",
    "shards": "mapped shards",
    "first batch": "mapped shards",
    "shard files": "addresses of a process",
    "memory of a rank": "memory of a rank",
    "epochs an hour of one process, from memory": "mapped shards",
    "epochs an hour of one process, from the disk measured": "mapped shards",
}
"""Rows of the table by the limits that they meet."""
