"""Make the READMEs' tables and all plots from the committed JSON; nothing is typed by hand.

uv run python -m benchmarks.table            # rewrite tables, and plots that are out of date
uv run python -m benchmarks.table --check    # only say whether they are up to date
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import features, scaling_page
from .feature_answers import FEATURES
from .front_page import LINES, FrontPageError, front_page
from .mixed import mixing_table
from .plots import plots_of
from .report import RESULTS

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
_ROOT = Path(__file__).parent.parent
READMES = (_ROOT / "README.md", _ROOT / "benchmarks" / "README.md")
_PLOTS_IN_FRONT = ("throughput",)
"""Shown in the project's README; that of the benchmarks shows all."""
_TITLES = {
    "stream": "Delivering shuffled frames",
    "memmap": "A mapped file as users write it",
    "stream_cold": "Delivering frames that are not in memory",
    "stream_start": "First batch and planning",
    "resume": "Going on where a stream or a run stopped",
    "memory": "Memory of streams, training, planning and opening",
    "store": "Writing, checking, opening",
    "train": "Training a linear head",
    "extract": "Extracting on a CPU: small random models, one torch thread",
    "probes": "Training many linear probes in one pass, with torch's own number of threads",
    "extract_gpu": "Extracting on a GPU: Moshi 7B and Mimi, random weights",
}
_WHEN_THERE = (
    "extract_gpu",
    "probes",
    "memmap",
    "stream_cold",
    "stream_start",
    "resume",
    "memory",
    "train",
)
"""Reports that no table waits for: they need a GPU, a disk that forgets, Linux, or free cores."""
_THROUGHPUT = "GB/s"
_LEGEND = (
    "Medians of interleaved rounds [lowest to highest]; *of limit* is the median over rounds of the"
    " speed as a part of the limit's just before or in that round (so of times, above 1 is faster),"
    " and of memory, which has no rounds, its part of what the limit says; *cores* counts all"
    " threads."
    " Made from `benchmarks/results/*.json` by `uv run python -m benchmarks.table`."
)
_LEGEND_IN_FRONT = (
    "Medians of interleaved rounds; each part is the median over rounds of the speed as a part of"
    " the limit's just before or in that round: where times are shown, above 1 is faster than the"
    " limit; of memory, it is what part of the limit is taken. A flat file that is mapped mixes"
    " better, and has no checksums, labels, resume or ranks (table of features). All results, their"
    " ranges, what each contestant does, and what each loader can do:"
    " [benchmarks/README.md](benchmarks/README.md)."
)

Report = Mapping[str, Any]  # Any: JSON values


class TableError(Exception):
    """A README or result file is not as it must be; the message says what to do."""


def read_reports(folder: Path = RESULTS) -> list[Report]:
    """Return the committed reports, in the order of the tables.

    Raises:
        TableError: one is missing, or comes from a quick run.
    """
    reports: list[Report] = []
    for name in _TITLES:
        path = folder / f"{name}.json"
        if not path.is_file() and name in _WHEN_THERE:
            continue
        if not path.is_file():
            raise TableError(f"{path.name} is missing; make it with: uv run python -m benchmarks")
        report = json.loads(path.read_text())
        if report["settings"]["quick"]:
            raise TableError(f"{path.name} is of a --quick run; run without it for the READMEs")
        reports.append(report)
    return reports


def tables(reports: Sequence[Report], images: Mapping[str, str] | None = None) -> str:
    """Return machine, a table of each report, and the legend.

    Args:
        reports: the first one's machine and frames are those of all that say nothing else.
        images: by name of a report, the Markdown of its plots.
    """
    made: list[str] = []
    for report in reports:
        made.append(
            f"**{_TITLES[report['name']]}**\n\n{_work(report, reports[0])}{_table(report)}"
            f"{_peers(report)}{mixing_table(report)}"
        )
        if images and report["name"] in images:
            made.append(images[report["name"]])
    return "\n\n".join([_machine(reports), *made, _LEGEND])


