"""Draw the plots from the committed JSON, as PNG and SVG, and tell which of them are out of date.

What a plot shows is gathered first, as names and numbers; their digest stands in the metadata of
both files. So a check draws nothing, and does not depend on the version of matplotlib.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SUFFIXES = (".png", ".svg")
_DIGEST = re.compile(rb"What it shows has SHA-256 ([0-9a-f]{64})")
_COLORS = ("#2a6f97", "#89c2d9", "#014f86", "#a9d6e5", "#468faf", "#61a5c2", "#013a63", "#c8e3ef")
_WIDTH_IN, _ROW_IN, _LEAST_IN = 7, 0.33, 2.0
_DPI = 130

Report = Mapping[str, Any]  # Any: JSON values


class Shown(ABC):
    """All that a plot shows. A frozen dataclass of names and numbers."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """Rows one above the other, which decide how high the plot is."""

    @abstractmethod
    def draw(self, axes: "Axes") -> None:
        """Draw it."""

    @property
    def digest(self) -> str:
        """SHA-256 of kind, names and numbers."""
        content = {type(self).__name__: asdict(self)}  # type: ignore[call-overload]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Bar:
    """A number, and between which others of its kind it lies."""

    name: str
    group: str
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, result: Mapping[str, Any], name: str | None = None) -> "Bar":
        """Return the bar of a result of a report."""
        numbers = (result["median"], result["low"], result["high"])
        return cls(name or result["name"], result["group"], *numbers)


@dataclass(frozen=True)
class Bars(Shown):
    """Bars of names, side by side those of each group, and limits as lines across them."""

    axis: str
    bars: tuple[Bar, ...]
    lines: tuple[tuple[str, float], ...] = ()

    @property
    def num_rows(self) -> int:
        """A name is a row; many groups make it higher."""
        groups = len({bar.group for bar in self.bars})
        return len({bar.name for bar in self.bars}) * max(1, groups - 1)

    def draw(self, axes: "Axes") -> None:
        """Draw them, the first name on top."""
        names = list(dict.fromkeys(bar.name for bar in self.bars))
        groups = list(dict.fromkeys(bar.group for bar in self.bars))
        height = 0.8 / len(groups)
        for number, group in enumerate(groups):
            bars = [bar for bar in self.bars if bar.group == group]
            shift = (number - (len(groups) - 1) / 2) * height
            axes.barh(
                [names.index(bar.name) + shift for bar in bars],
                [bar.median for bar in bars],
                height,
                xerr=[
                    [bar.median - bar.low for bar in bars],
                    [bar.high - bar.median for bar in bars],
                ],
                color=_COLORS[number % len(_COLORS)],
                label=group or None,
            )
        for number, (name, value) in enumerate(self.lines):
            style = ("--", ":", "-.")[number % 3]
            axes.axvline(value, color="black", linewidth=1, linestyle=style, label=name)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(self.axis)
        if self.lines or len(groups) > 1:
            axes.legend(frameon=False, loc="best")


@dataclass(frozen=True)
class Parts(Shown):
    """Wholes as bars, and one bar made of parts, one after the other."""

    axis: str
    wholes: tuple[Bar, ...]
    name: str
    parts: tuple[tuple[str, float], ...]

    @property
    def num_rows(self) -> int:
        """Each whole, the bar of parts, and the legend."""
        return len(self.wholes) + 1 + len(self.parts) // 2

    def draw(self, axes: "Axes") -> None:
        """Draw them, the parts below."""
        for row, bar in enumerate(self.wholes):
            error = [[bar.median - bar.low], [bar.high - bar.median]]
            axes.barh(row, bar.median, 0.6, xerr=error, color="#b8b8b8")
        row, left = len(self.wholes), 0.0
        for number, (name, value) in enumerate(self.parts):
            color = _COLORS[number % len(_COLORS)]
            axes.barh(row, value, 0.6, left=left, color=color, label=name)
            left += value
        axes.set_yticks(range(row + 1), [*(bar.name for bar in self.wholes), self.name])
        axes.invert_yaxis()
        axes.set_xlabel(self.axis)
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.3, -0.22), ncols=2)


@dataclass(frozen=True)
class Plot:
    """A plot of one report: `docs/images/<name>.png` and `.svg`."""

    name: str
    report: str
    """Whose JSON it is made from."""
    text: str
    """For those who do not see it."""
    shown: Callable[[Report], Shown]

    def draw(self, report: Report, folder: Path = IMAGES) -> None:
        """Write both files."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        shown = self.shown(report)
        # Without a fixed salt, ids in the SVG would differ from run to run.
        with mpl.rc_context({"svg.hashsalt": "laughstore", "font.size": 8}):
            size = (_WIDTH_IN, max(_LEAST_IN, _ROW_IN * (shown.num_rows + 2)))
            figure = Figure(figsize=size, layout="constrained")
            axes = figure.subplots()
            shown.draw(axes)
            axes.spines[["top", "right"]].set_visible(False)
            folder.mkdir(parents=True, exist_ok=True)
            png, svg = (folder / f"{self.name}{suffix}" for suffix in SUFFIXES)
            figure.savefig(
                png, dpi=_DPI, metadata={"Software": None, "Description": told(shown.digest)}
            )
            figure.savefig(svg, metadata={"Date": None, "Description": told(shown.digest)})

    def stale(self, report: Report, folder: Path = IMAGES) -> list[Path]:
        """Return those of the two files that are missing or show something else."""
        digest = self.shown(report).digest
        paths = [folder / f"{self.name}{suffix}" for suffix in SUFFIXES]
        return [path for path in paths if digest_in(path) != digest]

    def markdown(self, images: str) -> str:
        """Return the line that shows it, where images lie at this path."""
        return f"![{self.text}]({images}/{self.name}.png)"


