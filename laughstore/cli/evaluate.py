"""`laughstore evaluate`: score a run on a split and plot it along time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ..timebase import Span
from .annotation_source import with_source
from .baseline_text import baseline_texts, strata_texts
from .event_text import calibration_texts, event_texts, sureness_texts
from .flags import CommonFlags, parse
from .metric_text import metric_texts, undefined_texts
from .progress import TerminalProgress
from .text import counted
from .threshold_text import threshold_texts

if TYPE_CHECKING:
    from train import EvaluationResult


_COLLAR = Span("0.2s")


@dataclass(frozen=True)
class _Flags:
    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    common: CommonFlags
    split: str = "validation"
    """Split to score. Look at test last, and once."""
    shards: Path | str | None = None
    """Store or shards folder, a path or a URL (default: the run's own)."""
    checkpoint: str = "best"
    """best, last, or the path of a checkpoint."""
    threshold_by: str | None = None
    """Choose the threshold on validation by f1 (default), youden, precision@X, recall@X (X is 0 to
    1), or fa-per-hour@X: the lowest with at most X false alarms of events an hour."""
    threshold: float | None = None
    """Use this threshold, 0 to 1: a row is an alarm if its score is at least this."""
    collar: Span = _COLLAR
    """Of segments: how near their ends must be to those of bouts. What is fitted on validation is
    fitted at 0.2s."""
    out: Path | None = None
    """Folder for metrics.json and plots (default: RUN/evaluation/SPLIT)."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto (cuda if there is one)."""
    annotations: Path | None = None
    """Make labels from these annotations (default: what the run was trained with); all that
    `laughstore annotate --from` takes."""
    timelines: int = 8
    """Most recordings to plot along time; those with the most positive rows."""
    bootstrap: int = 2000
    """Draws of groups (shows), or of recordings if there are fewer than ten, for intervals; 0: no
    intervals."""
    null: int = 200
    """Rotations of labels against scores, which tell average precision by chance; 0: none."""
    cache: Path | None = None
    """Folder of this machine that keeps blocks of a remote store: an empty or a new one, or one
    that was used so before."""
    cache_gb: float = 50.0
    """Bound of that folder, in units of 10^9 bytes."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "evaluate",
        arguments,
        "Score a split with a trained run: average precision beside its base rate, AUROC, a table"
        " by recording, plots of probability along time.",
    )
    flags.common.configure_logging()
    from train import evaluate
    from train.evaluation.events.collar import Collar

    bar = TerminalProgress(quiet=flags.common.quiet)
    result = evaluate(
        flags.run,
        split=flags.split,
        shards=flags.shards,
        out=flags.out,
        checkpoint=flags.checkpoint,
        threshold=flags.threshold,
        threshold_by=flags.threshold_by,
        collar=Collar(onset_us=flags.collar.us, offset_us=flags.collar.us),
        device=flags.device,
        timelines=flags.timelines,
        bootstrap=flags.bootstrap,
        null=flags.null,
        annotations=flags.annotations,
        annotate=with_source,
        cache=flags.cache,
        cache_gb=flags.cache_gb,
        progress=ScoringProgress(bar),
    )
    report(result, as_json=flags.common.json)
    return 0


class ScoringProgress:
    """Shows the rows scored so far."""

    def __init__(self, bar: TerminalProgress) -> None:
        self._bar = bar
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        """Take one report of `train.evaluate`."""
        if self._done == 0:
            self._bar.begin("score", total, "row")
        self._bar.advance(done - self._done)
        self._done = done
        if done == total:
            self._bar.end()
            self._done = 0  # the next split begins


def report(result: "EvaluationResult", *, as_json: bool) -> None:
    """Print what an evaluation found and where it is."""
    if as_json:
        print(json.dumps(result.to_json() | {"out": str(result.out)}, indent=2))
        return
    from train.runs.folds import TRAIN_SPLIT
    from train.runs.looks import LOOKS_FILE

    found = result.metrics
    print(f"{result.split}: {result.label.describe()}")
    if result.look is not None:
        print(f"look {result.look.look} at {result.split} by this run, counted in {LOOKS_FILE}")
    if result.split == TRAIN_SPLIT:
        print("these rows were trained on: other rows will have worse scores")
    if result.fold is not None:
        print(f"groups of fold {result.fold['fold']} of {result.fold['folds']} are validation")
    if result.other_annotations is not None:
        print(result.other_annotations)
    print(
        f"{counted(len(result.recordings), 'recordings')},"
        f" {counted(result.num_streams, 'streams')}, {result.hours:.2f}"
        f" hours of rows ({result.num_ignored:,} rows ignored)"
    )
    if result.num_skipped_blocks:
        left_out = counted(result.num_skipped_blocks, "blocks")
        print(f"{left_out} left out, as in training (--skip-corrupt)")
    if result.scores == "order":
        print("scores order rows, and are no probabilities (see docs/labels.md, Losses)")
    for line in undefined_texts(found):
        print(line)
    print("   ".join(metric_texts(found)))
    for texts in (
        threshold_texts,
        sureness_texts,
        baseline_texts,
        calibration_texts,
        event_texts,
        strata_texts,
    ):
        for line in texts(result):
            print(line)
    print("by recording:")
    for item in result.recordings:
        texts = metric_texts(item.metrics, without=("threshold",))  # the same for all
        print("  ".join(["", *texts, item.name]))
    print(f"metrics: {result.out / 'metrics.json'}")
    for plot in result.plots:
        print(f"plot: {plot}")