def text_of(readme: Path, reports: Sequence[Report]) -> str:
    """Return the text between a README's markers: tables, and the plots that it shows.

    Raises:
        FrontPageError: a report lacks a line that the project's README shows.
    """
    in_front = readme == READMES[0]
    folder = "docs/images" if in_front else "../docs/images"
    images = {
        report["name"]: plot.markdown(folder)
        for plot, report in plots_of(reports)
        if not in_front or plot.name in _PLOTS_IN_FRONT
    }
    if not in_front:
        return tables(reports, images)
    names = {"stream", *(line.report for line in LINES)}
    shown = [item for item in reports if item["name"] in names]
    return "\n\n".join([_machine(shown), front_page(reports), *images.values(), _LEGEND_IN_FRONT])


def between_markers(text: str, where: str) -> tuple[str, str, str]:
    """Return (before, between, after) of a README's markers.

    Raises:
        TableError: the markers are missing or not one pair.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise TableError(f"{where} needs one line {BEGIN} and, below it, one line {END}; add them")
    before, rest = text.split(BEGIN)
    between, after = rest.split(END)
    return before, between, after


def filled(text: str, table: str, where: str) -> str:
    """Return a README's text with the table between its markers."""
    before, _, after = between_markers(text, where)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _machine(reports: Sequence[Report]) -> str:
    first = reports[0]
    machine, versions = first["machine"], first["versions"]
    virtual = " (virtual machine)" if machine["virtual"] else ""
    packages = ", ".join(
        f"{name} {versions[name]}" for name in ("python", "numpy", "torch", "zarr", "webdataset")
    )
    busiest = max(item["others_busy_cores"] for item in reports)
    frames = first["settings"]["frames"]
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB"
        f"{virtual}, {machine['kernel']}; {packages}. {frames:,} frames of"
        f" bf16[{first['settings']['dim']}] ({first['settings']['gb']:g} GB), page cache"
        f" {first['cache']}, {first['repeats']} rounds, one torch thread. Other"
        f" processes kept at most {busiest:g} cores busy meanwhile."
    )


def _work(report: Report, first: Report) -> str:
    """Return what was run, where that is other models, frames or machines than the first's."""
    settings = report["settings"]
    works = settings.get("works", {})
    parts: list[str] = []
    frames = first["settings"]["frames"]
    if not works and settings.get("frames", frames) != frames:
        num_bytes = 2 * settings["dim"] * settings["frames"]
        parts.append(f"{settings['frames']:,} frames ({num_bytes / 1e9:.2g} GB).")
    parts += [
        f"{group}: {work['num_layers']} layers of {work['dim']} channels in {work['dtype']}, window"
        f" {work['window']}, {work['rows']} rows of {work['chunk_frames']} frames a call,"
        f" {work['num_recordings']} recordings of {work['seconds_each']:.0f} s."
        for group, work in works.items()
    ]
    if "gpu" in settings or report["machine"] != first["machine"]:
        machine, versions = report["machine"], report["versions"]
        gpu = settings.get("gpu")
        parts.append(
            f"{gpu + ', ' if gpu else ''}{machine['cpu']}, {machine['cores']} cores,"
            f" {machine['memory_gib']:g} GiB; python {versions['python']}, torch"
            f" {versions['torch']}."
        )
    if not parts:
        return ""
    others = report["others_busy_cores"]
    return " ".join([*parts, f"Other processes kept {others:g} cores busy.\n\n"])


def _peers(report: Report) -> str:
    """Return which versions of the peers were measured, and which were not there."""
    versions = report["settings"].get("peers")
    if not versions:
        return ""
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"\n\nPeers: {named}."


def _table(report: Report) -> str:
    results = report["results"]
    if "works" in report["settings"]:
        return _table_of_groups(results)
    grouped = any(item["group"] and item["unit"] == _THROUGHPUT for item in results)
    if grouped and len(_groups(results)) > 1:
        return _wide_table(results)
    rows = [("", "", "", "of limit", "cores")]
    rows += [
        (
            f"{item['name']}, {item['group']}" if item["group"] else item["name"],
            f"**{_number(item['median'])}** {item['unit']}",
            _spread(item),
            _part(item["of_limit"]),
            _cores(item["cores"]),
        )
        for item in results
    ]
    return _markdown(rows)


