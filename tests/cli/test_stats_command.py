"""`laughstore stats`: what training would compute, by any number of processes."""

import json
import multiprocessing
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from laughstore.cli.stats_processes import _results, moments_by_processes
from laughstore.errors import LaughstoreError
from laughstore.index_file import read_index
from laughstore.integrity.verify import verify
from tests.stores import Episode, laugh, random_features, write_store
from train import TrainConfig, train
from train.kept_moments import KeptMoments, stream_key
from train.statistics import stream_moments
from train.streaming.source import FrameSource

DIM = 32
EPISODES = [
    Episode("a", "train", 300, [laugh(2, 3)]),
    Episode("b", "train", 700, [laugh(5, 6)]),
    Episode("c", "validation", 450, [laugh(4, 5)], speakers=("SPEAKER_00",)),
    Episode("d", "test", 128),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests must not change."""
    path = tmp_path_factory.mktemp("stats") / "store"
    write_store(path, EPISODES, random_features(DIM), dim=DIM, block_frames=32, shard_frames=256)
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "store")


def files(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store / "stats").glob("*")}


@pytest.mark.slow
def test_any_number_of_processes_writes_the_files_that_training_does(store, tmp_path, run):
    code, out, _ = run("stats", store, "--jobs", 1)
    assert code == 0
    assert "statistics of 7 streams, 2,706 frames; 7 computed" in out
    alone = files(store)
    assert len(alone) == len(EPISODES)
    assert run("stats", store)[1].count("0 computed") == 1
    assert files(store) == alone

    other = shutil.copytree(store, tmp_path / "other", ignore=shutil.ignore_patterns("stats"))
    code, out, _ = run("stats", other, "--jobs", 2, "--json")
    assert (code, json.loads(out)["computed"], files(other)) == (0, 7, alone)

    index = read_index(other / "shards")
    shutil.rmtree(other / "stats")
    for split in index.splits:
        with FrameSource(index, split) as source:
            stream_moments(index, index.streams(split), source)
    assert files(other) == alone


def test_a_training_finds_them_and_its_model_is_the_same(store, tmp_path, run):
    def trained(name: str) -> tuple[list[str], bytes]:
        phases: list[str] = []
        config = TrainConfig(
            store, tmp_path / name, epochs=1, global_batch=128, lanes=4, device="cpu"
        )
        result = train(config, progress=lambda report: phases.append(report.phase))
        return phases, next((result.run / "checkpoints").rglob("model.safetensors")).read_bytes()

    phases, by_itself = trained("one")
    assert "statistics" in phases
    shutil.rmtree(store / "stats")
    assert run("stats", store / "shards", "--jobs", 1, "-q")[0] == 0
    phases, with_theirs = trained("two")
    assert "statistics" not in phases
    assert with_theirs == by_itself
    assert verify(store).faults == ()


@pytest.mark.slow
def test_damage_is_named_and_what_is_sound_is_kept(store, run):
    index = read_index(store / "shards")
    shard = index.split_shards("train")[4]
    path = store / "shards" / shard.name
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(index.geometry.data_offset(1) + 7)
        file.write(b"?!")
    code, out, err = run("stats", store, "--jobs", 2, "-q")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert f"{shard.name}, sample {shard.stream.recording_id}/" in err
    assert "statistics of all sound streams are kept" in err
    kept = KeptMoments(index).read(s for item in index.recordings for s in item.streams)
    assert len(kept) == 6
    assert stream_key(shard.stream) not in kept
    assert not multiprocessing.active_children()


def test_altered_statistics_are_a_fault_that_verify_names(store, run):
    run("stats", store, "--jobs", 1, "-q")
    path = sorted((store / "stats").iterdir())[0]
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"mean":"', b'"mean":"A', 1))
    (fault,) = verify(store).faults
    assert (fault.path, fault.advice) == (
        f"stats/{path.name}",
        "delete it: it is made again when it is needed",
    )
    code, _, err = run("stats", store, "--jobs", 1)
    assert code == 0
    assert f"computed again: {path}" in err
    assert path.read_bytes() == data


def test_where_nothing_can_be_kept_one_line_says_so(store, tmp_path, run):
    (store / "stats").write_text("in the way")
    code, out, err = run("stats", store, "--jobs", 1, "-q")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cannot be written" in err
    alone = shutil.copytree(store / "shards", tmp_path / "elsewhere" / "shards")
    for arguments, said in (
        ([alone], "stands in no store"),
        (["s3://bucket/store"], "is a URL"),
        ([store, "--jobs", 0], "jobs is 0"),
    ):
        code, out, err = run("stats", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert said in err


def test_a_store_that_cannot_be_written_and_has_them_all_is_fine(store, run, monkeypatch):
    assert run("stats", store, "--jobs", 1, "-q")[0] == 0
    monkeypatch.setattr(os, "access", lambda *_: False)  # as root, everything can be written
    code, out, _ = run("stats", store, "--jobs", 1)
    assert (code, out.count("0 computed")) == (0, 1)
    sorted((store / "stats").iterdir())[0].unlink()
    code, out, err = run("stats", store, "--jobs", 1, "-q")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cannot be written" in err


def test_a_killed_process_is_told_and_nothing_waits_for_it(store):
    index = read_index(store / "shards")

    def kill_one() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.02)
        children[0].kill()  # importing torch takes it a second

    with ThreadPoolExecutor(1) as thread:
        killing = thread.submit(kill_one)
        with pytest.raises(
            LaughstoreError, match=r"was killed by SIGKILL .* what was known is kept"
        ):
            list(moments_by_processes(index, index.streams("train"), 2))
        killing.result()
    assert not multiprocessing.active_children()


def send_half_a_message(pipe: Connection) -> None:
    os.write(pipe.fileno(), struct.pack("!i", 1000) + bytes(500))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_sends_is_told_the_same_way():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send_half_a_message, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    with pytest.raises(LaughstoreError, match=r"was killed by SIGKILL .* what was known is kept"):
        list(_results({ours: process}))
    assert not process.is_alive()


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_tells_the_command_that_goes_on(store):
    command = [sys.executable, "-m", "laughstore", "stats", str(store), "--jobs", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until_s = time.monotonic() + 30
        # Two that compute, and one of multiprocessing's own.
        while len(children := listed.read_text().split()) < 3 and time.monotonic() < until_s:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped; what is known is kept. Go on with:\n  laughstore stats" in err
    assert "Traceback" not in err
    until_s = time.monotonic() + 10
    while any(is_alive(pid) for pid in children) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert not [pid for pid in children if is_alive(pid)]


def is_alive(pid: str) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
