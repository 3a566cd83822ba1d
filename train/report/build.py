"""The report of a run: an evaluation as one page to read, look at and listen to.

Enters: a run and a split. Leaves: one HTML file that needs no network. Its numbers are those of
`train.evaluate`, made of the same scores; besides, only what an evaluation keeps in the run is
written.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from laughstore.errors import ConfigError
from laughstore.files import make_dirs, write_atomic
from laughstore.other_annotations import Annotate, read_other_annotations
from laughstore.timebase import FRAME_US, US_PER_SECOND

from ..evaluation.bootstrap import DRAWS
from ..evaluation.evaluate import evaluation_of
from ..evaluation.null import NULL_DRAWS
from ..evaluation.result import EvaluationResult
from ..evaluation.thresholds import ThresholdRule
from ..losses import target_kind
from ..runs.folds import VALIDATION_SPLIT
from ..scoring.metrics import chosen_metric
from ..scoring.ranking import RankedRows
from ..scoring.score import counted_rows
from . import beside, summary
from .charts import Chart
from .curves import (
    calibration_chart,
    false_positive_rate,
    precision_recall_chart,
    roc_chart,
    trade_off_chart,
)
from .marks import stream_marks
from .page import render
from .sound import Clip, ClipsOf, clips_of
from .tables import clock, number, percent
from .timeline import Shown, choose_recordings, timeline_json
from .training import read_log, training_charts
from .worst import Spot, worst_spots

RECORDINGS: Final = 6
_STEP: Final = re.compile(r"step-(\d+)")
_SEEN_AT_ONCE: Final = 6
"""Of either list; the others are behind a click."""


@dataclass(frozen=True)
class Report:
    """A page that was written."""

    path: Path
    num_bytes: int
    result: EvaluationResult
    recordings: tuple[str, ...]
    """Names of those with a whole timeline."""
    num_clips: int
    """Stretches of sound in the page."""


def write_report(
    run: Path,
    *,
    split: str = VALIDATION_SPLIT,
    out: Path | None = None,
    recordings: int = RECORDINGS,
    clips: ClipsOf | None = None,
    shards: Path | str | None = None,
    checkpoint: str = "best",
    threshold: float | None = None,
    threshold_by: ThresholdRule | str | None = None,
    device: str = "auto",
    bootstrap: int = DRAWS,
    null: int = NULL_DRAWS,
    annotations: Path | None = None,
    annotate: Annotate = read_other_annotations,
    cache: Path | None = None,
    cache_gb: float = 50.0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Score a split with a trained run and write what was found as a page.

    Args:
        run: folder of the run.
        split: to score.
        out: page to write; RUN/report.html if None (of another split than validation
            RUN/report-SPLIT.html), where an older one is replaced.
        recordings: timelines that are shown whole.
        clips: gives the sound of recordings; the page is silent if None.
        shards: as `train.evaluate`, and so on.
        checkpoint: which one scores.
        threshold: to decide by, instead of one that validation chose.
        threshold_by: rule by which validation chooses it.
        device: of the scores.
        bootstrap: draws for intervals.
        null: rotations for chance.
        annotations: to make labels from.
        annotate: reads them.
        cache: of remote shards.
        cache_gb: bound of it.
        progress: called with (rows done, rows).

    Raises:
        ConfigError: out exists, a number is below 0, or as `train.evaluate`.
        NotFound, SpecMismatch, CorruptData: as `train.evaluate`.
    """
    if recordings < 0:
        raise ConfigError(f"recordings is {recordings}; it must be 0 or more")
    page = out or run / ("report.html" if split == VALIDATION_SPLIT else f"report-{split}.html")
    if page.is_dir() or (out is not None and page.exists()):
        raise ConfigError(f"{page} exists; choose another --out, or delete it")
    result = evaluation_of(
        run,
        split=split,
        shards=shards,
        checkpoint=checkpoint,
        threshold=threshold,
        threshold_by=threshold_by,
        device=device,
        bootstrap=bootstrap,
        null=null,
        annotations=annotations,
        annotate=annotate,
        cache=cache,
        cache_gb=cache_gb,
        progress=progress,
        by="report",
    )
    contents = _Contents.of(result, recordings, clips)
    data = contents.page().encode()
    make_dirs(page.parent)
    write_atomic(page, data)
    return Report(
        path=page,
        num_bytes=len(data),
        result=result,
        recordings=tuple(item.recording.name for item in contents.shown if item.excerpts is None),
        num_clips=sum(map(len, contents.clips)),
    )


