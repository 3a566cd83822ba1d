"""One store, many ways to build it: workers, parts, torchrun, with kills in between; same bytes.

With a real model, if a small one. Without: `test_workers.py`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from laughstore import open_store
from tests.faults.harness import tree

DEADLY = Path(__file__).parent / "deadly"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


@pytest.fixture(scope="module")
def expected(built: Path) -> dict[str, str]:
    """What one process has built."""
    return {path: sha for path, sha in tree(built).items() if not path.startswith("stats/")}


@pytest.fixture
def command(corpus: Path, tmp_path: Path, nano_checkpoint: Path) -> list[str]:
    """Builds the same store."""
    return ["build", str(corpus), "--store", str(tmp_path / "s"), "--model", str(nano_checkpoint)]


def first_recording(corpus: Path) -> str:
    """A part of the paths of its audio: it is one of four that are equally long."""
    return sorted((corpus / "audio/episode_wav_dial/train").iterdir())[0].name


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [2, 3])
def test_workers_build_the_store_of_one_process(num_workers, run, command, tmp_path, expected):
    code, out, err = run(*command, "--nproc", num_workers, "--json")
    assert (code, json.loads(out)["built_now"]) == (0, 4), err
    assert tree(tmp_path / "s") == expected
    assert "waiting" not in err


@pytest.mark.parametrize("order", [pytest.param("123", marks=pytest.mark.slow), "312"])
def test_parts_build_the_store_of_one_process_in_any_order(order, run, command, tmp_path, expected):
    for number in order:
        code, out, _ = run(*command, "--part", f"{number}/3", "--json")
        report = json.loads(out)
        assert code == 0
        assert report["finished"] == (number == order[-1])
    assert tree(tmp_path / "s") == expected


def test_a_part_tells_what_is_missing_and_commit_finishes_or_leaves_it_out(
    run, command, tmp_path, corpus, nano_checkpoint, expected
):
    commit = [*command, "--commit"]
    code, _, err = run(*commit)
    assert (code, "begin it with" in err) == (1, True)
    code, out, _ = run(*command, "--part", "1/2")
    assert code == 0
    assert "2 recordings of other parts missing" in out
    assert f"{tmp_path / 's'} --commit" in out
    code, _, err = run(*commit)
    assert code == 1
    assert "2 of 4 recordings have not been built" in err
    code, out, _ = run(*commit, "--partial")
    assert code == 3
    assert "not built when the store was committed with --partial" in out
    assert "laughstore add" in out
    assert len(open_store(tmp_path / "s").recordings) == 2
    code, out, _ = run("add", tmp_path / "s", corpus, "--model", nano_checkpoint)
    assert (code, "2 recordings added" in out) == (0, True)
    opened = open_store(tmp_path / "s")
    assert len(opened.recordings) == 4
    assert opened.manifest.quarantined == ()


def test_a_store_of_two_kinds_of_devices_says_so(run, command, tmp_path, monkeypatch, expected):
    from extract import run as extract_run

    assert run(*command, "--part", "1/2")[0] == 0
    monkeypatch.setattr(extract_run, "device_kind", lambda device: "cpu/another")
    code, _, err = run(*command, "--part", "2/2")
    assert code == 2
    assert "--allow-mixed-devices" in err
    code, out, err = run(*command, "--part", "2/2", "--allow-mixed-devices")
    assert code == 0
    said = "extracted on another kind of device, cpu/another: 2 recordings"
    assert said in out
    assert "recorded" in err
    assert said in run("inspect", tmp_path / "s")[1]
    # The same machine after all: only the records of two units, and what names them, differ.
    there = tree(tmp_path / "s")
    changed = {path for path, digest in expected.items() if there[path] != digest}
    assert {path.partition("/")[0] for path in changed} == {"units", "generations", "store.json"}
    assert len(changed) == 4


@pytest.fixture
def deadly(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Processes that are started from now on die of the first recording."""
    monkeypatch.setenv("PYTHONPATH", str(DEADLY))
    monkeypatch.setenv("LAUGHSTORE_TEST_KILLS", first_recording(corpus))
    return os.environ


@pytest.mark.slow
def test_a_killed_worker_changes_no_byte(run, command, tmp_path, expected, deadly, monkeypatch):
    monkeypatch.setenv("LAUGHSTORE_TEST_ONCE", str(tmp_path / "once"))
    code, _, err = run(*command, "--nproc", 2, "--rows", 4)
    assert code == 0, err
    assert len(re.findall("was killed by SIGKILL", err)) == 1
    code, _, _ = run(*[word.replace("/s", "/alone") for word in command], "--rows", 4)
    assert code == 0
    assert tree(tmp_path / "s") == tree(tmp_path / "alone")


