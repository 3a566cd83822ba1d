"""Bad input ends with one clear line, the right exit code, and nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from laughstore.errors import LaughstoreError
from laughstore.memory import out_of_memory_told
from tests.extract.trees import Published, row

TRACKS = "audio/episode_wav_dial"
EVENTS = "metadata/episode_event_speaker_mapping"


@pytest.fixture
def own_corpus(corpus: Path, tmp_path: Path) -> Path:
    """A data set that the test may damage."""
    return Path(shutil.copytree(corpus, tmp_path / "own corpus"))


def _episodes(corpus: Path, split: str) -> list[Path]:
    return sorted((corpus / TRACKS / split).iterdir())


def _only_line(err: str) -> str:
    assert err.count("\n") == 1, err
    return err


def test_a_missing_data_set(run, tmp_path, nano_checkpoint):
    code, out, err = run(
        "build", tmp_path / "no", "--store", tmp_path / "s", "--model", nano_checkpoint
    )
    assert (code, out) == (1, "")
    assert "no such folder" in _only_line(err)
    assert not (tmp_path / "s").exists()


def test_an_empty_folder_as_data_set(run, tmp_path, nano_checkpoint):
    (tmp_path / "empty").mkdir()
    code, _, err = run(
        "build", tmp_path / "empty", "--store", tmp_path / "s", "--model", nano_checkpoint
    )
    assert code == 2
    assert "expected audio/episode_wav_dial" in _only_line(err)
    assert "found nothing" in err
    assert not (tmp_path / "s").exists()


def test_a_disk_that_fails_stops_a_build_and_leaves_no_recording_out(
    run, own_corpus, tmp_path, nano_checkpoint
):
    track = next(path for path in sorted((own_corpus / TRACKS).rglob("*.wav")))
    track.unlink()
    track.symlink_to("/proc/self/mem")  # a plain file, to who asks, that cannot be read: EIO
    code, _, err = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 1
    assert f"{track}: input/output error, which is of the disk" in err.splitlines()[-1]
    assert "run the same command again" in err.splitlines()[-1]
    assert not list((tmp_path / "s").rglob("*.json"))


def test_a_missing_model_directory(run, corpus, tmp_path):
    code, _, err = run("build", corpus, "--store", tmp_path / "s", "--model", tmp_path / "nowhere")
    assert code == 1
    assert "nowhere" in _only_line(err)
    assert not (tmp_path / "s").exists()


def test_an_unknown_split_of_a_data_set(run, corpus, tmp_path, nano_checkpoint):
    code, _, err = run(
        "build", corpus, "--store", tmp_path / "s", "--model", nano_checkpoint, "--split", "dev"
    )
    assert code == 2
    assert "no split 'dev'; it has train, validation, test" in _only_line(err)
    assert not (tmp_path / "s").exists()


def test_an_episode_without_audio_is_left_out_and_the_rest_is_built(
    run, own_corpus, tmp_path, nano_checkpoint
):
    lost = _episodes(own_corpus, "train")[0]
    shutil.rmtree(lost)
    code, out, err = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 3
    assert f"left out: {lost.name}: no audio tracks" in err
    assert "1 recording left out" in out
    report = json.loads((tmp_path / "s/quarantine.json").read_text())
    assert [item["name"] for item in report["recordings"]] == [lost.name]
    code, out, _ = run("inspect", tmp_path / "s")
    assert code == 0
    assert "train: 1 recordings" in out
    assert lost.name in out


def test_an_episode_without_annotations_is_left_out(run, own_corpus, tmp_path, nano_checkpoint):
    lost = _episodes(own_corpus, "train")[1].name
    (own_corpus / EVENTS / "train" / f"{lost}.json").unlink()
    code, _, err = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 3
    assert "without events every frame would count as negative" in err


def test_strict_stops_at_the_first_and_writes_nothing(run, own_corpus, tmp_path, nano_checkpoint):
    shutil.rmtree(_episodes(own_corpus, "test")[0])
    code, out, err = run(
        "build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint, "--strict"
    )
    assert (code, out) == (1, "")
    assert "no audio tracks" in _only_line(err)
    assert not (tmp_path / "s").exists()


def test_one_speaker_gives_one_stream_against_silence(run, own_corpus, tmp_path, nano_checkpoint):
    episode = _episodes(own_corpus, "train")[0].name
    path = own_corpus / "metadata/episode_diarizations/train" / episode / "metadata.json"
    if not path.exists():
        path = own_corpus / "metadata/episode_diarizations/train" / f"{episode}.json"
    diarization = json.loads(path.read_text())
    only = "SPEAKER_00"
    diarization["speaker_statistics"] = {only: diarization["speaker_statistics"][only]}
    diarization["segments"] = [s for s in diarization["segments"] if s["speaker_id"] == only]
    path.write_text(json.dumps(diarization))
    code, out, _ = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 0
    assert "one speaker (SPEAKER_00); the other is silence" in out
    _, out, _ = run("inspect", tmp_path / "s", "--recordings")
    assert "speaker-00--silence" in out


@pytest.mark.parametrize("rate", [4_000, 400_000])
def test_a_wrong_sample_rate_is_left_out_with_the_limits(
    rate, run, own_corpus, tmp_path, nano_checkpoint
):
    episode = _episodes(own_corpus, "train")[0]
    soundfile.write(episode / "SPEAKER_00.wav", np.zeros(rate, np.float32), rate)
    code, _, err = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 3
    assert f"sample rate {rate} Hz is outside 8000..192000" in err


def test_a_track_that_is_cut_is_left_out_while_others_are_built(
    run, own_corpus, tmp_path, nano_checkpoint
):
    episode = _episodes(own_corpus, "train")[0]
    samples, rate = soundfile.read(episode / "SPEAKER_01.wav", dtype="float32")
    (episode / "SPEAKER_01.wav").unlink()
    cut = episode / "SPEAKER_01.flac"
    soundfile.write(cut, samples, rate)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    code, _, err = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 3
    assert "SPEAKER_01.flac" in err


def test_a_track_with_nan_is_quarantined_while_others_are_built(
    run, own_corpus, tmp_path, nano_checkpoint
):
    episode = _episodes(own_corpus, "train")[0]
    samples, rate = soundfile.read(episode / "SPEAKER_01.wav", dtype="float32")
    samples[len(samples) // 2] = np.nan
    soundfile.write(episode / "SPEAKER_01.wav", samples, rate, subtype="FLOAT")
    code, _, err = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 3
    assert "SPEAKER_01.wav" in err
    code, out, _ = run("inspect", tmp_path / "s", "--json")
    assert json.loads(out)["splits"][0]["recordings"] == 1
    soundfile.write(episode / "SPEAKER_01.wav", np.nan_to_num(samples), rate)
    code, out, _ = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 3
    assert "the store was finished without them" in out
    assert not list((tmp_path / "s").rglob("*.partial-*"))


def test_a_name_that_is_not_utf8_is_told_and_leaves_out_its_recording_only(
    run, own_corpus, tmp_path, nano_checkpoint
):
    episode = _episodes(own_corpus, "train")[0]
    episode.rename(os.fsdecode(os.fsencode(episode.parent) + b"/Caf\xe9_1"))
    code, out, _ = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 3
    assert "Caf\\xe9_1" in out
    assert "not UTF-8" in out
    assert json.loads((tmp_path / "s/quarantine.json").read_text())["recordings"]


def test_a_wrong_stated_duration_is_told_and_costs_no_event(
    run, own_corpus, built, tmp_path, nano_checkpoint
):
    for path in (own_corpus / "metadata/episode_diarizations").rglob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"original_duration": 5.0}))
    code, out, _ = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 0
    assert "the annotations say 5.0 s, its audio lasts 15.0 s" in out
    rates = [
        json.loads(run("inspect", path, "--json")[1])["splits"] for path in (built, tmp_path / "s")
    ]
    assert rates[0] == rates[1]


def test_events_behind_the_end_are_counted(run, own_corpus, tmp_path, nano_checkpoint):
    path = next((own_corpus / EVENTS / "train").glob("*.json"))
    content = json.loads(path.read_text())
    late = {"event_start_inepisode": 500.0, "event_end_inepisode": 501.0}
    content["events"].append(content["events"][0] | late)
    path.write_text(json.dumps(content))
    code, out, _ = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 0
    assert "1 events begin after the recording's end" in out
    assert "(1 of them unusable)" in run("inspect", tmp_path / "s")[1]


def test_no_recording_at_all_is_a_failure(run, own_corpus, tmp_path, nano_checkpoint):
    shutil.rmtree(own_corpus / EVENTS)
    code, out, err = run("build", own_corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert (code, out) == (1, "")
    assert "none of 4 recordings can be built" in err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "CORPUS", "--store", "FILE", "--model", "MODEL"],
        ["build", "CORPUS", "--store", "FILE", "--dry-run"],
        ["build", "FILE", "--store", "NEW", "--dry-run"],
        ["inspect", "FILE"],
        ["inspect", "MODEL"],
        ["labels", "FILE"],
        ["labels", "MODEL"],
        ["train", "--shards", "FILE", "--out", "NEW", "-q"],
        ["evaluate", "FILE", "-q"],
        ["demo", "--out", "FILE", "-q"],
        ["tiny-checkpoint", "FILE/x"],
        ["build", "CORPUS", "--store", "NEW", "--model", "nanoo", "--dry-run"],
    ],
)
def test_a_file_where_a_folder_is_wanted_is_one_line(
    arguments, run, corpus, tmp_path, nano_checkpoint
):
    file = tmp_path / "file"
    file.write_text("mine")
    names = {"CORPUS": corpus, "FILE": file, "NEW": tmp_path / "new", "MODEL": nano_checkpoint}
    words = [str(names.get(word, word)).replace("FILE", str(file)) for word in arguments]
    code, out, err = run(*words)
    assert code in (1, 2)
    assert out == ""
    assert "[Errno" not in _only_line(err)
    assert file.read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_a_plan_that_was_being_written_does_not_block_its_folder(
    run, corpus, tmp_path, nano_checkpoint
):
    (tmp_path / "s").mkdir()
    (tmp_path / "s/plans").mkdir()
    (tmp_path / "s/plans/000001.json.partial-0123").write_text("{")
    code, _, _ = run("build", corpus, "--store", tmp_path / "s", "--model", nano_checkpoint)
    assert code == 0


def test_a_tilde_is_the_home_folder(run, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, _, _ = run("tiny-checkpoint", "~/nano", "--size", "nano")
    assert code == 0
    assert (tmp_path / "nano/config.json").is_file()
    assert not (tmp_path / "~").exists()
    code, out, _ = run("build", corpus, "--store=~/s", "--model=~/nano", "--dry-run")
    assert code == 0
    assert "at 64 channels" in out


def test_a_store_with_another_spec_is_refused_and_untouched(
    run, corpus, built, tmp_path, nano_checkpoint
):
    store = Path(shutil.copytree(built, tmp_path / "s"))
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    code, out, err = run(
        "build", corpus, "--store", store, "--model", nano_checkpoint, "--chunk-frames", 32
    )
    assert (code, out) == (2, "")
    assert "numerics.chunk_frames: 128, 32" in _only_line(err)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_a_store_of_other_recordings_is_refused(run, corpus, built, tmp_path, nano_checkpoint):
    store = Path(shutil.copytree(built, tmp_path / "s"))
    code, _, err = run(
        "build", corpus, "--store", store, "--model", nano_checkpoint, "--split", "train"
    )
    assert code == 2
    assert "was planned from other data" in _only_line(err)


def test_a_finished_store_is_told_to_grow_with_add(run, corpus, tmp_path, nano_checkpoint):
    data = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    events = data / "metadata/episode_event_speaker_mapping"
    # The first of its split: the shard numbers of the one behind it move when it is repaired.
    broken = sorted(events.glob("train/*.json"))[0]
    content = broken.read_bytes()
    broken.write_bytes(b"{")
    words = ["build", data, "--store", tmp_path / "s", "--model", nano_checkpoint]
    words += ["--split", "train"]
    assert run(*words)[0] == 3
    broken.write_bytes(content)
    code, _, err = run(*words)
    assert code == 2
    line = _only_line(err)
    assert f"1 new, the first is {broken.stem!r}" in line
    assert f"append them with: laughstore add {tmp_path / 's'} DATASET" in line
    assert run("add", tmp_path / "s", data, "--model", nano_checkpoint, *words[-2:])[0] == 0


def test_a_folder_that_is_no_store_is_not_written_into(run, corpus, tmp_path, nano_checkpoint):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("important")
    code, _, err = run("build", corpus, "--store", tmp_path / "mine", "--model", nano_checkpoint)
    assert code == 2
    assert "is no laughstore store" in _only_line(err)
    assert [item.name for item in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_training_on_what_is_no_store(run, tmp_path):
    code, _, err = run("train", "--shards", tmp_path / "no", "--out", tmp_path / "run", "-q")
    assert code == 1
    assert "does not exist" in _only_line(err)
    (tmp_path / "empty").mkdir()
    code, _, err = run("train", "--shards", tmp_path / "empty", "--out", tmp_path / "run", "-q")
    assert code == 1
    assert "holds no index.json" in _only_line(err)
    assert not (tmp_path / "run").exists()


def test_training_into_a_folder_that_exists(run, built, tmp_path):
    (tmp_path / "run").mkdir()
    code, _, err = run("train", "--shards", built, "--out", tmp_path / "run", "-q")
    assert code == 2
    assert "exists; choose another --out" in _only_line(err)


def test_an_event_class_that_does_not_occur(run, built, tmp_path):
    code, _, err = run(
        "train", "--shards", built, "--out", tmp_path / "run", "--event", "Applause", "-q"
    )
    assert code == 2
    assert "Laughter" in _only_line(err)
    assert not (tmp_path / "run").exists()


def test_training_without_a_validation_split(run, corpus, tmp_path, nano_checkpoint):
    code, _, _ = run(
        "build", corpus, "--store", tmp_path / "s", "--model", nano_checkpoint, "--split", "train"
    )
    assert code == 0
    code, _, err = run("train", "--shards", tmp_path / "s", "--out", tmp_path / "run", "-q")
    assert code == 2
    assert "no split 'validation'" in _only_line(err)
    assert not (tmp_path / "run").exists()


def test_inspecting_what_is_nothing(run, tmp_path):
    code, out, err = run("inspect", tmp_path / "no")
    assert (code, out) == (1, "")
    assert "does not exist" in _only_line(err)


def test_a_store_that_was_not_finished(run, built, tmp_path):
    store = Path(shutil.copytree(built, tmp_path / "s"))
    (store / "store.json").unlink()
    (store / "shards/index.json").unlink()  # written after store.json
    for arguments in (["inspect", store], ["inspect", store / "shards"]):
        code, _, err = run(*arguments)
        assert code == 1
        assert "has not been finished" in _only_line(err)


def test_evaluating_what_is_no_run(run, tmp_path):
    code, _, err = run("evaluate", tmp_path)
    assert code == 1
    assert "no training run" in _only_line(err)


@pytest.mark.parametrize("url", ["https://me:hunter2@host/x", "https://host/x?sig=hunter2"])
def test_a_url_for_a_cache_is_refused_and_no_password_of_it_is_shown(run, tmp_path, url):
    code, _, err = run("evaluate", tmp_path / "run", "--cache", url)
    assert code == 2
    assert "--cache: https://... is a URL, and a path" in err
    assert "hunter2" not in err


def test_a_demo_with_a_wrong_flag_leaves_an_earlier_one_alone(run, tmp_path):
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "run").mkdir()
    code, _, err = run("demo", "--out", tmp_path, "--seed", -1)
    assert code == 2
    assert "seed is -1" in _only_line(err)
    assert (tmp_path / "run").is_dir()


def test_a_demo_never_replaces_a_folder_it_did_not_make(run, tmp_path):
    (tmp_path / "thesis.txt").write_text("important")
    code, _, err = run("demo", "--out", tmp_path, "-q")
    assert code == 2
    assert "no demo made it" in _only_line(err)
    assert (tmp_path / "thesis.txt").read_text() == "important"


def test_dry_run_tells_hours_bytes_and_gaps_and_writes_nothing(run, own_corpus, tmp_path):
    lost = _episodes(own_corpus, "train")[0]
    shutil.rmtree(lost)
    code, out, _ = run("build", own_corpus, "--store", tmp_path / "s", "--dry-run")
    assert code == 3
    assert "3 recordings" in out
    assert "on disk at 4096 channels (assumed" in out
    assert "enough" in out
    assert lost.name in out
    assert not (tmp_path / "s").exists()
    code, out, _ = run("build", own_corpus, "--store", tmp_path / "s", "--dry-run", "--json")
    report = json.loads(out)
    assert code == 3
    assert report["recordings"] == 3
    assert report["frames"] == 3 * 2 * 188
    assert report["free_disk_bytes"] > 0
    assert report["enough"] is True


def test_a_dry_run_tells_where_the_disk_is_too_small(run, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    words = ["build", corpus, "--store", tmp_path / "s", "--dry-run"]
    code, out, _ = run(*words)
    assert code == 3
    assert f"1 kB free at {tmp_path / 's'}: NOT ENOUGH\n" in out
    code, out, _ = run(*words, "--json")
    report = json.loads(out)
    assert (code, report["enough"], report["left_out"]) == (3, False, [])
    assert report["missing_bytes"] == report["bytes"] > 4 * 2 * 188 * 8192


@pytest.mark.parametrize(
    ("tap", "model", "dim"),
    [("layer:1", True, 64), ("mimi", True, None), ("logmel", False, 1024), ("mimi", False, 1024)],
)
def test_a_dry_run_counts_the_channels_of_its_tap(
    tap, model, dim, run, corpus, tmp_path, nano_checkpoint
):
    words = ["build", corpus, "--store", tmp_path / "s", "--dry-run", "--json", "--tap", tap]
    code, out, _ = run(*words, *(["--model", nano_checkpoint] if model else []))
    report = json.loads(out)
    if dim is None:
        mimi = json.loads((nano_checkpoint / "mimi_config.json").read_text())
        dim = 2 * mimi["seanet"]["dimension"]
    assert (code, report["dim"]) == (0, dim)
    assert report["dim_assumed"] == (tap == "mimi" and not model)


def test_a_dry_run_with_a_model_that_tells_no_size_is_one_line(
    run, corpus, tmp_path, nano_checkpoint
):
    model = Path(shutil.copytree(nano_checkpoint, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    del config["dim"]
    (model / "config.json").write_text(json.dumps(config))
    words = ["build", corpus, "--store", tmp_path / "s", "--model", model, "--dry-run"]
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "its configuration lacks 'dim'" in _only_line(err)


def test_what_torch_says_of_a_full_gpu_becomes_one_line():
    said = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"
    line = r"^the GPU is out of memory \(2\.00 GiB were asked for\); lower it$"
    with pytest.raises(LaughstoreError, match=line), out_of_memory_told("lower it"):
        raise torch.OutOfMemoryError(said)
    with pytest.raises(RuntimeError, match=r"^Boolean value"), out_of_memory_told("lower it"):
        bool(torch.ones(2))


def test_a_model_that_does_not_fit_into_memory_is_one_line_that_says_what_to_lower(
    run, corpus, tmp_path, nano_checkpoint
):
    words = ["build", corpus, "--store", tmp_path / "s", "--model", nano_checkpoint, "-q"]
    code, out, err = run(*words, "--chunk-frames", 10**13)  # no machine has so much
    assert (code, out) == (1, "")
    assert "this machine is out of memory (" in _only_line(err)
    assert "has 2 rows (--rows: streams side by side) of 10000000000000 frames (--chunk-fr" in err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read in /proc")
def test_training_that_does_not_fit_into_memory_is_one_line_that_says_what_to_lower(
    built, tmp_path
):
    code = (
        "import resource, sys, torch, train.loop, train.training\n"
        "from pathlib import Path\n"
        "from laughstore.cli.main import main\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "most = used + (256 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, most))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["train", "--shards", built, "--out", tmp_path / "run", "--head", "mlp", "-q"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "--hidden", "65536"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "this machine is out of memory (" in _only_line(done.stderr)
    assert "a step has 4096 rows over all processes (--global-batch)" in done.stderr


def test_dry_run_of_mixes_tells_so_and_refuses_text_as_the_build_does(run, tmp_path):
    published = Published(tmp_path / "data").episode()
    published.table([row()])
    words = ["build", published.root, "--store", tmp_path / "s", "--dry-run"]
    code, out, _ = run(*words)
    assert code == 0
    assert "1 stream (mixes of all speakers)" in out
    code, out, err = run(*words, "--text", "causal")
    assert (code, out) == (2, "")
    assert "a mix has no main speaker" in _only_line(err)


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
@pytest.mark.parametrize("model", ["no/such/folder", "moshiko", "./moshi"])
def test_a_model_that_is_no_directory_and_no_repository_is_refused_at_once(
    model, flags, run, corpus, tmp_path
):
    code, out, err = run("build", corpus, "--store", tmp_path / "s", "--model", model, *flags)
    assert (code, out) == (1, "")
    assert f"model {model}: no such directory, and not the name of" in _only_line(err)


@pytest.mark.parametrize("verbose", [False, True])
def test_the_hubs_library_says_nothing_of_its_own_even_if_it_is_imported_later(verbose):
    code = (
        f"from laughstore.cli import logs; logs.start(verbose={verbose}, quiet=False);"
        "import logging, huggingface_hub.utils;"
        "logging.getLogger('huggingface_hub.utils._http').warning('Retrying in 1s')"
    )
    env = {key: value for key, value in os.environ.items() if key != "HF_HUB_VERBOSITY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "Retrying in 1s\n" if verbose else "")
