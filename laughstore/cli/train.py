"""`laughstore train`: train a head on the shards of a store."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from train.config import TrainConfig

from ..errors import CorruptData, IncompleteStore
from .annotation_source import with_source
from .flags import CommonFlags, parse
from .metric_text import metric_texts
from .progress import TerminalProgress
from .text import program

if TYPE_CHECKING:
    from train import TrainResult
    from train.progress import Progress

_TASKS = {"statistics": "channel statistics", "train": "epoch", "validate": "validate"}


@dataclass(frozen=True)
class _Flags:
    config: TrainConfig
    common: CommonFlags


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "train",
        arguments,
        "Stream the shards of a store into a head that predicts vocal events, choosing the epoch by"
        " average precision on the validation split (of numbers, by the root mean squared error).",
    )
    flags.common.configure_logging()
    from train import train

    bar = TerminalProgress(quiet=flags.common.quiet)
    bar.message(flags.config.label.describe())
    shown = TrainingProgress(bar)
    try:
        result = train(flags.config, progress=shown, annotate=with_source)
    except (KeyboardInterrupt, SystemExit):
        shown.close()
        if (flags.config.out / "checkpoints").exists():
            run_path = shlex.quote(str(flags.config.out))
            bar.message(
                f"stopped; what it has learned is kept. Score it with:\n  {program()} evaluate"
                f" {run_path} --checkpoint last"
            )
        raise
    except (CorruptData, IncompleteStore) as error:
        # Of a block or its file; nothing else can be left out.
        if ".tar" not in str(error) or flags.config.skip_corrupt is not None:
            raise
        raise type(error)(
            f"{error}; or train without what cannot be read: {program()} verify STORE --bad-blocks"
            " LIST, then --skip-corrupt LIST"
        ) from error
    finally:
        shown.close()
    report(result, as_json=flags.common.json)
    return 0


class TrainingProgress:
    """Shows the phases of a run as bars, and a line for every epoch."""

    def __init__(self, bar: TerminalProgress) -> None:
        self._bar = bar
        self._phase: tuple[str, int] | None = None
        self._done = 0
        self._told_epoch = -1

    def __call__(self, progress: "Progress") -> None:
        """Take one report of `train.train`."""
        phase = (progress.phase, progress.epoch)
        if phase != self._phase:
            self.close()
            task = _TASKS[progress.phase]
            named = f"{task} {progress.epoch + 1}" if progress.phase == "train" else task
            self._bar.begin(
                named, progress.total, "row" if progress.phase == "validate" else "step"
            )
            self._phase, self._done = phase, 0
            self._tell(progress)
        note = f"loss {progress.loss:.4f}" if progress.loss is not None else ""
        self._bar.advance(progress.done - self._done, note)
        self._done = progress.done

    def close(self) -> None:
        """Take the bar away."""
        if self._phase is not None:
            self._bar.end()

    def _tell(self, progress: "Progress") -> None:
        """One line for the epoch before this one, once its validation is known."""
        found = progress.validation
        if progress.phase != "train" or found is None or progress.epoch == self._told_epoch:
            return
        self._told_epoch = progress.epoch
        self._bar.message(f"epoch {progress.epoch}: validation {', '.join(metric_texts(found))}")


def report(result: "TrainResult", *, as_json: bool) -> None:
    """Print how a run ended and what to type next."""
    if as_json:
        print(json.dumps(result.to_json(), indent=2))
        return
    best = result.best
    why = {"patience": "no better epoch in a while", "epochs": "all epochs done"}[result.stopped]
    print(
        f"{result.epochs} epochs, {result.steps} steps, {result.seconds:.0f} s ({why}); best epoch"
        f" {result.best_epoch + 1}"
    )
    print(f"validation {', '.join(metric_texts(best))}, over {best.num_rows:,} rows")
    run_path = shlex.quote(str(result.run))
    print(f"run: {result.run}")
    tensorboard = program().replace("laughstore", "tensorboard")
    print(f"next: {program()} evaluate {run_path}")
    print(f"      {tensorboard} --logdir {run_path}/tensorboard")
