"""Which spots are wanted. No torch here: `laughstore spots --help` reads this module.

The attributes' docstrings are the help of the command line.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Final

from laughstore.errors import ConfigError
from laughstore.index import Index
from laughstore.timebase import Span

from ..runs.folds import TRAIN_SPLIT, VALIDATION_SPLIT

ALL: Final = "all"
MAX_COUNT: Final = 10_000
_USUAL_SPLITS: Final = (TRAIN_SPLIT, VALIDATION_SPLIT)
_MIN_DISTANCE: Final = Span("0.5s")


@dataclass(frozen=True)
class SpotSearch:
    """Which spots are wanted.

    Raises:
        ConfigError: a field cannot work.
    """

    split: str = ",".join(_USUAL_SPLITS)
    """Splits to search, with commas between, or all. Corrections of test that were found by a model
    favour it when test is scored."""
    count: int = 100
    """Most spots."""
    per_recording: int | None = None
    """Most spots of one recording (default: any number)."""
    min_distance: Span = _MIN_DISTANCE
    """No spot is nearer to an annotated event of the class."""
    threshold: float | None = None
    """Scores from which on there is a spot (default: the threshold that validation chose)."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise ConfigError(f"count is {self.count}; it must be 1 to {MAX_COUNT:,}")
        if self.per_recording is not None and self.per_recording < 1:
            raise ConfigError(f"per_recording is {self.per_recording}; it must be at least 1")
        if self.min_distance.us < 0:
            raise ConfigError(f"min_distance {self.min_distance}: it must be 0 or more")
        if self.threshold is not None and not isfinite(self.threshold):
            raise ConfigError(f"threshold is {self.threshold}; it must be a finite number")
        if not self.names or any(not name for name in self.names):
            raise ConfigError(f"split {self.split!r}: write names of splits with commas, or {ALL}")

    @property
    def names(self) -> tuple[str, ...]:
        """The splits, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.split.split(",")))

    def splits_of(self, index: Index) -> tuple[str, ...]:
        """Return the splits of an index that are meant.

        Raises:
            ConfigError: there is no such split.
        """
        if self.names == (ALL,):
            return index.splits
        names = self.names
        if names == _USUAL_SPLITS:  # not every store has both
            names = tuple(name for name in names if name in index.splits) or names
        for name in names:
            index.check_split(name)
        return names
