import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from laughstore.errors import ConfigError, CorruptData, NotFound, SpecMismatch
from laughstore.index import read_index
from laughstore.labels import LabelSpec
from laughstore.timebase import Span
from tests.stores import Episode, laugh, random_features, write_store
from train import FrameFilter, FrameStream, LossConfig, Progress, TrainConfig, evaluate, train
from train.checkpoint import checkpoint_path, load_checkpoint
from train.evaluation import timeline_panel
from train.model import ScoreModel
from train.run import Run
from train.score import score_rows, score_streams
from train.selection import select
from train.signals import Interruptible
from train.source import FrameSource

from .conftest import DIM
from .test_stream import flip_a_bit


def config_for(shards: Path, out: Path, **changes) -> TrainConfig:
    quick = {"global_batch": 512, "lanes": 16, "epochs": 10, "lr": 0.02, "device": "cpu"}
    return TrainConfig(shards=shards, out=out, **{**quick, **changes})


@pytest.fixture(scope="module")
def trained(planted_shards, tmp_path_factory) -> tuple[TrainConfig, object, list[Progress]]:
    out = tmp_path_factory.mktemp("runs") / "run"
    config = config_for(planted_shards, out)
    reports: list[Progress] = []
    return config, train(config, progress=reports.append), reports


def rows_of(shards: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    with FrameStream(shards, split, global_batch=64) as stream:
        parts = [(b.x.float().numpy()[b.weight > 0], b.y[b.weight > 0].numpy()) for b in stream]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def test_a_planted_signal_is_learned_as_well_as_by_scikit_learn(planted_shards, trained):
    _, result, _ = trained
    x, y = rows_of(planted_shards, "train")
    held_out, truth = rows_of(planted_shards, "validation")
    mean, std = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    reference = LogisticRegression(C=0.01, max_iter=300).fit((x - mean) / std, y)
    expected = average_precision_score(truth, reference.decision_function((held_out - mean) / std))
    assert expected > 0.8
    assert result.best.average_precision > expected - 0.02
    assert result.best.lift > 4
    assert result.best.base_rate == pytest.approx(truth.mean())


def test_the_log_is_json_lines_with_every_promised_number(trained):
    config, result, _ = trained
    lines = [json.loads(line) for line in Run.open(config.out).metrics_log.read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    epochs = [line for line in lines if line["kind"] == "validation"]
    assert {"step", "epoch", "frames", "seconds", "loss", "lr", "wait_ms"} <= steps[0].keys()
    assert {"average_precision", "base_rate", "lift", "auroc"} <= epochs[0].keys()
    assert [line["epoch"] for line in epochs] == list(range(result.epochs))
    assert max(line["average_precision"] for line in epochs) == result.best.average_precision
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert list(Run.open(config.out).tensorboard.glob("events*"))


def test_progress_tells_of_statistics_steps_and_validation(trained):
    _, result, reports = trained
    assert {report.phase for report in reports} == {"statistics", "train", "validate"}
    assert sum(report.phase == "train" for report in reports) == result.steps
    assert all(0 < report.done <= report.total for report in reports)


def test_a_run_can_be_read_back_and_holds_the_best_checkpoint(planted_shards, trained):
    config, result, _ = trained
    run = Run.open(config.out)
    assert run.config == config
    assert run.index_id == read_index(planted_shards).index_id
    assert run.about["counts"]["train"]["rows"] > 0
    best = load_checkpoint(checkpoint_path(run.checkpoints, "best"))
    assert best.state["best_epoch"] == result.best_epoch
    assert best.state["best"]["average_precision"] == result.best.average_precision
    last = load_checkpoint(checkpoint_path(run.checkpoints, "last"))
    assert last.state["step"] == result.steps


def test_the_same_config_gives_the_same_weights(planted_shards, tmp_path):
    paths = []
    for name in ("a", "b"):
        train(config_for(planted_shards, tmp_path / name, epochs=2))
        paths.append(checkpoint_path(tmp_path / name / "checkpoints", "last"))
    assert (paths[0] / "model.safetensors").read_bytes() == (
        paths[1] / "model.safetensors"
    ).read_bytes()


def test_patience_stops_a_run_that_gets_no_better(planted_shards, tmp_path):
    result = train(config_for(planted_shards, tmp_path / "run", lr=1e-9, patience=2))
    assert result.stopped == "patience"
    assert result.epochs == result.best_epoch + 3


def test_a_batch_larger_than_the_data_still_trains(planted_shards, tmp_path):
    config = config_for(planted_shards, tmp_path / "run", global_batch=65536, epochs=3)
    assert train(config).steps == 3


def test_a_weight_of_positives_keeps_scores_probabilities(planted_shards, tmp_path):
    config = config_for(
        planted_shards, tmp_path / "run", loss=LossConfig(pos_weight="auto"), epochs=20
    )
    train(config)
    model = ScoreModel(config.head, DIM)
    best = checkpoint_path(tmp_path / "run" / "checkpoints", "best")
    model.load_state_dict(load_checkpoint(best).model)
    assert model.log_pos_weight > 1
    index = read_index(planted_shards)
    selection = select(index, "train", config.label)
    with FrameSource(index, "train") as source:
        probability = score_rows(model, selection, source)
    assert probability.mean() == pytest.approx(selection.counts.base_rate, rel=0.3)


def test_existing_runs_and_splits_that_are_missing_are_refused(planted_shards, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="taken exists"):
        train(config_for(planted_shards, tmp_path / "taken"))
    episodes = [Episode("only", "train", 200, [laugh(2, 3)])]
    store = write_store(tmp_path / "store", episodes, random_features(16), dim=16)
    with pytest.raises(ConfigError, match=r"no split 'validation' .*never chosen on training data"):
        train(config_for(store / "shards", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_splits_without_positives_are_refused_before_anything_is_made(tmp_path):
    for split, events in (("train", []), ("validation", [laugh(2, 3)])):
        episodes = [
            Episode("a", "train", 200, events),
            Episode("b", "validation", 200, [] if events else [laugh(2, 3)]),
        ]
        store = write_store(tmp_path / split, episodes, random_features(16), dim=16)
        with pytest.raises(ConfigError, match=r"has no positive row among 400"):
            train(config_for(store / "shards", tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_a_flipped_bit_ends_training_with_shard_and_sample(own_shards, tmp_path):
    name, key = flip_a_bit(own_shards)
    with pytest.raises(CorruptData, match=f"{name}, sample {key}"):
        train(config_for(own_shards, tmp_path / "run"))


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_saves_the_last_step_and_leaves_a_valid_run(
    planted_shards, tmp_path, number, error
):
    stop_at = 17

    def press(report: Progress) -> None:
        if report.phase == "train" and report.epoch * report.total + report.done == stop_at:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(error):
        train(config_for(planted_shards, tmp_path / "run"), progress=press)
    assert signal.getsignal(number) == before
    run = Run.open(tmp_path / "run")
    state = load_checkpoint(checkpoint_path(run.checkpoints, "last")).state
    assert state["step"] == stop_at
    with FrameStream(planted_shards, "train", global_batch=512, lanes=16) as stream:
        stream.load_state_dict(state["stream"])
        assert stream.epoch * stream.num_steps + stream.num_steps - len(stream) == stop_at
    assert not [t for t in threading.enumerate() if t.name == "laughstore-readahead"]


def test_ctrl_c_while_statistics_are_made_leaves_no_run(own_shards, tmp_path):
    def press(report: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config_for(own_shards, tmp_path / "run"), progress=press)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_validating_keeps_the_epoch_s_steps(planted_shards, tmp_path):
    def press(report: Progress) -> None:
        if report.phase == "validate":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config_for(planted_shards, tmp_path / "run"), progress=press)
    last = checkpoint_path(tmp_path / "run" / "checkpoints", "last")
    state = load_checkpoint(last).state
    assert state["step"] == state["stream"]["step"] > 0
    assert evaluate(tmp_path / "run", checkpoint="last", device="cpu").checkpoint == last
    with pytest.raises(NotFound, match="--checkpoint last"):
        evaluate(tmp_path / "run", device="cpu")


def test_a_signal_within_a_step_waits_for_its_end():
    interruptible = Interruptible()
    finished: list[bool] = []

    def step() -> None:
        with interruptible.installed(), interruptible.held():
            os.kill(os.getpid(), signal.SIGINT)
            finished.append(True)

    with pytest.raises(KeyboardInterrupt):
        step()
    assert finished == [True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": 0.0}, "lr is 0"),
        ({"global_batch": 100}, "96 and 112"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_for(Path("s"), Path("o"), **changes)


def test_an_unknown_device_is_refused(planted_shards, tmp_path):
    with pytest.raises(ConfigError, match="device 'tpu9'"):
        train(config_for(planted_shards, tmp_path / "run", device="tpu9"))


def test_configs_survive_json():
    config = config_for(
        Path("s"),
        Path("o"),
        label=LabelSpec("onset:0.8s", guard=Span("2f"), whose="pair"),
        filter=FrameFilter(Span("3s"), "a*", None),
        loss=LossConfig(pos_weight=3.0),
    )
    again = TrainConfig.from_json(json.loads(json.dumps(config.to_json())), where="here")
    assert again.to_json() == config.to_json()
    assert again.label.identity() == config.label.identity()
    with pytest.raises(CorruptData, match="here"):
        TrainConfig.from_json({}, where="here")


def test_evaluation_agrees_with_training_and_writes_metrics_and_plots(trained):
    config, result, _ = trained
    evaluation = evaluate(config.out, device="cpu")
    assert evaluation.metrics == result.best
    content = json.loads((evaluation.out / "metrics.json").read_text())
    assert content == evaluation.to_json()
    assert content["metrics"]["rows"] == sum(item["rows"] for item in content["recordings"])
    assert evaluation.hours == pytest.approx(content["metrics"]["rows"] * 0.08 / 3600)
    assert [path.name for path in evaluation.plots] == sorted(
        (path.name for path in evaluation.out.glob("*.png")), key=lambda name: name != "pr.png"
    )
    assert len(evaluation.plots) == 1 + len(evaluation.recordings)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in evaluation.plots)
    assert evaluate(config.out, device="cpu", checkpoint="last").checkpoint.name.startswith("step")


def test_questions_about_anyone_have_one_answer_a_recording(planted_shards, tmp_path):
    config = config_for(planted_shards, tmp_path / "run", label=LabelSpec(whose="any"), epochs=2)
    result = train(config)
    evaluation = evaluate(config.out, device="cpu")
    assert evaluation.num_streams == len(evaluation.recordings) == 2
    assert evaluation.metrics == result.best


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
    assert content["metrics"]["undefined"] == "no positive rows"
    assert not (result.out / "pr.png").exists()


def test_an_altered_config_is_found(planted_shards, tmp_path):
    config = config_for(planted_shards, tmp_path / "run", epochs=1)
    train(config)
    path = tmp_path / "run" / "config.json"
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    with pytest.raises(CorruptData, match=r"config\.json"):
        Run.open(tmp_path / "run")


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
