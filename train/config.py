"""What can be asked of a training run. No torch here: `laughstore train --help` reads this module.

The attributes' docstrings are the help of the command line.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from laughstore.errors import ConfigError, CorruptData
from laughstore.folders import is_url
from laughstore.kinds import KINDS
from laughstore.labels import LabelSpec
from laughstore.reading.rows import Reader

from .balance import check_balance
from .folds import check_folds
from .plan import Mix, check_batching, check_key, check_mix
from .selection import FrameFilter

Verify = Literal["always", "first", "never"]
"""When to check a block's CRC-32C: at every read, at the first of this process, or never."""

_MAX_LR: Final = 1e3
"""Far above all that can learn, and far below what overflows within a step."""
_LABEL: Final = LabelSpec()
_FILTER: Final = FrameFilter()


@dataclass(frozen=True)
class HeadConfig:
    """The part that is trained."""

    head: Literal["linear"] = "linear"
    """Kind of head on the standardised features."""


@dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    Raises:
        ConfigError: pos_weight is not above 0.
    """

    loss: Literal["bce"] = "bce"
    """Loss of a row: binary cross-entropy."""
    pos_weight: Literal["none", "auto"] | float = "none"
    """Weight of positive rows: none (1), auto (negatives / positives of the rows of an epoch), or a
    number. Scores are corrected for it, so they stay probabilities."""

    def __post_init__(self) -> None:
        weight = self.pos_weight
        if isinstance(weight, str):
            if weight not in ("none", "auto"):
                raise ConfigError(f"pos_weight is {weight!r}; it must be none, auto or a number")
        elif not (weight > 0 and math.isfinite(weight)):
            raise ConfigError(f"pos_weight is {weight}; a number must be above 0 and finite")


_HEAD: Final = HeadConfig()
_LOSS: Final = LossConfig()


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Raises:
        ConfigError: a field, or two together, cannot work.
    """

    shards: Path | str
    """Shards of a store: STORE/shards, or STORE; a path or a URL."""
    out: Path
    """Folder of the run; it must not exist yet."""
    label: LabelSpec = _LABEL
    """What is predicted."""
    filter: FrameFilter = _FILTER
    """Which frames take part, in training and in validation."""
    annotations: Path | None = None
    """Make labels from these annotations, not from the store's, which stays as it is; all that
    `laughstore annotate --from` takes."""
    head: HeadConfig = _HEAD
    """What is trained."""
    loss: LossConfig = _LOSS
    """What is minimised."""
    balance: Literal["off"] | float = "off"
    """Negatives for each positive row of an epoch, in training alone; other ones each epoch. off:
    all. Scores are corrected for it, so they stay probabilities."""
    global_batch: int = 4096
    """Rows of a step over all processes; a multiple of lanes."""
    lanes: int = 64
    """Places of the data set that a batch mixes; a multiple of the number of processes."""
    window_blocks: int = 8
    """Blocks of a lane whose rows are shuffled together."""
    epochs: int = 50
    """Most passes over the training rows."""
    lr: float = 3e-4
    """Peak learning rate of AdamW. A step moves every weight by about this much, so with 4096
    standardised channels a logit by at most about 1. Fewer channels want more: 3e-3 for 64."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    patience: int = 10
    """Epochs without a better validation average precision after which training stops."""
    seed: int = 0
    """Of the order of frames, and of the folds."""
    folds: int | None = None
    """Divide the groups (shows) of the splits train and validation into so many folds."""
    fold: int | None = None
    """The fold that is the validation split, from 0; the others are trained on."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:N, or auto (cuda if there is one)."""
    verify: Verify = "first"
    """When checksums of blocks are checked: always, first (at the first read) or never."""
    mix: Mix = "windows"
    """How rows are shuffled: windows, or global (all rows together; for splits that fit in
    memory)."""
    reader: Reader = "auto"
    """How frames are read: map, window (into memory of its own), or auto."""
    skip_corrupt: Path | None = None
    """Leave out these blocks: a list that `laughstore verify --bad-blocks` wrote."""
    cache: Path | None = None
    """Folder of this machine that keeps blocks of a remote store: an empty or a new one, or one
    that was used so before. Not remembered by the run."""
    cache_gb: float = 50.0
    """Bound of that folder, in units of 10^9 bytes; the least recently used blocks go first."""

    def __post_init__(self) -> None:
        check_classes(self.label)
        check_batching(self.global_batch, self.lanes, self.window_blocks)
        check_key(self.seed, 0)
        check_folds(self.folds, self.fold)
        check_mix(self.mix)
        if isinstance(self.balance, str):
            if self.balance != "off":
                raise ConfigError(f"balance is {self.balance!r}; it must be off or a number")
        else:
            check_balance(self.balance)
        for name, value in (("epochs", self.epochs), ("patience", self.patience)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        if not 0 < self.lr <= _MAX_LR:  # also refuses NaN
            raise ConfigError(f"lr is {self.lr}; it must be above 0 and at most {_MAX_LR:g}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ConfigError(f"weight_decay is {self.weight_decay}; it must be at least 0")
        if not (self.cache_gb > 0 and math.isfinite(self.cache_gb)):
            raise ConfigError(f"cache_gb is {self.cache_gb}; it must be above 0 and finite")

    @property
    def balance_ratio(self) -> float | None:
        """Negatives for each positive row; None: all."""
        return None if isinstance(self.balance, str) else float(self.balance)

    def to_json(self) -> dict[str, Any]:  # Any: a JSON object
        """Return the JSON object of this config; paths as given.

        Without the cache, which belongs to a machine and changes nothing that is learned.
        """
        return {
            "shards": str(self.shards),
            "out": str(self.out),
            "label": self.label.identity(),
            "filter": self.filter.identity(),
            "annotations": None if self.annotations is None else str(self.annotations),
            "folds": self.folds,
            "fold": self.fold,
            "head": self.head.head,
            "loss": self.loss.loss,
            "pos_weight": self.loss.pos_weight,
            "skip_corrupt": None if self.skip_corrupt is None else str(self.skip_corrupt),
            **{name: getattr(self, name) for name in _PLAIN_FIELDS + _LATER_FIELDS},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], *, where: str) -> "TrainConfig":
        """Return the config that `to_json` wrote.

        Raises:
            CorruptData: it is not what `to_json` returns; the message begins with `where`.
        """
        annotations = data.get("annotations")  # earlier runs have none, and no folds
        try:
            return cls(
                shards=shards if is_url(shards := data["shards"]) else Path(shards),
                out=Path(data["out"]),
                label=LabelSpec.from_identity(data["label"], where=f"{where}: label"),
                filter=FrameFilter.from_identity(data["filter"]),
                annotations=None if annotations is None else Path(annotations),
                folds=data.get("folds"),
                fold=data.get("fold"),
                head=HeadConfig(data["head"]),
                loss=LossConfig(data["loss"], data["pos_weight"]),
                skip_corrupt=_path(data.get("skip_corrupt")),
                **{name: data[name] for name in _PLAIN_FIELDS},
                # Runs of earlier releases have none of these.
                **{name: data[name] for name in _LATER_FIELDS if name in data},
            )
        except (KeyError, TypeError, ConfigError) as error:
            raise CorruptData(
                f"{where}: not a training config of this release ({error}); restore the file"
            ) from error


def check_classes(label: LabelSpec) -> None:
    """Check that a label's targets are classes, which all losses and metrics here are made for.

    Raises:
        ConfigError: they are numbers.
    """
    if KINDS[label.kind].dtype is not np.uint8:
        raise ConfigError(
            f"label {label.label}: no loss and no metric of this release is made for {label.kind}"
            " targets; train with --label onset:SPAN or interval:SPAN, or read the targets with"
            " train.FrameStream"
        )


_PLAIN_FIELDS = (
    "global_batch",
    "lanes",
    "window_blocks",
    "epochs",
    "lr",
    "weight_decay",
    "patience",
    "seed",
    "device",
    "verify",
)
"""Fields of a TrainConfig that are JSON values as they are."""
_LATER_FIELDS = ("mix", "reader", "balance")


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
