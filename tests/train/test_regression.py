"""Training on labels that are numbers, from the command line to the plots."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from laughstore.cli.main import main
from laughstore.errors import ConfigError
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec, frame_targets
from tests.stores import SPEAKERS, Episode, bf16_bits, laugh, random_features, write_store
from train import FrameStream, LossConfig, evaluate, train
from train.model import ScoreModel
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.runs.drawing import timeline_panel
from train.runs.plots import timeline_png
from train.runs.run import Run
from train.scoring.metrics import FrameMetrics
from train.scoring.score import score_streams
from train.streaming.selection import select
from train.streaming.source import FrameSource

from .conftest import config_for, planted_episodes

DIM = 32
LABEL = LabelSpec("regression:2s")


class Countdown:
    """Features that move along one direction as the main speaker's next laugh comes nearer."""

    def __init__(self, episodes: tuple[Episode, ...]) -> None:
        self._episodes = {episode.name: episode for episode in episodes}

    def __call__(self, name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
        starts = [
            event.start_us / 1e6
            for event in self._episodes[name].events
            if event.speaker == SPEAKERS[assignment]
        ]
        now = np.arange(num_frames) * 0.08
        wait = np.array([min((s - t for s in starts if s >= t), default=np.inf) for t in now])
        near = np.where(wait <= 2, 1 / (1 + wait), 0)
        rng = np.random.default_rng([assignment, *name.encode()])
        x = rng.standard_normal((num_frames, DIM))
        x += 4 * near[:, None] * np.random.default_rng(0).standard_normal(DIM) / DIM**0.5
        return bf16_bits((3 + 10 * x).astype(np.float32))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    episodes = planted_episodes()
    path = tmp_path_factory.mktemp("countdown") / "store"
    write_store(path, episodes, Countdown(episodes), dim=DIM, block_frames=32, shard_frames=256)
    return path / "shards"


def rows_of(shards: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    with FrameStream(shards, split, label=LABEL, global_batch=64) as stream:
        parts = [(b.x.double().numpy()[b.weight > 0], b.y[b.weight > 0].numpy()) for b in stream]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def test_a_countdown_is_learned_as_well_as_by_least_squares_on_everything(shards, tmp_path):
    config = config_for(shards, tmp_path / "run", label=LABEL, epochs=20)
    result = train(config)
    x, y = rows_of(shards, "train")
    held_out, truth = rows_of(shards, "validation")
    mean, std = x.mean(axis=0), x.std(axis=0)
    design = [np.column_stack([(part - mean) / std, np.ones(len(part))]) for part in (x, held_out)]
    weights, *_ = np.linalg.lstsq(design[0], y, rcond=None)
    expected = np.sqrt(np.square(design[1] @ weights - truth).mean())
    found = result.best.values
    assert found["rmse"] is not None
    assert expected < 0.9 * truth.std()  # else nothing is asked
    assert found["rmse"] == pytest.approx(expected, rel=0.02)
    assert found["spearman"] is not None
    assert found["spearman"] > 0.3
    assert result.best.lift is not None
    assert result.best.lift > 2
    lines = [json.loads(line) for line in Run.open(result.run).metrics_log.read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "validation"]
    assert min(line["rmse"] for line in epochs) == found["rmse"]
    assert epochs[result.best_epoch]["rmse"] == found["rmse"]


def test_the_command_line_trains_and_evaluates_numbers(shards, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["--global-batch", "512", "--lanes", "16", "--epochs", "3", "--lr", "0.02"]
    command = ["train", "--shards", str(shards), "--out", str(out), "--device", "cpu", *words]
    assert main([*command, "--label", "regression:2s"]) == 0
    printed = capsys.readouterr()
    assert "validation RMSE 0." in printed.out
    assert "epoch 1: validation RMSE 0." in printed.err
    config = Run.open(out).config
    assert (config.loss.loss, config.select_by) == ("mse", "val_rmse")
    assert main(["evaluate", str(out), "--device", "cpu", "-q"]) == 0
    shown = capsys.readouterr().out
    for title in ("RMSE 0.", "MAE 0.", "Spearman 0.", "MAE of the wait in s ", "AP 0.", "AUROC 0."):
        assert title in shown
    content = json.loads((out / "evaluation/validation/metrics.json").read_text())
    assert content["scores"] == "number"
    found = FrameMetrics.from_json(content["metrics"])
    assert found.undefined == {}
    best = json.loads(
        checkpoint_path(out / "checkpoints", "best").joinpath("state.json").read_text()
    )
    # Evaluating scores ignored rows too, in other batches: low bits of sums differ.
    assert FrameMetrics.from_json(best["best"]).values == pytest.approx(dict(found.values))
    plots = [path.name for path in (out / "evaluation/validation").glob("*.png")]
    assert len(plots) == 3
    assert main(["inspect", str(out)]) == 0
    assert "RMSE 0." in capsys.readouterr().out


def test_a_run_begins_with_the_mean_target(shards, tmp_path):
    # One step an epoch, so the first line is the loss of all rows before any step.
    for loss, expected in (
        (LossConfig("mse"), lambda error: np.square(error).mean()),
        (LossConfig("huber"), lambda error: huber(error, 0.1)),
    ):
        out = tmp_path / loss.loss
        config = config_for(shards, out, label=LABEL, loss=loss, global_batch=65536, epochs=1)
        line = json.loads(Run.open(train(config).run).metrics_log.read_text().splitlines()[0])
        _, y = rows_of(shards, "train")
        assert line["loss"] == pytest.approx(expected(y - y.mean(dtype=np.float64)), rel=1e-4)


def huber(error: np.ndarray, delta: float) -> float:
    size = np.abs(error)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).mean()


def test_a_balanced_huber_run_about_anyone_has_one_answer_a_recording(shards, tmp_path):
    config = config_for(
        shards,
        tmp_path / "run",
        label=replace(LABEL, whose="any"),
        loss=LossConfig("huber"),
        balance=1.0,
        select_by="val_spearman",
        epochs=2,
    )
    result = train(config)
    evaluation = evaluate(config.out, device="cpu", timelines=1)
    assert evaluation.num_streams == len(evaluation.recordings) == 2
    assert evaluation.metrics.values == pytest.approx(dict(result.best.values))
    index = read_index(shards)
    targets = []
    for recording in index.recordings:
        if recording.split == "validation":
            main_speaker, other = recording.streams[0].main, recording.streams[0].other
            tables = index.tables(recording)
            found = frame_targets(
                config.label,
                tables,
                main=main_speaker,
                other=other,
                num_frames=recording.num_frames,
            )
            targets.append(found.y[~found.ignored])
    y = np.concatenate(targets)
    assert result.best.num_rows == len(y)
    assert result.best.num_positives == (y > 0).sum()
    # A prediction is drawn beside its question, and not beside a rate of positives.
    model = ScoreModel(config.head, DIM, scores="number")
    model.load_state_dict(load_checkpoint(evaluation.checkpoint).model)
    selection = select(index, "validation", config.label)
    with FrameSource(index, "validation") as source:
        streams = score_streams(model, selection, source, config.label, ignored_too=True)
    expected = [
        timeline_png(
            [timeline_panel(index, stream, config.label)],
            title=index.recording(stream.stream.recording_id).name,
            event="Laughter",
            scores="number",
            question="1 / (1 + s until\nLaughter)",
            base_rate=None,
        )
        for stream in streams
    ]
    assert evaluation.plots[1].read_bytes() in expected


def test_rows_that_all_wait_for_something_can_be_learned(tmp_path):
    laughs = [laugh(t, t + 0.5, speaker) for t in (5, 10, 15, 19.5) for speaker in SPEAKERS]
    episodes = [Episode(split, split, 250, laughs) for split in ("train", "validation")]
    store = write_store(tmp_path / "store", episodes, random_features(16), dim=16)
    label = LabelSpec("regression:6s")
    config = config_for(store / "shards", tmp_path / "run", label=label, epochs=1)
    best = train(config).best
    assert best.num_positives == best.num_rows
    assert best.undefined == {"auroc": "no negative rows"}
    assert best.values["auroc"] is None


def test_a_split_without_targets_is_evaluated_with_nulls_and_never_with_zeros(shards, tmp_path):
    config = config_for(shards, tmp_path / "run", label=LABEL, epochs=1)
    train(config)
    episodes = [
        Episode("quiet", "test", 200, []),
        Episode("elsewhere", "train", 200, [laugh(2, 3)]),
    ]
    store = write_store(
        tmp_path / "store", episodes, random_features(DIM), dim=DIM, block_frames=32,
        shard_frames=256,
    )  # fmt: skip
    result = evaluate(
        config.out, split="test", shards=store / "shards", out=tmp_path / "out", device="cpu"
    )
    content = json.loads((result.out / "metrics.json").read_text())["metrics"]
    reasons = dict.fromkeys(
        ("wait_mae_s", "average_precision", "lift", "auroc"), "no positive rows"
    )
    assert content["undefined"] == reasons | {"spearman": "all targets are equal"}
    assert all(content[name] is None for name in content["undefined"])
    assert content["rmse"] >= content["mae"] > 0


def test_numbers_without_a_positive_row_and_choices_that_do_not_fit_are_refused(tmp_path, shards):
    with pytest.raises(ConfigError, match=r"select_by is 'val_rmse'; for label detection it must"):
        config_for(shards, tmp_path / "run", select_by="val_rmse")
    with pytest.raises(ConfigError, match=r"loss bce is for classes.*use --loss mse or huber"):
        config_for(shards, tmp_path / "run", label=LABEL, loss=LossConfig("bce"))
    episodes = [
        Episode("a", "train", 200, [laugh(8, 9)]),
        Episode("b", "validation", 200, []),
    ]
    store = write_store(tmp_path / "store", episodes, random_features(16), dim=16)
    with pytest.raises(ConfigError, match="has no positive row among"):
        train(config_for(store / "shards", tmp_path / "run", label=LABEL))
