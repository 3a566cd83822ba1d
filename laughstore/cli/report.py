"""`laughstore report`: an evaluation as one page, with timelines and, where there is any, sound."""

import json
import logging
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from .event_text import sureness_texts
from .flags import CommonFlags, parse
from .metric_text import metric_texts, undefined_texts
from .progress import TerminalProgress
from .scoring_flags import DecisionFlags, FrameFlags, SplitFlags
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
    frames: FrameFlags
    judged: SplitFlags
    decision: DecisionFlags
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
        **vars(flags.judged),
        out=flags.out,
        recordings=flags.recordings,
        clips=clips,
        **vars(flags.decision),
        **flags.frames.arguments(bar),
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
