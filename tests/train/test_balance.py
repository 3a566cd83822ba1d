import json
import math
import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laughstore.cli.main import main
from laughstore.errors import ConfigError
from laughstore.index_file import read_index
from train import FrameStream, HeadConfig, LossConfig, TrainConfig, evaluate, permutation, train
from train.losses import EpochRows, make_loss
from train.model import ScoreModel
from train.moments import Standardiser
from train.permutation import BALANCE_PURPOSE, Permutations
from train.runs.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from train.runs.run import Run
from train.scoring.score import score_rows
from train.streaming.balance import balanced_rows
from train.streaming.selection import select
from train.streaming.source import FrameSource

from .conftest import DIM, config_for

RATIOS = st.sampled_from([0.1, 0.29, 0.5, 1, 1.5, 3, 7.25, 1e9])


def slow_rows(positive: list[bool], ratio: float, seed: int, epoch: int) -> list[int]:
    """Balance as it is written down: a permutation of the negatives, and its first K."""
    negatives = [i for i, is_positive in enumerate(positive) if not is_positive]
    count = min(len(negatives), math.floor(Fraction(str(ratio)) * sum(positive)))
    order = Permutations((seed, epoch)).of(len(negatives), BALANCE_PURPOSE).tolist()
    chosen = {negatives[i] for i in order[:count]}
    return [i for i, is_positive in enumerate(positive) if is_positive or i in chosen]


@given(
    st.lists(st.booleans(), min_size=1, max_size=200).filter(any),
    RATIOS,
    st.integers(0, 2**64 - 1),
    st.integers(0, 9),
)
def test_rows_are_those_of_a_slow_reference(positive, ratio, seed, epoch):
    rows = balanced_rows(np.array(positive), ratio, seed=seed, epoch=epoch)
    assert rows.tolist() == slow_rows(positive, ratio, seed, epoch)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 99), st.sampled_from([7, 64, 1000]))
def test_the_first_of_a_permutation_are_found_without_making_it(count, size, seed, together):
    whole = Permutations((seed, 1)).of(count, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permutation, "_DRAWN_TOGETHER", together)
        found = Permutations((seed, 1)).first_of(count, min(size, count), 5)
    assert found.tolist() == sorted(whole[:size].tolist())


@pytest.mark.parametrize("size", [50_000, 500_000, 1_900_000])
def test_the_first_of_a_permutation_take_no_more_memory_than_all_or_three_times_their_own(size):
    count, spare = 2_000_000, 8 << 20
    tracemalloc.start()
    try:
        found = Permutations((0, 0)).first_of(count, size, BALANCE_PURPOSE)
        assert tracemalloc.get_traced_memory()[1] < min(2 * 8 * count, 3 * found.nbytes) + spare
        # What was room for more is not kept.
        assert tracemalloc.get_traced_memory()[0] < found.nbytes + (1 << 20)
    finally:
        tracemalloc.stop()


def test_a_ratio_is_taken_as_it_is_written():
    positive = np.arange(1000) < 100
    assert 0.29 * 100 < 29
    assert len(balanced_rows(positive, 0.29, seed=0, epoch=0)) == 100 + 29


def test_every_negative_comes_equally_often():
    positive = np.arange(50) < 10
    times = np.zeros(50, int)
    for epoch in range(400):
        times[balanced_rows(positive, 1, seed=3, epoch=epoch)] += 1
    assert (times[:10] == 400).all()
    assert abs(times[10:] - 100).max() < 45  # five standard deviations


@pytest.mark.parametrize("ratio", [0, -1, math.inf, math.nan])
def test_ratios_that_cannot_work_are_refused(ratio):
    with pytest.raises(ConfigError, match="balance is"):
        balanced_rows(np.array([True, False]), ratio, seed=0, epoch=0)


def test_no_positive_row_is_an_error():
    with pytest.raises(ConfigError, match="no row is positive"):
        balanced_rows(np.zeros(5, bool), 1, seed=0, epoch=0)


@pytest.mark.parametrize("mix", ["windows", "global"])
def test_a_balanced_stream_yields_all_positives_and_other_negatives_each_epoch(planted_shards, mix):
    settings: dict[str, Any] = {"global_batch": 96, "lanes": 12, "balance": 1.5, "mix": mix}
    with FrameStream(planted_shards, "train", **settings) as frames:
        selection = frames.selection
        positive = selection.targets > 0
        num_rows = int(positive.sum()) + math.floor(1.5 * positive.sum())
        negatives, steps = [], frames.num_steps
        for epoch in range(3):
            frames.set_epoch(epoch)
            assert frames.num_steps == len(frames) == steps
            batches = list(frames)
            assert len(batches) == steps
            assert sum(batch.num_real for batch in batches) == num_rows
            ids = np.concatenate([batch.frame.numpy() for batch in batches])
            y = np.concatenate([batch.y.numpy() for batch in batches])
            assert np.array_equal(np.sort(ids[y > 0]), selection.frames[positive])
            others = np.sort(ids[(ids >= 0) & (y == 0)])
            assert len(np.unique(others)) == len(others) == num_rows - positive.sum()
            assert np.isin(others, selection.frames[~positive]).all()
            negatives.append(others.tolist())
        assert negatives[0] != negatives[1] != negatives[2]


