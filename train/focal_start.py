"""Where a constant answer has the least focal loss: the bias of a head that knows nothing else."""

import math


def focal_start(positives: float, negatives: float, *, gamma: float) -> float:
    """Return the logit at which the focal loss of all rows together is least.

    Far from the log odds when gamma is above 0: at a rate of 0.4 % and the usual alpha and gamma it
    is -2.4, not -6.6, and a bias that begins there would need thousands of steps to come back.

    Args:
        positives: their number, times their weight; above 0.
        negatives: likewise.
        gamma: 0 or more.
    """
    low, high = -60.0, 60.0
    # The slope has one zero: the pull of negatives relative to that of positives rises with z.
    for _ in range(80):
        z = (low + high) / 2
        pull_up = positives * _slope(-z, gamma)
        pull_down = negatives * _slope(z, gamma)
        low, high = (z, high) if pull_up > pull_down else (low, z)
    return (low + high) / 2


def _slope(z: float, gamma: float) -> float:
    """Derivative by z of the loss of a negative row, p^gamma * -log(1 - p), p = sigmoid(z)."""
    p, log_other = 1 / (1 + math.exp(-z)), -_softplus(z)
    return p**gamma * (p - gamma * math.exp(log_other) * log_other)


def _softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))