def told(digest: str) -> str:
    """Return what stands in the metadata of a plot's files."""
    return f"What it shows has SHA-256 {digest}"


def digest_in(path: Path) -> str | None:
    """Return the digest of what a plot's file shows; None where there is none."""
    found = _DIGEST.search(path.read_bytes()) if path.is_file() else None
    return None if found is None else found[1].decode()


def _results(report: Report, unit: str) -> list[Mapping[str, Any]]:
    return [item for item in report["results"] if item["unit"] == unit]


def throughput(report: Report) -> Bars:
    """Return GB/s of the stream and its rivals, beside memcpy."""
    results = _results(report, "GB/s")
    memcpy = next(item["median"] for item in results if not item["group"])
    return Bars(
        f"GB/s of bf16[{report['settings']['dim']}] frames, warm",
        tuple(Bar.of(item) for item in results if item["group"]),
        (("memcpy, 256 MiB", memcpy),),
    )


def first_batch(report: Report) -> Parts:
    """Return how long the first batch takes, and its parts."""
    part = "part of it: "
    results = _results(report, "ms")
    return Parts(
        "ms",
        tuple(Bar.of(item) for item in results if item["group"].startswith("first batch")),
        "its parts, one after the other",
        tuple(
            (item["name"].removeprefix(part), item["median"])
            for item in results
            if item["name"].startswith(part)
        ),
    )


def memory(report: Report) -> Bars:
    """Return what streams and training add to a process, epoch by epoch, beside their limits."""
    what = ": anonymous memory it adds"
    results = [item for item in _results(report, "MB") if item["name"].endswith(what)]
    bars = [
        Bar(item["name"].removesuffix(what), f"epoch {number}", value, value, value)
        for item in results
        for number, value in enumerate(item["values"], 1)
    ]
    limits = {item["limit"] for item in results}
    lines = [
        (item["name"].removeprefix("limit: "), item["median"])
        for item in report["results"]
        if item["name"] in limits
    ]
    return Bars("MB of anonymous memory that is added", tuple(bars), tuple(lines))


def training(report: Report) -> Bars:
    """Return the speed of training, beside that of what it is made of."""
    results = _results(report, "thousand frames/s")
    return Bars("thousand frames a second", tuple(Bar.of(item) for item in results))


def probes(report: Report) -> Bars:
    """Return the speed of training many probes, beside that of one after the other."""
    results = _results(report, "thousand probe-rows/s")
    return Bars("thousand rows a second, times probes", tuple(Bar.of(item) for item in results))


PLOTS = (
    Plot("throughput", "stream", "Throughput of the stream and its rivals", throughput),
    Plot("first_batch", "stream_start", "Time to the first batch, and its parts", first_batch),
    Plot("memory", "memory", "Memory that streams and training add, epoch by epoch", memory),
    Plot("training", "train", "Speed of training and of its parts", training),
    Plot("probes", "probes", "Speed of training many probes in one pass", probes),
)


def plots_of(reports: Sequence[Report]) -> list[tuple[Plot, Report]]:
    """Return the plots of the reports that are there, each with its own."""
    by_name = {report["name"]: report for report in reports}
    return [(plot, by_name[plot.report]) for plot in PLOTS if plot.report in by_name]
