"""`laughstore demo`: every part on a small synthetic corpus, with no network, GPU or download."""

import json
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from extract.config import BuildConfig
from train.config import TrainConfig

from .. import layout
from ..errors import ConfigError
from ..files import write_atomic
from .evaluate import report as report_evaluation
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .scoring_flags import ScoringProgress
from .text import program
from .training_progress import TrainingProgress

if TYPE_CHECKING:
    from train import EvaluationResult

EPISODES = {"train": 6, "validation": 2, "test": 3}
_MARK = "demo.json"
"""Says that a folder was made by a demo, which may therefore be replaced by another."""
_CORPUS, _CHECKPOINT, _STORE, _RUN = "corpus", "checkpoint", "store", "run"
_MAX_THREADS = 8
_REPLACED = ".replaced-"
_SPLIT = "test"
_BATCH, _LEARNING_RATE, _EPOCHS = 512, 1e-3, 30
"""For a corpus of minutes; the defaults are for one of hundreds of hours."""


@dataclass(frozen=True)
class _Flags:
    common: CommonFlags
    out: Path = Path("laughstore-demo")
    """Folder of everything the demo makes; the folder of an earlier demo is replaced."""
    seconds: int = 60
    """Length of each of the synthetic episodes."""
    seed: int = 0
    """Of the corpus, the checkpoint and the training."""
    keep: bool = False
    """Keep the corpus, checkpoint and store of an earlier demo in the folder; train again."""

    def __post_init__(self) -> None:
        if not 10 <= self.seconds <= 600:
            raise ConfigError(f"seconds is {self.seconds}; it must be between 10 and 600")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0")


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "demo",
        arguments,
        "Synthesise a small PodcastFillers-shaped corpus, write a small random Moshi checkpoint,"
        " build a store, train a linear head, evaluate it on held-out episodes and plot it."
        " Offline, on a CPU, in about two minutes.",
    )
    flags.common.configure_logging()
    began_s = time.monotonic()
    bar = TerminalProgress(quiet=flags.common.quiet)
    _prepare(flags)
    try:
        _write_inputs(flags, bar)
        _build(flags, bar)
        _train(flags, bar)
        result = _evaluate(flags, bar)
    except (KeyboardInterrupt, SystemExit):
        kept = [word for word in arguments if word != "--keep"]
        again = f"{program()} {shlex.join(['demo', '--keep', *kept])}"
        bar.message(f"stopped; what is finished is kept. Go on with:\n  {again}")
        raise
    _report(flags, result, time.monotonic() - began_s)
    return 0


def _prepare(flags: _Flags) -> None:
    """Make the folder, or clear that of an earlier demo; nothing else is ever deleted."""
    settings = json.dumps({"seconds": flags.seconds, "seed": flags.seed}).encode()
    mark = flags.out / _MARK
    if flags.out.exists():
        if not mark.is_file():
            if not flags.out.is_dir() or any(flags.out.iterdir()):
                raise ConfigError(f"{flags.out} exists and no demo made it; give another --out")
        elif flags.keep and mark.read_bytes() != settings:
            raise ConfigError(
                f"{flags.out} holds a demo with other --seconds or --seed; leave out --keep to"
                " replace it"
            )
        parts = (_RUN,) if flags.keep else (_RUN, _STORE, _CHECKPOINT, _CORPUS)
        for part in parts:
            # Renamed first: a part that is half deleted must not be taken for a whole one.
            if (flags.out / part).exists():
                (flags.out / part).rename(flags.out / f"{_REPLACED}{part}-{secrets.token_hex(4)}")
        for replaced in flags.out.glob(f"{_REPLACED}*"):
            shutil.rmtree(replaced)
    write_atomic(mark, settings)


def _write_inputs(flags: _Flags, bar: TerminalProgress) -> None:
    from extract.synthetic.corpus import write_synthetic_corpus
    from extract.synthetic.tiny_checkpoint import write_tiny_checkpoint

    num_episodes = sum(EPISODES.values())
    if not (flags.out / _CORPUS).exists():
        bar.message(
            f"1/5 synthesising {num_episodes} episodes of {flags.seconds} s: speech-like and"
            " laughter-like sound, no person's voice"
        )
        bar.begin("synthesise", num_episodes, "episode")
        write_synthetic_corpus(
            flags.out / _CORPUS,
            episodes=EPISODES,
            seconds=flags.seconds,
            seed=flags.seed,
            progress=lambda _: bar.advance(1),
        )
        bar.end()
    if not (flags.out / _CHECKPOINT).exists():
        bar.message("2/5 writing a small random Moshi checkpoint with 4096 channels: not trained")
        write_tiny_checkpoint(flags.out / _CHECKPOINT, size="wide", seed=flags.seed)


def _build(flags: _Flags, bar: TerminalProgress) -> None:
    from extract.run import build

    bar.message("3/5 building the store: Mimi and Moshi over every episode, each speaker main once")
    config = BuildConfig(
        dataset=flags.out / _CORPUS,
        store=flags.out / _STORE,
        model=str(flags.out / _CHECKPOINT),
        device="cpu",
        threads=min(os.cpu_count() or 1, _MAX_THREADS),
        strict=True,
    )
    build(config, bar)


def _train(flags: _Flags, bar: TerminalProgress) -> None:
    from train import train

    config = TrainConfig(
        shards=flags.out / _STORE / layout.SHARDS,
        out=flags.out / _RUN,
        global_batch=_BATCH,
        lr=_LEARNING_RATE,
        epochs=_EPOCHS,
        seed=flags.seed,
        device="cpu",
    )
    bar.message(f"4/5 training a linear head: {config.label.describe()}")
    shown = TrainingProgress(bar, epochs=_EPOCHS)
    try:
        train(config, progress=shown)
    finally:
        shown.close()


def _evaluate(flags: _Flags, bar: TerminalProgress) -> "EvaluationResult":
    from train import evaluate

    bar.message(f"5/5 evaluating on {EPISODES[_SPLIT]} held-out episodes")
    return evaluate(flags.out / _RUN, split=_SPLIT, device="cpu", progress=ScoringProgress(bar))


def _report(flags: _Flags, result: "EvaluationResult", seconds: float) -> None:
    store, run_path = flags.out / _STORE, flags.out / _RUN
    if flags.common.json:
        report = {
            "store": str(store),
            "run": str(run_path),
            "plots": [str(plot) for plot in result.plots],
            "seconds": round(seconds, 1),
            **result.to_json(),
        }
        print(json.dumps(report, indent=2))
        return
    report_evaluation(result, as_json=False)
    shards, corpus = (
        shlex.quote(str(path)) for path in (store / layout.SHARDS, flags.out / _CORPUS)
    )
    print(
        f"done in {seconds:.0f} s. The corpus is synthetic, the checkpoint random: the score says"
    )
    print("that the pipeline works, nothing about laughter of people.")
    print(f"store: {store}")
    print(f"run: {run_path}")
    print(f"plots: {result.out}")
    print("next:")
    print(f"  {program()} inspect {shlex.quote(str(store))}")
    print(f"  {program()} report {shlex.quote(str(run_path))} --audio {corpus}")
    print(f"  {program()} train --shards {shards} --label onset:0.8s --lr 1e-3 --out my-run")
    print(
        f"  {program()} build {corpus} --dry-run --store my-store   # then with your own data set"
    )
