import json

import numpy as np
import pytest

from train.metrics import frame_metrics


def test_metrics_of_a_case_worked_out_by_hand():
    # By falling score: + - + (tied with -) ; AP = 1/2 * 1 + 1/2 * 2/4
    y = np.array([1, 0, 1, 0], np.uint8)
    score = np.array([0.9, 0.8, 0.5, 0.5], np.float32)
    metrics = frame_metrics(y, score)
    assert metrics.base_rate == 0.5
    assert metrics.average_precision == pytest.approx(0.75)
    assert metrics.lift == pytest.approx(1.5)
    assert metrics.auroc == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert metrics.undefined is None


@pytest.mark.parametrize(
    ("y", "base_rate", "average_precision", "auroc", "reason"),
    [
        ([], None, None, None, "no rows"),
        ([0, 0], 0.0, None, None, "no positive rows"),
        ([1, 1], 1.0, 1.0, None, "no negative rows"),
    ],
)
def test_what_is_undefined_is_null_with_the_reason(y, base_rate, average_precision, auroc, reason):
    metrics = frame_metrics(np.array(y, np.uint8), np.linspace(0, 1, len(y), dtype=np.float32))
    assert metrics.base_rate == base_rate
    assert metrics.average_precision == average_precision
    assert metrics.auroc == auroc
    assert metrics.undefined == reason
    assert "NaN" not in json.dumps(metrics.to_json(), allow_nan=False)
