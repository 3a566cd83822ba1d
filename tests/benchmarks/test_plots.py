"""Plots show what the JSON holds, and whoever checks is told which of them do not."""

import json
import shutil

import pytest

from benchmarks.plots import IMAGES, SUFFIXES, plots_of
from benchmarks.report import RESULTS
from benchmarks.table import main, read_reports

DRAWN = plots_of(read_reports())


def test_every_plot_that_has_a_report_is_committed_and_small():
    assert {plot.name for plot, _ in DRAWN} >= {"throughput", "first_batch", "training"}
    for plot, _ in DRAWN:
        for suffix in SUFFIXES:
            assert 1_000 < (IMAGES / f"{plot.name}{suffix}").stat().st_size < 150_000


@pytest.mark.parametrize(("plot", "report"), DRAWN, ids=[plot.name for plot, _ in DRAWN])
def test_a_plot_that_shows_other_numbers_or_names_is_stale(plot, report, tmp_path):
    both = [tmp_path / f"{plot.name}{suffix}" for suffix in SUFFIXES]
    assert plot.stale(report, tmp_path) == both
    plot.draw(report, tmp_path)
    first = [path.read_bytes() for path in both]
    plot.draw(report, tmp_path)
    assert [path.read_bytes() for path in both] == first
    assert plot.stale(report, tmp_path) == []
    for change in ({"median": 1.5}, {"name": "limit: something else"}):
        assert plot.stale(changed(report, change), tmp_path) == both
    both[1].unlink()
    assert plot.stale(report, tmp_path) == both[1:]


def changed(report, change):
    """Return the report with every result changed."""
    results = [item | change for item in report["results"]]
    if "values" in report["results"][0] and "median" in change:
        results = [item | {"values": [change["median"]] * 3} for item in results]
    return {**report, "results": results}


@pytest.mark.parametrize(("plot", "report"), DRAWN, ids=[plot.name for plot, _ in DRAWN])
def test_the_check_names_what_a_changed_number_makes_stale(plot, report, tmp_path, capsys):
    shutil.copytree(RESULTS, tmp_path / "results")
    content = json.dumps(changed(report, {"median": 1.5}))
    (tmp_path / "results" / f"{report['name']}.json").write_text(content)
    assert main(["--check", "--results", str(tmp_path / "results")]) == 1
    told = capsys.readouterr().out.splitlines()
    stale = ["README.md", "benchmarks/README.md"]
    stale += [f"docs/images/{plot.name}{suffix}" for suffix in SUFFIXES]
    how = "is out of date: uv run python -m benchmarks.table"
    assert told == [f"{path} {how}" for path in stale]
