"""What a step minimises, summed so that pad rows and the number of ranks change nothing.

A loss is one class here and its line in `LOSSES`: what it asks of a row, where a head that knows
nothing else begins, and what its scores are corrected for. Its arguments are fields of
`LossConfig`, which are flags. torch is loaded when a loss is computed, not before:
`laughstore train --help` reads this module.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

import numpy as np

from laughstore.errors import ConfigError
from laughstore.kinds import KINDS
from laughstore.labels import LabelSpec

from .focal_start import focal_start
from .options import any_of, check_options, read_options
from .streaming.balance import num_negatives
from .streaming.selection import Selection

if TYPE_CHECKING:
    from torch import Tensor

TargetKind = Literal["classes", "numbers"]
"""What a label asks for: 0 or 1, or a number from 0 to 1."""
ScoreKind = Literal["probability", "order", "number"]
"""What a score is: the probability of a positive row under the natural rate, something between 0
and 1 that only orders rows, or an estimate of the target."""


@dataclass(frozen=True)
class EpochRows:
    """The rows of an epoch of training, as far as a loss depends on them."""

    positives: int
    """P: rows whose target is above 0."""
    negatives: int
    """K: the others of an epoch."""
    all_negatives: int
    """N: the others of the training split, of which balance leaves K."""
    mean_target: float
    """Over the P + K rows; of classes, the share of positives."""

    @classmethod
    def of(cls, selection: Selection, ratio: float | None) -> Self:
        """Return the rows of an epoch of a split.

        Args:
            selection: rows that take part.
            ratio: of balance; None for all rows.

        Raises:
            ConfigError: there is no positive row to balance.
        """
        counts = selection.counts
        num_used = counts.negatives
        if ratio is not None:
            num_used = num_negatives(counts.positives, counts.negatives, ratio)
        total = float(selection.targets.sum(dtype=np.float64))
        mean = total / max(1, counts.positives + num_used)
        return cls(counts.positives, num_used, counts.negatives, mean)


class RowLoss(ABC):
    """A loss of single rows, with the numbers that it takes from its arguments and from the rows.

    Args:
        config: its arguments.
        rows: of an epoch.
    """

    targets: ClassVar[TargetKind]
    """Of the labels that it is made for."""
    scores: ClassVar[ScoreKind]
    """What the scores of a head trained with it are."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Fields of `LossConfig` that it reads."""
    start: float
    """The answer of a head that knows nothing yet: what an untrained one gives to every row."""
    pos_weight: float = 1.0
    """w: what raised the odds of all rows in training, to be taken off their scores."""
    share_of_negatives: float = 1.0
    """K / N: what leaving out negatives raised them by, likewise."""
    is_sum: bool = False
    """The rows of a step are added up, not averaged."""

    @abstractmethod
    def __init__(self, config: "LossConfig", rows: EpochRows) -> None: ...

    @abstractmethod
    def of_rows(self, output: "Tensor", y: "Tensor") -> "Tensor":
        """Return the loss of each row, f32[B].

        It looks at each row by itself: of K probes together all arrays are f32[B, K], and numbers
        of this loss that differ among them f32[K].

        Args:
            output: f32[B], of the head: logits of classes, or numbers.
            y: f32[B], targets.
        """

    def __call__(
        self,
        output: "Tensor",
        y: "Tensor",
        weight: "Tensor",
        *,
        num_real: int,
        world_size: int,
    ) -> "Tensor":
        """Return this rank's loss of a step, f32[].

        The mean over ranks, which is what DDP makes of gradients, is the mean over all real rows of
        the step: sum(weight * loss) * world_size / num_real.

        Args:
            output: f32[B], of the head.
            y: f32[B], targets.
            weight: f32[B], 0 for pad rows.
            num_real: rows of the step that are no pad rows, over all ranks, at least 1.
            world_size: number of ranks.
        """
        total = (self.of_rows(output, y) * weight).sum()
        return total * (world_size / (1 if self.is_sum else num_real))


