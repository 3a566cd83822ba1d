"""What can be asked of a training run. No torch here: `laughstore train --help` reads this module.

The attributes' docstrings are the help of the command line.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from tyro.conf import UseAppendAction

from laughstore.errors import ConfigError, CorruptData
from laughstore.folders import is_url
from laughstore.labels import LabelSpec
from laughstore.reading.rows import Reader
from laughstore.timebase import Span

from .heads import HeadConfig
from .losses import LossConfig
from .optimiser_config import OptimiserConfig
from .plan import Mix, check_batching, check_key, check_mix
from .probe import PROBES, Probe, probes_of
from .runs.folds import check_folds
from .scoring.metrics import SelectBy, choice_for
from .streaming.balance import check_balance
from .streaming.choices import Preload, Verify
from .streaming.selection import FrameFilter
from .streaming.sequence_shape import SequenceShape

_MAX_LR: Final = 1e3
"""Far above all that can learn, and far below what overflows within a step."""
_LABEL: Final = LabelSpec()
_FILTER: Final = FrameFilter()
_HEAD: Final = HeadConfig()
_LOSS: Final = LossConfig()
_OPTIMISER: Final = OptimiserConfig()


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
    probe: Annotated[tuple[str, ...], UseAppendAction] = ()
    """A label to train a head of its own for, instead of --label; give it several times. All heads
    read the frames together, so that 64 linear ones cost a few times what one does. Settings of one
    label stand behind it, as in detection,event=Music,whose=any; --event and the like hold for
    all."""
    seeds: int = 1
    """Heads of each probe, with seeds seed, seed + 1, ... of first weights and dropout; the frames
    and their order are the same for all. A linear head begins at zero, but with more than one seed
    at small random weights, and ends near the same optimum."""
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
    sequence: Literal["auto"] | Span = "auto"
    """Rows of a block that head temporal is trained on at a time; they divide a block, and
    global_batch is a multiple of lanes times them. auto: the most for which it is one."""
    epochs: int = 50
    """Most passes over the training rows."""
    lr: float = 3e-4
    """Peak learning rate of AdamW. A step moves every weight by about this much, so with 4096
    standardised channels a logit by at most about 1. Fewer channels want more: 3e-3 for 64."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    optimiser: OptimiserConfig = _OPTIMISER
    """What else a step does."""
    select_by: SelectBy = "auto"
    """Metric on the validation split that chooses the epoch; auto: val_ap (average precision), or
    for label regression val_rmse."""
    patience: int = 10
    """Epochs without a better value of that metric after which training stops."""
    seed: int = 0
    """Of the order of frames, of the folds, and of a head's first weights and dropout."""
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
    preload: Preload = "none"
    """Load the training rows once, to memory (cpu) or to the GPU that trains (gpu); batches are the
    same. Each process loads all of them. Not remembered by the run."""
    skip_corrupt: Path | None = None
    """Leave out these blocks: a list that `laughstore verify --bad-blocks` wrote."""
    cache: Path | None = None
    """Folder of this machine that keeps blocks of a remote store: an empty or a new one, or one
    that was used so before. Not remembered by the run."""
    cache_gb: float = 50.0
    """Bound of that folder, in units of 10^9 bytes; the least recently used blocks go first."""

    def __post_init__(self) -> None:
        check_key(self.seed, 0)
        if self.probe:
            self._check_probes()
        else:
            if self.seeds != 1:
                raise ConfigError(f"seeds is {self.seeds}: it is for probes; use --probe LABEL")
            # What auto means is known now, and shall stand in the run.
            object.__setattr__(self, "loss", self.loss.for_label(self.label))
            object.__setattr__(self, "select_by", choice_for(self.select_by, self.label))
        check_batching(self.global_batch, self.lanes, self.window_blocks)
        check_folds(self.folds, self.fold)
        check_mix(self.mix)
        if self.preload not in get_args(Preload):
            raise ConfigError(f"preload is {self.preload!r}; use none, cpu or gpu")
        if isinstance(self.balance, str):
            if self.balance != "off":
                raise ConfigError(f"balance is {self.balance!r}; it must be off or a number")
        else:
            check_balance(self.balance)
        if isinstance(self.sequence, Span):
            object.__setattr__(self, "sequence", Span.of_frames(self.sequence.frames))
        elif self.sequence != "auto":
            raise ConfigError(
                f"sequence is {self.sequence!r}; it must be auto or a span, such as 64f"
            )
        self._check_context()
        for name, value in (("epochs", self.epochs), ("patience", self.patience)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        plateau = self.optimiser
        if plateau.schedule == "plateau" and plateau.plateau_epochs >= self.patience:
            raise ConfigError(
                f"plateau_epochs is {plateau.plateau_epochs}; it must be below patience"
                f" ({self.patience}), or training ends before the learning rate falls"
            )
        if not 0 < self.lr <= _MAX_LR:  # also refuses NaN
            raise ConfigError(f"lr is {self.lr}; it must be above 0 and at most {_MAX_LR:g}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ConfigError(f"weight_decay is {self.weight_decay}; it must be at least 0")
        if not (self.cache_gb > 0 and math.isfinite(self.cache_gb)):
            raise ConfigError(f"cache_gb is {self.cache_gb}; it must be above 0 and finite")

    def _check_probes(self) -> None:
        if self.label.label != _LABEL.label:
            raise ConfigError(
                f"label is {self.label.label}, beside probes; give it as another --probe"
            )
        if self.seeds < 1:
            raise ConfigError(f"seeds is {self.seeds}; it must be at least 1")
        check_key(self.seed + self.seeds - 1, 0)
        for name, value, default in (*_values(self), *_values(self.optimiser)):
            if name not in _OF_PROBES and value != default:
                raise ConfigError(
                    f"{name} is {value}, which is for one label at a time; drop it, or train with"
                    " --label instead of --probe"
                )
        if self.head.context_frames:
            raise ConfigError(
                f"head {self.head.head} reads rows before each row, and probes share single rows;"
                " train it with --label"
            )
        for probe in self.probes:
            self.of_probe(probe)  # refuses a loss or metric that does not fit its label

    @property
    def probes(self) -> tuple[Probe, ...]:
        """What is trained in one pass; none of a run with one label."""
        return probes_of(self.probe, self.label, range(self.seed, self.seed + self.seeds))

    @property
    def stream_label(self) -> LabelSpec | None:
        """Label of the rows that are streamed; None for probes, which stream all."""
        return None if self.probe else self.label

    def of_probe(self, probe: Probe) -> "TrainConfig":
        """Return the config of one of these probes, as a run of its own in a folder of this one."""
        return replace(
            self,
            out=self.out / PROBES / probe.name,
            label=probe.label,
            probe=(),
            seeds=1,
            seed=probe.seed,
        )

    def _check_context(self) -> None:
        """Raise a ConfigError when something is asked for that sequences have not, or rows."""
        if not self.head.context_frames:
            if self.sequence != "auto":
                raise ConfigError(
                    f"sequence is {self.sequence}: head {self.head.head} reads one row at a time;"
                    " drop it, or use --head temporal"
                )
        elif self.balance != "off":
            raise ConfigError(
                f"balance is {self.balance}: head {self.head.head} is trained on sequences, of"
                " which single rows cannot be left out; use --balance off, or another --head"
            )

    def sequence_shape(self, block_frames: int) -> SequenceShape | None:
        """Return the sequences that the head is trained on; None: it is trained on rows.

        Args:
            block_frames: of the shards.
        """
        context = self.head.context_frames
        if not context:
            return None
        if isinstance(self.sequence, Span):
            return SequenceShape(self.sequence.frames, context)
        return SequenceShape(math.gcd(block_frames, self.global_batch // self.lanes), context)

    @property
    def balance_ratio(self) -> float | None:
        """Negatives for each positive row; None: all."""
        return None if isinstance(self.balance, str) else float(self.balance)

    def describe_steps(self) -> str:
        """Return one line for people: how weights are changed."""
        decay = f"weight decay {self.weight_decay:g}"
        return f"AdamW, lr {self.lr:g}, {decay}, {self.optimiser.describe()}"

    def to_json(self) -> dict[str, Any]:  # Any: a JSON object
        """Return the JSON object of this config; paths as given.

        Without the cache and preload, which belong to a machine and change nothing that is learned.
        """
        return _to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any], *, where: str) -> "TrainConfig":
        """Return the config that `to_json` wrote.

        Raises:
            CorruptData: it is not what `to_json` returns; the message begins with `where`.
        """
        try:
            return _from_json(data, where=where)
        except (KeyError, TypeError, ConfigError) as error:
            raise CorruptData(
                f"{where}: not a training config of this release ({error}); restore the file"
            ) from error


_OF_PROBES: Final = frozenset(
    (
        *("shards", "out", "label", "filter", "annotations", "probe", "seeds", "head", "loss"),
        *("optimiser", "global_batch", "lanes", "window_blocks", "epochs", "lr", "weight_decay"),
        *("select_by", "patience", "seed", "folds", "fold", "device", "verify", "mix", "reader"),
        *("skip_corrupt", "cache", "cache_gb", "preload"),
    )
)
"""Fields that probes know; all others must have their defaults."""
_OF_THIS_MACHINE: Final = ("cache", "cache_gb", "preload")
_GROUPS: Final = (HeadConfig, LossConfig, OptimiserConfig)
"""Types of fields whose own fields stand among the others in JSON, as they do among the flags."""


def _values(settings: TrainConfig | OptimiserConfig) -> Iterator[tuple[str, object, object]]:
    """Yield (name, value, default) of each setting."""
    for item in fields(settings):
        yield item.name, getattr(settings, item.name), item.default


def _to_json(config: TrainConfig) -> dict[str, Any]:  # Any: JSON values
    data: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if isinstance(value, _GROUPS):
            data |= value.to_json()
        elif item.name not in _OF_THIS_MACHINE:
            if isinstance(value, LabelSpec | FrameFilter):
                value = value.identity()
            elif isinstance(value, tuple):
                value = list(value)
            data[item.name] = str(value) if isinstance(value, Path | Span) else value
    return data


def _from_json(data: Mapping[str, Any], *, where: str) -> TrainConfig:  # Any: JSON values
    """Raise KeyError, TypeError or ConfigError where it is no config.

    Fields that are missing came with a later release than the run; their defaults are what it did.
    """
    left = dict(data)
    values: dict[str, Any] = {}  # Any: fields of all types
    for item in fields(TrainConfig):
        kind = item.type
        if kind in _GROUPS:
            inner = [inner.name for inner in fields(kind) if inner.name in left]
            given = {name: left.pop(name) for name in inner}
            is_head = kind is HeadConfig  # whose JSON has spans
            values[item.name] = HeadConfig.from_json(given) if is_head else kind(**given)
        elif item.name in left:
            values[item.name] = _value(kind, left.pop(item.name), where=where)
        elif item.default is MISSING:
            raise KeyError(item.name)
    if left:
        raise ConfigError(f"field {', '.join(sorted(left))} is not known")
    return TrainConfig(**values)


def _value(kind: object, value: object, *, where: str) -> object:
    """The value of a field of this type, from its JSON value."""
    if kind in (LabelSpec, FrameFilter):
        if not isinstance(value, dict):
            raise TypeError(f"{value!r} is no object")
        if kind is LabelSpec:
            return LabelSpec.from_identity(value, where=f"{where}: label")
        return FrameFilter.from_identity(value)
    if isinstance(value, list):
        return tuple(value)
    if Span in get_args(kind) and isinstance(value, str):
        return value if value == "auto" else Span(value)
    is_path = kind is Path or Path in get_args(kind)
    return Path(value) if is_path and isinstance(value, str) and not is_url(value) else value
