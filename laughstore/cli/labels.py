"""`laughstore labels`: which rows a label makes positive or ignores, counted and along time."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from train.runs.folds import check_folds, choose_fold, with_fold
from train.streaming.selection import FrameFilter, Selection, select

from ..bouts import Times
from ..errors import ConfigError, NotFound
from ..index import Index, Recording
from ..label_report import LEGEND, By, LabelLine, LabelTally, StreamRows, draw, ranges
from ..labels import LabelSpec, target_bouts
from ..store import open_shards
from ..timebase import Span
from .annotation_source import with_source
from .flags import CommonFlags, parse, path_or_url
from .text import counted, percent

_LABEL = LabelSpec()
_FILTER = FrameFilter()
_ALL = "all"


@dataclass(frozen=True)
class _Flags:
    store: tyro.conf.Positional[str]
    """A store or its shards folder (a path or a URL)."""
    common: CommonFlags
    label: LabelSpec = _LABEL
    """What is asked."""
    filter: FrameFilter = _FILTER
    """Which frames take part."""
    split: str = _ALL
    """Count this split only; or all."""
    by: By | None = None
    """Print a second table: by recording, by its main speaker, or by group (show)."""
    annotations: Path | None = None
    """Make labels from these annotations, not from the store's, which stays as it is; all that
    `laughstore annotate --from` takes."""
    folds: int | None = None
    """Count the splits train and validation as `train --folds` divides them."""
    fold: int | None = None
    """The fold that is the validation split, from 0."""
    seed: int = 0
    """Of the folds, as in `train`."""
    show: str | None = None
    """Draw the rows of this recording (its id or name) along time, a minute a line."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "labels",
        arguments,
        "Tell how many rows of a store a label makes positive, negative or ignored, as training and"
        " evaluation would see them. No frame is read.",
    )
    flags.common.configure_logging()
    where = path_or_url(flags.store)
    if isinstance(where, Path) and not where.exists():
        raise NotFound(f"{where} does not exist; give a store or its shards folder")
    index = open_shards(where)
    if not index.recordings:
        raise ConfigError(f"{where} holds no recordings; build some into it")
    if flags.annotations is not None:
        index = with_source(index, flags.annotations)
    index = _folded(flags, index)
    shown = None if flags.show is None else index.recording(flags.show)
    tally = _tally(flags, index)
    if flags.common.json:
        print(json.dumps(_to_json(flags, index, tally, shown), indent=2))
        return 0
    fold = "" if flags.folds is None else f"; fold {flags.fold} of {flags.folds} is validation"
    print(f"{where}: {flags.label.describe()}; {flags.filter.describe()}{fold}")
    _print_table(tally.splits)
    if flags.by is not None:
        print(f"by {flags.by}:")
        _print_table(tally.items)
    if shown is not None:
        _print_drawing(flags, index, shown)
    return 0


def _folded(flags: _Flags, index: Index) -> Index:
    check_folds(flags.folds, flags.fold)
    if flags.folds is None or flags.fold is None:
        if flags.seed:
            raise ConfigError("seed is of the folds: give --folds and --fold, or drop it")
        return index
    return with_fold(index, choose_fold(index, flags.folds, flags.fold, seed=flags.seed))


def _tally(flags: _Flags, index: Index) -> LabelTally:
    """Count split after split, so that the rows of one alone are in memory."""
    tally = LabelTally(flags.by)
    for split in index.splits if flags.split == _ALL else (flags.split,):
        # Of one split that was asked for, nothing is a mistake; of one among all, it is a count.
        may_be_empty = flags.split == _ALL
        selection = select(index, split, flags.label, flags.filter, may_be_empty=may_be_empty)
        tally.begin(split)
        for rows in _stream_rows(selection):
            tally.add(rows)
    if not any(line.num_streams for line in tally.splits):
        raise ConfigError(
            f"none of the {len(index.recordings)} recordings of {index.where} passes the filter"
            f" ({flags.filter.describe()}); widen --recordings or --exclude"
        )
    return tally


