import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from train.evaluation.calibration import ReliabilityBins, brier_score, log_loss


@given(seed=st.integers(0, 999), count=st.integers(2, 300))
@settings(max_examples=50, deadline=None)
def test_brier_and_log_loss_are_those_of_scikit_learn(seed, count):
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.001, 0.999, count).astype(np.float32)
    positive = rng.random(count) < p
    assert brier_score(positive, p) == pytest.approx(brier_score_loss(positive, p), rel=1e-6)
    expected = sklearn_log_loss(positive, p.astype(np.float64), labels=[False, True])
    assert log_loss(positive, p) == pytest.approx(expected, rel=1e-6)


def test_a_sure_error_costs_sixteen_nats():
    p = np.array([0, 1], np.float32)
    assert log_loss(np.array([True, False]), p) == pytest.approx(-np.log(1e-7), rel=1e-4)
    assert log_loss(np.array([False, True]), p) < 1e-6


def test_bins_hold_equally_many_rows_and_the_error_is_their_mean():
    p = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], np.float32)
    positive = np.array([0, 0, 1, 0, 0, 1, 1, 1], bool)
    bins = ReliabilityBins.of(positive, p, num_bins=2)
    assert bins.count.tolist() == [4, 4]
    np.testing.assert_allclose(bins.said, [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(bins.came, [0.25, 0.75])
    assert bins.expected_error == pytest.approx(0, abs=1e-6)
    worse = ReliabilityBins.of(positive, np.full(8, 0.9, np.float32), num_bins=2)
    assert worse.expected_error == pytest.approx(0.4)


@given(seed=st.integers(0, 999), count=st.integers(1, 200), levels=st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_the_order_of_rows_changes_nothing(seed, count, levels):
    rng = np.random.default_rng(seed)
    p = (rng.integers(0, levels, count) / levels).astype(np.float32)
    positive = rng.random(count) < 0.3
    shuffled = rng.permutation(count)
    error = ReliabilityBins.of(positive, p).expected_error
    assert ReliabilityBins.of(positive[shuffled], p[shuffled]).expected_error == pytest.approx(
        error, abs=1e-12
    )
    assert 0 <= error <= 1
    assert ReliabilityBins.of(positive, p).count.sum() == count


def test_a_rare_class_of_a_constant_head_is_not_called_calibrated():
    positive = np.zeros(10_000, bool)
    positive[:40] = True
    p = np.where(positive, 0.001, 0.004).astype(np.float32)
    assert ReliabilityBins.of(positive, p).expected_error > 0.003
