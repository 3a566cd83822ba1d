"""`laughstore predict`: names, formats, folders, bad files, going on, and what is refused."""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from laughstore.annotation_formats import read_annotation_file
from laughstore.cli.main import main
from laughstore.cli.prediction.heard import Heard
from laughstore.cli.prediction.inputs import find_audio
from laughstore.cli.prediction.opened import OpenedRun, open_run
from laughstore.cli.prediction.result import Prediction
from laughstore.cli.prediction.rule import Segmenting
from laughstore.label_spec import LabelSpec
from laughstore.sealed import seal, unseal
from laughstore.timebase import SAMPLE_RATE, Span
from train import FrameFilter, LossConfig
from train.evaluation.events.segments import SegmentRule
from train.runs.run import Run
from train.runs.trained import load_trained

from .predicting import predicted, scores_of, tracks, trained_on
from .test_predict_equality import mixed


@pytest.fixture(scope="module")
def store(corpus: Path, tmp_path_factory) -> Path:
    """Log-mel frames of each speaker's track: no model, quick."""
    path = tmp_path_factory.mktemp("logmel") / "store"
    assert main(["build", str(corpus), "--store", str(path), "--tap", "logmel", "-q"]) == 0
    return path


@pytest.fixture(scope="module")
def trained_run(store: Path, tmp_path_factory) -> Path:
    return trained_on(store, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def album(corpus: Path, tmp_path: Path) -> Path:
    """A folder of sound, of what is none, and of what is broken."""
    folder = tmp_path / "album"
    (folder / "b" / "deep").mkdir(parents=True)
    wave = mixed(corpus)[: 4 * SAMPLE_RATE]
    for name in ("a.wav", "a.flac", "b/a.wav", "b/deep/Ein Gespräch, $5.WAV"):
        soundfile.write(folder / name, wave, SAMPLE_RATE)
    (folder / "broken.wav").write_bytes(b"RIFF of nothing")
    cut = (folder / "a.wav").read_bytes()
    (folder / "b" / "cut.wav").write_bytes(cut[: len(cut) // 2])
    (folder / "notes.txt").write_text("no sound")
    (folder / ".hidden.wav").write_bytes(b"")
    return folder


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_is_predicted_file_by_file_and_bad_ones_are_told(
    trained_run, album, tmp_path, run
):
    out = tmp_path / "out"
    flags = ("--run", trained_run, "--out", out, "--json", "--threshold", "0.01")
    code, told, err = run("predict", album, *flags)
    assert code == 3
    report = json.loads(told)
    titles = [item["recording"] for item in report["predicted"]]
    assert sorted(titles) == ["a.flac", "a.wav", "b/a", "b/deep/Ein Gespräch, $5"]
    assert [Path(item["audio"]).name for item in report["left_out"]] == ["broken.wav", "cut.wav"]
    assert "not readable as sound" in report["left_out"][0]["reason"]
    assert err.count("left out:") == 2
    endings = (".TextGrid", ".csv", ".json", ".png", ".rttm", ".txt")
    assert files_in(out) == sorted(
        [".laughstore-predictions.json", *(title + end for title in titles for end in endings)]
    )
    # The same sound, the same prediction, wherever it lies.
    each = [json.loads((out / f"{title}.json").read_text()) for title in titles]
    assert len({json.dumps(item["segments"]) for item in each}) == 1
    assert each[0]["segments"]
    assert (out / "a.wav.png").read_bytes().startswith(b"\x89PNG")


def test_sound_that_is_replaced_while_it_waits_for_its_turn_is_left_out(
    trained_run, album, tmp_path, run, monkeypatch
):
    """Its scores would end with those of zeros, and count as made of the new file."""

    def opened(*arguments: Any, **options: Any) -> OpenedRun:
        soundfile.write(album / "a.wav", np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE)
        return open_run(*arguments, **options)

    monkeypatch.setattr("laughstore.cli.prediction.job.open_run", opened)
    words = ("predict", album / "a.wav", album / "a.flac", "--run", trained_run, "--format", "json")
    code, told, _ = run(*words, "--out", tmp_path / "out", "--json")
    report = json.loads(told)
    assert (code, [item["recording"] for item in report["predicted"]]) == (3, ["a.flac"])
    assert "a.wav: lasts 2.000 s, and 4.000 s when it was looked" in report["left_out"][0]["reason"]


def test_going_on_predicts_what_is_left_or_changed_and_nothing_else(
    trained_run, album, tmp_path, run
):
    out, flags = tmp_path / "out", ("--run", trained_run, "--format", "csv")
    assert run("predict", album, *flags, "--out", out)[0] == 3
    before = {path: (out / path).stat().st_mtime_ns for path in files_in(out)}
    code, _, err = run("predict", album, *flags, "--out", out)
    assert code == 2
    assert "exists; choose another --out" in err
    (out / "a.flac.csv").unlink()
    (out / "b" / "a.json.partial-0123456789ab").write_text("half")
    os.utime(album / "a.wav")
    code, told, _ = run("predict", album, *flags, "--out", out, "--resume", "--json")
    report = json.loads(told)
    assert code == 3
    assert sorted(item["recording"] for item in report["predicted"]) == ["a.flac", "a.wav"]
    assert report["done_before"] == ["b/a", "b/deep/Ein Gespräch, $5"]
    after = {path: (out / path).stat().st_mtime_ns for path in files_in(out)}
    assert before.keys() == after.keys()
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {f"{name}.{end}" for name in ("a.flac", "a.wav") for end in ("csv", "json")}
    for words, said in (
        (("--threshold", "0.9"), "segmenting"),
        (("--frames",), "frames"),
        (("--format", "csv,rttm"), "formats"),
    ):
        code, _, err = run(
            "predict", album, "--run", trained_run, *flags[2:], *words, "--out", out, "--resume"
        )
        assert code == 2
        assert f"begun with {said}" in err
    moved = shutil.move(album, tmp_path / "moved")
    code, _, err = run("predict", moved, *flags, "--out", out, "--resume")
    assert code == 2
    assert "is of other audio than" in err


@pytest.mark.slow
def test_all_formats_tell_the_segments_of_the_json(trained_run, corpus, tmp_path, run):
    main_track, other = tracks(corpus).values()
    out = tmp_path / "out"
    code, told, _ = run(
        "predict", "--main", main_track, "--other", other, "--run", trained_run, "--out", out,
        "--threshold", "0.01", "--frames",
    )  # fmt: skip
    assert code == 0
    content = json.loads((out / "SPEAKER_00.json").read_text())
    expected = [(item["start_s"], item["end_s"]) for item in content["segments"]]
    assert expected
    for end in ("csv", "rttm", "txt", "TextGrid"):
        found = read_annotation_file(out / f"SPEAKER_00.{end}")
        assert [(s.start_us / 1e6, s.end_us / 1e6) for s in found.spans] == expected
        assert {s.label for s in found.spans} == {"laugh" if end == "rttm" else "Laughter"}
    confidences = [s.confidence for s in read_annotation_file(out / "SPEAKER_00.csv").spans]
    assert confidences == [item["score"] for item in content["segments"]]
    rows = (out / "frames" / "SPEAKER_00.csv").read_text().splitlines()
    assert rows[0] == "frame,start_s,score"
    assert rows[26].startswith("25,2.000000,")
    assert [float(row.split(",")[2]) for row in rows[1:]] == content["frames"]["scores"]
    assert f"SPEAKER_00: {len(expected)} segments, " in told
    assert content["segmenting"] == {
        "threshold": 0.01, "chosen_on": "given", "rule": None, "low": 0.01, "median_rows": 1,
        "merge_gap_s": 0.5, "min_duration_s": 0.2,
    }  # fmt: skip


def test_written_tables_are_annotations_of_the_store(trained_run, corpus, store, tmp_path, run):
    """A store takes them, by the names that its recordings have."""
    copied = shutil.copytree(store, tmp_path / "store")
    (episode,) = {path.parent.name for path in tracks(corpus).values()}
    sound = tmp_path / f"{episode}.wav"
    shutil.copy(tracks(corpus)["SPEAKER_00"], sound)
    out = tmp_path / "out"
    assert run("predict", "--main", sound, "--run", trained_run, "--out", out)[0] == 0
    (segments,) = [json.loads(path.read_text())["segments"] for path in out.glob("[!.]*.json")]
    for end in ("csv", "TextGrid", "txt"):
        code, told, err = run("annotate", copied, "--from", out / f"{episode}.{end}", "--dry-run")
        assert code == 0, err
        assert f" -> {len(segments)} " in told


def test_the_threshold_is_that_of_validation(trained_run, corpus, tmp_path):
    track = tracks(corpus)["SPEAKER_00"]
    content = predicted(tmp_path / "out", "--main", track, "--run", trained_run)
    chosen = load_trained(Run.open(trained_run), "best").threshold
    assert content["segmenting"]["threshold"] == chosen
    assert content["segmenting"]["chosen_on"] == "checkpoint"
    score = scores_of(content)
    inside = np.zeros(len(score), np.bool_)
    for item in content["segments"]:
        frames = slice(round(item["start_s"] / 0.08), round(item["end_s"] / 0.08 + 0.4))
        inside[frames] = True
        assert np.float32(item["score"]) == score[frames].max() >= np.float32(chosen)
    # What is outside is below, or was too short to be kept.
    alarms = np.flatnonzero((score >= np.float32(chosen)) & ~inside)
    assert all(np.diff(alarms) > 6) or len(alarms) <= 2


def test_what_an_evaluation_fitted_on_validation_is_used(store, corpus, tmp_path, run):
    from train.evaluation.operating import load_operating

    run_path, track = trained_on(store, tmp_path / "run"), tracks(corpus)["SPEAKER_00"]
    flags = ("--main", track, "--run", run_path, "--format", "json")
    code, _, err = run("predict", *flags, "--threshold-by", "youden", "--out", tmp_path / "no")
    assert code == 2
    assert "laughstore evaluate" in err
    assert "--threshold-by youden" in err
    both = ("--threshold-by", "f1", "--threshold", "0.5")
    code, _, err = run("predict", *flags, *both, "--out", tmp_path / "no")
    assert code == 2
    assert "give one of them" in err
    words = ("--null", "0", "--bootstrap", "0", "--timelines", "0", "--threshold-by", "youden")
    assert run("evaluate", run_path, *words, "-q")[0] == 0
    operating = load_operating(Run.open(run_path))
    assert operating is not None
    fitted, chosen = operating.post_processing, operating.chosen("youden")
    assert fitted is not None
    assert chosen is not None
    assert chosen.threshold is not None
    for number, (words, gap_us) in enumerate(
        (((), fitted.merge_gap_us), (("--merge-gap", "1.5s"), 1_500_000))
    ):
        out = tmp_path / f"out{number}"
        by = ("--threshold-by", "youden")
        assert run("predict", *flags, *by, *words, "--out", out)[0] == 0
        found = json.loads((out / "SPEAKER_00.json").read_text())["segmenting"]
        rule = fitted.at(chosen.threshold)
        assert found == {
            "threshold": chosen.threshold, "chosen_on": "validation", "rule": "youden",
            "low": rule.threshold if rule.low is None else rule.low,
            "median_rows": rule.median_rows, "merge_gap_s": gap_us / 1e6,
            "min_duration_s": rule.min_duration_us / 1e6,
        }  # fmt: skip


def test_a_lone_file_warns_where_tracks_were_trained_on(trained_run, corpus, tmp_path, run):
    track = tracks(corpus)["SPEAKER_00"]
    flags = ("--run", trained_run, "--format", "json")
    code, told, _ = run("predict", track, *flags, "--out", tmp_path / "lone")
    assert code == 0
    assert "warning: the run was trained on a track for each speaker" in told
    lone = json.loads((tmp_path / "lone" / "SPEAKER_00.json").read_text())
    assert "mix of several" in lone["warnings"][0]
    code, told, _ = run("predict", "--main", track, *flags, "--out", tmp_path / "main")
    main_only = json.loads((tmp_path / "main" / "SPEAKER_00.json").read_text())
    assert "warning" not in told
    assert main_only["warnings"] == []
    assert main_only["segments"] == lone["segments"]


def test_filters_and_scores_that_are_no_probabilities_are_told(store, corpus, tmp_path):
    run_path = trained_on(
        store, tmp_path / "run", epochs=1, filter=FrameFilter(min_context=Span("2s")),
        loss=LossConfig("focal"),
    )  # fmt: skip
    track = tracks(corpus)["SPEAKER_00"]
    content = predicted(tmp_path / "out", "--main", track, "--run", run_path)
    assert len(content["frames"]["scores"]) == content["num_frames"]
    assert content["scores"] == "order"
    told = " ".join(content["warnings"])
    assert "min_context 25f" in told
    assert "no probabilities" in told


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("onset:0.8s", "Laughter-within-0.8s"),
        ("onset:5f", "Laughter-within-0.4s"),
        ("shift:2f", "Laughter"),
    ],
)
def test_segments_are_named_for_what_they_say(store, corpus, tmp_path, label, name):
    run_path = trained_on(store, tmp_path / "run", epochs=1, label=LabelSpec(label))
    track = tracks(corpus)["SPEAKER_00"]
    content = predicted(tmp_path / "out", "--main", track, "--run", run_path, "--threshold", "0")
    assert {item["label"] for item in content["segments"]} == {name}
    lead = LabelSpec(label).lead_frames
    assert content["frames"]["first_frame"] == content["lead_frames"] == lead
    assert len(content["frames"]["scores"]) == content["num_frames"] - lead


def test_labels_that_are_numbers_have_values_and_no_segments(store, corpus, tmp_path, run):
    run_path = trained_on(store, tmp_path / "run", epochs=1, label=LabelSpec("regression:10s"))
    track, out = tracks(corpus)["SPEAKER_00"], tmp_path / "out"
    flags = ("--main", track, "--run", run_path, "--out", out)
    code, told, _ = run("predict", *flags)
    assert code == 0
    assert "a value for each frame" in told
    assert files_in(out) == [
        ".laughstore-predictions.json",
        *(f"SPEAKER_00.{end}" for end in ("json", "png")),
        "frames/SPEAKER_00.csv",
    ]
    content = json.loads((out / "SPEAKER_00.json").read_text())
    assert content["segments"] is None
    assert content["no_segments_because"]
    assert len(content["frames"]["scores"]) == content["num_frames"]
    for words, said in ((("--format", "rttm"), "rttm"), (("--threshold", "0.5"), "threshold")):
        code, _, err = run("predict", *flags[:4], "--out", tmp_path / "no", *words)
        assert code == 2
        assert said in err


@pytest.mark.parametrize("lead", [-3, -1, 0, 2, 50])
def test_a_score_stands_at_the_frame_that_it_is_about(lead):
    label = LabelSpec("detection", lead=Span.of_frames(lead))
    num_frames, duration_us = 20, 20 * 80_000 - 1
    score = np.zeros(num_frames, np.float32)
    score[[0, 7, 8, 19]] = [0.9, 0.8, 0.7, 0.9]
    heard: Any = Heard("x", Path(), pair=None, num_frames=num_frames, duration_us=duration_us)  # type: ignore[arg-type]
    segmenting = Segmenting(SegmentRule(0.5), "given")
    found = Prediction.of(heard, score, label=label, scores="probability", segmenting=segmenting)
    frames = {found.first_frame + i: value for i, value in enumerate(found.score.tolist())}
    expected = {t + lead: score[t] for t in range(num_frames) if 0 <= t + lead < num_frames}
    assert frames == expected
    alarms = [(0, 1), (7, 9), (19, 20)]
    placed = [((a + lead) * 80_000, (b + lead) * 80_000) for a, b in alarms]
    inside = [(max(a, 0), min(b, duration_us)) for a, b in placed if a < duration_us and b > 0]
    assert [(span.start_us, span.end_us) for span in found.spans] == inside


def test_another_model_is_refused_by_the_field_that_differs(
    built, corpus, nano_checkpoint, tmp_path, run
):
    from extract.synthetic.tiny_checkpoint import write_tiny_checkpoint

    run_path = trained_on(built, tmp_path / "run", epochs=1)
    other = write_tiny_checkpoint(tmp_path / "other", size="nano", seed=1)
    flags = ("predict", *tracks(corpus).values(), "--run", run_path, "--out", tmp_path / "out")
    for words, said in (
        ((), "--model DIR"),
        (("--model", other), "weights_sha256"),
        (("--model", tmp_path / "nothing"), "no such directory"),
        (("--model", nano_checkpoint, "--transcript", "x.csv"), "hears no words"),
        (("--model", nano_checkpoint, "--format", "srt"), "'srt'"),
        (("--model", nano_checkpoint, "--merge-gap", "-1s"), "merge_gap"),
        (("--model", nano_checkpoint, "--device", "tpu"), "tpu"),
    ):
        code, out, err = run(*flags, *words)
        assert (code, out, err.count("\n")) == (1 if "nothing" in str(words) else 2, "", 1)
        assert said in err
        assert not (tmp_path / "out").exists()


def test_a_run_on_imported_features_cannot_hear_other_audio(trained_run, corpus, tmp_path, run):
    imported = shutil.copytree(trained_run, tmp_path / "run")
    config = imported / "config.json"
    content, _ = unseal(config.read_bytes(), where="config.json")
    content["spec"]["numerics"] = None
    config.write_bytes(seal(content))
    track = tracks(corpus)["SPEAKER_00"]
    code, _, err = run("predict", track, "--run", imported, "--out", tmp_path / "out")
    assert code == 2
    assert "was trained on imported features" in err


def test_what_cannot_be_asked_is_one_line(trained_run, tmp_path, run):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "x.wav").mkdir()
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"")
    flags = ("--run", trained_run, "--out", tmp_path / "out")
    for words, code, said in (
        (flags, 2, "nothing to predict"),
        ((bad, "--main", bad, *flags), 2, "exclude each other"),
        ((bad, "--other", bad, *flags), 2, "--other goes with --main"),
        (("--main", bad, "--other", bad, *flags), 2, "a file per speaker"),
        ((tmp_path / "nothing", *flags), 1, "no such file or folder"),
        ((empty, *flags), 1, "holds no sound file"),
        ((bad, *flags), 1, "none of 1 can be used"),
        ((bad, "--run", tmp_path), 1, "no training run"),
        ((bad, *flags, "--threshold", "nan"), 2, "scores lie in 0 to 1"),
        ((bad, *flags, "--checkpoint", "worst"), 1, "worst"),
    ):
        found, out, err = run("predict", *words)
        assert (found, out) == (code, ""), err
        assert said in err.splitlines()[-1]
        assert not (tmp_path / "out").exists()


