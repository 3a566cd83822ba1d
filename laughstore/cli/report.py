"""`laughstore report`: an evaluation as one page, with timelines and, where there is any, sound."""

import json
import logging
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from .annotation_source import with_source
from .evaluate import ScoringProgress
from .event_text import sureness_texts
from .flags import CommonFlags, parse
from .metric_text import metric_texts, undefined_texts
from .progress import TerminalProgress
from .text import counted, human_bytes
from .threshold_text import threshold_texts

if TYPE_CHECKING:
    from train.report.build import Report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Flags:
    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    common: CommonFlags
    split: str = "validation"
    """Split to score. Look at test last, and once."""
    out: Path | None = None
    """Page to write (default: RUN/report.html, of another split than validation
    RUN/report-SPLIT.html; an older one is replaced)."""
    recordings: int = 6
    """Timelines that are shown whole, of the recordings with most of the worst errors; of others
    there are excerpts around these."""
    audio: Path | None = None
    """Data set with the recordings' sound, as `laughstore build` reads it. Recordings up to 5
    minutes are put into the page whole, of longer ones 10 s around each listed error; 20 minutes in
    all. Voices are then in the page."""
    open: bool = False
    """Show the page in the browser."""
    shards: Path | str | None = None
    """Store or shards folder, a path or a URL (default: the run's own)."""
    checkpoint: str = "best"
    """best, last, or the path of a checkpoint."""
    threshold_by: str | None = None
    """Choose the threshold on validation by f1 (default), youden, precision@X, recall@X (X is 0 to
    1), or fa-per-hour@X: the lowest with at most X false alarms of events an hour."""
    threshold: float | None = None
    """Use this threshold, 0 to 1: a row is an alarm if its score is at least this."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto (cuda if there is one)."""
    annotations: Path | None = None
    """Make labels from these annotations (default: what the run was trained with); all that
    `laughstore annotate --from` takes."""
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
        "report",
        arguments,
        "Score a split with a trained run and write what was found as one page that needs no"
        " network: numbers with intervals, curves, the worst errors first, and timelines.",
    )
    flags.common.configure_logging()
    from train import write_report

    clips = None
    if flags.audio is not None:
        from .report_sound import dataset_clips

        clips = dataset_clips(flags.audio)
    bar = TerminalProgress(quiet=flags.common.quiet)
    report = write_report(
        flags.run,
        split=flags.split,
        out=flags.out,
        recordings=flags.recordings,
        clips=clips,
        shards=flags.shards,
        checkpoint=flags.checkpoint,
        threshold=flags.threshold,
        threshold_by=flags.threshold_by,
        device=flags.device,
        bootstrap=flags.bootstrap,
        null=flags.null,
        annotations=flags.annotations,
        annotate=with_source,
        cache=flags.cache,
        cache_gb=flags.cache_gb,
        progress=ScoringProgress(bar),
    )
    _tell(report, as_json=flags.common.json)
    if flags.open and not webbrowser.open(report.path.absolute().as_uri()):
        logger.warning("no browser was found; open %s yourself", report.path)
    return 0


def _tell(report: "Report", *, as_json: bool) -> None:
    result = report.result
    if as_json:
        about = {
            "out": str(report.path),
            "bytes": report.num_bytes,
            "timelines": list(report.recordings),
            "clips": report.num_clips,
        }
        print(json.dumps(result.to_json() | about, indent=2))
        return
    print(f"{result.split}: {result.label.describe()}")
    if result.look is not None:
        print(f"look {result.look.look} at {result.split} by this run")
    for line in undefined_texts(result.metrics):
        print(line)
    print("   ".join(metric_texts(result.metrics)))
    for texts in (threshold_texts, sureness_texts):
        for line in texts(result):
            print(line)
    sound = f", {counted(report.num_clips, 'clips')} of sound" if report.num_clips else ""
    timelines = counted(len(report.recordings), "timelines")
    print(f"report: {report.path} ({human_bytes(report.num_bytes)}, {timelines}{sound})")
