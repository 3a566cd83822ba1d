"""What is fitted on validation, kept in the run, and used on other splits."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from laughstore.annotations import Annotations, Event
from laughstore.cli.main import main
from laughstore.errors import ConfigError, CorruptData
from laughstore.evolution.annotate import Revised, annotate
from laughstore.index import Index
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from tests.stores import Episode, laugh, write_store
from train import TrainConfig, evaluate, train
from train.evaluation.event_metrics import event_metrics
from train.evaluation.events.collar import Collar
from train.evaluation.fitted import RULES, ValidationScores, fit, with_rule
from train.evaluation.judged import JudgedAlarms, JudgedSegments
from train.evaluation.operating import Operating, load_operating
from train.evaluation.postprocess import candidates
from train.evaluation.thresholds import ThresholdRule, choose_threshold
from train.runs.checkpoint import checkpoint_path
from train.runs.looks import LOOKS_FILE, read_looks, record_look
from train.runs.run import Run
from train.runs.trained import load_trained
from train.scoring.score import StreamScores, counted_rows, score_streams
from train.streaming.selection import select
from train.streaming.source import FrameSource

from .conftest import DIM, Planted, config_for, planted_episodes, some_laughs

QUIET = {"device": "cpu", "timelines": 0, "bootstrap": 0, "null": 0}
QUIETLY = ["-q", "--device", "cpu", "--timelines", "0", "--bootstrap", "0", "--null", "0"]


def episodes_with_test() -> tuple[Episode, ...]:
    more = [Episode(f"test, part {i}", "test", 400, some_laughs(900 + i, 400)) for i in range(2)]
    return (*planted_episodes(), *more)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """A store with a test split; weaker, so that scores err."""
    episodes = episodes_with_test()
    path = tmp_path_factory.mktemp("with-test") / "store"
    features = Planted(episodes, strength=1.5)
    write_store(path, episodes, features, dim=DIM, block_frames=32, shard_frames=256)
    return path / "shards"


@pytest.fixture(scope="module")
def first_run(shards, tmp_path_factory) -> TrainConfig:
    config = config_for(shards, tmp_path_factory.mktemp("operating") / "run", epochs=3)
    train(config)
    return config


@pytest.fixture
def run(first_run, tmp_path) -> Path:
    """A copy of a run that nothing was fitted for."""
    return shutil.copytree(first_run.out, tmp_path / "run")


def scores_of(run: Path, split: str) -> tuple[Run, Index, list[StreamScores]]:
    opened = Run.open(run)
    index = read_index(Path(opened.config.shards))
    selection = select(index, split, opened.config.label, opened.config.filter)
    with FrameSource(index, split) as source:
        model = load_trained(opened, "best").model
        streams = score_streams(model, selection, source, opened.config.label, ignored_too=True)
    return opened, index, streams


def fitted(run: Path) -> Operating:
    found = load_operating(Run.open(run))
    assert found is not None
    return found


def kept_file(run: Path) -> Path:
    (path,) = (run / "operating").iterdir()
    return path


def test_what_validation_chose_is_kept_and_used_on_test(run, capsys):
    assert load_operating(Run.open(run)) is None
    found = evaluate(run, split="test", **QUIET)
    kept = fitted(run)
    opened, _, streams = scores_of(run, "validation")
    y, score = counted_rows(streams)
    assert set(kept.thresholds) == {str(rule) for rule in RULES}
    for rule in RULES:
        if rule.name != "fa-per-hour":
            assert kept.chosen(rule) == choose_threshold(rule, y > 0, score)
    # One truth: the threshold that training's own validation chose is the same number.
    trained = load_trained(opened, "best")
    f1 = kept.chosen("f1")
    assert f1 is not None
    assert f1.threshold == trained.threshold == found.point.threshold
    assert kept.bound.checkpoint == checkpoint_path(opened.checkpoints, "best").name
    assert (found.point.chosen_on, str(found.point.rule)) == ("validation", "f1")
    # Counts on test are those of test, at the threshold of validation.
    _, _, tested = scores_of(run, "test")
    y, score = counted_rows(tested)
    alarm = score >= np.float32(f1.threshold)
    assert found.confusion is not None
    assert found.confusion.to_json() == {
        "tp": int((alarm & (y > 0)).sum()),
        "fp": int((alarm & (y == 0)).sum()),
        "fn": int((~alarm & (y > 0)).sum()),
        "tn": int((~alarm & (y == 0)).sum()),
    }
    content = json.loads((found.out / "metrics.json").read_text())
    assert content == found.to_json()
    assert content["operating_point"]["chosen_on"] == "validation"
    assert content["fitted_on_validation"] == kept.to_json()
    before = kept_file(run).read_bytes()
    validation = evaluate(run, **QUIET)
    assert kept_file(run).read_bytes() == before
    assert validation.metrics.threshold == f1.threshold
    assert validation.confusion == f1.confusion
    main(["evaluate", str(run), "--split", "test", *QUIETLY])
    said = capsys.readouterr().out
    assert f"threshold {f1.threshold:.4g}: the best F1 on validation\n" in said
    assert "rows at the threshold: " in said
    assert "fitted on validation and applied to this line alone: log-loss" in said


@pytest.mark.slow
def test_post_processing_is_the_best_of_all_by_collar_f1_of_validation(run):
    found = evaluate(run, **QUIET)
    kept = fitted(run)
    opened, index, streams = scores_of(run, "validation")
    judged = JudgedSegments.of(index, streams, opened.config.label)
    f1 = kept.chosen("f1")
    assert f1 is not None
    assert f1.threshold is not None
    each = [
        (judged.at(f1.threshold, how).counts.f1 or 0, how)
        for how in candidates(opened.config.label.merge_gap.us)
    ]
    best = max(score for score, _ in each)
    assert kept.post_processing == next(how for score, how in each if score == best)
    segments = found.events.segments
    assert segments is not None
    assert segments.counts is not None
    assert segments.counts.f1 == best > each[0][0]
    assert segments.how == kept.post_processing
    assert segments.to_json()["post_processing"]["chosen_on"] == "validation"
    wide = evaluate(run, collar=Collar(onset_us=10**9, offset_us=10**9), **QUIET)
    assert wide.events.segments is not None
    assert wide.events.segments.how == segments.how
    assert wide.events.segments.counts != segments.counts
    assert segments.curve is not None
    assert segments.curve.threshold.tolist() == list(kept.curve)
    for place in (0, 7, -1):
        here = judged.at(kept.curve[place], segments.how)
        assert segments.curve.recall[place] == here.recall
        assert segments.curve.false_alarms_per_hour[place] == here.false_alarms_per_hour
    # The lowest threshold with so few false segments, of all scores that there are.
    every = np.unique(np.concatenate([item.score for item in streams]))[::-1]
    for most in (30.0, 60.0):
        chosen = kept.chosen(ThresholdRule("fa-per-hour", most))
        assert chosen is not None
        highest = judged.at(float(every[0]), segments.how).false_alarms_per_hour
        assert highest is not None
        if highest > most:
            assert chosen.threshold is None
            continue
        assert chosen.threshold is not None
        here = judged.at(chosen.threshold, segments.how)
        assert here.false_alarms_per_hour == chosen.false_alarms_per_hour
        assert (here.false_alarms_per_hour or 0) <= most
        place = int(np.flatnonzero(every == np.float32(chosen.threshold))[0])
        below = judged.at(float(every[place + 1]), segments.how).false_alarms_per_hour
        assert below is not None
        assert below > most


def test_labels_of_test_change_nothing_that_is_fitted(shards, tmp_path):
    own = shutil.copytree(shards.parent, tmp_path / "store") / "shards"
    config = config_for(own, tmp_path / "run", epochs=2)
    train(config)
    first = evaluate(config.out, split="test", **QUIET)
    before = fitted(config.out)

    def elsewhere(name: str, old: Annotations) -> Revised:
        return Revised(replace(old, events=(laugh(20, 29), laugh(0.5, 3))))

    names = [item.name for item in read_index(own).recordings if item.split == "test"]
    annotate(own.parent, names, elsewhere)
    second = evaluate(config.out, split="test", **QUIET)
    after = fitted(config.out)
    assert second.metrics.num_positives != first.metrics.num_positives
    assert after.bound.index_id != before.bound.index_id  # it was fitted anew
    assert replace(after, bound=before.bound) == before
    assert second.metrics.threshold == first.metrics.threshold
    # Those of validation do.
    names = [item.name for item in read_index(own).recordings if item.split == "validation"]
    annotate(own.parent, names, elsewhere)
    evaluate(config.out, split="test", **QUIET)
    assert fitted(config.out).thresholds != before.thresholds


@pytest.mark.slow
def test_other_annotations_of_what_is_judged_do_not_move_the_threshold(run, tmp_path):
    first = evaluate(run, split="test", **QUIET)
    kept = kept_file(run).read_bytes()
    table = tmp_path / "table.csv"
    table.write_text("recording,start,end,label\n" + "test,\\ part 0,1,9,Laughter\n".replace(
        "test,\\ part 0", '"test, part 0"'
    ))  # fmt: skip
    again = evaluate(run, split="test", annotations=table, **QUIET)
    assert again.metrics.num_positives != first.metrics.num_positives
    assert again.metrics.threshold == first.metrics.threshold
    assert kept_file(run).read_bytes() == kept
    here, there = (item for item in read_looks(Run.open(run)))
    assert here is not None
    assert there is not None
    assert here["annotations_sha256"] != there["annotations_sha256"]


def test_scores_of_another_split_can_be_fitted_on_by_nobody(run):
    opened, index, streams = scores_of(run, "test")
    for split in ("test", "train"):
        _, index, streams = scores_of(run, split)
        with pytest.raises(ConfigError, match=f"of split '{split}': thresholds are fitted on"):
            ValidationScores(index, streams, opened.config.label)
    _, index, right = scores_of(run, "validation")
    with pytest.raises(ConfigError, match="fitted on validation alone"):
        ValidationScores(index, [*right, streams[0]], opened.config.label)


def test_a_rule_that_was_not_fitted_yet_is_added(run):
    evaluate(run, **QUIET)
    before = fitted(run)
    found = evaluate(run, split="test", threshold_by="precision@0.77", **QUIET)
    after = fitted(run)
    assert {**before.thresholds, "precision@0.77": after.chosen("precision@0.77")} == (
        after.thresholds
    )
    assert found.point.on_validation == after.chosen("precision@0.77")
    chosen = after.chosen("precision@0.77")
    assert chosen is not None
    assert chosen.confusion is not None
    assert (chosen.confusion.precision or 0) >= 0.77
    assert found.metrics.threshold == chosen.threshold
    # What is reported beside it does not depend on what else was asked for.
    assert found.events.alarms is None


def test_a_rule_that_nothing_reaches_gives_no_threshold_and_the_reason(run, capsys):
    # A recall that is reached always is; a precision need not be.
    opened, index, streams = scores_of(run, "validation")
    upside_down = [replace(item, score=1 - item.score) for item in streams]
    scores = ValidationScores(index, upside_down, opened.config.label)
    evaluate(run, **QUIET)
    bound = fitted(run).bound
    found = fit(scores, bound, "probability")
    nothing = with_rule(found, scores, ThresholdRule("precision", 1.0)).chosen("precision@1")
    assert nothing is not None
    assert nothing.threshold is None
    assert "no threshold has a precision of 1 on validation; the best is" in (nothing.reason or "")
    assert found.temperature.value is None
    none = found.chosen("fa-per-hour@1")
    assert none is not None
    assert "no threshold has as few as 1 false alarms an hour" in (none.reason or "")
    Operating.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))


def test_without_positive_rows_validation_chooses_nothing(run):
    opened, index, streams = scores_of(run, "validation")
    label = opened.config.label
    evaluate(run, **QUIET)
    bound = fitted(run).bound
    for silent in (False, True):
        seen = [replace(item, y=item.y * 0) for item in streams] if silent else streams
        found = fit(ValidationScores(index, seen, label), bound, "probability")
        assert found.has_chosen_segments is not silent
        events = event_metrics(index, streams, label, threshold=0.5, operating=found)
        assert events.segments is not None
        said = events.segments.to_json()["post_processing"]
        assert said["chosen_on"] == (None if silent else "validation")
        assert (said["median_rows"], said["min_duration_s"]) == (1, 0) or not silent


@pytest.mark.slow
def test_a_given_threshold_is_used_as_it_is(run, capsys):
    words = ["evaluate", str(run), *QUIETLY]
    assert main([*words, "--threshold", "0.3"]) == 0
    said = capsys.readouterr().out
    assert "threshold 0.3: as given" in said
    for rule in ("youden", "f1"):
        assert main([*words, "--threshold", "0.3", "--threshold-by", rule]) == 2
        assert "give one of them" in capsys.readouterr().err
    assert main([*words, "--threshold", "high"]) == 2
    assert "--threshold: could not convert" in capsys.readouterr().err
    for text in ("precision", "recall@2", "accuracy"):
        assert main([*words, "--threshold-by", text]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main([*words, "--threshold", "2"]) == 2
    assert "must be 0 to 1" in capsys.readouterr().err
    assert main([*words, "--threshold-by", "recall@0.9", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["metrics"]["recall"] >= 0.9
    assert content["operating_point"]["rule"] == "recall@0.9"


@pytest.mark.slow
def test_damaged_or_foreign_files_are_fitted_anew(run, caplog):
    first = evaluate(run, **QUIET)
    path = kept_file(run)
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole.replace(b'"rows":', b'"rowz":'), b""):
        path.write_bytes(damaged)
        caplog.clear()
        assert load_operating(Run.open(run)) is None
        assert "what was fitted on validation is not used" in caplog.text
        assert evaluate(run, **QUIET).metrics == first.metrics
        assert path.read_bytes() == whole
    # Of another checkpoint, under this one's name.
    folder = run / "checkpoints"
    best, last = (checkpoint_path(folder, which) for which in ("best", "last"))
    if best != last:
        kept = path.read_bytes()
        (run / "operating" / f"{last.name}.json").write_bytes(kept)
        assert load_operating(Run.open(run), "last") is None
    assert not list((run / "operating").glob("*partial*"))


@pytest.mark.slow
def test_a_run_that_cannot_be_written_to_is_fitted_each_time(run, tmp_path, caplog):
    (run / "operating").write_text("in the way")
    found = evaluate(run, out=tmp_path / "out", **QUIET)
    assert found.point.chosen_on == "validation"
    assert "is not kept" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ignored", "cut"])
def test_what_was_kept_is_used_where_validation_can_no_longer_be_scored(
    how, shards, tmp_path, caplog
):
    own = shutil.copytree(shards.parent, tmp_path / "store") / "shards"
    run = tmp_path / "run"
    train(config_for(own, run, epochs=2))
    before = evaluate(run, split="test", **QUIET)
    items = {item.split: item for item in read_index(own).recordings}

    def nameless(name: str, old: Annotations) -> Revised:
        event = Event(0, old.duration_us, "Laughter", "Laughter", None)
        return Revised(replace(old, events=(event,)))

    if how == "ignored":
        names = [item.name for item in read_index(own).recordings if item.split == "validation"]
        annotate(own.parent, names, nameless)
    else:
        annotate(own.parent, [items["train"].name], nameless)  # so that it is fitted anew
        for path in own.glob("validation-*.tar"):
            path.chmod(0o644)
            os.truncate(path, path.stat().st_size // 2)
    kept = kept_file(run).read_bytes()
    caplog.clear()
    found = evaluate(run, split="test", **QUIET)
    assert (found.point.chosen_on, found.point.threshold) == ("validation", before.point.threshold)
    assert kept_file(run).read_bytes() == kept
    (told,) = [line for item in caplog.records if "cannot be scored" in (line := item.getMessage())]
    assert "what was fitted on it before is used" in told
    assert "\n" not in told


@pytest.mark.slow
def test_where_validation_is_gone_the_checkpoint_s_threshold_is_left(run, shards, tmp_path):
    own = shutil.copytree(shards.parent, tmp_path / "own") / "shards"
    config = config_for(own, tmp_path / "mine", epochs=2)
    train(config)
    shutil.rmtree(own.parent)
    # The very same store elsewhere has its validation.
    at_home = shutil.copytree(config.out, tmp_path / "copy")
    assert evaluate(at_home, shards=shards, **QUIET).point.chosen_on == "validation"
    # Another one has not.
    episodes = [Episode("t", "test", 300, some_laughs(5, 300))]
    other = write_store(
        tmp_path / "other", episodes, Planted(tuple(episodes)), dim=DIM, block_frames=32,
        shard_frames=256,
    )  # fmt: skip
    found = evaluate(config.out, split="test", shards=other / "shards", **QUIET)
    assert (found.point.chosen_on, found.operating) == ("checkpoint", None)
    assert found.metrics.threshold == load_trained(Run.open(config.out), "best").threshold
    assert found.events.segments is not None
    assert found.events.segments.curve is None
    none = evaluate(
        config.out, split="test", shards=other / "shards", threshold_by="youden", **QUIET
    )
    assert none.point.threshold is None
    assert "validation cannot be scored" in none.metrics.undefined["f1"]
    # What was fitted before is still good.
    shutil.copytree(at_home / "operating", config.out / "operating")
    kept = evaluate(config.out, split="test", shards=other / "shards", **QUIET)
    assert kept.point.chosen_on == "validation"
    late = evaluate(
        config.out, split="test", shards=other / "shards", threshold_by="recall@0.77", **QUIET
    )
    assert late.point.threshold is None
    assert "recall@0.77 was not fitted before" in (late.point.reason or "")
    assert late.operating == kept.operating


@pytest.mark.slow
def test_validation_of_a_fold_is_that_of_the_fold(shards, tmp_path):
    config = config_for(shards, tmp_path / "run", epochs=1, folds=2, fold=1)
    result = train(config)
    found = evaluate(config.out, split="test", **QUIET)
    kept = fitted(config.out)
    assert kept.num_rows == result.best.num_rows
    assert found.metrics.threshold == result.best.threshold
    assert evaluate(config.out, split="train", **QUIET).metrics.threshold == result.best.threshold


def test_alarms_at_rates_of_validation_stand_beside_what_they_come_to(shards, tmp_path, capsys):
    label = LabelSpec("onset:10f")
    config = config_for(shards, tmp_path / "run", epochs=2, label=label)
    train(config)
    words = ["evaluate", str(config.out), "--split", "test", *QUIETLY]
    assert main([*words, "--threshold-by", "fa-per-hour@120"]) == 0
    said = capsys.readouterr().out
    kept = fitted(config.out)
    _, index, streams = scores_of(config.out, "validation")
    judged = JudgedAlarms.of(index, streams, label)
    _, index, tested = scores_of(config.out, "test")
    on_test = JudgedAlarms.of(index, tested, label)
    content = json.loads((config.out / "evaluation/test/metrics.json").read_text())
    alarms = content["events"]["anticipation"]
    assert [item["most_false_alarms_per_hour"] for item in alarms["at_false_alarms_per_hour"]] == [
        1, 5, 10, 30, 60,
    ]  # fmt: skip
    scores = np.unique(np.concatenate([item.score[item.eligible] for item in streams]))[::-1]
    rates = [judged.at(threshold).false_alarms_per_hour for threshold in scores.tolist()]
    for item in [*alarms["at_false_alarms_per_hour"], None]:
        most = 120.0 if item is None else item["most_false_alarms_per_hour"]
        rare = [rate is not None and rate <= most for rate in rates]
        chosen = kept.chosen(ThresholdRule("fa-per-hour", most))
        assert chosen is not None
        if not rare[0]:
            assert chosen.threshold is None
            assert "no threshold has as few" in (chosen.reason or "")
            continue
        # Between thresholds that were tried, those that were not may raise a few more.
        assert chosen.threshold is not None
        assert chosen.threshold <= scores[rare.index(False) - 1] if False in rare else True
        assert chosen.false_alarms_per_hour == judged.at(chosen.threshold).false_alarms_per_hour
        if item is not None:
            assert item["found"] == on_test.at(chosen.threshold).to_json()
    assert "  at most 60 an hour on validation: " in said
    assert (config.out / "evaluation/test/false-alarms.png").stat().st_size > 1000
    assert content["operating_point"]["rule"] == "fa-per-hour@120"


@pytest.mark.slow
def test_each_look_at_test_is_counted_and_told(run, capsys):
    words = ["evaluate", str(run), "--split", "test", *QUIETLY]
    for number in (1, 2):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert f"look {number} at test by this run, counted in {LOOKS_FILE}" in said
    content = json.loads((run / "evaluation/test/metrics.json").read_text())
    assert content["look"] == read_looks(Run.open(run))[-1]
    assert content["look"]["look"] == 2
    for split in ("validation", "train"):
        found = evaluate(run, split=split, **QUIET)
        assert found.look is None
    assert len(read_looks(Run.open(run))) == 2
    assert main(["inspect", str(run)]) == 0
    said = capsys.readouterr().out
    assert "looks at test: 2, the last of step-" in said
    kept = fitted(run)
    chosen = kept.chosen("f1")
    assert chosen is not None
    told = f"for {kept.bound.checkpoint}: threshold {chosen.threshold:.3f} by f1, and those of"
    assert f"fitted on validation, {told} {len(kept.thresholds) - 1} rules more" in said
    assert main(["inspect", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["test_looks"] == read_looks(Run.open(run))
    assert told["fitted_on_validation"] == content["fitted_on_validation"]
    (run / "checkpoints" / "best.json").write_text("{")
    assert main(["inspect", str(run)]) == 0
    assert "fitted on validation" not in capsys.readouterr().out


def test_a_look_counts_from_the_moment_there_are_scores(run, shards, tmp_path):
    def press(done: int, total: int) -> None:
        raise KeyboardInterrupt

    evaluate(run, **QUIET)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, split="test", progress=press, **QUIET)
    with pytest.raises(ConfigError, match="no split 'tset'"):
        evaluate(run, split="tset", **QUIET)
    assert read_looks(Run.open(run)) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        evaluate(run, split="test", out=tmp_path / "file/out", **QUIET)
    assert len(read_looks(Run.open(run))) == 1
    # Damaged features are found before there are scores.
    own = shutil.copytree(shards.parent, tmp_path / "store") / "shards"
    for tar in own.glob("**/*test*.tar"):
        data = bytearray(tar.read_bytes())
        data[len(data) // 2] ^= 0xFF
        tar.write_bytes(data)
    with pytest.raises(CorruptData):
        evaluate(run, split="test", shards=own, **QUIET)
    assert len(read_looks(Run.open(run))) == 1


def counted(run: Run) -> int:
    return record_look(
        run,
        "test",
        checkpoint=Path("step-000000001"),
        checkpoint_sha256="c",
        index_id="i",
        annotations_sha256="a",
    ).look


def test_looks_are_numbered_once_each_and_a_torn_line_is_one(run):
    opened = Run.open(run)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: counted(opened), range(24)))
    assert sorted(numbers) == list(range(1, 25))
    path = run / LOOKS_FILE
    path.write_bytes(path.read_bytes()[:-20])
    assert counted(opened) == 25
    assert read_looks(opened)[23] is None
    assert len(path.read_text().splitlines()) == 25
    other = record_look(
        opened, "held-out", checkpoint=Path("x"), checkpoint_sha256="", index_id="",
        annotations_sha256="",
    )  # fmt: skip
    assert other.look == 2  # the torn line may have been one


def test_a_look_that_cannot_be_counted_shows_nothing(run):
    (run / LOOKS_FILE).mkdir()
    with pytest.raises(ConfigError, match="each look at 'test' is counted"):
        evaluate(run, split="test", **QUIET)
    assert not (run / "evaluation/test").exists()


@pytest.mark.slow
def test_a_killed_evaluation_leaves_whole_files(run):
    """Killed anywhere, the next one ends with the same numbers."""
    words = [sys.executable, "-m", "laughstore", "evaluate", str(run), "--split", "test", "-q"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    expected = evaluate(shutil.copytree(run, run.parent / "other"), split="test", **QUIET)
    for wait_s in (2.5, 3.5, 4.5, 5.5):
        process = subprocess.Popen([*words, "--timelines", "0", "--device", "cpu"], env=environment)
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert all(read_looks(Run.open(run)))
        assert load_operating(Run.open(run)) in (None, expected.operating)
    looks = len(read_looks(Run.open(run)))
    found = evaluate(run, split="test", **QUIET)
    assert (found.metrics, found.operating) == (expected.metrics, expected.operating)
    assert found.look is not None
    assert found.look.look == looks + 1