@dataclass(frozen=True, eq=False)
class _Contents:
    """What a page is made of."""

    result: EvaluationResult
    shown: list[Shown]
    timelines: list[dict[str, Any]]  # Any: JSON values
    spots: list[Spot]
    """False alarms, then misses; the page numbers them so."""
    num_false_alarms: int
    """Of them."""
    totals: tuple[int, int]
    """False alarms and misses that there are."""
    clips: list[list[Clip]]

    @classmethod
    def of(cls, result: EvaluationResult, recordings: int, clips: ClipsOf | None) -> "_Contents":
        index, streams, label = result.index, result.streams, result.label
        threshold = result.metrics.threshold
        segments = result.events.segments
        how = None if segments is None else segments.how
        marks = [stream_marks(index, item, label, threshold, how) for item in streams]
        worst = worst_spots(streams, marks, label)
        spots = [*worst.false_alarms, *worst.misses]
        shown = choose_recordings(index, streams, worst, recordings)
        found: list[list[Clip]] = [[] for _ in shown]
        if clips is not None:
            listed = [[spot for spot in spots if spot.stream in item.streams] for item in shown]
            found = clips_of(shown, listed, clips)
        timelines = []
        for item, sounds in zip(shown, found, strict=True):
            told = timeline_json(item, streams, marks, label, result.scores)
            timelines.append({**told, "sounds": [clip.to_json() for clip in sounds]})
        return cls(
            result,
            shown,
            timelines,
            spots,
            len(worst.false_alarms),
            (worst.num_false_alarms, worst.num_misses),
            found,
        )

    def page(self) -> str:
        """Return the page."""
        result, run = self.result, self.result.opened
        name = run.path.resolve().name
        charts, confusion = self._curves(), result.confusion
        step = _STEP.match(result.checkpoint.name)
        course = training_charts(
            read_log(run.metrics_log),
            chosen_metric(run.config.select_by),
            None if step is None else int(step[1]),
        )
        places = {item.recording.id: f"#recording-{item.recording.id}" for item in self.shown}
        kind = "numbers" if target_kind(result.label) == "numbers" else result.label.kind
        return render(
            "report.html",
            title=f"{name}: {result.split}",
            charts=[*charts, *course],
            data={
                "timelines": self.timelines,
                "spots": [self._spot_json(spot) for spot in self.spots],
                "threshold": result.metrics.threshold,
                "frame": FRAME_US / US_PER_SECOND,
                "event": result.label.event,
                "scores": result.scores,
                "kind": kind,
            },
            styles=["report.css"],
            scripts=["series.js", "figure.js", "player.js", "timeline.js"],
            name=name,
            result=result,
            facts=self._facts(),
            warnings=summary.warnings(result),
            tiles=summary.tiles(result),
            kind=kind,
            lists=self._lists(kind),
            curve_charts=charts,
            course_charts=course,
            confusion=confusion,
            false_rate=None if confusion is None else false_positive_rate(confusion),
            threshold_text=summary.threshold_text(result),
            numbers=summary.numbers_table(result),
            baselines=beside.baselines_table(result),
            baselines_missing=beside.baselines_missing(result),
            kinds=beside.kinds_table(result),
            shows=beside.shows_table(result),
            by_recording=summary.recordings_table(result, places),
            shown=self.shown,
            has_sound=any(self.clips),
            settings=[
                ("Settings of the run", summary.run_settings(run)),
                ("Features it was trained on", summary.feature_settings(run)),
                ("Software that trained it", summary.software(run)),
            ],
            percent=percent,
        )

    def _facts(self) -> list[str]:
        result = self.result
        facts = [
            f"split {result.split}",
            f"{len(result.recordings):,} recordings",
            f"{result.num_streams:,} streams",
            f"{result.hours:.2f} hours of rows",
            f"{result.num_ignored:,} rows ignored",
            f"base rate {percent(result.metrics.base_rate)}",
            f"checkpoint {result.checkpoint.name}",
            f"store generation {result.generation}",
        ]
        if result.fold is not None:
            facts.insert(1, f"fold {result.fold['fold']} of {result.fold['folds']}")
        if result.annotations is not None:
            facts.append(f"labels from {result.annotations}")
        return facts

    def _curves(self) -> list[Chart]:
        result, found, confusion = self.result, self.result.metrics, self.result.confusion
        y, score = counted_rows(result.streams)
        charts = []
        if found.average_precision is not None:
            ranked = RankedRows.of(y > 0, score)
            charts.append(precision_recall_chart(ranked, found.average_precision, confusion))
            if found.auroc is not None:
                charts.append(roc_chart(ranked, found.auroc, confusion))
        if result.calibration is not None:
            charts.append(calibration_chart(result.calibration.bins, result.tempered))
        if result.events.curve is not None:
            what = "onsets" if result.events.segments is None else "bouts"
            charts.append(trade_off_chart(result.events.curve, result.events.point, what))
        return charts

    def _spot_json(self, spot: Spot) -> dict[str, Any]:  # Any: JSON values
        place = next(i for i, item in enumerate(self.shown) if spot.stream in item.streams)
        return {
            "timeline": place,
            "stream": self.shown[place].streams.index(spot.stream),
            "start": spot.start_s,
            "end": spot.end_s,
            "kind": spot.kind,
        }

    def _lists(self, kind: str) -> list[dict[str, object]]:
        """The two lists, as the template shows them."""
        titles = ("Worst false alarms", "Worst misses")
        if kind == "numbers":
            titles = ("Largest overestimates", "Largest underestimates")
        numbered = list(enumerate(self.spots))
        parts = numbered[: self.num_false_alarms], numbered[self.num_false_alarms :]
        return [
            {
                "title": title,
                "total": total,
                "kind": "false" if place == 0 else "miss",
                "seen": [self._shown_spot(*item) for item in part[:_SEEN_AT_ONCE]],
                "more": [self._shown_spot(*item) for item in part[_SEEN_AT_ONCE:]],
            }
            for place, (title, total, part) in enumerate(
                zip(titles, self.totals, parts, strict=True)
            )
        ]

    def _shown_spot(self, place: int, spot: Spot) -> dict[str, str]:
        scores = self.result.streams[spot.stream]
        seconds = spot.end_s - spot.start_s
        score = number(spot.score)
        return {
            "href": f"#spot-{place}",
            "score": score if spot.target is None else f"{score}, should be {number(spot.target)}",
            "time": clock(max(spot.start_s, 0), 1),
            "length": f"{seconds:.1f} s" if seconds > FRAME_US / US_PER_SECOND else "",
            "who": scores.title,
            "recording": self.result.index.recording(scores.stream.recording_id).name,
        }