@pytest.mark.slow
def test_audio_that_kills_every_worker_is_left_out(run, command, tmp_path, corpus, deadly):
    code, out, err = run(*command, "--nproc", 2, "--rows", 4)
    assert code == 3, err
    store = open_store(tmp_path / "s")
    assert [item["name"] for item in store.manifest.quarantined] == [first_recording(corpus)]
    assert len(store.recordings) == 3
    assert re.search("1 recording left out:\n.*killed by SIGKILL .* 3 times", out)


def torchrun(command: list[str], *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, "--nproc-per-node", "2", *flags, "-m", "laughstore", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.slow
def test_torchrun_builds_the_store_of_one_process_and_one_of_its_ranks_tells(
    command, tmp_path, expected
):
    done = torchrun(command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("store: ") == 1
    assert "built by this process" in done.stdout
    assert tree(tmp_path / "s") == expected


@pytest.mark.slow
def test_torchrun_starts_nothing_again_when_a_recording_was_left_out(command, corpus, tmp_path):
    own = Path(shutil.copytree(corpus, tmp_path / "own"))
    shutil.rmtree(next((own / "audio/episode_wav_dial/train").iterdir()))
    words = [str(own) if word == str(corpus) else word for word in command]
    done = torchrun([*words, "--json"], "--max-restarts", "3")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["left_out"]) == 1, "told once"


@pytest.mark.slow
def test_a_killed_rank_of_torchrun_changes_no_byte(
    command, tmp_path, expected, deadly, monkeypatch
):
    monkeypatch.setenv("LAUGHSTORE_TEST_ONCE", str(tmp_path / "once"))
    done = torchrun(command, "--max-restarts", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "once").exists()
    assert tree(tmp_path / "s") == expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--part", "0/4"], "part is 0/4; parts are counted from 1: --part 1/4 to --part 4/4"),
        (["--part", "5/4"], "part is 5/4"),
        (["--part", "x"], "part is 'x'; use I/N: --part 1/4 to --part 4/4"),
        (["--nproc", "0"], "nproc is 0; it must be at least 1"),
        (["--partial"], "--partial goes with --commit"),
        (["--commit", "--nproc", "2"], "--commit extracts nothing"),
        (["--threads", "0"], "threads is 0"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags, said, run, command, tmp_path):
    code, out, err = run(*command, *flags)
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("flag", ["--nproc=2", "--part=1/2", "--commit", "--dry-run"])
def test_inside_torchrun_what_it_does_is_not_asked_for_again(flag, run, command, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    code, _, err = run(*command, flag)
    assert code == 2
    assert "torchrun" in err


def test_torchrun_takes_no_recording_that_was_left_out_for_a_failure(
    run, command, corpus, tmp_path, monkeypatch
):
    """Every code but 0 would have it start all ranks again; the first of them tells."""
    own = Path(shutil.copytree(corpus, tmp_path / "own"))
    shutil.rmtree(next((own / "audio/episode_wav_dial/train").iterdir()))
    words = [str(own) if word == str(corpus) else word for word in command]
    monkeypatch.setattr("laughstore.cli.build.die_with", lambda parent: None)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("GROUP_RANK", "0")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        code, out, err = run(*words)
        assert code == 0
        assert ("left out" in out, out == "") == (rank == "0", rank == "1")
        assert ("left out" in err) == (rank == "0"), "the first of a host shows what goes on"
        assert ("THE STORE IS FINISHED WITHOUT 1 recording" in err) == (rank == "0")
    assert len(json.loads((tmp_path / "s/quarantine.json").read_text())["recordings"]) == 1
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    assert run(*words, "--commit")[0] == 3


def test_a_rank_of_torchrun_that_is_told_to_stop_says_how_torchrun_goes_on(
    run, command, monkeypatch
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("extract.run.survey", interrupted)
    monkeypatch.setattr("laughstore.cli.build.die_with", lambda parent: None)
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    code, _, err = run(*command)
    assert code == 130
    assert "Go on with:\n  laughstore build " in err
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    code, _, err = run(*command)
    assert code == 130
    assert "Go on with:\n  torchrun ... -m laughstore build " in err


def test_half_of_torchruns_variables_are_an_error(run, command, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    code, _, err = run(*command)
    assert code == 2
    assert "unset TORCHELASTIC_RUN_ID" in err


def test_commit_loads_no_torch(tmp_path):
    """A head node may have no torch, and little memory."""
    code = (
        "import sys; from laughstore.cli.main import main;"
        f"assert main(['build', 'x', '--store', {str(tmp_path / 's')!r}, '--commit']) == 1;"
        "import laughstore.cli.workers; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
