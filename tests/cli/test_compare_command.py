"""`laughstore compare`: what it prints of runs, of probes, and of what cannot be compared."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run

FLAGS = ["--lr", "0.01", "--global-batch", "64", "--device", "cpu"]


@pytest.fixture(scope="module")
def two(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `first`, `second` and `soon`."""
    from laughstore.cli.main import main

    folder = tmp_path_factory.mktemp("runs")
    for name, more in {
        "first": ["--epochs", "3"],
        "second": ["--epochs", "1", "--seed", "1"],
        "soon": ["--epochs", "1", "--label", "onset:0.8s"],
    }.items():
        words = ["train", "--shards", str(built), "--out", str(folder / name), *FLAGS, *more, "-q"]
        assert main(words) == 0
    return folder


def test_runs_are_told_as_tables(two: Path, run: Run) -> None:
    names = ("first", "second", "soon")
    code, told, said = run("compare", *(two / name for name in names), "--split", "train", "-q")
    assert (code, said) == (0, "")
    lines = told.splitlines()
    assert lines[0] == "train: AP, higher is better"
    assert lines[1].startswith("label detection of Laughter")
    assert lines[2].startswith("label onset:10f (10 rows) of Laughter")
    header = ["run", "AP", "95", "%", "interval", "base", "rate", "lift", "rows", "recordings"]
    assert lines[3].split() == header
    assert [line.split()[0] for line in lines[4:7]] == list(names)
    shown = re.compile(
        r"^\w+( \*)? +0\.\d{3} +0\.\d{3} to \d\.\d{3} +\d+\.\d\d % +\d+\.\d{3} +[\d,]+ +2$"
    )
    assert all(shown.match(line) for line in lines[4:7]), told
    assert (
        "difference from first, on the same rows (2 recordings drawn 2,000 times, rough; p" in told
    )
    assert re.search(
        r"^  second +[+-]0\.\d{4} +[+-]0\.\d{4} to [+-]0\.\d{4} +[01]\.\d{3}$", told, re.M
    )
    assert "not compared with first: soon (another label: onset:10f, not detection)\n" in told
    assert re.search(r"^  setting +first +second +soon$", told, re.M)
    assert re.search(r"^  epochs +3 +1 +1$", told, re.M)
    assert re.search(r"^  label.kind +detection +detection +onset$", told, re.M)
    assert "shards" not in told.partition("setting")[2], "it is the same"


def test_as_json_without_draws_and_from_another_baseline(two: Path, run: Run) -> None:
    words = [two / "first", two / "second", "--split", "train", "--json", "--metric", "auroc"]
    code, told, said = run("compare", *words, "--bootstrap", "0", "--baseline", two / "second")
    assert code == 0, said
    found = json.loads(told)
    assert (found["baseline"], found["metric"]) == ("second", "auroc")
    auroc = [each["metrics"]["auroc"] for each in found["runs"]]
    difference = found["differences"]["first"]["auroc"]
    assert difference["difference"] == pytest.approx(auroc[0] - auroc[1])
    assert (difference["interval"], difference["p"]) == (None, None)
    assert found["settings"]["seed"] == [0, 1]


def test_one_recording_has_no_intervals_and_the_reason(two: Path, run: Run) -> None:
    code, told, said = run("compare", two / "first", two / "second")
    assert code == 0, said
    assert "no interval: there is only one recording: nothing to draw from" in told
    assert re.search(r"^  second +[+-]0\.\d{4} +none +none$", told, re.M)
    assert "*" not in told


def test_each_look_at_test_is_counted_in_each_run(two: Path, run: Run, tmp_path: Path) -> None:
    paths = [Path(shutil.copytree(two / name, tmp_path / name)) for name in ("first", "soon")]
    for look in (1, 2):
        code, told, said = run("compare", *paths, "--split", "test", "--json")
        assert code == 0, said
        counted = [each["look"] for each in json.loads(told)["runs"]]
        assert [(item["look"], item["by"]) for item in counted] == [(look, "compare")] * 2
        chosen = [each["operating_point"] for each in json.loads(told)["runs"]]
        assert [item["chosen_on"] for item in chosen] == ["validation"] * 2
    code, told, _ = run("compare", *paths, "--split", "test")
    assert code == 0
    assert told.endswith("looks at test by each run, counted there: first 3, soon 3\n")
    code, told, said = run("compare", *paths, "--json")
    assert code == 0, said
    assert [each["look"] for each in json.loads(told)["runs"]] == [None, None]
    for path in paths:
        assert len((path / "test_looks.jsonl").read_text().splitlines()) == 3


def test_the_page_holds_the_same_numbers_and_no_markup_of_names(
    two: Path, run: Run, tmp_path: Path
) -> None:
    strange = tmp_path / "<img src=x onerror=alert(1)>&amp;"
    shutil.copytree(two / "second", strange)
    page = tmp_path / "pages" / "compare.html"
    words = ["compare", two / "first", strange, two / "soon", "--split", "train"]
    code, told, said = run(*words, "--out", page, "--json")
    assert code == 0, said
    found = json.loads(told)
    assert found["out"] == str(page)
    text = page.read_text()
    assert "<img" not in text.split("<script")[0]
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;" in text
    assert text.count("another label: onset:10f, not detection") == 1
    data = re.search(r'id="page-data">(.*?)</script>', text)
    assert data is not None
    charts = json.loads(data[1])["charts"]
    values = [trace["x"][0] for trace in charts["values"]["data"]]
    assert values == [each["metrics"]["average_precision"] for each in found["runs"]]
    (trace,) = charts["differences"]["data"]
    difference = found["differences"][strange.name]["average_precision"]
    low, high = difference["interval"]["low"], difference["interval"]["high"]
    bar = trace["error_x"]
    assert trace["x"][0] == difference["difference"]
    assert trace["x"][0] - bar["arrayminus"][0] == pytest.approx(low)
    assert trace["x"][0] + bar["array"][0] == pytest.approx(high)
    assert "<img" not in json.dumps(charts)
    assert "connect-src" not in text.split("<title>")[0]
    assert "default-src 'none'" in text.split("<title>")[0].replace("&#39;", "'")
    before = page.read_bytes()
    code, told, said = run(*words, "--out", page)
    assert (code, told) == (2, "")
    assert said == f"laughstore: {page} exists; choose another --out, or delete it\n"
    assert page.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "expected", "said"),
    [
        (["first"], 2, "one run is nothing to compare"),
        (["first", "first"], 2, "is given twice"),
        (["first", "third"], 1, "holds no config.json"),
        (["first", "second", "--metric", "lift"], 2, "it must be auto, ap, average_precision"),
        (["first", "second", "--split", "tset"], 2, "tset"),
        (["first", "second", "--baseline", "soon"], 2, "baseline soon is none of the runs"),
        (["first", "second", "--bootstrap", "-1"], 2, "bootstrap is -1"),
        (["first", "second", "--checkpoint", "worst"], 2, "worst"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], expected: int, said: str, two: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two)
    code, out, err = run("compare", *words)
    assert (code, out) == (expected, "")
    assert said in err
    assert err.count("\n") == 1
