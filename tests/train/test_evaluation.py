import json
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from laughstore.annotations import Annotations
from laughstore.buildplan import Assignment
from laughstore.cli.evaluate import report
from laughstore.errors import ConfigError, NotFound, SpecMismatch
from laughstore.evolution.annotate import Revised, annotate
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec, frame_targets, target_bouts
from laughstore.naming import assignment_name
from laughstore.timebase import Span
from tests.stores import SPEAKERS, Episode, laugh, random_features, write_store
from train import FrameFilter, HeadConfig, Progress, evaluate, train
from train.evaluation.event_metrics import event_metrics
from train.model import ScoreModel
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.runs.drawing import timeline_panel
from train.runs.plots import timeline_png
from train.runs.run import Run
from train.runs.trained import load_trained
from train.scoring.score import StreamScores, metrics_of, score_rows, score_streams
from train.streaming.selection import select
from train.streaming.source import FrameSource

from .conftest import DIM, Planted, config_for, planted_episodes


def test_evaluation_agrees_with_training_and_writes_metrics_and_plots(trained):
    config, result, _ = trained
    evaluation = evaluate(config.out, device="cpu")
    assert evaluation.metrics == result.best
    content = json.loads((evaluation.out / "metrics.json").read_text())
    assert content == evaluation.to_json()
    assert content["metrics"]["rows"] == sum(item["rows"] for item in content["recordings"])
    assert evaluation.hours == pytest.approx(content["metrics"]["rows"] * 0.08 / 3600)
    assert set(evaluation.plots) == set(evaluation.out.glob("*.png"))
    assert [path.name for path in evaluation.plots[:2]] == ["pr.png", "false-alarms.png"]
    assert len(evaluation.plots) == 2 + len(evaluation.recordings)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in evaluation.plots)
    last = evaluate(config.out, device="cpu", checkpoint="last", timelines=0)
    assert last.checkpoint.name.startswith("step")


def test_the_threshold_is_that_of_validation_and_never_fitted_anew(trained, tmp_path, capsys):
    config, result, _ = trained
    threshold = result.best.threshold
    assert threshold is not None
    log = map(json.loads, Run.open(config.out).metrics_log.read_text().splitlines())
    told = [line["threshold"] for line in log if line["kind"] == "validation"]
    assert told[result.best_epoch] == threshold
    episodes = planted_episodes()
    weaker = [replace(item, split="test") for item in episodes if item.split == "validation"]
    store = write_store(
        tmp_path / "store", weaker, Planted(episodes, strength=1.0), block_frames=32, dim=DIM,
        shard_frames=256,
    )  # fmt: skip
    found = evaluate(
        config.out, split="test", shards=store / "shards", out=tmp_path / "out", device="cpu"
    )
    assert found.metrics.threshold == threshold
    assert [item.metrics.threshold for item in found.recordings] == [threshold] * 2
    assert found.point.chosen_on == "validation"
    # Its own best threshold would be another one, with a better F1.
    index = read_index(store / "shards")
    selection = select(index, "test", config.label)
    with FrameSource(index, "test") as source:
        model = ScoreModel(config.head, DIM)
        model.load_state_dict(load_checkpoint(found.checkpoint).model)
        own = metrics_of(score_streams(model, selection, source, config.label), config.label)
    assert own.threshold != threshold
    assert (own.values["f1"] or 0) > (found.metrics.values["f1"] or 1)
    report(found, as_json=False)
    said = capsys.readouterr().out
    assert f"threshold {threshold:.4g}: the best F1 on validation\n" in said


def test_a_checkpoint_that_was_not_validated_is_when_it_is_evaluated(planted_shards, tmp_path):
    def press(report: Progress) -> None:
        if report.phase == "train" and report.done == 3:
            raise KeyboardInterrupt

    config = config_for(planted_shards, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=press)
    assert load_trained(Run.open(config.out), "last").threshold is None
    found = evaluate(config.out, split="train", checkpoint="last", device="cpu", timelines=0)
    again = evaluate(config.out, checkpoint="last", device="cpu", timelines=0)
    for one in (found, again):
        assert one.point.chosen_on == "validation"
        assert one.metrics.values["f1"]
    assert found.metrics.threshold == again.metrics.threshold
    assert again.point.on_validation is not None
    assert again.confusion == again.point.on_validation.confusion


