"""`laughstore report` as a user types it."""

import json
import shutil
from pathlib import Path

import pytest

from laughstore.cli.main import main


@pytest.fixture(scope="module")
def run_folder(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the built store; tests must not change it."""
    out = tmp_path_factory.mktemp("report") / "run"
    flags = ["--epochs", "2", "--lr", "0.01", "--global-batch", "64", "--lanes", "8", "-q"]
    assert (
        main(["train", "--shards", str(built), "--out", str(out), "--device", "cpu", *flags]) == 0
    )
    return out


def test_a_report_is_written_with_the_sound_of_the_data_set(run_folder, corpus, run, tmp_path):
    page = tmp_path / "pages" / "page.html"
    code, out, err = run(
        "report", run_folder, "--out", page, "--audio", corpus, "--device", "cpu", "-q",
        "--bootstrap", 50,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("validation: detection of Laughter")
    last = out.splitlines()[-1]
    assert last.startswith(f"report: {page} (")
    assert last.endswith("1 timeline, 1 clip of sound)")
    assert '"type":"audio/mpeg"' in page.read_text("utf-8")
    code, out, err = run("report", run_folder, "--out", page, "--device", "cpu")
    assert (code, out) == (2, "")
    assert err == f"laughstore: {page} exists; choose another --out, or delete it\n"


def test_json_is_the_evaluation_and_where_the_page_is(run_folder, run):
    code, out, _ = run(
        "report", run_folder, "--json", "--device", "cpu", "-q", "--split", "test",
        "--bootstrap", 0, "--null", 0, "--recordings", 0,
    )  # fmt: skip
    assert code == 0
    told = json.loads(out)
    page = run_folder / "report-test.html"
    assert (told["out"], told["timelines"], told["clips"]) == (str(page), [], 0)
    assert told["bytes"] == page.stat().st_size
    assert told["split"] == "test"
    assert (told["look"]["look"], told["look"]["by"]) == (1, "report")
    assert told["metrics"]["rows"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing/here"], 1, "holds no config.json"),
        (["RUN", "--split", "tset"], 2, "tset"),
        (["RUN", "--recordings", "-1"], 2, "recordings is -1"),
        (["RUN", "--audio", "nothing/here"], 1, "no such folder or file"),
        (["RUN", "--audio", "RUN"], 2, "expected audio/"),
        (["RUN", "--checkpoint", "nothing"], 1, "MANIFEST.json"),
        (["RUN", "--out", "RUN"], 2, "exists"),
        (["RUN", "--shards", "nothing"], 1, "nothing"),
    ],
)
def test_what_is_wrong_is_one_line(run_folder, run, arguments, code, said):
    words = [str(run_folder) if word == "RUN" else word for word in arguments]
    found, out, err = run("report", *words, "--device", "cpu", "-q")
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


def test_recordings_that_the_data_set_lacks_are_silent_and_told(run_folder, corpus, run, tmp_path):
    other = tmp_path / "corpus"
    shutil.copytree(corpus, other)
    for folder in other.rglob("validation"):
        shutil.rmtree(folder)
    code, out, err = run(
        "report", run_folder, "--audio", other, "--device", "cpu", "--out", tmp_path / "page.html",
        "--bootstrap", 0, "--null", 0,
    )  # fmt: skip
    assert code == 0
    assert "no sound of" in err
    assert "clip" not in out