class CrossEntropy(RowLoss):
    """Binary cross-entropy, positive rows weighing w: scores are probabilities."""

    targets = "classes"
    scores = "probability"
    options = frozenset({"pos_weight"})

    def __init__(self, config: "LossConfig", rows: EpochRows) -> None:
        match config.pos_weight:
            case "none":
                self.pos_weight = 1.0
            case "auto":
                self.pos_weight = rows.negatives / rows.positives
            case weight:
                self.pos_weight = float(weight)
        self.share_of_negatives = rows.negatives / rows.all_negatives
        self.start = math.log(self.pos_weight * rows.positives / rows.negatives)

    def of_rows(self, output: "Tensor", y: "Tensor") -> "Tensor":
        """Return -(w y log p + (1 - y) log(1 - p)), p the sigmoid of the output."""
        from torch.nn.functional import logsigmoid

        # Not torch's own loss: of rows that are right by far it keeps a few digits only (2e-4 of
        # the loss of a negative row at logit -7), because it adds the logit and takes it off again.
        return -(self.pos_weight * y * logsigmoid(output) + (1 - y) * logsigmoid(-output))


class Focal(RowLoss):
    """Focal loss (Lin et al. 2017, eq. 5): rows that are right already count little.

    Its scores order rows, but are no probabilities: they lie nearer to a half than the rate of
    positives does, and no correction for a prior is defined.
    """

    targets = "classes"
    scores = "order"
    options = frozenset({"focal_alpha", "focal_gamma", "focal_reduction"})

    def __init__(self, config: "LossConfig", rows: EpochRows) -> None:
        self._begin(config.focal_alpha, config, rows)

    def _begin(self, alpha: float, config: "LossConfig", rows: EpochRows) -> None:
        self.alpha, self.gamma = alpha, config.focal_gamma
        self.is_sum = config.focal_reduction == "legacy"
        self.start = focal_start(
            alpha * rows.positives, (1 - alpha) * rows.negatives, gamma=self.gamma
        )

    def of_rows(self, output: "Tensor", y: "Tensor") -> "Tensor":
        """Return -a (1 - q)^gamma log q, q the probability given to the row's own class."""
        from torch.nn.functional import logsigmoid

        own = output * (2 * y - 1)
        alpha = self.alpha * y + (1 - self.alpha) * (1 - y)
        # The power of 1 - q from its logarithm: where q is 1, its gradient would be undefined.
        return -alpha * (self.gamma * logsigmoid(-own)).exp() * logsigmoid(own)


class AdaptiveFocal(Focal):
    """Focal loss whose alpha is the share of negatives: both classes weigh the same in all."""

    options = frozenset({"focal_gamma", "focal_reduction"})

    def __init__(self, config: "LossConfig", rows: EpochRows) -> None:
        self._begin(rows.negatives / (rows.negatives + rows.positives), config, rows)


class SquaredError(RowLoss):
    """Squared error: scores are means of what may come."""

    targets = "numbers"
    scores = "number"

    def __init__(self, config: "LossConfig", rows: EpochRows) -> None:
        self.start = rows.mean_target

    def of_rows(self, output: "Tensor", y: "Tensor") -> "Tensor":
        """Return (output - y)^2."""
        return (output - y).square()


class Huber(RowLoss):
    """Half the squared error up to delta, and linear beyond it (Huber 1964)."""

    targets = "numbers"
    scores = "number"
    options = frozenset({"huber_delta"})

    def __init__(self, config: "LossConfig", rows: EpochRows) -> None:
        self.delta = config.huber_delta
        self.start = rows.mean_target

    def of_rows(self, output: "Tensor", y: "Tensor") -> "Tensor":
        """Return e^2 / 2 where |e| is at most delta, else delta (|e| - delta / 2)."""
        from torch.nn.functional import huber_loss

        return huber_loss(output, y, reduction="none", delta=self.delta)


LOSSES: Final[dict[str, type[RowLoss]]] = {
    "bce": CrossEntropy,
    "focal": Focal,
    "adaptive_focal": AdaptiveFocal,
    "mse": SquaredError,
    "huber": Huber,
}
USUAL_LOSS: Final[dict[TargetKind, str]] = {"classes": "bce", "numbers": "mse"}
"""The loss meant by auto."""
_OPTIONS: Final = {name: loss.options for name, loss in LOSSES.items()}
_MAX_GAMMA: Final = 20.0
"""Above it, float32 loses rows that are only half right."""