def test_only_the_training_split_is_balanced(planted_shards):
    with pytest.raises(ConfigError, match="only 'train' is balanced"):
        FrameStream(planted_shards, "validation", balance=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("weight", ["none", "auto"])
def test_a_balanced_run_keeps_scores_probabilities(planted_shards, tmp_path, weight):
    """The prior and the weight are of the rows of an epoch; scores are of the natural rate."""
    config = config_for(
        planted_shards,
        tmp_path / "run",
        balance=1.5,
        loss=LossConfig(pos_weight=weight),
        epochs=20,
    )
    train(config)
    index = read_index(planted_shards)
    selection = select(index, "train", config.label)
    positives, negatives = selection.counts.positives, selection.counts.negatives
    num_used = math.floor(1.5 * positives)
    assert num_used < negatives / 2  # else nothing is asked
    run = Run.open(config.out)
    assert run.about["counts"]["train"]["balanced_negatives"] == num_used
    assert "balanced_negatives" not in run.about["counts"]["validation"]
    assert run.config.balance_ratio == 1.5
    model = ScoreModel(config.head, DIM)
    best = load_checkpoint(checkpoint_path(run.checkpoints, "best"))
    model.load_state_dict(best.model)
    assert best.state["stream"]["fields"]["balance"] == 1.5
    assert model.log_balance.item() == pytest.approx(math.log(num_used / negatives))
    w = {"none": 1.0, "auto": num_used / positives}[weight]
    assert model.log_pos_weight.item() == pytest.approx(math.log(w), abs=1e-6)
    with FrameSource(index, "train") as source:
        probability = score_rows(model, selection, source)
        model.log_balance.zero_()
        uncorrected = score_rows(model, selection, source)
    base_rate = selection.counts.base_rate
    assert base_rate is not None
    # Weights fit a small data set less evenly; without the correction it is another rate.
    assert probability.mean() == pytest.approx(base_rate, rel=0.4)
    assert uncorrected.mean() > 2 * base_rate


def test_an_untrained_balanced_model_answers_with_the_natural_rate():
    rows = EpochRows(positives=20, negatives=30, all_negatives=980, mean_target=0.4)
    loss = make_loss(LossConfig("bce", pos_weight=5.0), rows)
    assert loss.start == pytest.approx(math.log(5 * 20 / 30))
    model = ScoreModel.new(
        HeadConfig(),
        Standardiser(np.zeros(3, np.float32), np.ones(3, np.float32)),
        pos_weight=loss.pos_weight,
        bias=loss.start,
        share_of_negatives=loss.share_of_negatives,
    )
    probability = model.score(torch.zeros(1, 3, dtype=torch.bfloat16))
    assert probability.item() == pytest.approx(0.02, rel=1e-5)


def test_another_balance_is_another_run(tmp_path):
    configs = [config_for(tmp_path, tmp_path / "run", balance=value) for value in ("off", 1.0, 2.0)]
    objects = [config.to_json() for config in configs]
    assert [item["balance"] for item in objects] == ["off", 1.0, 2.0]
    for config, item in zip(configs, objects, strict=True):
        again = TrainConfig.from_json(json.loads(json.dumps(item)), where="here")
        assert again.balance_ratio == config.balance_ratio
    del objects[0]["balance"]  # as runs from before there was balance
    assert TrainConfig.from_json(objects[0], where="here").balance_ratio is None


@pytest.mark.parametrize("balance", [0.0, -1.0, math.nan, "on"])
def test_a_run_refuses_a_balance_that_cannot_work(tmp_path, balance):
    with pytest.raises(ConfigError, match="balance is"):
        config_for(tmp_path, tmp_path / "run", balance=balance)


def test_a_balance_that_leaves_no_negative_is_refused(planted_shards, tmp_path):
    with pytest.raises(ConfigError, match="leaves no negative row"):
        train(config_for(planted_shards, tmp_path / "run", balance=1e-9))
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_a_balance(planted_shards, tmp_path, capsys):
    words = ["--global-batch", "512", "--lanes", "16", "--epochs", "1", "--device", "cpu", "-q"]
    command = ["train", "--shards", str(planted_shards), "--out", str(tmp_path / "run"), *words]
    for wrong in ("0", "-2", "nan", "many"):
        assert main([*command, f"--balance={wrong}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main([*command, "--balance", "2"]) == 0
    assert Run.open(tmp_path / "run").config.balance == 2
    assert main(["evaluate", str(tmp_path / "run"), "--timelines", "0", "-q"]) == 0


def test_runs_from_before_there_was_balance_are_scored(planted_shards, tmp_path):
    config = config_for(planted_shards, tmp_path / "run", epochs=1)
    best = train(config).best
    path = checkpoint_path(config.out / "checkpoints", "best")
    checkpoint = load_checkpoint(path)
    del checkpoint.model["log_balance"]
    older = save_checkpoint(tmp_path / "older", 1, checkpoint)
    assert evaluate(config.out, checkpoint=str(older), timelines=0, device="cpu").metrics == best
