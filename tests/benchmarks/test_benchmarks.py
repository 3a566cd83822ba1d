"""Benchmarks run and say what they must; what READMEs show is what the JSON gives."""

import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import scaling_page
from benchmarks.front_page import FrontPageError, front_page
from benchmarks.measure import Contestant, Result, Unit, measure
from benchmarks.quantities import number
from benchmarks.report import parse_options
from benchmarks.rivals import POOL_FRAMES, Pool
from benchmarks.table import (
    BEGIN,
    END,
    READMES,
    TableError,
    between_markers,
    filled,
    main,
    read_reports,
    text_of,
)

ROOT = Path(__file__).parents[2]
RESULT_FIELDS = {field.name for field in fields(Result)}


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_table_in_a_readme_is_what_the_json_gives(path):
    _, between, _ = between_markers(path.read_text(), path.name)
    assert between.strip("\n") == text_of(path, read_reports())


def test_committed_numbers_name_machine_and_versions_but_no_host_or_path():
    for report in [*read_reports(), *scaling_page.read_reports().values()]:
        assert report["machine"].keys() == {"cpu", "cores", "memory_gib", "kernel", "virtual"}
        assert {"python", "numpy", "torch", "zarr", "webdataset"} <= report["versions"].keys()
        text = json.dumps(report)
        assert os.uname().nodename not in text
        assert str(ROOT) not in text
        assert "/tmp" not in text
        assert report["repeats"] >= 5
        assert report["settings"]["gb"] >= 1 or report["name"].startswith("extract")


@pytest.mark.parametrize(
    "text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"], ids=repr
)
def test_a_readme_without_one_pair_of_markers_is_refused(text):
    with pytest.raises(TableError, match=r"README.md needs one line <!-- benchmarks:begin -->"):
        filled(text, "table", "README.md")


def test_only_what_stands_between_the_markers_changes():
    text = f"# Title\n{BEGIN}\nold\n{END}\nrest"
    assert filled(text, "new", "README.md") == f"# Title\n{BEGIN}\nnew\n{END}\nrest"


def test_results_of_a_quick_run_make_no_table(tmp_path):
    for report in read_reports():
        quick = {**report, "settings": {**report["settings"], "quick": True}}
        (tmp_path / f"{report['name']}.json").write_text(json.dumps(quick))
    with pytest.raises(TableError, match="--quick"):
        read_reports(tmp_path)


def test_check_accepts_the_committed_state():
    assert main(["--check"]) == 0


@pytest.mark.slow
def test_every_round_runs_limit_and_contestants_and_checks_each_run():
    ran, checked = [], []
    limit = Contestant(
        "limit", lambda: ran.append("limit") or 10.0, [Unit("x/s", 1)], unchecked="it does nothing"
    )
    ours = Contestant(
        "ours",
        lambda: ran.append("ours") or 10.0,
        [Unit("x/s", 1), Unit("ms", 1e3, is_rate=False)],
        limit=limit,
        check=lambda: checked.append(len(ran)),
    )
    rate_of_limit, rate, elapsed = measure([limit, ours], repeats=5)
    assert ran.count("limit") == ran.count("ours") == len(checked) == 6  # one is the warm-up
    assert rate_of_limit.of_limit is None
    assert rate.of_limit == elapsed.of_limit  # a part of a speed, whatever the unit
    for result in (rate_of_limit, rate, elapsed):
        assert 0 < result.low <= result.median <= result.high


def test_a_limit_that_is_run_anew_is_the_one_just_before_what_it_bounds():
    """The machine becomes slower and slower: limit and contestant alike, by a fifth each time."""
    ran: list[str] = []
    speeds = {"limit": 100.0, "slow": 10.0, "half": 50.0}
    now = 0.0

    def contestant(name: str, **more: Any) -> Contestant:
        def run() -> float:
            nonlocal now
            ran.append(name)
            now += 1.0
            return speeds[name] * 0.8 ** ran.count("limit")

        return Contestant(name, run, [Unit("x/s", 1)], unchecked="it only counts", **more)

    limit = contestant("limit", anew=True)
    others = [contestant("slow", limit=limit), contestant("half", limit=limit)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "perf_counter", lambda: now)
        patched.setattr(gc, "collect", lambda: 0)  # of all that other tests have imported
        of_limit, slow, half = measure([limit, *others], repeats=5)
    assert ran.count("limit") == 3 * 6
    assert ran.count("slow") == ran.count("half") == 6
    assert all(ran[i - 1] == "limit" for i, name in enumerate(ran) if name != "limit")
    assert (slow.of_limit, half.of_limit) == pytest.approx((0.1, 0.5))
    assert len(of_limit.values) == 5, "a value a round"
    assert of_limit.of_limit is None


@pytest.mark.parametrize("batch", [512, 4096])
def test_the_pool_of_rivals_deals_every_row_once(batch):
    lengths = [128] * 70 + [37] + [128] * 70 + [1]
    numbers = torch.arange(sum(lengths), dtype=torch.int16)
    blocks = [part[:, None].expand(-1, 4096).numpy() for part in numbers.split(lengths)]
    assert sum(lengths) > 2 * POOL_FRAMES
    dealt = []
    for bits in Pool(batch).shuffled(blocks, seed=1):
        assert bits.data_ptr() % 64 == 0  # no worse memory than ours
        dealt.append(bits[:, 0].clone())
    assert all(len(part) == batch for part in dealt[:-1])
    together = torch.cat(dealt)
    assert not torch.equal(together, numbers)
    assert torch.equal(together.sort().values, numbers)


