"""A row's score is the same bits, however many rows are given with it."""

import numpy as np
import pytest
import torch

from laughstore.errors import ConfigError
from laughstore.timebase import Span
from tests.stores import bf16_bits
from train import HeadConfig
from train.model import ScoreModel
from train.moments import Standardiser
from train.scoring.call_scorer import CallScorer, one_answer
from train.scoring.stream_scorer import StreamScorer, rows_of_call

DIM = 64
HEADS = {
    "linear": HeadConfig(),
    "mlp": HeadConfig("mlp", hidden=96),
    "temporal": HeadConfig("temporal", context=Span("37f"), channels=24),
}


@pytest.fixture(params=HEADS)
def model(request: pytest.FixtureRequest) -> ScoreModel:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(0, 3, DIM), np.exp(rng.normal(0, 1, DIM))
    standardiser = Standardiser(mean.astype(np.float32), (1 / std).astype(np.float32))
    found = ScoreModel.new(HEADS[request.param], standardiser, pos_weight=2.0, bias=-1.0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in found.head.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    return found.eval()


def frames(num_frames: int) -> np.ndarray:
    """u2[n, D]."""
    return bf16_bits(np.random.default_rng(2).normal(0, 5, (num_frames, DIM)))


@pytest.mark.parametrize("call_frames", [1, 7, 16, 128, 500])
def test_scores_are_the_same_bits_in_calls_of_any_length(model, call_frames):
    features = frames(333)
    x = torch.from_numpy(features.view(np.int16)).view(torch.bfloat16)
    filling = torch.zeros(rows_of_call(len(x)) - len(x), DIM, dtype=torch.bfloat16)
    whole = StreamScorer(model).score(torch.cat([x, filling]), kept=len(x)).numpy()
    assert len(np.unique(whole)) > 300
    scorer = CallScorer(model, call_frames)
    parts = []
    for start in range(0, len(features), call_frames):
        part = features[start : start + call_frames]
        # What is asked early, of a part of the call, changes nothing.
        early = scorer.fork().score(part[: len(part) // 2])
        parts.append(scorer.score(part))
        np.testing.assert_array_equal(early, parts[-1][: len(early)])
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_calls_may_be_short_anywhere(model):
    """As where a recording's features begin anew."""
    features = frames(100)
    scorer, other = CallScorer(model, 64), CallScorer(model, 64)
    cuts = np.split(features, [3, 40, 41, 99])
    found = np.concatenate([scorer.score(part) for part in cuts])
    expected = np.concatenate([other.score(features[:64]), other.score(features[64:])])
    np.testing.assert_array_equal(found, expected)


def test_scores_that_are_not_finite_are_no_answer(model):
    features = frames(4)
    features[2] = bf16_bits(np.full(DIM, np.nan))
    with pytest.raises(ConfigError, match="training it diverged"):
        CallScorer(model, 8).score(features)


def test_two_assignments_have_one_answer_as_in_an_evaluation():
    a, b = np.array([0.1, 0.7], np.float32), np.array([0.2, 0.1], np.float32)
    np.testing.assert_array_equal(one_answer([a]), a)
    expected = ((a.astype(np.float64) + b) / 2).astype(np.float32)
    np.testing.assert_array_equal(one_answer([a, b]), expected)
