import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from laughstore.errors import ConfigError, CorruptData, NotFound
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from laughstore.timebase import Span
from tests.stores import Episode, laugh, random_features, write_store
from train import (
    FrameFilter,
    FrameStream,
    HeadConfig,
    LossConfig,
    Progress,
    TrainConfig,
    evaluate,
    train,
)
from train.model import ScoreModel
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.runs.run import Run
from train.scoring.score import score_rows
from train.streaming.selection import select
from train.streaming.source import FrameSource

from .conftest import DIM, config_for


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
    assert last.state["epoch"] == result.epochs - 1
    assert last.state["validated"] is True


@pytest.mark.usefixtures("two_threads")
def test_the_same_config_gives_the_same_weights(planted_shards, tmp_path):
    paths = []
    for name in ("a", "b"):
        train(config_for(planted_shards, tmp_path / name, epochs=2))
        paths.append(checkpoint_path(tmp_path / name / "checkpoints", "last"))
    assert (paths[0] / "model.safetensors").read_bytes() == (
        paths[1] / "model.safetensors"
    ).read_bytes()


def test_patience_stops_a_run_that_gets_no_better(planted_shards, tmp_path):
    result = train(config_for(planted_shards, tmp_path / "run", lr=1e-12, patience=2))
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"lr": 0.0}, "lr is 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": 1e38}, "lr is 1e\\+38; it must be above 0 and at most 1000"),
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


def test_configs_of_earlier_releases_open_and_those_of_later_ones_are_refused():
    first = {  # of the first run that was ever made
        "shards": "/data/store/shards",
        "out": "/data/run",
        "label": LabelSpec("onset:0.8s").identity(),
        "filter": FrameFilter().identity(),
        "head": "linear",
        "loss": "bce",
        "pos_weight": "auto",
        "global_batch": 512,
        "lanes": 16,
        "window_blocks": 8,
        "epochs": 3,
        "lr": 0.01,
        "weight_decay": 0.01,
        "patience": 10,
        "seed": 5,
        "device": "cpu",
        "verify": "first",
    }
    config = TrainConfig.from_json(first, where="here")
    assert config.loss == LossConfig("bce", pos_weight="auto")
    assert (config.shards, config.seed, config.balance) == (Path("/data/store/shards"), 5, "off")
    assert first.items() <= config.to_json().items()
    with pytest.raises(CorruptData, match=r"here: .*field telepathy is not known"):
        TrainConfig.from_json(first | {"telepathy": 1}, where="here")
    with pytest.raises(CorruptData, match="here"):
        TrainConfig.from_json(first | {"loss": "telepathy"}, where="here")


@pytest.mark.parametrize("shards", ["s3://bucket/store", Path("s")])
def test_every_field_of_a_config_survives_json(shards):
    config = config_for(
        shards,
        Path("o"),
        annotations=Path("a"),
        skip_corrupt=Path("list"),
        folds=5,
        fold=2,
        balance=2.5,
        loss=LossConfig("focal", focal_alpha=0.5, focal_gamma=1.0),
    )
    again = TrainConfig.from_json(json.loads(json.dumps(config.to_json())), where="here")
    assert replace(again, label=config.label) == config


def test_an_altered_config_is_found(planted_shards, tmp_path):
    config = config_for(planted_shards, tmp_path / "run", epochs=1)
    train(config)
    path = tmp_path / "run" / "config.json"
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))
    with pytest.raises(CorruptData, match=r"config\.json"):
        Run.open(tmp_path / "run")


def test_training_starts_from_the_rate_of_positives(planted_shards, tmp_path):
    # One step an epoch, so the first line is the loss of all rows before any step.
    config = config_for(planted_shards, tmp_path / "run", global_batch=65536, epochs=1)
    run = Run.open(train(config).run)
    counts = run.about["counts"]["train"]
    rate = counts["positives"] / counts["rows"]
    entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    line = json.loads(run.metrics_log.read_text().splitlines()[0])
    assert (line["kind"], line["step"], line["frames"]) == ("train", 1, counts["rows"])
    assert line["loss"] == pytest.approx(entropy, rel=1e-5)


def test_a_run_that_diverges_says_what_to_lower_and_saves_no_broken_weights(
    planted_shards, tmp_path
):
    loss = LossConfig(pos_weight=1e38)
    with pytest.raises(ConfigError, match=r"the loss is (nan|inf) at step 10; lower --lr"):
        train(config_for(planted_shards, tmp_path / "run", lr=1e3, loss=loss))
    with pytest.raises(NotFound):
        checkpoint_path(tmp_path / "run" / "checkpoints", "last")
    # What is left tells how it went, and is not in the way without a word.
    (line,) = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["kind"], told["step"], told["loss"]) == ("train", 10, None)
    with pytest.raises(ConfigError, match=r"saved no checkpoint \(.*metrics\.jsonl tells how far"):
        train(config_for(planted_shards, tmp_path / "run"))
    # Nor when checkpoints are due at each step.
    with pytest.raises(ConfigError, match=r"the loss is (nan|inf) at step 10; lower --lr"):
        train(config_for(planted_shards, tmp_path / "due", lr=1e3, loss=loss), save_every_s=0)
    for path in (tmp_path / "due" / "checkpoints").glob("step-*"):
        assert all(value.isfinite().all() for value in load_checkpoint(path).model.values())


def test_scores_that_are_not_finite_are_refused(planted_shards):
    index = read_index(planted_shards)
    selection = select(index, "validation", LabelSpec())
    model = ScoreModel(HeadConfig(), DIM)
    with torch.no_grad():
        model.head.last_bias.fill_(float("nan"))
    with (
        FrameSource(index, "validation") as source,
        pytest.raises(ConfigError, match=r"scores are not finite.*lower --lr"),
    ):
        score_rows(model, selection, source)


def test_a_loss_spoilt_by_features_names_the_recording_and_not_the_learning_rate(
    own_shards, tmp_path
):
    index = read_index(own_shards)
    shard = index.split_shards("train")[4]

    def spoil(report: Progress) -> None:
        """Make a frame infinite once the statistics are made."""
        if report.phase == "statistics" and report.done == report.total:
            path = own_shards / shard.name
            path.chmod(0o644)
            with path.open("r+b") as file:
                file.seek(index.geometry.data_offset(1))
                file.write(b"\x80\x7f")

    block = shard.first_block + 1 - shard.stream.first_block
    frame = f"frame {block * 32} of {shard.stream.recording_id}/{shard.stream.assignment} holds"
    with pytest.raises(CorruptData, match=frame):
        train(config_for(own_shards, tmp_path / "run", verify="never"), progress=spoil)


def test_a_run_on_a_relative_path_is_evaluated_from_another_folder(
    planted_shards, tmp_path, monkeypatch
):
    monkeypatch.chdir(planted_shards.parent)
    result = train(config_for(Path("shards"), tmp_path / "run", epochs=1))
    monkeypatch.chdir(tmp_path)
    assert evaluate(Path("run"), device="cpu", timelines=0).metrics == result.best