@pytest.mark.parametrize("batch", [512, 4096])
def test_the_pool_of_rivals_copies_hardly_any_row_twice(batch, monkeypatch):
    copied = []
    gathered = Pool._gathered
    monkeypatch.setattr(
        Pool, "_gathered", lambda pool, rows: copied.append(len(rows)) or gathered(pool, rows)
    )
    # As streams end: blocks that are not full, here and there.
    lengths = [57 if i % 40 == 39 else 128 for i in range(800)]
    blocks = [np.zeros((length, 4096), np.int16) for length in lengths]
    assert sum(map(len, Pool(batch).shuffled(blocks, seed=1))) == sum(lengths)
    assert sum(lengths) <= sum(copied) < 1.02 * sum(lengths) + batch  # the last, smaller one


@pytest.mark.slow
def test_a_quick_run_runs_all_scripts_and_their_json_has_every_field(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--device", "cpu"]
    command += ["--dir", str(tmp_path / "frames"), "--out", str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=280)
    reports = [json.loads(path.read_text()) for path in (tmp_path / "out").iterdir()]
    # How cost grows has tests of its own (test_scaling); reads from a cold cache need a disk.
    reports = [report for report in reports if not report["name"].startswith("scaling")]
    assert {report["name"] for report in reports} - {"stream_cold"} == {
        "stream",
        "memmap",
        "stream_start",
        "resume",
        "memory",
        "store",
        "train",
        "probes",
        "extract",
    }
    for report in reports:
        assert report.keys() == REPORT_FIELDS
        assert report["cache"] == ("cold" if report["name"] == "stream_cold" else "warm")
        assert report["settings"]["quick"] is True
        assert report["repeats"] == 1
        for result in report["results"]:
            check_result(result)
        limited = [result for result in report["results"] if result["of_limit"] is not None]
        assert bool(limited) == (report["name"] != "stream_start")  # which has no rates
        if report["name"] == "stream":
            check_mixing(report)


REPORT_FIELDS = {
    "name",
    "machine",
    "versions",
    "settings",
    "cache",
    "repeats",
    "load_average_before",
    "others_busy_cores",
    "results",
}


def check_result(result):
    assert result.keys() == RESULT_FIELDS
    # The little that a quick run opens may fit into memory that the process has already.
    # Handles and files that are left are counted, and none may be.
    assert result["low"] > 0 or result["unit"] in ("MB", "")
    assert result["low"] <= result["median"] <= result["high"]
    assert (result["of_limit"] is None) == (result["limit"] is None)
    assert min(result["values"]) == result["low"]
    assert max(result["values"]) == result["high"]


def test_a_contestant_without_a_check_says_why():
    unit = Unit("x/s", 1)
    with pytest.raises(ValueError, match="ours: give a check, or say why there is none"):
        Contestant("ours", lambda: 1.0, [unit])
    with pytest.raises(ValueError, match="ours: give a check"):
        Contestant("ours", lambda: 1.0, [unit], check=lambda: None, unchecked="no reason")
    [result] = measure([Contestant("ours", lambda: 1.0, [unit], unchecked="a reason")], repeats=1)
    assert result.to_json()["unchecked"] == "a reason"


def check_mixing(report):
    named = {result["name"] for result in report["results"]}
    rivals = {name for name in named if name.startswith((".pt ", "numpy ", "zarr-python"))}
    for batch, mixed in report["settings"]["mixing"].items():
        assert batch.startswith("batch ")
        assert mixed.keys() < named
        assert {"FrameStream, verify never", *rivals} <= mixed.keys()
        assert sum(name.startswith(".pt ") for name in mixed) == 3


def test_the_readme_holds_like_against_like():
    reports = read_reports()
    page = front_page(reports)
    (results,) = [report["results"] for report in reports if report["name"] == "memory"]
    memory = {result["name"]: result for result in results}
    added = memory["window reader: anonymous memory it adds"]
    line = next(line for line in page.splitlines() if "files not mapped" in line)
    assert f"**{number(added['median'])}** MB | {added['of_limit']:.2f} |" in line
    assert "numpy memmap, fresh arrays" in page
    assert "numpy memmap, tuned" in page


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--gb", "0"], "--gb is 0; it must be above 0"),
        (["--gb", "-1"], "--gb is -1; it must be above 0"),
        (["--gb", "nan"], "--gb is nan; it must be above 0"),
        (["--dir", __file__], "File exists; give a folder"),
        (["--out", f"{__file__}/below"], "Not a directory; give a folder"),
    ],
)
def test_a_flag_that_cannot_be_is_told_in_a_line(flags, reason, capsys):
    with pytest.raises(SystemExit):
        parse_options("A benchmark.", ["--quick", *flags])
    assert reason in capsys.readouterr().err


def test_the_readme_says_which_line_of_it_a_report_lacks():
    reports = [
        {
            **report,
            "results": [r for r in report["results"] if not r["name"].startswith("training")],
        }
        for report in read_reports()
    ]
    with pytest.raises(FrontPageError, match=r"train.json has 0 results.*'training'.*LINES"):
        front_page(reports)
    twice = [{**report, "results": 2 * report["results"]} for report in read_reports()]
    with pytest.raises(FrontPageError, match=r"has 2 results that begin with"):
        front_page(twice)
