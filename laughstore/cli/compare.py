"""`laughstore compare`: several runs, or the probes of one, beside each other on a split."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from .compare_text import comparison_texts
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .scoring_flags import FrameFlags, SplitFlags


@dataclass(frozen=True)
class _Flags:
    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of two runs or more; one with many probes stands for all of them."""
    common: CommonFlags
    frames: FrameFlags
    judged: SplitFlags
    metric: str = "auto"
    """What to compare by: ap, auroc, f1, of numbers also rmse, mae, spearman, wait_mae_s; auto: ap,
    or rmse if all labels are numbers."""
    baseline: Path | None = None
    """The run that differences are from (default: the first)."""
    checkpoint: str = "best"
    """best or last."""
    out: Path | None = None
    """Page to write, one HTML file that needs no network; it must not exist yet (default: none)."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "compare",
        arguments,
        "Score several runs on one split: a metric of each, how much better each is than the first"
        " over the same draws of shows or recordings, and what differs in their configuration.",
    )
    flags.common.configure_logging()
    from train import compare

    if flags.out is not None:
        from train.report.comparison import check_page

        check_page(flags.out)
    bar = TerminalProgress(quiet=flags.common.quiet)
    found = compare(
        flags.runs,
        **vars(flags.judged),
        metric=flags.metric,
        baseline=flags.baseline,
        checkpoint=flags.checkpoint,
        **flags.frames.arguments(bar),
    )
    if flags.out is not None:
        from train.report.comparison import write_comparison

        write_comparison(found, flags.out)
    if flags.common.json:
        about = {"out": None if flags.out is None else str(flags.out)}
        print(json.dumps(found.to_json() | about, indent=2, allow_nan=False))
        return 0
    for line in comparison_texts(found):
        print(line)
    if flags.out is not None:
        print(f"page: {flags.out}")
    return 0
