"""Cross-validation by group: which recordings are trained on and which choose the epoch.

Enters: an index, the number of folds, one of them, a seed. Leaves: an index of the same shards in
which the recordings of `train` and `validation` have changed sides. Other splits take no part. No
file is touched, and statistics of streams are kept whatever the fold.
"""

import hashlib
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from laughstore.errors import ConfigError, CorruptData
from laughstore.index import Index, Recording

logger = logging.getLogger(__name__)

TRAIN_SPLIT: Final = "train"
VALIDATION_SPLIT: Final = "validation"
_SIDES: Final = (TRAIN_SPLIT, VALIDATION_SPLIT)
_GROUPS_SHOWN: Final = 3


@dataclass(frozen=True)
class Fold:
    """The groups of each side of one fold."""

    train: frozenset[str]
    validation: frozenset[str]

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return {TRAIN_SPLIT: sorted(self.train), VALIDATION_SPLIT: sorted(self.validation)}

    @classmethod
    def from_json(cls, data: object, *, where: str) -> Self:
        """Return the fold that `to_json` wrote.

        Raises:
            CorruptData: it is not what `to_json` returns; the message begins with `where`.
        """
        sides = [data.get(side) if isinstance(data, dict) else None for side in _SIDES]
        train, validation = sides
        for groups in (train, validation):
            if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
                raise CorruptData(f"{where}: no lists of groups of a fold; restore the file")
        return cls(frozenset(train or ()), frozenset(validation or ()))


def check_folds(folds: int | None, fold: int | None) -> None:
    """Raise a ConfigError unless both are given and fit together, or neither is."""
    if folds is None and fold is None:
        return
    if folds is None or fold is None:
        raise ConfigError("folds and fold belong together: give both, such as --folds 5 --fold 0")
    if folds < 2:
        raise ConfigError(f"folds is {folds}; it must be at least 2")
    if not 0 <= fold < folds:
        raise ConfigError(f"fold is {fold}; the {folds} folds are numbered 0 to {folds - 1}")


def deal(recordings: Iterable[Recording], folds: int, *, seed: int) -> tuple[frozenset[str], ...]:
    """Return the groups of each fold.

    Groups are dealt in the order of a hash of (seed, group), each to the fold with the fewest
    frames so far; of equal ones to the first. So a group's fold depends on no order of recordings.

    Args:
        recordings: of all splits; those of `train` and `validation` count, each once.
        folds: how many.
        seed: of the order of groups.

    Raises:
        ConfigError: there are fewer groups than folds.
    """
    num_frames: dict[str, int] = {}
    for item in recordings:
        if item.split in _SIDES:
            num_frames[item.group] = num_frames.get(item.group, 0) + item.num_frames
    if len(num_frames) < folds:
        raise ConfigError(
            f"folds is {folds}, and there are {len(num_frames)} groups in the splits train and"
            " validation; a group is never divided: use fewer folds"
        )
    dealt: list[set[str]] = [set() for _ in range(folds)]
    frames = [0] * folds
    for group in sorted(num_frames, key=lambda group: (_place(seed, group), group)):
        lightest = min(range(folds), key=frames.__getitem__)
        dealt[lightest].add(group)
        frames[lightest] += num_frames[group]
    return tuple(frozenset(groups) for groups in dealt)


def choose_fold(index: Index, folds: int, fold: int, *, seed: int) -> Fold:
    """Return the sides of fold number `fold`: it is the validation, the others are trained on.

    Warns of groups that another split, such as test, has recordings of, too: what is learned of
    them in the folds is known there.

    Raises:
        ConfigError: as `check_folds` and `deal`.
    """
    check_folds(folds, fold)
    dealt = deal(index.recordings, folds, seed=seed)
    ours = frozenset[str]().union(*dealt)
    for split in index.splits:
        if split in _SIDES:
            continue
        shared = {item.group for item in index.recordings if item.split == split} & ours
        if shared:
            logger.warning(
                "%s of the folds: split %r has recordings of them, too, so its scores will be too"
                " good; give each group one split in the data set",
                shown_groups(shared),
                split,
            )
    train = frozenset[str]().union(*dealt) - dealt[fold]
    return Fold(train=train, validation=dealt[fold])


def shown_groups(groups: Collection[str]) -> str:
    """Return the number of groups and the first names, for messages."""
    names = ", ".join(map(repr, sorted(groups)[:_GROUPS_SHOWN]))
    more = ", ..." if len(groups) > _GROUPS_SHOWN else ""
    return f"{len(groups)} {'group' if len(groups) == 1 else 'groups'} ({names}{more})"


def with_fold(index: Index, fold: Fold) -> Index:
    """Return an index in which the groups of a fold are in the split of their side.

    Recordings of other splits, and of groups that the fold does not know, stay where they are.
    Shards are the same files: a stream's own split still names them.
    """
    return replace(
        index,
        recordings=tuple(_moved(item, fold.train, fold.validation) for item in index.recordings),
    )


def _moved(item: Recording, train: Collection[str], validation: Collection[str]) -> Recording:
    if item.split not in _SIDES:
        return item
    if item.group in validation:
        return replace(item, split=VALIDATION_SPLIT)
    return replace(item, split=TRAIN_SPLIT) if item.group in train else item


def _place(seed: int, group: str) -> bytes:
    """Where a group stands in the order of a seed; the same on every machine and release."""
    return hashlib.sha256(f"{seed}/{group}".encode()).digest()