if TYPE_CHECKING:
    LossName = str
else:
    LossName = Literal["auto", *LOSSES]  # the choices that the command line shows


@dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    Raises:
        ConfigError: a field cannot work, or belongs to another loss.
    """

    loss: LossName = "auto"
    """Loss of a row. For labels that are classes: bce (binary cross-entropy; scores are
    probabilities), focal or adaptive_focal (scores are none). For label regression: mse or huber.
    auto: bce, or mse."""
    pos_weight: Literal["none", "auto"] | float = "none"
    """Weight of positive rows (bce): none (1), auto (negatives / positives of the rows of an
    epoch), or a number. Scores are corrected for it, so they stay probabilities."""
    focal_alpha: float = 0.25
    """Weight of positive rows, negative ones weigh 1 minus it (focal); between 0 and 1.
    adaptive_focal takes the share of negatives among the rows of an epoch."""
    focal_gamma: float = 2.0
    """How fast rows that are right already lose weight (focal, adaptive_focal); 0 to 20."""
    focal_reduction: Literal["mean", "legacy"] = "mean"
    """Of the rows of a step (focal, adaptive_focal): their mean, or legacy, their sum."""
    huber_delta: float = 0.1
    """Error up to which huber is quadratic, in units of the target, which lies between 0 and 1."""

    def __post_init__(self) -> None:
        if self.loss != "auto" and self.loss not in LOSSES:
            raise ConfigError(f"loss is {self.loss!r}; it must be auto, {', '.join(LOSSES)}")
        weight = self.pos_weight
        if isinstance(weight, str):
            if weight not in ("none", "auto"):
                raise ConfigError(f"pos_weight is {weight!r}; it must be none, auto or a number")
        elif not (weight > 0 and math.isfinite(weight)):
            raise ConfigError(f"pos_weight is {weight}; a number must be above 0 and finite")
        if not 0 < self.focal_alpha < 1:
            raise ConfigError(f"focal_alpha is {self.focal_alpha}; it must lie between 0 and 1")
        if not 0 <= self.focal_gamma <= _MAX_GAMMA:
            raise ConfigError(f"focal_gamma is {self.focal_gamma}; it must be 0 to {_MAX_GAMMA:g}")
        if self.focal_reduction not in ("mean", "legacy"):
            raise ConfigError(
                f"focal_reduction is {self.focal_reduction!r}; it must be mean or legacy"
            )
        if not (self.huber_delta > 0 and math.isfinite(self.huber_delta)):
            raise ConfigError(f"huber_delta is {self.huber_delta}; it must be above 0 and finite")
        if self.loss != "auto":
            targets = LOSSES[self.loss].targets
            fitting = {n: loss.options for n, loss in LOSSES.items() if loss.targets == targets}
            check_options(self, "loss", fitting)

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON object of the fields that this loss reads; of auto, all."""
        every = frozenset[str]().union(*_OPTIONS.values())
        return read_options(self, "loss", {**_OPTIONS, "auto": every})

    def for_label(self, label: LabelSpec) -> "LossConfig":
        """Return these settings with auto replaced by the usual loss of a label.

        Raises:
            ConfigError: the loss is not made for such targets, or not for an argument.
        """
        kind = target_kind(label)
        if self.loss == "auto":
            return replace(self, loss=USUAL_LOSS[kind])
        if LOSSES[self.loss].targets != kind:
            fitting = [name for name, loss in LOSSES.items() if loss.targets == kind]
            raise ConfigError(
                f"loss {self.loss} is for {LOSSES[self.loss].targets}, and the targets of label"
                f" {label.label} are {kind}; use --loss {any_of(fitting)}"
            )
        return self


def target_kind(label: LabelSpec) -> TargetKind:
    """Return what a label asks for."""
    return "classes" if KINDS[label.kind].dtype is np.uint8 else "numbers"


def make_loss(config: LossConfig, rows: EpochRows) -> RowLoss:
    """Return the loss of these settings, whose name is not auto, for the rows of an epoch."""
    return LOSSES[config.loss](config, rows)
