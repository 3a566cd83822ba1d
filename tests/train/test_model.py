import numpy as np
import pytest
import torch

from train import HeadConfig
from train.model import ScoreModel
from train.moments import Standardiser
from train.training.optimiser import l2_term, learning_rate

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


def test_the_learning_rate_warms_up_and_falls_to_nearly_nothing():
    rates = [learning_rate(step, 1000, peak=2.0) for step in range(1000)]
    assert rates[0] == pytest.approx(2.0 / 50)
    assert max(rates) == rates[50] == 2.0
    assert rates[-1] < 1e-4
    assert all(rate > 0 for rate in rates)
    assert learning_rate(0, 1, peak=2.0) == 2.0


def test_the_l2_term_adds_l2_times_each_weight_to_its_gradient_and_nothing_to_a_bias():
    for head in (LINEAR, HeadConfig("mlp", hidden=5)):
        model = ScoreModel.new(head, some_standardiser(), pos_weight=1.0, bias=-2.0, seed=3)
        torch.nn.init.normal_(model.head.first.weight)
        weights = [value for value in model.parameters() if value.ndim == 2]
        term = l2_term(model, 0.3)
        squares = sum(float(value.detach().double().square().sum()) for value in weights)
        assert term.item() == pytest.approx(0.15 * squares, rel=1e-6)
        term.backward()
        for value in model.parameters():
            if value.ndim == 2:
                assert value.grad is not None
                assert torch.allclose(value.grad, 0.3 * value, rtol=1e-6)
            else:
                assert value.grad is None