def test_names_are_told_apart_and_the_same_in_every_run(tmp_path):
    names = ["x/a.wav", "y/a.wav", "y/A.flac", "z/b.frames.wav", "z/c.wav", "z/c.wav.ogg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "z" / ("long" * 50 + ".wav")).write_bytes(b"")

    def claims(name: str) -> list[str]:
        return [f"{name}.json", f"{name}.wav.json"]

    paths = [tmp_path / "x", tmp_path / "y", tmp_path / "z", tmp_path / "x" / "a.wav"]
    found = find_audio(paths, claims)
    assert [item.path.name for item in found] == [
        "a.wav", "A.flac", "a.wav", "b.frames.wav", "c.wav", "c.wav.ogg", "long" * 50 + ".wav",
    ]  # fmt: skip
    written = [claim.casefold() for item in found for claim in claims(item.name)]
    assert len(set(written)) == len(written)
    assert found[3].name == "b.frames"
    assert len(found[6].name) < 170
    assert found == find_audio(paths, claims)
    swapped = find_audio([*reversed(paths[:3])], claims)
    assert {(item.path, item.name) for item in swapped} == {(i.path, i.name) for i in found}


def test_a_file_without_an_ending_is_called_as_it_is(tmp_path):
    for name in ("talk", "talk.", "Gespra\u0308ch"):
        (tmp_path / name).write_bytes(b"")
    (plain,) = find_audio([tmp_path / "talk"], lambda name: [name])
    assert plain.name == "talk"
    found = find_audio([tmp_path / n for n in ("talk", "talk.", "Gespra\u0308ch")], lambda n: [n])
    assert [item.name for item in found] == ["talk", "talk.", "Gespr\u00e4ch"]


def test_going_on_deletes_no_prediction_whose_name_looks_like_that_of_an_unfinished_file(
    trained_run, corpus, tmp_path, run
):
    sounds, out = tmp_path / "sounds", tmp_path / "out"
    sounds.mkdir()
    for name in ("talk.partial-1", "b"):
        shutil.copy(tracks(corpus)["SPEAKER_00"], sounds / f"{name}.wav")
    flags = ("predict", sounds, "--run", trained_run, "--out", out, "--format", "csv")
    assert run(*flags)[0] == 0
    before = files_in(out)
    (out / "b.json").unlink()
    code, told, _ = run(*flags, "--resume")
    assert code == 0
    assert "1 recording done before" in told
    assert files_in(out) == before


def test_a_name_that_is_no_utf_8_is_told_and_the_rest_predicted(trained_run, corpus, tmp_path, run):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    shutil.copy(tracks(corpus)["SPEAKER_00"], sounds / "a.wav")
    shutil.copy(tracks(corpus)["SPEAKER_00"], sounds / os.fsdecode(b"b\xff.wav"))
    flags = ("--run", trained_run, "--out", tmp_path / "out", "--format", "csv")
    code, told, _ = run("predict", sounds, *flags)
    assert code == 3
    assert "b\\udcff.wav: this name is not UTF-8; rename" in told


def write_long(path: Path, hours: float) -> Path:
    """A track of silence; holes take no disk."""
    from tests.extract.test_memory import write_wav

    write_wav(path, round(hours * 3600))
    return path


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_whole_files_and_says_how_to_go_on(
    trained_run, corpus, tmp_path, run, number, code
):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    shutil.copy(tracks(corpus)["SPEAKER_00"], sounds / "a.wav")
    write_long(sounds / "b.wav", 20)
    out = tmp_path / "out"

    def press() -> None:
        deadline = time.monotonic() + 60
        while not (out / "a.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    pressing = threading.Thread(target=press)
    pressing.start()
    flags = ("predict", sounds, "--run", trained_run, "--out", out, "--format", "json")
    found, told, err = run(*flags)
    pressing.join()
    assert (found, told) == (code, "")
    assert err.splitlines()[-1].strip().endswith("--resume")
    assert files_in(out) == [".laughstore-predictions.json", "a.json"]
    (sounds / "b.wav").unlink()
    again, told, _ = run(*flags, "--resume")
    assert again == 0
    assert "1 recording done before" in told
