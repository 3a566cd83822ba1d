"""What average precision comes to by chance: the same scores and labels, moved against each other.

Labels and scores of a recording both change slowly, so rows are not draws, and lift over the base
rate is no test. Rotating the labels of each stream by a random time keeps how both hang together
with themselves, and how each stream differs from the others; it breaks what one tells of the other.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError
from laughstore.labels import LabelSpec

from ..losses import target_kind
from ..scoring.ranking import Ranking
from ..scoring.score import StreamScores

logger = logging.getLogger(__name__)

MIN_SHIFT: Final = 125
"""Rows, 10 s: labels are moved by no less, to either side."""
NULL_DRAWS: Final = 200
_CENTRAL: Final = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class ShiftNull:
    """Average precision of scores, beside that of their labels rotated against them."""

    average_precision: float
    """Of the streams that are long enough."""
    null: NDArray[np.float64]
    """f8[draws]."""
    num_streams: int
    num_short: int
    """Streams that are left out: they are too short to be rotated."""

    @property
    def p(self) -> float:
        """Chance of such an average precision, or a higher one, if scores tell nothing."""
        reached = np.count_nonzero(self.null >= self.average_precision)
        return (1 + int(reached)) / (1 + len(self.null))

    @property
    def central(self) -> tuple[float, float]:
        """Where 95 % of the rotated ones lie."""
        low, high = np.percentile(self.null, _CENTRAL)
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object of finite numbers."""
        return {
            "average_precision": self.average_precision,
            "null_mean": float(self.null.mean()),
            "null_95": list(self.central),
            "p": self.p,
            "draws": len(self.null),
            "streams": self.num_streams,
            "short_streams": self.num_short,
        }


def shift_null(
    streams: Sequence[StreamScores], *, draws: int = NULL_DRAWS, seed: int = 0
) -> ShiftNull:
    """Rotate the labels and ignored rows of each stream by a random number of rows, many times.

    Args:
        streams: with the scores of ignored rows, too (`score_streams(ignored_too=True)`): rotated,
            they fall on rows that count. A row is positive where its target is above 0.
        draws: rotations of all streams together; no more than there are different ones.
        seed: of the draws.

    Raises:
        ConfigError: all streams are shorter than twice MIN_SHIFT, or hold no positive row, or can
            be rotated in fewer ways than `draws`.
    """
    if draws < 1:
        raise ConfigError(f"draws is {draws}; it must be at least 1")
    kept = [stream for stream in streams if len(stream.row) >= 2 * MIN_SHIFT]
    if not kept:
        raise ConfigError(
            f"no stream has {2 * MIN_SHIFT} rows: labels cannot be rotated by {MIN_SHIFT}; score"
            " longer recordings"
        )
    ranking = Ranking(np.concatenate([stream.score for stream in kept]))
    positive = [stream.y > 0 for stream in kept]
    eligible = [stream.eligible for stream in kept]
    if not any((is_one & counts).any() for is_one, counts in zip(positive, eligible, strict=True)):
        raise ConfigError("no row is positive: there is nothing to rotate")
    # The same few rotations, drawn again and again, would make p as small as that of many.
    ways = math.prod(len(stream.row) - 2 * MIN_SHIFT + 1 for stream in kept)
    if ways < draws:
        raise ConfigError(
            f"the labels of {len(kept)} streams can be rotated in {ways} ways, fewer than the"
            f" {draws} draws; score longer recordings, or more of them"
        )
    rng = np.random.Generator(np.random.Philox(seed))
    null = np.empty(draws)
    for draw in range(draws):
        shifts = [int(rng.integers(MIN_SHIFT, len(item) - MIN_SHIFT + 1)) for item in positive]
        null[draw] = ranking.average_precision(
            _rotated(positive, shifts), _rotated(eligible, shifts)
        )
    observed = ranking.average_precision(np.concatenate(positive), np.concatenate(eligible))
    return ShiftNull(observed, null, len(kept), len(streams) - len(kept))


def null_of(
    streams: Sequence[StreamScores], label: LabelSpec, *, draws: int = NULL_DRAWS
) -> ShiftNull | None:
    """Return the null of an evaluation, or None: of numbers, without draws, or where there is none.

    Args:
        streams: as `shift_null`; the log says why these have none.
        label: of their targets.
        draws: rotations.
    """
    if not draws or target_kind(label) != "classes":
        return None
    try:
        return shift_null(streams, draws=draws)
    except ConfigError as error:
        logger.warning("no circular-shift null: %s", error)
        return None


def _rotated(values: Sequence[NDArray[np.bool_]], shifts: Sequence[int]) -> NDArray[np.bool_]:
    """Return bool[N]: each array rotated by its shift, one behind the other."""
    return np.concatenate(
        [np.roll(item, shift) for item, shift in zip(values, shifts, strict=True)]
    )