def test_an_evaluation_tells_which_annotations_it_scored_against(own_shards, tmp_path, capsys):
    config = config_for(own_shards, tmp_path / "run", epochs=1)
    train(config)
    first = evaluate(config.out, device="cpu", timelines=0)
    content = json.loads((first.out / "metrics.json").read_text())
    assert (content["generation"], content["index_id"]) == (1, read_index(own_shards).index_id)
    assert first.other_annotations is None

    def without_the_last(name: str, old: Annotations) -> Revised:
        return Revised(replace(old, events=old.events[:-1]))

    names = [item.name for item in read_index(own_shards).recordings]
    assert annotate(own_shards.parent, names, without_the_last).generation == 2
    second = evaluate(config.out, device="cpu", timelines=0)
    content = json.loads((second.out / "metrics.json").read_text())
    assert (content["generation"], content["index_id"]) == (2, read_index(own_shards).index_id)
    assert second.metrics != first.metrics
    report(second, as_json=False)
    told = "labels are those of generation 2; the run was trained on generation 1"
    assert told in capsys.readouterr().out.splitlines()


def test_questions_about_anyone_have_one_answer_a_recording(planted_shards, tmp_path):
    config = config_for(planted_shards, tmp_path / "run", label=LabelSpec(whose="any"), epochs=2)
    result = train(config)
    evaluation = evaluate(config.out, device="cpu", timelines=0)
    assert evaluation.num_streams == len(evaluation.recordings) == 2
    assert evaluation.metrics == result.best
    index = read_index(planted_shards)
    selection = select(index, "validation", config.label)
    model = ScoreModel(config.head, DIM)
    model.load_state_dict(load_checkpoint(evaluation.checkpoint).model)
    with FrameSource(index, "validation") as source:
        streams = score_streams(model, selection, source, config.label)
        each = np.split(score_rows(model, selection, source), selection.stream_starts[1:-1])
    assert len(each) == 4
    for item, first, second in zip(streams, each[::2], each[1::2], strict=True):
        assert not np.allclose(first, second)
        assert item.score == pytest.approx((first + second) / 2, rel=1e-6)


def test_evaluation_refuses_what_is_not_there(trained, planted_shards, tmp_path):
    config, _, _ = trained
    with pytest.raises(NotFound, match="no training run"):
        evaluate(tmp_path)
    with pytest.raises(ConfigError, match="no split 'test'"):
        evaluate(config.out, split="test", device="cpu")
    with pytest.raises(ConfigError, match="exists"):
        evaluate(config.out, out=tmp_path)
    with pytest.raises(NotFound):
        evaluate(config.out, checkpoint=str(tmp_path), device="cpu")
    episodes = [Episode("v", "validation", 200, [laugh(2, 3)])]
    other = write_store(tmp_path / "store", episodes, random_features(16), dim=16)
    with pytest.raises(SpecMismatch, match="dim: 16, 64"):
        evaluate(config.out, shards=other / "shards", device="cpu")


def test_a_split_without_positives_is_evaluated_with_nulls(trained, tmp_path):
    config, _, _ = trained
    episodes = [
        Episode("quiet", "test", 200, []),
        Episode("elsewhere", "train", 200, [laugh(2, 3)]),
    ]
    store = write_store(
        tmp_path / "store", episodes, random_features(64), block_frames=32, shard_frames=256
    )
    result = evaluate(
        config.out, split="test", shards=store / "shards", out=tmp_path / "out", device="cpu"
    )
    assert result.metrics.average_precision is None
    content = json.loads((result.out / "metrics.json").read_text())
    assert content["metrics"]["undefined"] == dict.fromkeys(
        ("average_precision", "lift", "auroc", "f1", "precision", "recall"), "no positive rows"
    )
    assert not (result.out / "pr.png").exists()


