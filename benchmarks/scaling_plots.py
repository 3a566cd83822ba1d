"""The plots of docs/scaling.md: panels side by side, lines over an axis. PNG and SVG.

As with all plots (`benchmarks.plots`), what one shows is gathered first, and its digest stands in
both files.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .extrapolation import SIZES, Coefficients, points
from .plots import IMAGES, SUFFIXES, digest_in, told
from .scale_limits import Limit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = ("#2a6f97", "#c1666b", "#4a9d6f", "#7f6ca8")
_WIDTH_IN, _ALONE_IN, _HEIGHT_IN, _DPI = 7.2, 4.0, 2.6, 130

Report = Mapping[str, Any]  # Any: JSON values


@dataclass(frozen=True)
class Series:
    """Medians over an axis, each with its lowest and highest."""

    name: str
    x: tuple[float, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(
        cls, report: Report, name: str, shown: str, *, unit: str | None = None, scale: float = 1.0
    ) -> "Series":
        """Return a result of a report; groups that are no numbers count from 0."""
        items = [
            item
            for item in report["results"]
            if item["name"] == name and item["group"] and unit in (None, item["unit"])
        ]
        x = tuple(
            float(item["group"]) if _is_number(item["group"]) else float(place)
            for place, item in enumerate(items)
        )
        columns = ([scale * item[key] for item in items] for key in ("median", "low", "high"))
        return cls(shown, x, *(tuple(column) for column in columns))


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    across: str
    up: str
    series: tuple[Series, ...]
    lines: tuple[tuple[str, float], ...] = ()
    """Limits: dashed, across the panel."""
    curves: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...] = ()
    """Computed: (name, x, y)."""
    ticks: tuple[str, ...] = ()
    """Names of x = 0, 1, ..."""
    is_log: tuple[bool, bool] = (False, False)
    """Of the axes across and up."""

    def draw(self, axes: "Axes") -> None:
        """Draw it."""
        for number, item in enumerate(self.series):
            below = [m - low for m, low in zip(item.median, item.low, strict=True)]
            above = [high - m for m, high in zip(item.median, item.high, strict=True)]
            axes.errorbar(
                item.x,
                item.median,
                yerr=[below, above],
                color=_COLORS[number % len(_COLORS)],
                marker="o",
                markersize=3,
                linewidth=0 if self.ticks else 1,  # between names there is nothing
                elinewidth=1,
                capsize=2,
                label=item.name,
            )
        for number, (name, x, y) in enumerate(self.curves):
            color = _COLORS[number % len(_COLORS)]
            line, marker = ("", "_") if self.ticks else (":", "")
            axes.plot(
                x, y, color=color, linewidth=1, linestyle=line, marker=marker, ms=9, label=name
            )
        for number, (name, value) in enumerate(self.lines):
            style = ("--", "-.")[number % 2]
            axes.axhline(value, color="black", linewidth=0.8, linestyle=style, label=name)
        for is_log, scale in zip(self.is_log, (axes.set_xscale, axes.set_yscale), strict=True):
            if is_log:
                scale("log")
        if self.ticks:
            axes.set_xticks(range(len(self.ticks)), self.ticks, rotation=45)
        else:
            places = sorted({x for item in self.series for x in item.x})
            axes.set_xticks(places, [f"{place:,g}" for place in places])
            axes.set_xticks([], minor=True)
        if not self.is_log[1]:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(self.across)
        axes.set_ylabel(self.up)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=6)


@dataclass(frozen=True)
class Bars:
    """Numbers as bars of a logarithmic axis, the first on top."""

    across: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    marks: tuple[tuple[str, float], ...]

    def draw(self, axes: "Axes") -> None:
        """Draw them."""
        axes.barh(range(len(self.names)), self.values, 0.7, color=_COLORS[0])
        for number, (name, value) in enumerate(self.marks):
            style = (":", "--", "-.")[number % 3]
            axes.axvline(value, color="black", linewidth=0.8, linestyle=style, label=name)
        axes.set_yticks(range(len(self.names)), self.names)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel(self.across)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=6, loc="upper right")


@dataclass(frozen=True)
class Picture:
    """A plot: `docs/images/<name>.png` and `.svg`."""

    name: str
    text: str
    """For those who do not see it."""
    panels: tuple[Panel | Bars, ...]
    height_in: float = _HEIGHT_IN

    @property
    def digest(self) -> str:
        """SHA-256 of its names and numbers."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def draw(self, folder: Path = IMAGES) -> None:
        """Write both files."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        # Without a fixed salt, ids in the SVG would differ from run to run.
        with mpl.rc_context({"svg.hashsalt": "laughstore", "font.size": 7}):
            width_in = (
                _WIDTH_IN if len(self.panels) > 1 or self.height_in > _HEIGHT_IN else _ALONE_IN
            )
            figure = Figure(figsize=(width_in, self.height_in), layout="constrained")
            axes = figure.subplots(1, len(self.panels), squeeze=False)[0]
            for panel, place in zip(self.panels, axes, strict=True):
                panel.draw(place)
            folder.mkdir(parents=True, exist_ok=True)
            png, svg = (folder / f"{self.name}{suffix}" for suffix in SUFFIXES)
            figure.savefig(
                png, dpi=_DPI, metadata={"Software": None, "Description": told(self.digest)}
            )
            figure.savefig(svg, metadata={"Date": None, "Description": told(self.digest)})

    def stale(self, folder: Path = IMAGES) -> list[Path]:
        """Return those of the two files that are missing or show something else."""
        paths = [folder / f"{self.name}{suffix}" for suffix in SUFFIXES]
        return [path for path in paths if digest_in(path) != self.digest]

    def markdown(self) -> str:
        """Return the line that shows it in docs/."""
        return f"![{self.text}](images/{self.name}.png)"


def pictures(
    reports: Mapping[str, Report], found: Coefficients, limits: Sequence[Limit]
) -> dict[str, Picture]:
    """Return all plots: one an axis, by its name, and `limits`."""
    made = (
        _size(reports["size"]),
        _recordings(reports["recordings"], found),
        _ranks(reports["ranks"]),
        _workers(reports["workers"]),
        _blocks(reports["blocks"]),
        _windows(reports["windows"]),
        _limits(limits),
    )
    return {picture.name.removeprefix("scaling_"): picture for picture in made}


def _size(report: Report) -> Picture:
    stream = Series.of(report, "FrameStream", "FrameStream", unit="GB/s")
    starts = [("first batch", "first batch"), ("open_store", "open"), ("plan an epoch", "plan")]
    return Picture(
        "scaling_size",
        "Throughput and start of the stream against the size of the data",
        (
            Panel("GB of frames read", "GB/s", (stream,), _memcpy(report), is_log=(True, False)),
            Panel(
                "GB of frames read",
                "ms",
                tuple(Series.of(report, name, shown, scale=1e3) for name, shown in starts),
                is_log=(True, True),
            ),
        ),
    )


def _recordings(report: Report, found: Coefficients) -> Picture:
    def panel(up: str, scale: float, names: Mapping[str, str]) -> Panel:
        series = [Series.of(report, name, shown, scale=scale) for name, shown in names.items()]
        curves = []
        for name in names:
            x, _ = points(report, name)
            line = found.lines[name]
            curves.append(("", tuple(x), tuple(scale * line.at(value) for value in x)))
        return Panel("recordings", up, tuple(series), (), tuple(curves), (), (True, True))

    files = ("index", "manifest", "plan", "columns")
    times = ("open_store", "select rows, make targets", "plan an epoch", "first batch")
    memory = ("memory of open_store", "memory of the whole index", "memory of a rank")
    return Picture(
        "scaling_recordings",
        "Files, times and memory against the number of recordings, with the fitted lines",
        (
            panel("MB of file", 1e-6, {f"bytes of the {name}": name for name in files}),
            panel("s", 1, {name: name for name in times}),
            panel("MB of memory", 1e-6, {name: name.removeprefix("memory of ") for name in memory}),
        ),
    )


def _ranks(report: Report) -> Picture:
    series = Series.of(report, "FrameStream, all ranks", "all ranks together", unit="GB/s")
    return Picture(
        "scaling_ranks",
        "Throughput of all ranks together against their number",
        (Panel("ranks on two cores", "GB/s", (series,), _memcpy(report)),),
    )


def _workers(report: Report) -> Picture:
    workers = Series.of(
        report, "FrameStream, DataLoader workers", "DataLoader workers", unit="GB/s"
    )
    threads = Series.of(report, "FrameStream, threads", "threads of the stream", unit="GB/s")
    return Picture(
        "scaling_workers",
        "Throughput against DataLoader workers, and against the stream's own threads",
        (Panel("workers, or threads", "GB/s", (workers, threads), _memcpy(report)),),
    )


def _blocks(report: Report) -> Picture:
    across = "frames of a block"
    streams = tuple(
        Series.of(report, f"FrameStream, {name}", name, unit="GB/s")
        for name in ("verify never", "verify always")
    )
    sharing = Series.of(report, "frames sharing a frame's block", "sharing a frame's block")
    columns = Series.of(report, "checksums", "checksums", scale=1e-3)
    beyond = Series.of(report, "shards beyond their frames", "headers and tails", scale=1e-3)
    logs = (True, False)
    return Picture(
        "scaling_blocks",
        "Throughput, mixing and bytes against the size of blocks",
        (
            Panel(across, "GB/s", streams, _memcpy(report), is_log=logs),
            Panel(across, "frames of a batch", (sharing,), is_log=logs),
            Panel(across, "kB", (columns, beyond), is_log=(True, True)),
        ),
    )


def _windows(report: Report) -> Picture:
    ticks = tuple(dict.fromkeys(item["group"] for item in report["results"] if item["group"]))
    across = "lanes x blocks of a window"
    stream = Series.of(report, "FrameStream, files mapped", "files mapped", unit="GB/s")
    sharing = Series.of(report, "frames sharing a frame's block", "sharing a frame's block")
    memory = tuple(
        Series.of(report, f"memory, {name}", name, scale=1 / 2**20)
        for name in ("files mapped", "window reader")
    )
    held = tuple(window_mib(group) for group in ticks)
    curve = ("2 L K blocks", tuple(float(place) for place in range(len(ticks))), held)
    return Picture(
        "scaling_windows",
        "Throughput, mixing and memory against the size of windows",
        (
            Panel(across, "GB/s", (stream,), _memcpy(report), ticks=ticks),
            Panel(across, "frames of a batch", (sharing,), ticks=ticks),
            Panel(across, "MiB", memory, (), (curve,), ticks),
        ),
    )


def _limits(limits: Sequence[Limit]) -> Picture:
    names = tuple(
        re.split("[:,]", re.sub(r"`|\(.*?\)", "", item.what))[0].strip() for item in limits
    )
    marks = tuple((name, size.hours) for name, size in SIZES if size.hours in (145, 1e4, 1e6))
    bars = Bars("hours of audio", names, tuple(item.hours for item in limits), marks)
    return Picture("scaling_limits", "The hours at which each limit is passed", (bars,), 3.2)


def window_mib(group: str) -> float:
    """Return what the window reader holds by the formula: two rounds of windows, blocks of 1 MiB.

    Args:
        group: `<lanes> x <blocks of a window>`.
    """
    lanes, window_blocks = map(int, group.split(" x "))
    return 2.0 * lanes * window_blocks


def _memcpy(report: Report) -> tuple[tuple[str, float], ...]:
    """Return the limits that a report measured beside the stream."""
    return tuple(
        (item["name"].removeprefix("limit: "), item["median"])
        for item in report["results"]
        if item["name"].startswith("limit: ")
    )


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
