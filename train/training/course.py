"""Where a run stands and what was best so far: all that decides how it goes on.

It is the state of a checkpoint, as a JSON object:

    run              identity of the run (see `train.runs.run`)
    model            what the tensors are of (`ScoreModel.describe`)
    step             steps done
    epoch            of the last of them, from 0
    validated        the validation of that epoch is done, and counted in `best`
    stream           where the stream goes on (`FrameStream.load_state_dict`)
    validation       digests of the rows that are validated on
    threshold        chosen by that validation: the score from which on a row is an alarm; null
                     without one
    best_epoch       epoch of the best validation so far, from 0
    best             its metrics; null before the first
    best_checkpoint  name of its checkpoint; null if it is this one, or there is none
    plateau          drops and waited of `train.training.plateau`, if the learning rate falls by it
    rows             of that epoch, so far
    losses           of the steps since the last line of the log
    seconds          spent so far
    made_on          versions, device, threads and ranks: what moves low bits

The learning rate is a function of the step and of the plateau, the order of rows one of (seed,
epoch), and dropout one of (seed, step, frame). No random generator runs while a run is trained, so
none is saved.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from laughstore.errors import ConfigError

from ..scoring.metrics import FrameMetrics, SelectBy
from .plateau import Plateau

Stopped = Literal["patience", "epochs"]


@dataclass
class Course:
    """Where a run stands; changes as it goes."""

    stream: dict[str, Any]  # Any: JSON values
    step: int = 0
    epoch: int = 0
    validated: bool = False
    threshold: float | None = None
    best: FrameMetrics | None = None
    best_epoch: int = 0
    best_checkpoint: str | None = None
    plateau: Plateau = field(default_factory=Plateau)
    num_rows: int = 0
    losses: list[Any] = field(default_factory=list)  # Any: of many probes they are nested
    seconds: float = 0.0

    @property
    def next_epoch(self) -> int:
        """Epoch of the next step, or the one whose validation is to be done."""
        return self.epoch + self.validated

    def stopped(self, *, patience: int, epochs: int) -> Stopped | None:
        """Return why there is no other epoch, or None when there is one."""
        if not self.validated:
            return None
        if self.epoch - self.best_epoch >= patience:
            return "patience"
        return "epochs" if self.epoch + 1 >= epochs else None

    def count(self, metrics: FrameMetrics, by: SelectBy) -> bool:
        """Take the validation of this epoch into account; return whether it is the best so far.

        Args:
            metrics: of this epoch.
            by: what chooses the best.
        """
        self.validated, self.threshold = True, metrics.threshold
        if not metrics.beats(self.best, by):
            return False
        self.best, self.best_epoch, self.best_checkpoint = metrics, self.epoch, None
        return True

    def forget_best(self) -> None:
        """Go on without the best epoch so far, of which nothing is left."""
        self.best, self.best_epoch, self.best_checkpoint = None, self.next_epoch, None

    @property
    def about_best(self) -> dict[str, Any]:  # Any: JSON values
        """What is told of the best epoch, once there is one."""
        assert self.best is not None, "asked once there is one"
        return {"epoch": self.best_epoch, **self.best.to_json()}

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return the part of a checkpoint's state that is the course."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "validated": self.validated,
            "threshold": self.threshold if self.validated else None,
            "stream": self.stream,
            "best_epoch": self.best_epoch,
            "best": None if self.best is None else self.best.to_json(),
            "best_checkpoint": self.best_checkpoint,
            "plateau": asdict(self.plateau),
            "rows": self.num_rows,
            "losses": self.losses,
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, state: Mapping[str, Any], *, where: str) -> "Course":  # Any: JSON values
        """Return the course in the state of a checkpoint.

        Raises:
            ConfigError: an earlier release saved it, which wrote less.
        """
        try:
            best = state["best"]
            return cls(
                stream=state["stream"],
                step=state["step"],
                epoch=state["epoch"],
                validated=state["validated"],
                threshold=state["threshold"],
                best=None if best is None else FrameMetrics.from_json(best),
                best_epoch=state["best_epoch"],
                best_checkpoint=state["best_checkpoint"],
                plateau=Plateau(**state["plateau"]),
                num_rows=state["rows"],
                losses=list(state["losses"]),
                seconds=state["seconds"],
            )
        except KeyError as error:
            raise ConfigError(
                f"{where} was saved by an earlier release and has no {error}: it can be evaluated,"
                " and not gone on with; train again into another --out"
            ) from error