def _table_of_groups(results: Sequence[Mapping[str, Any]]) -> str:
    """One row a contestant, columns for each group; units side by side in one cell."""
    groups = _groups(results)
    rows = [("", *(text for group in groups for text in (group, "part", "cores")))]
    for name in dict.fromkeys(item["name"] for item in results):
        row = [name]
        for group in groups:
            mine = [item for item in results if (item["name"], item["group"]) == (name, group)]
            row += _cell_of_units(mine)
        rows.append(tuple(row))
    return _markdown(rows)


def _cell_of_units(items: Sequence[Mapping[str, Any]]) -> list[str]:
    if not items:
        return ["", "", ""]
    first = items[0]
    values = [f"**{_number(first['median'])}** {first['unit']} {_spread(first)}"]
    values += [f"{_number(item['median'])} {item['unit']}" for item in items[1:]]
    limit = "" if first["limit"] is None else f" of {first['limit'].removeprefix('limit: ')}"
    part = _part(first["of_limit"])
    return ["; ".join(values), f"{part}{limit}", _cores(first["cores"])]


def _wide_table(results: Sequence[Mapping[str, Any]]) -> str:
    """One row a contestant, columns for each group; frames a second only as thousands."""
    groups = _groups(results)
    head = [""]
    for group in groups:
        head += [f"{group}: GB/s", "frames/s", "of limit", "cores"]
    rows = [tuple(head)]
    for name in dict.fromkeys(item["name"] for item in results):
        mine = [item for item in results if item["name"] == name]
        row = [name]
        for group in groups:
            # A contestant without groups stands once, in the first columns.
            here = [item for item in mine if item["group"] == group] or [
                item for item in mine if not item["group"] and group == groups[0]
            ]
            row += _cells({item["unit"]: item for item in here})
        rows.append(tuple(row))
    return _markdown(rows)


def _cells(by_unit: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not by_unit:
        return ["", "", "", ""]
    item = by_unit[_THROUGHPUT]
    frames = by_unit.get("frames/s")
    return [
        f"**{_number(item['median'])}** {_spread(item)}",
        "" if frames is None else f"{frames['median'] / 1e3:.0f}k",
        _part(item["of_limit"]),
        _cores(item["cores"]),
    ]


def _groups(results: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(item["group"] for item in results if item["group"]))


def _spread(item: Mapping[str, Any]) -> str:
    return f"[{_number(item['low'])} to {_number(item['high'])}]"


def _number(value: float) -> str:
    """Three digits that count, never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _part(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _cores(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" + "|---:" * (len(rows[0]) - 1) + "|")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite or check. Returns 1 when something is missing or out of date."""
    parser = argparse.ArgumentParser(description="Make the READMEs' benchmark tables and plots.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of the JSON (default: the committed)"
    )
    options = parser.parse_args(argv)
    try:
        reports = read_reports(options.results)
        texts = {path: path.read_text() for path in (*READMES, scaling_page.DOCUMENT)}
        wanted = {
            path: filled(texts[path], text_of(path, reports), str(path.relative_to(_ROOT)))
            for path in READMES
        }
        scaling = scaling_page.Page(scaling_page.read_reports(options.results))
        wanted[READMES[1]] = features.filled(wanted[READMES[1]], FEATURES)
        wanted[scaling_page.DOCUMENT] = scaling.filled(texts[scaling_page.DOCUMENT])
    except (TableError, FrontPageError, scaling_page.ScalingError) as error:
        print(error, file=sys.stderr)
        return 1
    stale = [path for path in wanted if texts[path] != wanted[path]]
    if options.check:
        paths = stale + [path for plot, report in plots_of(reports) for path in plot.stale(report)]
        paths += [path for picture in scaling.pictures.values() for path in picture.stale()]
        for path in paths:
            print(f"{path.relative_to(_ROOT)} is out of date: uv run python -m benchmarks.table")
        return 1 if paths else 0
    for path in stale:
        path.write_text(wanted[path])
    for plot, report in plots_of(reports):
        plot.draw(report)
    for picture in scaling.pictures.values():
        picture.draw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
