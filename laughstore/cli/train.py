"""`laughstore train`: train a head on the shards of a store."""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from train.config import TrainConfig
from train.distributed.place import ALONE, Place
from train.plan import rank_share
from train.runs.run import check_absent

from ..errors import ConfigError, CorruptData, IncompleteStore
from ..memory import out_of_memory_told
from . import logs
from .annotation_source import with_source
from .flags import CommonFlags, parse
from .interrupts import EXIT_INTERRUPTED
from .launch import Launch
from .metric_text import metric_texts
from .orphans import die_with
from .probe_table import probe_table
from .progress import TerminalProgress
from .ranks import Rank
from .text import program
from .training_progress import TrainingProgress

if TYPE_CHECKING:
    from train import ProbesResult, TrainResult


@dataclass(frozen=True)
class _Flags:
    config: TrainConfig
    common: CommonFlags
    resume: bool = False
    """Go on with the run in --out where it was stopped or killed; begin it if there is none."""
    save_every_s: float = 60.0
    """Seconds between checkpoints: the most that is lost when the run is killed."""
    nproc: int | None = None
    """Processes of this machine that share each step, with a GPU each if there are any; when one
    is killed, all go on from the last checkpoint. Default: this process."""
    rank_timeout_s: float = 300.0
    """Seconds that one process waits for another before it ends with an error."""

    def __post_init__(self) -> None:
        if not self.save_every_s >= 0:
            raise ConfigError(f"save_every_s is {self.save_every_s}; it must be 0 or more")
        Place(timeout_s=self.rank_timeout_s)
        if self.nproc is not None:
            if self.nproc < 1:
                raise ConfigError(f"nproc is {self.nproc}; it must be at least 1")
            rank_share(self.config.lanes, 0, self.nproc)


def parse_train(arguments: Sequence[str]) -> _Flags:
    """Return the flags. Raises SystemExit as `flags.parse`."""
    return parse(
        _Flags,
        "train",
        arguments,
        "Stream the shards of a store into a head that predicts vocal events, choosing the epoch by"
        " average precision on the validation split (of numbers, by the root mean squared error).",
    )


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags, rank = parse_train(arguments), Rank.of_torchrun()
    flags.common.configure_logging()
    words = ["train", *(word for word in arguments if word != "--resume"), "--resume"]
    command = f"{program(by_torchrun=rank is not None)} {shlex.join(words)}"
    place = ALONE
    if rank is not None:
        if flags.nproc is not None:
            raise ConfigError(
                "torchrun has started this process, one of several; leave --nproc out, or start"
                " without torchrun"
            )
        die_with(os.getppid())
        place = rank.place(flags.rank_timeout_s)
        if place.rank > 0:
            logs.start(verbose=False, quiet=True)  # the first one tells
    bar = TerminalProgress(quiet=flags.common.quiet or place.rank > 0)
    try:
        if flags.nproc is None:
            train_here(flags, place)
        else:
            if not flags.resume:
                check_absent(flags.config.out)
            Launch(arguments, flags.nproc, bar).run()
    except (KeyboardInterrupt, SystemExit) as error:
        bar.message(f"stopped; go on with:\n  {command}")
        # The last line is the command: no other is printed for what is no error.
        code = error.code if isinstance(error, SystemExit) else EXIT_INTERRUPTED
        raise SystemExit(code) from None
    return 0


def train_here(flags: _Flags, place: Place) -> None:
    """Train in this process, one of several or alone, and let the first tell how it ended.

    Raises:
        KeyboardInterrupt, SystemExit: a signal came, to whichever of them.
    """
    from train import train, train_probes

    config = flags.config
    bar = TerminalProgress(quiet=flags.common.quiet or place.rank > 0)
    for label in {probe.label.describe(): None for probe in config.probes} or [
        config.label.describe()
    ]:
        bar.message(label)
    bar.message(config.describe_steps())
    shown = TrainingProgress(bar, epochs=config.epochs)
    fit = train_probes if config.probe else train
    try:
        with out_of_memory_told(_memory_advice(config)):
            result = fit(
                config,
                resume=flags.resume,
                save_every_s=flags.save_every_s,
                place=place,
                progress=shown,
                annotate=with_source,
            )
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
    if place.rank == 0:
        report(result, as_json=flags.common.json)


def _memory_advice(config: TrainConfig) -> str:
    """Return what to lower where there is no memory left, and how it is now."""
    preload = "" if config.preload == "none" else f" and leave --preload {config.preload} out"
    return (
        f"a step has {config.global_batch} rows over all processes (--global-batch), and windows"
        f" hold {config.window_blocks} blocks of each of {config.lanes} lanes (--window-blocks,"
        f" --lanes); lower them{preload}, or free some memory"
    )


def report(result: "TrainResult | ProbesResult", *, as_json: bool) -> None:
    """Print how a run ended and what to type next."""
    from train import TrainResult

    if as_json:
        print(json.dumps(result.to_json(), indent=2))
        return
    why = {"patience": "no better epoch in a while", "epochs": "all epochs done"}[result.stopped]
    done = f"{result.epochs} epochs, {result.steps} steps, {result.seconds:.0f} s ({why})"
    if isinstance(result, TrainResult):
        best, evaluated = result.best, result.run
        print(f"{done}; best epoch {result.best_epoch + 1}")
        print(f"validation {', '.join(metric_texts(best))}, over {best.num_rows:,} rows")
    else:
        evaluated = max(result.probes, key=lambda item: item.best.lift or 0.0).run
        print(f"{done}; on the split validation, at the best epoch of each:")
        print("\n".join(probe_table(result.probes)))
    print(f"run: {result.run}")
    tensorboard = program().replace("laughstore", "tensorboard")
    print(f"next: {program()} evaluate {shlex.quote(str(evaluated))}")
    print(f"      {tensorboard} --logdir {shlex.quote(str(result.run))}/tensorboard")