def test_scores_of_labels_with_a_lead_stand_at_the_frame_they_speak_of(planted_shards, tmp_path):
    label = LabelSpec(lead=Span("3f"), edge=Span("2f"))
    config = config_for(planted_shards, tmp_path / "run", epochs=2, label=label)
    train(config)
    assert evaluate(config.out, device="cpu").num_ignored > 0
    index = read_index(planted_shards)
    selection = select(index, "validation", label)
    model = ScoreModel(config.head, DIM)
    with FrameSource(index, "validation") as source:
        streams = score_streams(model, selection, source, label, ignored_too=True)
    panel = timeline_panel(index, streams[0], label)
    assert panel.frame.tolist() == list(range(3, streams[0].stream.num_frames + 3))
    positive = panel.frame[(streams[0].y == 1)]
    inside = (positive[:, None] * 0.08 >= panel.bout_start_s - 0.08) & (
        positive[:, None] * 0.08 < panel.bout_end_s
    )
    assert len(positive)
    assert inside.any(axis=1).all()


@pytest.fixture(scope="module")
def lone_shards(tmp_path_factory) -> Path:
    """A store of which one validation recording has a single speaker, and laughs a lot."""
    episodes = planted_episodes()
    laughs = [laugh(2, 9), laugh(10, 19)]
    lone = Episode("validation, alone", "validation", 400, laughs, speakers=SPEAKERS[:1])
    episodes = (*episodes, lone)
    path = tmp_path_factory.mktemp("lone") / "store"
    write_store(path, episodes, Planted(episodes), dim=DIM, block_frames=32, shard_frames=256)
    return path / "shards"


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["pair", "any"])
def test_counts_and_base_rates_are_those_of_the_rows_that_metrics_count(
    lone_shards, tmp_path, whose
):
    label = LabelSpec(whose=whose, edge=Span("3f"))
    config = config_for(lone_shards, tmp_path / "run", label=label, epochs=2)
    result = train(config)
    evaluation = evaluate(config.out, device="cpu")
    assert evaluation.metrics == result.best
    assert evaluation.num_streams == 3
    assert evaluation.num_ignored > 0
    assert evaluation.num_ignored + evaluation.metrics.num_rows == 600 + 333 + 400
    # The plot of a recording is that which its scores and the metrics' base rate give.
    index = read_index(lone_shards)
    selection = select(index, "validation", label)
    assert selection.counts.base_rate != pytest.approx(evaluation.metrics.base_rate, rel=0.05)
    model = ScoreModel(config.head, DIM)
    model.load_state_dict(load_checkpoint(evaluation.checkpoint).model)
    with FrameSource(index, "validation") as source:
        streams = score_streams(model, selection, source, label, ignored_too=True)
    expected = timeline_png(
        [timeline_panel(index, streams[0], label)],
        title=index.recording(streams[0].stream.recording_id).name,
        event="Laughter",
        scores="probability",
        question="Laughter",
        base_rate=evaluation.metrics.base_rate,
    )
    path = evaluation.out / f"timeline-{streams[0].stream.recording_id}.png"
    assert path.read_bytes() == expected


@pytest.mark.parametrize(
    ("whose", "titles"),
    [
        ("main", ["SPEAKER_00 (with SPEAKER_01)", "SPEAKER_01 (with SPEAKER_00)"]),
        (
            "other",
            [
                "SPEAKER_01 (with SPEAKER_00 as main speaker)",
                "SPEAKER_00 (with SPEAKER_01 as main speaker)",
            ],
        ),
        ("pair", ["SPEAKER_00 or SPEAKER_01"]),
        ("any", ["anyone"]),
    ],
)
def test_titles_name_those_whose_events_are_asked_for(planted_shards, whose, titles):
    index = read_index(planted_shards)
    label = LabelSpec(whose=whose)
    selection = select(index, "validation", label)
    with FrameSource(index, "validation") as source:
        streams = score_streams(ScoreModel(HeadConfig(), DIM), selection, source, label)
    assert [item.title for item in streams] == titles * 2


@dataclass(frozen=True)
class AllPairs(Episode):
    """An episode in which everyone is main once with everyone else."""

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        pairs = permutations(self.speakers, 2)
        return tuple(Assignment(assignment_name(a, b), a, b) for a, b in pairs)


