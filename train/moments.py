"""Mean and spread of every channel, so that inputs can be standardised.

Kept as (n, mean, M2) of each stream, M2 the sum of squared deviations, and merged over exactly the
streams trained on: another fold costs no pass over the features and leaks nothing into it.
Arithmetic alone: the pass over frames is `train.statistics`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_DEAD_BELOW = 1e-3
"""Channels that spread less than this share of the median channel are dropped."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of some rows."""

    n: int
    mean: NDArray[np.float64]
    """f8[D]."""
    m2: NDArray[np.float64]
    """f8[D]."""

    @property
    def finite(self) -> bool:
        """Whether every number is."""
        return bool(np.isfinite(self.mean).all() and np.isfinite(self.m2).all())

    @classmethod
    def none(cls, dim: int) -> "Moments":
        """Return the moments of no rows."""
        return cls(0, np.zeros(dim), np.zeros(dim))

    @classmethod
    def of(cls, x: Tensor) -> "Moments":
        """Return the moments of the rows of bf16[n, D], n >= 1.

        Sums are of float32 deviations from the float32 mean; what that mean misses is put right
        in float64 (Chan, Golub and LeVeque 1983, eq. 1.7).
        """
        rows = x.float()
        centre = rows.mean(dim=0)
        rows -= centre
        missed = rows.sum(dim=0).double()
        m2 = rows.square_().sum(dim=0).double() - missed.square() / len(x)
        mean = centre.double() + missed / len(x)
        return cls(len(x), mean.numpy(), m2.clamp_(min=0).numpy())

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of rows together (Chan et al. 1983)."""
        n = self.n + other.n
        if not n:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Moments(n, mean, self.m2 + other.m2 + delta**2 * (self.n * other.n / n))


@dataclass(frozen=True)
class Standardiser:
    """What makes each channel of the training rows have mean 0 and standard deviation 1."""

    mean: NDArray[np.float32]
    """f4[D]."""
    inverse_std: NDArray[np.float32]
    """f4[D], finite; 0 for channels that are dropped."""

    @classmethod
    def none(cls, dim: int) -> "Standardiser":
        """Return the one that changes nothing."""
        return cls(np.zeros(dim, np.float32), np.ones(dim, np.float32))

    @classmethod
    def of(cls, moments: Moments) -> "Standardiser":
        """Return the standardiser of these rows.

        A channel that hardly moves in them (less than a thousandth of the median moving channel)
        says nothing about them, and its scale is unknown: where it moves in other rows, dividing by
        its spread would drown all other channels. It is dropped.
        """
        std = np.sqrt(moments.m2 / max(moments.n, 1))
        moving = std[std > 0]
        floor = _DEAD_BELOW * float(np.median(moving)) if len(moving) else np.inf
        kept = std >= max(floor, float(np.finfo(np.float32).tiny))  # so that 1 / std is finite
        inverse = np.divide(1.0, std, out=np.zeros_like(std), where=kept)
        return cls(moments.mean.astype(np.float32), inverse.astype(np.float32))


def merged(moments: Iterable[Moments], dim: int) -> Moments:
    """Return the moments of all rows together."""
    total = Moments.none(dim)
    for item in moments:
        total = total.merge(item)
    return total
