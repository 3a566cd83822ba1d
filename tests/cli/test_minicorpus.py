"""The main job on real audio: human laughs and speech, from a folder of files to a score.

The clips are no part of this project: the test runs where the folder shared/minicorpus stands
beside it, and says so where it is skipped.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from extract.datasets import open_dataset
from laughstore import open_store
from laughstore.labels import LabelSpec, frame_targets
from laughstore.tables import Vocabulary, recording_tables
from laughstore.timebase import FRAME_US


@pytest.fixture(scope="module")
def real_audio(minicorpus_script: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PodcastFillers-shaped tree of mixed real clips."""
    out = tmp_path_factory.mktemp("real") / "corpus"
    settings = [
        "--episodes",
        "6",
        "2",
        "2",
        "--seconds",
        "90",
        "--laughs-per-min",
        "6",
        "--annotate",
        "1",
    ]
    command = [sys.executable, str(minicorpus_script), str(out), *settings]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.mark.slow
def test_from_real_audio_to_a_trained_predictor(run, real_audio, tmp_path, wide_checkpoint):
    store, run_path = tmp_path / "store", tmp_path / "run"
    code, out, err = run("build", real_audio, "--store", store, "--model", wide_checkpoint)
    assert code == 0, err
    assert "10 recordings (10 built now)" in out

    opened = open_store(store)
    assert opened.splits == ("train", "validation", "test")
    names = [recording.name for recording in opened.recordings]
    assert all("," in name and '"' in name and " " in name for name in names)
    _check_annotations_against_the_mixer(opened, real_audio)

    code, out, _ = run("inspect", store)
    assert code == 0
    assert "Laughter" in out
    assert "detection" in out

    settings = ["--global-batch", "512", "--lr", "3e-4", "--epochs", "20", "-q"]
    code, out, err = run("train", "--shards", store / "shards", "--out", run_path, *settings)
    assert code == 0, err
    assert "base rate" in out
    code, out, err = run("evaluate", run_path, "--split", "test", "--json")
    assert code == 0, err
    found = json.loads(out)["metrics"]
    # Other speakers' laughs, other recordings of laughs: clearly above chance is what is asked of
    # an untrained model.
    assert found["lift"] > 1.5, found
    assert found["auroc"] > 0.65, found
    assert (run_path / "evaluation/test/pr.png").stat().st_size > 1000


def _check_annotations_against_the_mixer(opened, real_audio: Path) -> None:
    """Positive rows lie where the mixer says that it put laughs."""
    label = LabelSpec("detection", fill_gaps=True)
    for recording in opened.recordings:
        truth_path = real_audio / "truth" / recording.split / f"{recording.name}.json"
        truth = json.loads(truth_path.read_text())["laughs"]
        for stream in recording.streams:
            targets = frame_targets(
                label,
                opened.index.tables(recording),
                main=stream.main,
                other=stream.other,
                num_frames=stream.num_frames,
            )
            laughs = [item for item in truth if item["speaker_id"] == stream.main]
            assert (targets.y.sum() > 0) == bool(laughs)
            for item in laughs:
                middle = (item["start"] + item["end"]) / 2
                if middle < recording.duration_us / 1e6:
                    assert targets.y[int(middle // 0.08)] == 1


@pytest.mark.slow
@pytest.mark.parametrize("span", [5, 10, 20])
def test_no_positive_row_of_onset_has_heard_its_speaker_laugh(real_audio, span):
    """Every burst is annotated here, so the mixer's truth is all that a row can have heard."""
    merge_gap_us = 500_000
    found = open_dataset(real_audio).recordings
    assert len(found) == 10
    num_positives = num_spoilt = 0
    for recording in found:
        annotations = recording.annotations()
        tables = recording_tables(annotations, Vocabulary.of([annotations]))
        truth_path = real_audio / "truth" / recording.split / f"{recording.name}.json"
        truth = json.loads(truth_path.read_text())["laughs"]
        for main, other in (("SPEAKER_00", "SPEAKER_01"), ("SPEAKER_01", "SPEAKER_00")):
            bursts = sorted(
                (round(item["start"] * 1e6), round(item["end"] * 1e6))
                for item in truth
                if item["speaker_id"] == main and item["start"] * 1e6 < annotations.duration_us
            )
            targets = frame_targets(
                LabelSpec(f"onset:{span}f"),
                tables,
                main=main,
                other=other,
                num_frames=-(-annotations.duration_us // FRAME_US),
            )
            for row, y in enumerate(targets.y.tolist()):
                awaited = [
                    start_us for start_us, _ in bursts if row < start_us // FRAME_US <= row + span
                ]
                now_us = row * FRAME_US
                # Of the laugh that it waits for, or of another that still goes on.
                has_heard = any(
                    start_us < now_us + FRAME_US
                    and (end_us > now_us or min(awaited) - end_us <= merge_gap_us)
                    for start_us, end_us in bursts
                    if awaited
                )
                assert y == (bool(awaited) and not has_heard)
                num_positives += y
                num_spoilt += has_heard
    assert num_positives > 100
    assert num_spoilt > 0.05 * num_positives, "the plain rule would have failed here"