@pytest.mark.parametrize(("whose", "num_streams"), [("main", 6), ("pair", 3), ("any", 1)])
def test_only_assignments_that_ask_the_same_are_merged(tmp_path, whose, num_streams):
    events = [laugh(2, 4, "A"), laugh(8, 9, "B"), laugh(12, 15, "C")]
    episode = AllPairs("trio", "validation", 300, events, speakers=("A", "B", "C"))
    store = write_store(tmp_path / "store", [episode], random_features(16), dim=16)
    index = read_index(store / "shards")
    label = LabelSpec(whose=whose)
    selection = select(index, "validation", label)
    model = ScoreModel(HeadConfig(), 16)
    with FrameSource(index, "validation") as source:
        streams = score_streams(model, selection, source, label, ignored_too=True)
    assert len(streams) == num_streams
    tables = index.tables(index.recordings[0])
    for item in streams:
        main, other = item.stream.main, item.stream.other
        targets = frame_targets(label, tables, main=main, other=other, num_frames=300)
        assert item.y.tolist() == targets.y.tolist()
        assert item.eligible.tolist() == (~targets.ignored).tolist()


def test_a_checkpoint_of_another_run_is_refused(trained, planted_shards, tmp_path):
    config, result, _ = trained
    label = LabelSpec("onset:10f")
    train(config_for(planted_shards, tmp_path / "other", label=label, epochs=1))
    train(config_for(planted_shards, tmp_path / "twin", epochs=1, seed=1))
    for name, differ in (("other", "config_sha256, label"), ("twin", "config_sha256")):
        path = checkpoint_path(tmp_path / name / "checkpoints", "best")
        with pytest.raises(ConfigError, match=rf"another run than .*\(other {differ}\)"):
            evaluate(config.out, checkpoint=str(path), device="cpu", out=tmp_path / "out")
    own = checkpoint_path(config.out / "checkpoints", "best")
    again = evaluate(
        config.out, checkpoint=str(own), device="cpu", out=tmp_path / "own", timelines=0
    )
    assert again.metrics == result.best


def test_a_run_s_filter_holds_in_validation_too(planted_shards, trained, tmp_path):
    _, unfiltered, _ = trained
    limits = FrameFilter(min_context=Span("50f"), exclude="*-part-1-*")
    config = config_for(planted_shards, tmp_path / "run", filter=limits, epochs=2)
    result = train(config)
    evaluation = evaluate(config.out, device="cpu", timelines=0)
    assert evaluation.metrics == result.best
    assert evaluation.num_ignored + result.best.num_rows == 2 * (600 - 50)
    assert result.best.num_rows < unfiltered.best.num_rows


def test_a_filter_that_leaves_nothing_to_evaluate_is_told_to_be_the_run_s(planted_shards, tmp_path):
    config = config_for(
        planted_shards, tmp_path / "run", filter=FrameFilter(exclude="quiet*"), epochs=1
    )
    train(config)
    episodes = [Episode("quiet", "test", 200, [laugh(2, 3)])]
    store = write_store(
        tmp_path / "store", episodes, random_features(64), block_frames=32, shard_frames=256
    )
    with pytest.raises(ConfigError) as raised:
        evaluate(config.out, split="test", shards=store / "shards", device="cpu")
    message = str(raised.value)
    assert "none of the 1 recordings of split 'test' passes the filter (exclude quiet*)" in message
    assert f"those that {config.out} was trained with" in message
    assert "--recordings" not in message
    assert "--exclude" not in message


def test_intervals_and_chance_stand_beside_the_average_precision(trained, capsys):
    config, _, _ = trained
    found = evaluate(config.out, device="cpu", timelines=0, bootstrap=100, null=50)
    content = found.to_json()
    interval, null = found.intervals["average_precision"], found.null
    assert interval.low is not None
    assert interval.high is not None
    ap = found.metrics.average_precision
    assert ap is not None
    assert interval.low <= ap <= interval.high
    assert (interval.draws, interval.unit) == (100, "recording")
    assert null is not None
    assert (null.p, len(null.null)) == (1 / 51, 50)  # the planted signal is no chance
    assert null.central[1] < interval.low
    assert content["intervals"]["average_precision"]["low"] == interval.low
    assert content["circular_shift_null"]["p"] == null.p
    report(found, as_json=False)
    said = capsys.readouterr().out
    assert "95 % intervals: AP " in said
    assert "drawn 100 times, rough)" in said
    assert "by chance (labels rotated 50 times): AP " in said
    calibration = found.calibration
    assert calibration is not None
    assert calibration.bins.count.sum() == found.metrics.num_rows
    # Better than to say the base rate of every row.
    base = found.metrics.base_rate
    assert base is not None
    assert 0 < calibration.brier < base * (1 - base)
    assert "probabilities: Brier 0." in said
    without = evaluate(config.out, device="cpu", timelines=0, bootstrap=0, null=0)
    assert (without.intervals, without.null) == ({}, None)
    with pytest.raises(ConfigError, match="bootstrap is -1"):
        evaluate(config.out, device="cpu", bootstrap=-1)


