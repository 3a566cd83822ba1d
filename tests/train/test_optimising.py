"""Schedules, clipping, averages and bf16, each against its definition, and resumed to the bit."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from laughstore.errors import ConfigError, CorruptData
from train import HeadConfig, TrainConfig, TrainResult, evaluate, train
from train.distributed.gradients import Gradients
from train.distributed.ranks import Ranks
from train.model import ScoreModel
from train.moments import Standardiser
from train.optimiser_config import OptimiserConfig
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.training.ema import Average
from train.training.optimiser import learning_rate
from train.training.plateau import Plateau

from .conftest import config_for
from .processes import on_ranks
from .test_resume import STEPS_AN_EPOCH, Press, assert_same, short, told, weights

EVERYTHING = OptimiserConfig(
    schedule="plateau",
    plateau_epochs=1,
    plateau_factor=0.5,
    clip=0.05,
    ema=0.9,
    autocast="bf16",
    l2=1e-3,
)


CHANGES = {"lr": 50.0, "epochs": 4, "patience": 4}
"""Steps so large that a validation gets worse, and a plateau falls."""


@pytest.fixture(scope="module")
def plain(planted_shards, tmp_path_factory) -> TrainResult:
    return train(short(planted_shards, tmp_path_factory.mktemp("plain") / "run", **CHANGES))


@pytest.mark.parametrize(
    "how",
    [
        OptimiserConfig("plateau", plateau_epochs=1),
        OptimiserConfig(clip=0.05),
        OptimiserConfig(ema=0.9),
        OptimiserConfig(autocast="bf16"),
        EVERYTHING,
    ],
    ids=["plateau", "clip", "ema", "bf16", "all"],
)
def test_a_stopped_run_ends_as_one_that_nobody_disturbed(how, planted_shards, tmp_path, plain):
    changes = CHANGES | {"optimiser": how}
    whole = train(short(planted_shards, tmp_path / "whole", **changes))
    assert weights(whole.run) != weights(plain.run)
    last = load_checkpoint(checkpoint_path(whole.run / "checkpoints", "last"))
    assert how.schedule == "cosine" or last.state["plateau"]["drops"] > 0
    config = short(planted_shards, tmp_path / "run", **changes)
    for press in (Press(4), Press(0, phase="validate"), Press(3 * STEPS_AN_EPOCH + 1)):
        with pytest.raises(KeyboardInterrupt):
            train(config, resume=True, progress=press)
    assert_same(train(config, resume=True), whole)


def rates(run: Path) -> list[tuple[int, float]]:
    """(epoch, learning rate) of the lines of a log behind the warm-up."""
    lines = [line for line in told(run) if line["kind"] == "train" and line["step"] > 10]
    return [(line["epoch"], line["lr"]) for line in lines]


def test_the_learning_rate_falls_when_validation_gets_no_better(planted_shards, tmp_path):
    how = OptimiserConfig("plateau", plateau_epochs=2, plateau_factor=0.25)
    # So small that no epoch is better than the first.
    config = short(planted_shards, tmp_path / "run", optimiser=how, lr=1e-12, epochs=6)
    train(config)
    expected = [1, 1, 1, 1 / 4, 1 / 4, 1 / 16]
    for epoch, rate in rates(config.out):
        assert rate == pytest.approx(1e-12 * expected[epoch], rel=1e-9)
    state = load_checkpoint(checkpoint_path(config.out / "checkpoints", "last")).state
    assert state["plateau"] == {"drops": 2, "waited": 1}


def test_a_better_epoch_begins_the_wait_anew():
    plateau = Plateau()
    seen = []
    for is_best in (True, False, True, False, False, False, False, True, False):
        plateau.count(is_best=is_best, epochs=2)
        seen.append((plateau.drops, plateau.waited))
    assert seen == [(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 0), (2, 1)]


def test_a_plateau_warms_up_and_stays():
    how = OptimiserConfig("plateau", plateau_factor=0.5)
    found = [learning_rate(step, 1000, peak=2.0, config=how) for step in range(1000)]
    warm_up = [learning_rate(step, 1000, peak=2.0) for step in range(50)]
    assert found == warm_up + [2.0] * 950
    assert learning_rate(999, 1000, peak=2.0, config=how, drops=3) == 0.25


def test_all_ranks_lower_the_learning_rate_together(planted_shards, tmp_path):
    how = replace(EVERYTHING, plateau_factor=0.25)
    config = short(planted_shards, tmp_path / "run", optimiser=how, lr=1e-12, epochs=3)

    def work(place):
        torch.set_num_threads(1)
        return train(config, place=place).best.to_json()

    first, second = on_ranks(2, work)
    assert first.result() == second.result()
    assert {round(rate / 1e-12, 9) for _, rate in rates(config.out)} == {1, 0.25}


def test_gradients_are_shortened_and_never_made_longer():
    values = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))]
    gradients = Gradients(values, Ranks())
    slopes = [torch.tensor([3.0, 0.0, 0.0]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])]
    for norm, factor in ((10.0, 1.0), (5.0, 1.0), (1.0, 0.2)):
        loss = sum((value * slope).sum() for value, slope in zip(values, slopes, strict=True))
        assert isinstance(loss, torch.Tensor)
        assert gradients.of(loss + 7, 1) == 7
        gradients.clip(norm)
        for value, slope in zip(values, slopes, strict=True):
            assert value.grad is not None
            assert torch.allclose(value.grad, factor * slope)
    # Whose squares are no float32.
    gradients.of((values[0] * 1e30).sum(), 1)
    gradients.clip(3**0.5)
    assert values[0].grad is not None
    assert values[0].grad.tolist() == pytest.approx([1, 1, 1])


def a_model(dim: int = 3) -> ScoreModel:
    standardiser = Standardiser.none(dim)
    return ScoreModel.new(HeadConfig(), standardiser, pos_weight=1.0, bias=-2.0)


def test_the_average_is_the_mean_that_its_definition_gives():
    model = a_model()
    average = Average(model, 0.9)
    weight, expected = model.head.first.weight, np.zeros(3)
    rng = np.random.default_rng(0)
    for step in range(1, 200):
        drawn = rng.standard_normal(3)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(drawn))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * drawn
        assert np.allclose(average.model.head.first.weight.numpy(force=True), expected, atol=1e-6)
        assert np.allclose(weight.numpy(force=True), drawn)


@pytest.mark.slow
def test_the_average_is_what_is_validated_kept_and_scored_with(planted_shards, tmp_path):
    how = OptimiserConfig(ema=0.99)
    config = short(planted_shards, tmp_path / "run", optimiser=how, lr=0.3)
    result = train(config)
    best = load_checkpoint(checkpoint_path(config.out / "checkpoints", "best"))
    stepped = best.optimiser["stepped.head.first.weight"]
    assert not torch.allclose(stepped, best.model["head.first.weight"])
    assert evaluate(config.out, device="cpu", timelines=0).metrics == result.best
    # The same steps without it end where the average's weights behind it are.
    plain = short(planted_shards, tmp_path / "plain", optimiser=OptimiserConfig(), lr=0.3)
    train(plain)
    last = [
        load_checkpoint(checkpoint_path(c.out / "checkpoints", "last")) for c in (config, plain)
    ]
    assert torch.equal(
        last[0].optimiser["stepped.head.first.weight"], last[1].model["head.first.weight"]
    )
    assert "stepped.head.first.weight" not in last[1].optimiser


def test_a_checkpoint_without_the_weights_behind_the_average_is_refused():
    model = a_model()
    average = Average(model, 0.5)
    tensors = average.stepped()
    assert average.resume({**tensors, "0.step": torch.zeros(())}).keys() == {"0.step"}
    tensors.popitem()
    with pytest.raises(ValueError, match=r"the weights head\.\S+ behind the average"):
        average.resume(tensors)


@pytest.mark.parametrize("head", [HeadConfig(), HeadConfig("mlp", hidden=32)], ids=str)
def test_bf16_answers_are_near_those_of_float32_whatever_the_offset_of_channels(head):
    rng = np.random.default_rng(3)
    mean, std = 300 * rng.standard_normal(256), np.exp(rng.standard_normal(256))
    standardiser = Standardiser(mean.astype(np.float32), (1 / std).astype(np.float32))
    model = ScoreModel.new(head, standardiser, pos_weight=1.0, bias=-6.5, seed=1)
    with torch.no_grad():
        for value in model.head.parameters():
            if value.ndim > 1:
                value += torch.randn(value.shape, generator=torch.manual_seed(5)) / 16
    x = torch.from_numpy(mean + std * rng.standard_normal((512, 256))).bfloat16()
    exact, found = model(x), model(x, bf16=True)
    assert found.dtype == torch.float32
    error = (found - exact).detach()
    assert 0 < float(error.abs().max()) < 0.05 * float(exact.detach().std())
    slopes = []
    for answers in (exact, found):
        model.zero_grad()
        answers.square().mean().backward()
        slopes.append(model.head.first.weight.grad)
    assert torch.nn.functional.cosine_similarity(*(s.flatten() for s in slopes), dim=0) > 0.999


def test_bf16_learns_as_well(planted_shards, trained, tmp_path):
    _, result, _ = trained
    how = OptimiserConfig(autocast="bf16")
    found = train(config_for(planted_shards, tmp_path / "run", optimiser=how)).best
    assert found.average_precision == pytest.approx(result.best.average_precision, abs=0.01)
    assert found.average_precision != result.best.average_precision


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"l2": -1.0}, "l2 is -1.0; it must be at least 0 and finite"),
        ({"l2": math.nan}, "l2 is nan"),
        ({"clip": 0.0}, "clip is 0.0; a number must be above 0 and finite"),
        ({"clip": math.inf}, "clip is inf"),
        ({"clip": "on"}, "clip is 'on'; it must be off or a number"),
        ({"ema": 1.0}, "ema is 1.0; a number must be between 0 and 1"),
        ({"ema": math.nan}, "ema is nan"),
        ({"autocast": "fp16"}, "autocast is 'fp16'"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"plateau_epochs": 2}, r"plateau_epochs is 2: schedule cosine has none.*plateau"),
        ({"schedule": "plateau", "plateau_epochs": 0}, "plateau_epochs is 0"),
        ({"schedule": "plateau", "plateau_factor": 1.0}, "plateau_factor is 1.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        OptimiserConfig(**changes)


def test_a_plateau_that_never_falls_is_refused():
    how = OptimiserConfig("plateau", plateau_epochs=4)
    with pytest.raises(ConfigError, match=r"plateau_epochs is 4; it must be below patience \(4\)"):
        config_for(Path("s"), Path("o"), optimiser=how, patience=4)


def test_settings_survive_json_and_are_told():
    config = config_for(Path("s"), Path("o"), optimiser=EVERYTHING)
    again = TrainConfig.from_json(json.loads(json.dumps(config.to_json())), where="here")
    assert again.optimiser == EVERYTHING
    assert config.describe_steps() == (
        "AdamW, lr 0.02, weight decay 0.01, schedule times 0.5 after 1 epoch no better, gradients"
        " clipped to norm 0.05, average of weights, decay 0.9, first layer in bf16,"
        " L2 term 0.001"
    )
    usual = config_for(Path("s"), Path("o"))
    assert usual.describe_steps() == (
        "AdamW, lr 0.02, weight decay 0.01, schedule cosine, gradients as they are, no average of"
        " weights, float32"
    )
    with pytest.raises(CorruptData, match="here"):
        TrainConfig.from_json(config.to_json() | {"clip": -1}, where="here")