def _stream_rows(selection: Selection) -> Iterator[StreamRows]:
    """The rows of each stream of a selection."""
    index, ignored = selection.index, selection.ignored.reshape(-1)
    start = 0
    for number, stream in enumerate(selection.streams):
        y, eligible = selection.stream_targets(number)
        yield StreamRows(
            recording=index.recording(stream.recording_id),
            stream=stream,
            positive=eligible & (y > 0),
            negative=eligible & (y <= 0),
            ignored=ignored[start : start + stream.num_frames],
        )
        start += stream.num_blocks * index.block_frames


def _recording_rows(flags: _Flags, index: Index, recording: Recording) -> list[StreamRows]:
    """The rows of one recording, whatever the filter says of its id."""
    only = replace(flags.filter, recordings=escape(recording.id), exclude=None)
    return list(_stream_rows(select(index, recording.split, flags.label, only, may_be_empty=True)))


def _events(label: LabelSpec, index: Index, rows: StreamRows) -> tuple[Times, Times]:
    """Stretches of the events a label asks for in a stream, and of all events of its class."""
    # Of any kind of label: only which events it asks for matters, each drawn apart.
    apart = LabelSpec(
        event=label.event,
        whose=label.whose,
        merge_gap=Span("0s"),
        min_confidence=label.min_confidence,
    )
    everybody = replace(apart, whose="any", min_confidence=0.0)
    tables, stream = index.tables(rows.recording), rows.stream
    asked, of_class = (
        target_bouts(spec, tables, main=stream.main, other=stream.other)
        for spec in (apart, everybody)
    )
    return asked, of_class


def _print_table(lines: Sequence[LabelLine]) -> None:
    for line in lines:
        counts = line.counts
        print(
            f"  {line.split:<10} {counts.rows:>11,} rows  {counts.positives:>10,} positive"
            f"  {counts.ignored:>10,} ignored  rate {percent(counts.base_rate):>9}"
            f"  {line.hours:>8.2f} h  {_named(line)}"
        )


def _named(line: LabelLine) -> str:
    of = f"{counted(line.num_recordings, 'recordings')}, {counted(line.num_streams, 'streams')}"
    return of if line.name == line.split else f"{line.name} ({of})"


def _print_drawing(flags: _Flags, index: Index, recording: Recording) -> None:
    print(f"{recording.name} ({recording.id}, split {recording.split}), a minute a line:")
    print(f"  {LEGEND}")
    for rows in _recording_rows(flags, index, recording):
        counts = rows.counts
        print(
            f"{rows.stream.assignment}: {counts.rows:,} rows, {counts.positives:,} positive,"
            f" {counts.ignored:,} ignored, rate {percent(counts.base_rate)}"
        )
        asked, of_class = _events(flags.label, index, rows)
        for line in draw(rows, asked=asked, of_class=of_class):
            print(line)


def _to_json(
    flags: _Flags, index: Index, tally: LabelTally, shown: Recording | None
) -> dict[str, Any]:  # Any: JSON values
    report: dict[str, Any] = {
        "path": str(path_or_url(flags.store)),
        "generation": index.generation,
        "index_id": index.index_id,
        "annotations": None if flags.annotations is None else str(flags.annotations),
        "fold": None
        if flags.folds is None
        else {"folds": flags.folds, "fold": flags.fold, "seed": flags.seed},
        "label": flags.label.identity(),
        "label_text": flags.label.describe(),
        "filter": flags.filter.identity(),
        "splits": [line.to_json() for line in tally.splits],
        "by": flags.by,
        "items": [line.to_json() for line in tally.items],
        "show": None,
    }
    if shown is not None:
        found = _recording_rows(flags, index, shown)
        report["show"] = {
            "id": shown.id,
            "name": shown.name,
            "split": shown.split,
            "streams": [_stream_json(flags.label, index, rows) for rows in found],
        }
    return report


def _stream_json(label: LabelSpec, index: Index, rows: StreamRows) -> dict[str, Any]:
    asked, of_class = _events(label, index, rows)
    return {
        "assignment": rows.stream.assignment,
        "frames": rows.stream.num_frames,
        "positive": ranges(rows.positive),
        "ignored": ranges(rows.ignored),
        "negative": ranges(rows.negative),
        "asked_us": np.stack(asked, axis=1).tolist(),
        "of_class_us": np.stack(of_class, axis=1).tolist(),
    }
