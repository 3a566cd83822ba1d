"""`laughstore evaluate`: score a run on a split and plot it along time."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ..memory import out_of_memory_told
from ..timebase import Span
from .baseline_text import baseline_texts, strata_texts
from .event_text import calibration_texts, event_texts, sureness_texts
from .flags import CommonFlags, parse
from .metric_text import metric_texts, undefined_texts
from .progress import TerminalProgress
from .scoring_flags import DecisionFlags, FrameFlags, SplitFlags
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
    frames: FrameFlags
    judged: SplitFlags
    decision: DecisionFlags
    collar: Span = _COLLAR
    """Of segments: how near their ends must be to those of bouts. What is fitted on validation is
    fitted at 0.2s."""
    out: Path | None = None
    """Folder for metrics.json and plots (default: RUN/evaluation/SPLIT)."""
    timelines: int = 8
    """Most recordings to plot along time; those with the most positive rows."""


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
    with out_of_memory_told(
        "scores and labels of all rows of the split are kept; lower --bootstrap or --null, give"
        " another --device, or free some memory"
    ):
        result = evaluate(
            flags.run,
            **vars(flags.judged),
            out=flags.out,
            **vars(flags.decision),
            collar=Collar(onset_us=flags.collar.us, offset_us=flags.collar.us),
            timelines=flags.timelines,
            **flags.frames.arguments(bar),
        )
    report(result, as_json=flags.common.json)
    return 0


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
