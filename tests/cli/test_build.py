"""A build gives the same bytes whatever happens to it: killed, interrupted, run again."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from laughstore import open_store
from laughstore.files import sha256_file

NO_PART = ("stats", ".lock")


def contents(store: Path) -> dict[str, str]:
    """SHA-256 of every file of a store by its path."""
    return {
        str(path.relative_to(store)): sha256_file(path)
        for path in sorted(store.rglob("*"))
        if path.is_file() and path.relative_to(store).parts[0] not in NO_PART
    }


def test_the_manifest_names_every_file_with_its_bytes(built):
    store = open_store(built)
    found = contents(built)
    assert found.pop("store.json") == found.pop("generations/000001.json")
    assert found.pop("shards/index.json") == found["shards/index-000001.json"]
    named = {}
    for item in store.manifest.all_files(store.folder):
        named[item.path] = item.sha256
        assert (built / item.path).stat().st_size == item.num_bytes
        if item.also is not None:
            named[item.also] = item.sha256
    assert found == named


def test_building_twice_gives_the_same_bytes(run, corpus, built, tmp_path, nano_checkpoint):
    code, _, _ = run("build", corpus, "--store", tmp_path / "s", "--model", nano_checkpoint, "-q")
    assert code == 0
    assert contents(tmp_path / "s") == contents(built)


def test_building_again_extracts_nothing_and_changes_nothing(
    run, corpus, built, tmp_path, nano_checkpoint
):
    store = Path(shutil.copytree(built, tmp_path / "s"))
    before = contents(store)
    code, out, _ = run("build", corpus, "--store", store, "--model", nano_checkpoint, "--json")
    assert code == 0
    assert json.loads(out)["built_now"] == 0
    assert contents(store) == before


def test_rows_side_by_side_do_not_change_the_features(
    run, corpus, built, tmp_path, nano_checkpoint
):
    code, _, _ = run(
        "build", corpus, "--store", tmp_path / "s", "--model", nano_checkpoint, "--rows", 4, "-q"
    )
    assert code == 0
    one, other = open_store(built), open_store(tmp_path / "s")
    for recording in one.recordings:
        for stream in recording.streams:
            mine = one.frames(recording.id, stream.assignment)
            theirs = other.frames(recording.id, stream.assignment)
            np.testing.assert_array_equal(mine.view(np.uint16), theirs.view(np.uint16))


def test_a_store_reads_back_what_it_says(built):
    store = open_store(built)
    for recording in store.recordings:
        assert recording.num_frames == 188  # ceil(15 s * 12.5)
        assert store.annotations(recording.name).recording == recording.name
        for stream in recording.streams:
            frames = store.frames(recording.name, stream.assignment)
            assert frames.shape == (188, 64)
            assert np.isfinite(frames.astype(np.float32)).all()
            codes = np.asarray(store.codes(recording.name, stream.assignment)[:])
            assert (codes[:, 0] == 3).all(), "text is padding in every frame"
            assert (codes[:, 1:] >= 0).all()


def test_the_two_streams_of_a_recording_have_swapped_codes(built):
    store = open_store(built)
    recording = store.recordings[0]
    one, other = (np.asarray(store.codes(recording.id, s.assignment)[:]) for s in recording.streams)
    np.testing.assert_array_equal(one[:, 1:9], other[:, 9:])
    np.testing.assert_array_equal(one[:, 9:], other[:, 1:9])


def test_a_lost_name_of_a_finished_store_is_given_back(
    run, corpus, built, tmp_path, nano_checkpoint
):
    store = Path(shutil.copytree(built, tmp_path / "s"))
    shard = next(iter((store / "shards").glob("*.tar")))
    shard.unlink()
    (store / "shards/index.json").unlink()
    code, _, err = run("inspect", store)
    assert code == 1
    assert "is missing" in err
    code, out, err = run("build", corpus, "--store", store, "--model", nano_checkpoint, "--json")
    assert code == 0
    assert "2 lost names of files were given back" in err
    assert json.loads(out)["built_now"] == 0
    assert contents(store) == contents(built)


def test_a_finished_store_is_never_rewritten(run, corpus, built, tmp_path, nano_checkpoint):
    store = Path(shutil.copytree(built, tmp_path / "s"))
    opened = open_store(store)
    files = opened.manifest.all_files(opened.folder)
    item = next(item for item in files if item.also is not None)
    assert item.also is not None
    (store / item.path).unlink()
    damaged = store / item.also
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    before = contents(store)
    command = ["build", corpus, "--store", store, "--model", nano_checkpoint]
    code, _, err = run(*command)
    assert code == 1
    assert "its sha256 is not what store.json says" in err
    assert contents(store) == before
    damaged.unlink()
    before = contents(store)
    code, _, err = run(*command)
    assert code == 1
    assert "a finished store is never rewritten" in err
    assert contents(store) == before


def test_what_a_store_was_finished_without_stays_in_its_manifest(
    run, corpus, tmp_path, nano_checkpoint
):
    own = Path(shutil.copytree(corpus, tmp_path / "own"))
    gone = sorted((own / "audio/episode_wav_dial/train").iterdir())[0]
    shutil.rmtree(gone)
    command = ["build", own, "--store", tmp_path / "s", "--model", nano_checkpoint]
    assert run(*command)[0] == 3
    before = contents(tmp_path / "s")
    for path in (own / "metadata").rglob(f"*{gone.name}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    code, out, _ = run(*command)
    assert code == 3
    assert gone.name in out
    assert contents(tmp_path / "s") == before
    code, _, err = run(*command, "--strict")
    assert code == 1
    assert "was finished without" in err


def test_a_unit_that_is_not_whole_is_made_again_before_the_commit(
    run, corpus, built, tmp_path, nano_checkpoint
):
    store = Path(shutil.copytree(built, tmp_path / "s"))
    for path in (store / "store.json", store / "shards/index.json"):
        path.unlink()
    shard = next(iter((store / "shards").glob("*.tar")))
    shard.unlink()
    (store / f"shards/{shard.name}.partial-0123").write_bytes(b"left by a killed process")
    code, out, _ = run("build", corpus, "--store", store, "--model", nano_checkpoint, "--json")
    assert code == 0
    assert json.loads(out)["built_now"] == 1
    assert contents(store) == contents(built)


def test_flags_that_are_left_out_go_on_as_the_store_was_begun(
    run, corpus, tmp_path, nano_checkpoint
):
    command = ["build", corpus, "--store", tmp_path / "s", "--model", nano_checkpoint, "-q"]
    assert run(*command, "--chunk-frames", 50, "--rows", 4, "--dtype", "bfloat16")[0] == 0
    assert run(*command)[0] == 0


def test_a_recording_that_fails_late_leaves_no_shard_behind(corpus, tmp_path, nano_checkpoint):
    from extract.features import FeatureChunk, FeatureFailure, Source
    from extract.writer import StoreWriter
    from laughstore.annotations import write_annotations
    from laughstore.buildplan import RecordingToPlan, begin_plan, make_plan
    from laughstore.commit import commit_plan
    from laughstore.errors import BadRecording
    from tests.stores import DEVICE_KIND, Episode, spec_for

    episodes = [Episode("bad", num_frames=700), Episode("good", num_frames=700)]
    spec = spec_for(64, shard_frames=256)
    items = [
        RecordingToPlan(
            e.name, e.name, "train", e.name, e.num_frames, e.assignments, annotations_id
        )
        for e in episodes
        for annotations_id in [e.annotations.content_id()]
    ]
    store = tmp_path / "s"
    plan = make_plan(spec, DEVICE_KIND, items)
    begin_plan(store, plan)
    for episode in episodes:
        write_annotations(store, episode.annotations, "train", episode.name)
    sources = {e.name: Source(e.name, e.num_frames, list) for e in episodes}
    with StoreWriter(store, plan) as writer:
        for start in range(0, 700, 100):
            for source in sources.values():
                if source.key == "bad" and start == 600:
                    failure = FeatureFailure(source, BadRecording("broken at second 48"))
                    writer.put(failure)
                else:
                    frames = np.zeros((2, 100, 64), np.uint16), np.zeros((2, 100, 17), np.int16)
                    writer.put(FeatureChunk(source, start, *frames))
    left_out = commit_plan(store, plan)
    assert [(item.name, item.reason) for item in left_out] == [("bad", "broken at second 48")]
    index = open_store(store).index
    assert {shard.name for shard in index.shards} == {
        path.name for path in (store / "shards").glob("*.tar")
    }
    assert len(index.shards) == 6
    assert not list(store.glob("*.zarr/train/bad"))


def test_a_track_that_is_damaged_in_its_middle_moves_nothing_else(
    run, corpus, built, tmp_path, nano_checkpoint
):
    own = Path(shutil.copytree(corpus, tmp_path / "own"))
    episode = sorted((own / "audio/episode_wav_dial/train").iterdir())[0]
    track = episode / "SPEAKER_01.wav"
    samples, rate = soundfile.read(track, dtype="float32")
    samples[len(samples) // 2] = np.nan
    soundfile.write(track, samples, rate, subtype="FLOAT")
    code, _, err = run("build", own, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 3
    assert re.search(r"SPEAKER_01\.wav: .* from second \d", err), "found while it is extracted"
    recording = open_store(built).index.recording(episode.name)
    num_shards = sum(stream.num_shards for stream in recording.streams)
    first = recording.streams[0].first_shard
    gone = {f"shards/train-{first + i:06d}.tar" for i in range(num_shards)}
    whole, rest = contents(built), contents(tmp_path / "s")
    for path, digest in whole.items():
        if path.startswith(("features.zarr/", "codes.zarr/", "shards/train", "shards/test")):
            of_it = path in gone or f"/{recording.id}/" in path
            assert rest.get(path) == (None if of_it else digest), path


def _plain_environment() -> dict[str, str]:
    """Without what `uv run` adds, which would stand in the command that is advised."""
    return {key: value for key, value in os.environ.items() if not key.startswith("UV_")}


@contextmanager
def _building(corpus: Path, store: Path, model: Path) -> Iterator[subprocess.Popen[str]]:
    # Short calls, so that there is a middle to be ended in.
    command = ["build", corpus, "--store", store, "--model", model, "--chunk-frames", 8]
    process = subprocess.Popen(
        [sys.executable, "-m", "laughstore", *map(str, command)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_plain_environment() | {"NO_TORCH_COMPILE": "1", "OMP_NUM_THREADS": "1"},
        # A shell that runs tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_four_builds_of_one_store_finish_it_when_two_are_killed(
    run, longer_corpus, tmp_path, nano_checkpoint
):
    whole, store = tmp_path / "whole", tmp_path / "s"
    short_calls = ["--model", nano_checkpoint, "--chunk-frames", 8]
    assert run("build", longer_corpus, "--store", whole, *short_calls, "-q")[0] == 0
    with ExitStack() as stack:
        builds = [
            stack.enter_context(_building(longer_corpus, store, nano_checkpoint)) for _ in range(4)
        ]
        _wait_for_first_unit(store, builds[0])
        for process in builds[:2]:
            process.kill()
        said = [process.communicate(timeout=300) for process in builds]
    assert [process.returncode for process in builds] == [-9, -9, 0, 0], said
    built_now = [int(re.findall(r"\((\d+) built now\)", out)[0]) for out, _ in said[2:]]
    assert sum(built_now) <= 6, "a recording was built twice"
    left_by_killed = {path for path in contents(store) if ".partial-" in path}
    assert contents(store).items() - contents(whole).items() == {
        item for item in contents(store).items() if item[0] in left_by_killed
    }
    assert contents(whole).items() <= contents(store).items()


@pytest.mark.slow
def test_a_build_needs_no_compiler_and_gives_the_bytes_of_any_other(
    corpus, built, tmp_path, nano_checkpoint
):
    environment = {key: value for key, value in os.environ.items() if key != "NO_TORCH_COMPILE"}
    command = ["build", corpus, "--store", tmp_path / "s", "--model", nano_checkpoint, "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "laughstore", *map(str, command)],
        env=environment | {"PATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "s") == contents(built)


def _wait_for_first_unit(store: Path, process: subprocess.Popen[str]) -> None:
    """Until one recording is finished and others are not."""
    until = time.monotonic() + 120
    while not list(store.glob("units/*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.fixture(scope="module")
def longer_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough to be killed in the middle."""
    from extract.synthetic.corpus import write_synthetic_corpus

    path = tmp_path_factory.mktemp("longer") / "corpus"
    episodes = {"train": 5, "validation": 1}
    return write_synthetic_corpus(path, episodes=episodes, seconds=40)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
)
def test_a_build_ended_by_a_signal_goes_on_to_the_same_bytes(
    number, exit_code, run, longer_corpus, tmp_path, nano_checkpoint
):
    whole = tmp_path / "whole"
    short_calls = ["--model", nano_checkpoint, "--chunk-frames", 8]
    code, _, _ = run("build", longer_corpus, "--store", whole, *short_calls, "-q")
    assert code == 0
    store = tmp_path / "s"
    with _building(longer_corpus, store, nano_checkpoint) as process:
        _wait_for_first_unit(store, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert out == ""
    assert not (store / "store.json").exists()
    if number != signal.SIGKILL:
        assert "Go on with:\n  laughstore build" in err
        assert "Traceback" not in err
        assert not list(store.rglob("*.partial-*"))
    code, out, _ = run("build", longer_corpus, "--store", store, *short_calls, "--json")
    assert code == 0
    assert 0 < json.loads(out)["built_now"] < 6
    assert contents(store) == contents(whole)
