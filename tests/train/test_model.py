import math

import numpy as np
import pytest
import torch

from laughstore.errors import ConfigError
from train.config import HeadConfig, LossConfig
from train.losses import bce_loss, pos_weight, prior_bias
from train.model import ScoreModel
from train.moments import Standardiser
from train.optimiser import learning_rate

LINEAR = HeadConfig()


def some_standardiser(dim: int = 6) -> Standardiser:
    rng = np.random.default_rng(0)
    return Standardiser(
        (100 * rng.standard_normal(dim)).astype(np.float32),
        np.exp(rng.standard_normal(dim)).astype(np.float32),
    )


def test_standardising_is_folded_into_the_first_layer():
    standardiser = some_standardiser()
    model = ScoreModel.new(LINEAR, standardiser, pos_weight=1.0, bias=-2.0)
    with torch.no_grad():
        model.head.first.weight.copy_(torch.linspace(-1, 1, 6))
    x = (torch.randn(50, 6) * 3 + torch.from_numpy(standardiser.mean)).bfloat16()
    standard = (x.double().numpy() - standardiser.mean) * standardiser.inverse_std
    expected = standard @ np.linspace(-1, 1, 6) - 2.0
    assert model(x).detach().numpy() == pytest.approx(expected, abs=1e-3)
    assert model(x).dtype == torch.float32


def test_an_untrained_head_answers_the_rate_of_positives_whatever_their_weight():
    for weight in (1.0, 7.5):
        bias = prior_bias(weight, positives=30, negatives=970)
        model = ScoreModel.new(LINEAR, some_standardiser(), pos_weight=weight, bias=bias)
        x = torch.randn(9, 6).bfloat16()
        assert model.probability(x).tolist() == pytest.approx([0.03] * 9, rel=1e-5)


def test_the_prior_bias_is_where_the_loss_of_a_constant_logit_is_least():
    y = torch.tensor([1.0] * 3 + [0.0] * 17)
    weight, real = 4.0, torch.ones(20)

    def loss(bias: float) -> float:
        logit = torch.full((20,), bias)
        return float(bce_loss(logit, y, real, pos_weight=weight, num_real=20, world_size=1))

    best = prior_bias(weight, positives=3, negatives=17)
    assert loss(best) < min(loss(best - 0.05), loss(best + 0.05))


def test_pad_rows_and_the_number_of_ranks_do_not_change_the_mean_gradient():
    logit = torch.randn(8, requires_grad=True)
    y = (torch.rand(8) < 0.5).float()
    weight = torch.tensor([1.0] * 6 + [0.0] * 2)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logit[:6], y[:6])
    (whole,) = torch.autograd.grad(plain, logit)
    ranks = [
        bce_loss(logit[part], y[part], weight[part], pos_weight=1.0, num_real=6, world_size=2)
        for part in (slice(0, 4), slice(4, 8))
    ]
    (shared,) = torch.autograd.grad((ranks[0] + ranks[1]) / 2, logit)
    assert torch.allclose(whole, shared, atol=1e-7)


def test_weights_of_positive_rows():
    counts = {"positives": 20, "negatives": 180}
    assert pos_weight(LossConfig(), **counts) == 1.0
    assert pos_weight(LossConfig(pos_weight="auto"), **counts) == 9.0
    assert pos_weight(LossConfig(pos_weight=2.5), **counts) == 2.5
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="pos_weight"):
            LossConfig(pos_weight=bad)


def test_the_learning_rate_warms_up_and_falls_to_nearly_nothing():
    rates = [learning_rate(step, 1000, peak=2.0) for step in range(1000)]
    assert rates[0] == pytest.approx(2.0 / 50)
    assert max(rates) == rates[50] == 2.0
    assert rates[-1] < 1e-4
    assert all(rate > 0 for rate in rates)
    assert learning_rate(0, 1, peak=2.0) == 2.0
