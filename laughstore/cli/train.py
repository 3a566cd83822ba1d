"""`laughstore train`: train a head on the shards of a store."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from train.config import TrainConfig

from ..errors import ConfigError, CorruptData, IncompleteStore
from .annotation_source import with_source
from .flags import CommonFlags, parse
from .main import EXIT_INTERRUPTED
from .progress import TerminalProgress
from .text import number, percent, program

if TYPE_CHECKING:
    from train import TrainResult
    from train.progress import Progress

_TASKS = {"statistics": "channel statistics", "train": "epoch", "validate": "validate"}


@dataclass(frozen=True)
class _Flags:
    config: TrainConfig
    common: CommonFlags
    resume: bool = False
    """Go on with the run in --out where it was stopped or killed; begin it if there is none."""
    save_every_s: float = 60.0
    """Seconds between checkpoints: the most that is lost when the run is killed."""

    def __post_init__(self) -> None:
        if not self.save_every_s >= 0:
            raise ConfigError(f"save_every_s is {self.save_every_s}; it must be 0 or more")


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "train",
        arguments,
        "Stream the shards of a store into a head that predicts vocal events, choosing the epoch by"
        " average precision on the validation split.",
    )
    flags.common.configure_logging()
    from train import train

    bar = TerminalProgress(quiet=flags.common.quiet)
    bar.message(flags.config.label.describe())
    shown = TrainingProgress(bar)
    try:
        result = train(
            flags.config,
            resume=flags.resume,
            save_every_s=flags.save_every_s,
            progress=shown,
            annotate=with_source,
        )
    except (KeyboardInterrupt, SystemExit) as error:
        shown.close()
        bar.message(f"stopped; go on with:\n  {again(arguments)}")
        # The last line is the command: no other is printed for what is no error.
        raise SystemExit(
            error.code if isinstance(error, SystemExit) else EXIT_INTERRUPTED
        ) from None
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


def again(arguments: Sequence[str]) -> str:
    """Return the command that goes on with a run.

    Args:
        arguments: of the one that was stopped.
    """
    words = [word for word in arguments if word != "--resume"]
    return f"{program()} {shlex.join(['train', *words, '--resume'])}"


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
        self._bar.message(
            f"epoch {progress.epoch}: validation AP {number(found.average_precision)}"
            f" (base rate {percent(found.base_rate)})"
        )


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
    print(
        f"validation AP {number(best.average_precision)}, base rate {percent(best.base_rate)}, lift"
        f" {number(best.lift)}, AUROC {number(best.auroc)}, over {best.num_rows:,} rows"
    )
    run_path = shlex.quote(str(result.run))
    print(f"run: {result.run}")
    tensorboard = program().replace("laughstore", "tensorboard")
    print(f"next: {program()} evaluate {run_path}")
    print(f"      {tensorboard} --logdir {run_path}/tensorboard")
