"""One number that makes scores surer or less sure: fitted on validation, the order stays.

Guo et al., "On calibration of modern neural networks" (ICML 2017): the logit is divided by T, T
having the least log-loss. Thresholds and all other numbers are of scores as they are; a temperature
is applied only where it is said.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from .calibration import Calibration

_CLIP: Final = 1e-7
"""As of log-loss: scores are taken to be no closer to 0 and 1."""
_LARGEST: Final = 100.0
"""Temperatures lie between this and one over this."""
_STEPS: Final = 60
"""Halvings of the range: to the last digit of a float."""


@dataclass(frozen=True)
class Temperature:
    """T, and why there is none."""

    value: float | None
    """Above 1: the scores were too sure. None: none was fitted."""
    reason: str | None = None

    def __post_init__(self) -> None:
        assert (self.value is None) == (self.reason is not None), "one of both"

    @classmethod
    def fit(cls, positive: NDArray[np.bool_], score: NDArray[np.float32]) -> Self:
        """Return the temperature with the least log-loss of N rows of validation.

        Args:
            positive: bool[N].
            score: f4[N], 0 to 1.
        """
        if not len(score):
            return cls(None, "validation has no rows that count")
        if positive.all() or not positive.any():
            return cls(
                None, f"validation has no {'negative' if positive.all() else 'positive'} rows"
            )
        logit = _logit(score)

        def slope(coolness: float) -> float:
            """Of the mean log-loss by 1 / T: it only rises."""
            return float((logit * (expit(coolness * logit) - positive)).mean())

        low, high = 1 / _LARGEST, _LARGEST
        if slope(low) >= 0:
            return cls(None, f"on validation T would be above {_LARGEST:g}: scores tell nothing")
        if slope(high) <= 0:
            return cls(None, f"on validation T would be below 1/{_LARGEST:g}: scores never err")
        for _ in range(_STEPS):
            middle = float(np.sqrt(low * high))
            low, high = (low, middle) if slope(middle) > 0 else (middle, high)
        return cls(float(1 / np.sqrt(low * high)))

    def applied(self, score: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores at this temperature, f4[N] of f4[N]. There must be one."""
        assert self.value is not None, "nothing was fitted"
        return expit(_logit(score) / self.value).astype(np.float32)

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {"value": self.value, "reason": self.reason}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:  # Any: JSON values
        """Return what `to_json` wrote. Raises KeyError when it did not."""
        return cls(data["value"], data["reason"])


@dataclass(frozen=True, eq=False)
class Tempered:
    """What scores come to as probabilities at a temperature."""

    temperature: Temperature
    calibration: Calibration | None
    """None without a temperature."""

    @classmethod
    def of(
        cls,
        temperature: Temperature,
        positive: NDArray[np.bool_],
        score: NDArray[np.float32],
    ) -> Self:
        """Return this of N rows (bool[N], f4[N]), one or more."""
        if temperature.value is None:
            return cls(temperature, None)
        return cls(temperature, Calibration.of(positive, temperature.applied(score)))

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers and nulls."""
        found = {} if self.calibration is None else self.calibration.to_json()
        value, reason = self.temperature.value, self.temperature.reason
        return {"temperature": value, "reason": reason, "fitted_on": "validation", **found}


def _logit(score: NDArray[np.float32]) -> NDArray[np.float64]:
    p = np.clip(score.astype(np.float64), _CLIP, 1 - _CLIP)
    return np.log(p) - np.log1p(-p)
