"""`laughstore compare`: several runs, or the probes of one, beside each other on a split."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from .annotation_source import with_source
from .compare_text import comparison_texts
from .evaluate import ScoringProgress
from .flags import CommonFlags, parse
from .progress import TerminalProgress


@dataclass(frozen=True)
class _Flags:
    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of two runs or more; one with many probes stands for all of them."""
    common: CommonFlags
    split: str = "validation"
    """Split to score. Look at test last, and once."""
    metric: str = "auto"
    """What to compare by: ap, auroc, f1, of numbers also rmse, mae, spearman, wait_mae_s; auto: ap,
    or rmse if all labels are numbers."""
    baseline: Path | None = None
    """The run that differences are from (default: the first)."""
    shards: Path | str | None = None
    """Store or shards folder for all runs, a path or a URL (default: each run's own)."""
    checkpoint: str = "best"
    """best or last."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto (cuda if there is one)."""
    annotations: Path | None = None
    """Make labels from these annotations (default: what each run was trained with); all that
    `laughstore annotate --from` takes."""
    out: Path | None = None
    """Page to write, one HTML file that needs no network; it must not exist yet (default: none)."""
    bootstrap: int = 2000
    """Draws of groups (shows), or of recordings if there are fewer than ten, for intervals; 0: no
    intervals."""
    cache: Path | None = None
    """Folder of this machine that keeps blocks of a remote store: an empty or a new one, or one
    that was used so before."""
    cache_gb: float = 50.0
    """Bound of that folder, in units of 10^9 bytes."""


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
        split=flags.split,
        metric=flags.metric,
        baseline=flags.baseline,
        shards=flags.shards,
        checkpoint=flags.checkpoint,
        device=flags.device,
        bootstrap=flags.bootstrap,
        annotations=flags.annotations,
        annotate=with_source,
        cache=flags.cache,
        cache_gb=flags.cache_gb,
        progress=ScoringProgress(bar),
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
