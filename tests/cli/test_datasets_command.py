"""`laughstore datasets check`: what it prints, its JSON, its exit codes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from laughstore.cli.interrupts import EXIT_INTERRUPTED

EVENTS = "metadata/episode_event_speaker_mapping"
TRACKS = "audio/episode_wav_dial"


@pytest.fixture
def spoiled(corpus, tmp_path) -> Path:
    """A copy of the corpus that a test changes."""
    return shutil.copytree(corpus, tmp_path / "spoiled")


def _change_laughs(root: Path, **changes: object) -> int:
    """Change every laugh of one episode. Returns how many there are."""
    path = sorted((root / EVENTS / "train").iterdir())[0]
    content = json.loads(path.read_text())
    laughs = [e for e in content["events"] if e["label_consolidated_vocab"] == "Laughter"]
    for laugh in laughs:
        laugh |= changes
    path.write_text(json.dumps(content))
    return len(laughs)


def test_a_clean_data_set_is_told_and_gives_0(run, corpus):
    code, out, err = run("datasets", "check", corpus)
    assert (code, err) == (0, "")
    assert f"{corpus}: layout per-speaker, 4 recordings, 4 can be built" in out
    assert "train: 2 recordings (2 can be built), 0.01 h, 4 streams; speakers: 2 in 2" in out
    assert "tracks 2, mix 0, diarization 2, transcript 2, turns 2, prediction intervals 2" in out
    assert "'Dr. Nobody, Live (train)'" in out
    assert "24,000 Hz in 8 files" in out
    assert "audible (100.00 %)" in out
    assert out.endswith(
        f"nothing is missing, no faults found\nnext: laughstore build {corpus} --store STORE\n"
    )


def test_the_json_has_stable_keys(run, corpus):
    code, out, err = run("datasets", "check", corpus, "--json", "-q", "--audio-sample", "2")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert list(report) == [
        "dataset",
        "layout",
        "notes",
        "speakers",
        "audio_sample",
        "seed",
        "whole",
        "splits",
        "sample_rates",
        "laugh_gaps",
        "audibility",
        "left_out",
        "findings",
    ]
    assert list(report["splits"]) == ["train", "validation", "test"]
    assert list(report["splits"]["test"]) == [
        "recordings",
        "can_be_built",
        "groups",
        "hours",
        "streams",
        "speakers",
        "events",
        "events_without_speaker",
        "has",
    ]
    assert report["splits"]["test"]["speakers"] == {"0": 0, "1": 0, "2": 1, "3+": 0}
    assert report["audibility"]["recordings"] == 2
    assert report["findings"] == []
    assert len(report["laugh_gaps"]["counts"]) == len(report["laugh_gaps"]["edges_s"]) + 1


def test_a_gap_gives_3_and_says_what_it_means_and_what_to_do(run, spoiled):
    num_laughs = _change_laughs(spoiled, speaker_id=None)
    code, out, _ = run("datasets", "check", spoiled)
    assert code == 3
    assert f"gap: laughs without a speaker: {num_laughs} of " in out
    assert "[laughs-of-nobody]" in out
    assert "means: " in out
    assert "to do: " in out
    assert f"without speaker: Laughter {num_laughs} (" in out
    assert "0 errors, 1 gap, 0 notes" in out

    code, out, _ = run("datasets", "check", spoiled, "--json")
    assert code == 3
    (finding,) = json.loads(out)["findings"]
    assert list(finding) == ["kind", "level", "what", "count", "total", "means", "todo", "examples"]
    assert (finding["kind"], finding["level"], finding["count"]) == (
        "laughs-of-nobody",
        "gap",
        num_laughs,
    )

    code, out, _ = run("datasets", "check", spoiled, "--speakers", "mix")
    assert code == 0


def test_silent_laughs_are_told_with_where_they_are_heard(run, spoiled):
    track = sorted((spoiled / TRACKS / "train").iterdir())[0]
    sounds = {path: soundfile.read(path, dtype="float32")[0] for path in sorted(track.iterdir())}
    mix = spoiled / "audio/episode_wav/train" / f"{track.name}.wav"
    mix.parent.mkdir(parents=True)
    soundfile.write(mix, np.sum(list(sounds.values()), axis=0), 24_000)
    content = json.loads((spoiled / EVENTS / "train" / f"{track.name}.json").read_text())
    laughs = [e for e in content["events"] if e["label_consolidated_vocab"] == "Laughter"]
    for laugh in laughs:
        path = track / f"{laugh['speaker_id']}.wav"
        start, end = laugh["event_start_inepisode"], laugh["event_end_inepisode"]
        sounds[path][int(start * 24_000) : int(end * 24_000) + 1] = 0
        soundfile.write(path, sounds[path], 24_000, subtype="PCM_16")
    code, out, _ = run("datasets", "check", spoiled)
    assert code == 3
    assert f"gap: laughs that are silent in their speaker's track: {len(laughs)} of " in out
    assert f"in the mix {len(laughs)}, nowhere 0" in out
    assert "heard in the mix" in out
    code, out, _ = run("datasets", "check", spoiled, "--audio-sample", "0")
    assert code == 0
    assert "laughs were not listened to (--audio-sample 0)" in out


def test_recordings_that_cannot_be_built_are_listed_with_the_reason(run, spoiled):
    track = sorted((spoiled / TRACKS / "train").iterdir())[0]
    (track / "SPEAKER_00.wav").write_bytes(b"RIFF")
    code, out, _ = run("datasets", "check", spoiled)
    assert code == 3
    assert "1 recording that cannot be built:" in out
    assert "SPEAKER_00.wav: not readable as sound" in out
    assert "gap: recordings that cannot be built: 1 of 4 (25.00 %) [left-out]" in out


def test_a_note_alone_gives_0(run, spoiled):
    num_laughs = _change_laughs(spoiled, event_end_inepisode=0)
    code, out, _ = run("datasets", "check", spoiled)
    assert code == 0
    assert f"note: events that end before they begin, or when they begin: {num_laughs} of" in out


def test_a_layout_that_is_not_there_and_a_path_that_is_no_data_set(run, corpus, tmp_path):
    code, out, err = run("datasets", "check", corpus, "--layout", "manifest")
    assert (code, out) == (2, "")
    assert "manifest.jsonl" in err
    code, out, err = run("datasets", "check", tmp_path)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    code, out, err = run("datasets", "check", tmp_path / "absent")
    assert (code, out) == (1, "")
    assert "no such folder" in err
    code, _, err = run("datasets", "check", corpus, "--audio-sample", "-1")
    assert code == 2
    assert "audio_sample is -1" in err


@pytest.mark.parametrize("words", [[], ["chekc"], ["/some/path"], ["--json"]])
def test_another_word_than_check_is_told_the_way(run, words):
    code, out, err = run("datasets", *words)
    assert (code, out) == (2, "")
    assert "laughstore datasets check PATH" in err
    assert err.count("\n") == 1


def _is_open(link: Path, folder: Path) -> bool:
    """Whether a file descriptor is of a file in this folder; it may be closed meanwhile."""
    try:
        return link.readlink().is_relative_to(folder)
    except FileNotFoundError:
        return False


def test_ctrl_c_ends_it_cleanly(corpus, tmp_path):
    root = tmp_path / "many"
    manifest = root / "manifest.jsonl"
    root.mkdir()
    track = next((corpus / TRACKS / "train").glob("*/SPEAKER_00.wav"))
    line = {
        "split": "train",
        "speakers": [{"name": "a", "audio": {"path": str(track)}}],
        "segments": [{"start_s": 0, "end_s": 15, "speaker": "a"}],
        "events": [{"start_s": k, "end_s": k + 0.5, "label": "Laughter"} for k in range(14)],
    }
    manifest.write_text("\n".join(json.dumps(line | {"name": str(k)}) for k in range(5_000)))
    process = subprocess.Popen(
        [sys.executable, "-m", "laughstore", "datasets", "check", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    descriptors = Path(f"/proc/{process.pid}/fd")
    while not any(_is_open(link, root) for link in descriptors.iterdir()):
        assert process.poll() is None, "it must not be done before it is interrupted"
        time.sleep(0.01)
    # Python loses an interrupt that falls into a destructor: people press again.
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
    out, err = process.communicate()
    assert (process.returncode, out) == (EXIT_INTERRUPTED, "")
    assert err.splitlines()[-1] == "laughstore: interrupted"


@pytest.mark.slow
def test_real_audio_has_no_gaps(run, minicorpus_script, tmp_path):
    out = tmp_path / "corpus"
    settings = ["--episodes", "2", "1", "1", "--seconds", "90", "--laughs-per-min", "6"]
    command = [sys.executable, str(minicorpus_script), str(out), *settings]
    subprocess.run(command, check=True, capture_output=True)
    code, text, _ = run("datasets", "check", out, "--json")
    report = json.loads(text)
    assert code == 0, report["findings"]
    assert report["layout"] == "per-speaker"
    assert report["audibility"]["laughs"] == report["audibility"]["audible"] > 0
    # The mixes have noise, and are at another rate.
    code, text, _ = run("datasets", "check", out, "--speakers", "mix", "--json")
    assert code == 0
    report = json.loads(text)
    assert report["audibility"]["audible"] == report["audibility"]["laughs"]
    assert report["sample_rates"] == {"16000": 4, "24000": 8}