def test_segments_and_candidates_are_those_of_the_scores(trained):
    config, _, _ = trained
    found = evaluate(config.out, device="cpu", timelines=0, bootstrap=0, null=0)
    index = read_index(config.shards)
    segments, candidates = found.events.segments, found.events.candidates
    assert segments is not None
    assert segments.counts is not None
    assert candidates is not None
    assert found.events.foreseen is None
    bouts = 0
    for stream in index.streams("validation"):
        tables = index.tables(index.recording(stream.recording_id))
        bouts += len(target_bouts(config.label, tables, main=stream.main, other=stream.other)[0])
    counts = segments.counts
    assert segments.num_bouts == bouts == counts.hits + counts.misses
    assert 0 < (segments.psds["0.5"] or 0) <= (segments.psds["0.1"] or 0) <= 1
    assert candidates.num_targets + candidates.num_unscored > 0
    assert found.within is not None
    assert 0 < len(found.within.lift) <= found.num_streams
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("lead", ["0f", "3f", "-2f"])
def test_scores_that_are_the_truth_are_right_and_late_ones_are_not(planted_shards, lead):
    index, label = read_index(planted_shards), LabelSpec(lead=Span(lead))
    selection = select(index, "validation", label)

    def scored(late: int) -> list[StreamScores]:
        streams = []
        for number, stream in enumerate(selection.streams):
            y, counts = selection.stream_targets(number)
            row = np.arange(len(y))
            score = np.roll(y, late).astype(np.float32)
            streams.append(StreamScores(stream, "", row, score, y, counts))
        return streams

    right = event_metrics(index, scored(0), label, threshold=0.5).segments
    late = event_metrics(index, scored(6), label, threshold=0.5).segments
    assert right is not None
    assert late is not None
    assert right.counts is not None
    assert late.counts is not None
    assert (right.counts.f1, right.counts.misses) == (1, 0)
    assert right.psds == {"0.5": 1, "0.1": 1}
    assert late.counts.f1 is not None
    assert late.counts.f1 < 0.2
    assert (late.psds["0.5"] or 0) < 0.3


@pytest.mark.parametrize("lead", ["0f", "-2f"])
def test_bouts_of_which_rows_are_left_out_are_no_misses(planted_shards, lead):
    index, label = read_index(planted_shards), LabelSpec(lead=Span(lead))
    selection = select(index, "validation", label, FrameFilter(min_context=Span("12s")))
    streams = []
    for number, stream in enumerate(selection.streams):
        y, counts = selection.stream_targets(number)
        # A block that is left out, and what the filter leaves.
        row = np.flatnonzero((np.arange(len(y)) >= 150) & (np.arange(len(y)) // 32 != 9))
        score = y[row].astype(np.float32)
        streams.append(StreamScores(stream, "", row, score, y[row], counts[row]))
    found = event_metrics(index, streams, label, threshold=0.5).segments
    assert found is not None
    assert found.counts is not None
    assert found.num_bouts > 5
    assert (found.counts.f1, found.counts.misses, found.counts.false_alarms) == (1, 0, 0)
    assert found.psds == {"0.5": 1, "0.1": 1}


def test_a_label_of_onsets_gets_alarms_and_no_segments(planted_shards, tmp_path, capsys):
    label = LabelSpec("onset:5f")
    config = config_for(planted_shards, tmp_path / "run", label=label, epochs=2)
    result = train(config)
    found = evaluate(config.out, device="cpu", timelines=0)
    assert found.events.segments is None
    foreseen = found.events.foreseen
    assert foreseen is not None
    assert foreseen.num_onsets > 0
    positives = result.best.num_positives
    assert foreseen.num_onsets <= positives <= 5 * foreseen.num_onsets
    assert np.all((foreseen.lead_s > 0) & (foreseen.lead_s < 6 * 0.08))
    report(found, as_json=False)
    said = capsys.readouterr().out
    assert "alarms at the threshold: " in said
    assert "segments" not in said
    assert "annotated events alone: AP" in said
