"""`laughstore import` as users type it: from a store's own features back to the same frames."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from laughstore import open_store
from tests.extract.reference_files import FORMS, SECOND, dataset, features, write_pt
from tests.extract.test_imported import Canary
from tests.extract.trees import NAME
from tests.faults.harness import Arm as Fault
from tests.faults.harness import FaultServer, compile_shim, tree

STATED = ["--model", "kyutai/moshiko-pytorch-bf16", "--tap", "out_norm", "--context", "restart:210"]


@pytest.fixture(scope="module")
def reference(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reference(built, tmp_path_factory.mktemp("reference") / "transformer_outs")


def write_reference(built: Path, folder: Path) -> Path:
    """Write the features of a store as the earlier scripts would have written them."""
    store = open_store(built)
    for item in store.recordings:
        frames = [store.frames(item.id, stream.assignment) for stream in item.streams]
        bits = np.stack(frames).view(np.int16)
        path = folder / item.split / f"{item.name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {
                "transformer_out": torch.from_numpy(bits).view(torch.bfloat16),
                "metadata": {
                    "episode_name": item.name,
                    "split": item.split,
                    "assignments": [
                        {"user": stream.main, "system": stream.other} for stream in item.streams
                    ],
                    "duration_seconds": item.duration_us / 1e6,
                    "num_frames": item.num_frames,
                },
            },
            path,
        )
    return folder


def test_a_store_of_imported_features_is_a_store(run, reference, corpus, built, tmp_path):
    store = tmp_path / "store"
    arguments = ("import", reference, "--store", store, "--dataset", corpus, *STATED)
    code, out, err = run(*arguments, "--dry-run")
    assert (code, err) == (0, "")
    assert "4 recordings" in out
    assert not store.exists()
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert "4 recordings (4 imported now)" in out
    assert "0 of 96,256 values were rounded" in out
    mine, theirs = open_store(store), open_store(built)
    assert [item.name for item in mine.recordings] == [item.name for item in theirs.recordings]
    for item in theirs.recordings:
        assert mine.annotations(item.id) == theirs.annotations(item.id)
        for stream in item.streams:
            found, expected = (
                opened.frames(item.id, stream.assignment).view(np.uint16)
                for opened in (mine, theirs)
            )
            assert np.array_equal(found, expected)
    code, out, _ = run("verify", store)
    assert code == 0
    code, out, _ = run("inspect", store)
    assert code == 0
    assert "imported, as stated: model kyutai/moshiko-pytorch-bf16, tap out_norm, " in out
    assert "text unknown, context restart:210" in out
    counts = [
        json.loads(run("labels", path, "--label", "onset:0.8s", "--json")[1])["splits"]
        for path in (store, built)
    ]
    assert counts[0] == counts[1]
    # Nothing that is extracted goes into it, and it into nothing that was.
    code, _, err = run("add", store, corpus)
    assert code == 2
    assert "holds imported features" in err
    code, _, err = run("import", reference, "--store", built, "--dataset", corpus)
    assert code == 2
    assert "holds features of another spec" in err
    code, out, _ = run(*arguments, "--json")
    assert (code, json.loads(out)["imported_now"]) == (0, 0)


def test_what_cannot_be_imported_is_told_and_the_rest_is_there(run, tmp_path):
    source = dataset(tmp_path / "dataset")
    broken = features(NAME)
    broken[0, 3, 0] = np.nan
    write_pt(tmp_path / "features", NAME, values=broken)
    path = write_pt(tmp_path / "features", SECOND)
    store = tmp_path / "store"
    arguments = ("import", tmp_path / "features", "--store", store, "--dataset", source)
    code, out, err = run(*arguments)
    assert code == 3
    assert err.startswith("left out: ")
    assert err.count("\n") == 1
    assert "a value of frame 3 is NaN or infinite" in out
    assert json.loads((store / "quarantine.json").read_text())
    torch.save({"transformer_out": Canary(tmp_path / "canary")}, path)
    code, out, err = run(*arguments[:3], tmp_path / "other", *arguments[4:])
    assert (code, out) == (1, "")
    assert "could run code" in err
    assert not (tmp_path / "canary").exists()
    code, out, _ = run(*arguments[:3], tmp_path / "third", *arguments[4:], "--dry-run", "--json")
    report = json.loads(out)
    assert (code, report["recordings"], len(report["left_out"])) == (3, 1, 1)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (["nowhere", "--store", "store"], 1, "nowhere: no such folder"),
        (["empty", "--store", "store"], 2, "found nothing"),
        (["features/file", "--store", "store"], 2, "is a file"),
        (["features", "--store", "s3://bucket/store"], 2, "is a URL"),
        (["features", "--store", "empty/file"], 2, "is no laughstore store"),
        (["features"], 2, "--store"),
        (["features", "--store", "store", "--tap", "middle"], 2, "tap is 'middle'"),
        (["features", "--store", "store", "--context", "210"], 2, "context is '210'"),
        (["features", "--store", "store", "--revision", "a"], 2, "give --model, too"),
        (["features", "--store", "store", "--length-tolerance", "3"], 2, "needs a unit"),
        (["features", "--store", "store", "--length-tolerance", "-1f"], 2, "0f or more"),
        (["features", "--store", "store", "--split", "dev"], 2, "has no split 'dev'"),
        (["features", "--store", "store", "--recordings", "x*"], 2, "matches 'x*'"),
        (["features", "--store", "store", "--dataset", "nowhere"], 1, "nowhere: no such folder"),
        (["features", "--store", "store", "--features_dir", "x"], 2, "earlier scripts"),
    ],
)
def test_bad_input_ends_with_one_line(run, changes, code, said, tmp_path, monkeypatch):
    write_pt(tmp_path / "features")
    (tmp_path / "empty").mkdir()
    (tmp_path / "features/file").write_text("")
    monkeypatch.chdir(tmp_path)
    if changes[-1] == "empty/file":
        Path("empty/file").write_text("mine")
    found, out, err = run("import", *changes)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
    assert not Path("store").exists()


def import_pt(store: Path) -> int:
    """Run in a child of the fault server."""
    from extract.imported.config import ImportConfig
    from extract.imported.run import import_features

    around = store.parent
    config = ImportConfig(around / "features", store, around / "dataset")
    return import_features(config).num_imported


@pytest.mark.slow
def test_killed_at_any_call_an_import_goes_on_to_the_same_bytes(tmp_path):
    around = tmp_path / "work"
    dataset(around / "dataset")
    FORMS["pt"](around / "features")
    store = around / "store"
    with FaultServer(compile_shim(tmp_path), tmp_path) as server:
        function = f"{__name__}:import_pt"
        watched = server.run(function, store)
        assert (watched.status, watched.result) == (0, 2), watched.message
        expected, num_calls = tree(store), len(watched.calls)
        assert num_calls > 30
        for nth in range(1, num_calls, num_calls // 5):
            subprocess.run(["rm", "-rf", str(store)], check=True)
            outcome = server.run(function, store, arm=Fault("kill before", nth))
            assert outcome.killed or nth > num_calls - 5, outcome.message
            again = server.run(function, store)
            assert again.status == 0, again.message
            assert tree(store) == expected


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path):
    dataset(tmp_path / "dataset")
    # Long enough to be met in the middle: 400 MB.
    write_pt(tmp_path / "features", SECOND)
    write_pt(tmp_path / "features", NAME, values=np.zeros((2, 800_000, 64), np.float32))
    command = [sys.executable, "-m", "laughstore", "import", "features", "--store", "store"]
    command += ["--dataset", "dataset", "--length-tolerance", "off"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline_s = time.monotonic() + 60
    while not list(tmp_path.glob("store/features.zarr/train/*/*/c/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Go on with:\n  laughstore import features --store store" in err
    assert "Traceback" not in err
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(open_store(tmp_path / "store").recordings) == 2
