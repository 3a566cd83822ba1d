"""`laughstore annotate`: a new generation of a store with other annotations, features untouched."""

import json
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from .. import layout
from ..annotation_formats import (
    EventRule,
    Mode,
    doubts,
    event_class,
    read_annotation_source,
    well_known,
)
from ..annotations import Annotations, Event
from ..errors import BadRecording, ConfigError
from ..evolution.annotate import (
    AnnotateResult,
    RecordingChange,
    Revise,
    Revised,
    annotate,
    merge_events,
    revise_from_files,
    with_known_speakers,
)
from ..manifest import read_manifest
from ..store import open_store
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .text import counted, print_some, program

if TYPE_CHECKING:
    from extract.datasets import DatasetRecording

EXIT_LEFT_OVER = 3


@dataclass(frozen=True)
class _Flags:
    store: tyro.conf.Positional[Path]
    """A finished store."""
    source: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")]
    """A data set (its metadata/ is enough, or a manifest, *.jsonl); or .TextGrid, .eaf, .txt
    (Audacity), .csv, .tsv, .rttm files or their folders."""
    common: CommonFlags
    event: str | None = None
    """Take events of this class only (such as Laughter); other classes stay as they are."""
    replace: bool = False
    """Put the new events in the place of the old ones of the same classes (the default).
    A recording with rows that cannot be used keeps its old events; the exit code is then 3."""
    merge: bool = False
    """Add the new events that are not there yet; remove none."""
    dry_run: bool = False
    """Only tell what would change; write nothing."""

    def __post_init__(self) -> None:
        if self.replace and self.merge:
            raise ConfigError("--replace and --merge exclude each other; give one of them")
        if not self.source:
            raise ConfigError("--from names nothing; give a data set or annotation files")

    @property
    def mode(self) -> Mode:
        """How new events meet old ones."""
        return "merge" if self.merge else "replace"


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "annotate",
        arguments,
        "Publish a new generation of a store with changed annotations. Features are not touched;"
        " the generation before stays readable until `laughstore gc`.",
    )
    flags.common.configure_logging()
    progress = TerminalProgress(quiet=flags.common.quiet)
    read_manifest(flags.store)  # before all files of a source are read
    names, revise, source_notes = _source(flags)
    try:
        result = annotate(flags.store, names, revise, dry_run=flags.dry_run, progress=progress)
    except (KeyboardInterrupt, SystemExit):
        again = f"{program()} {shlex.join(['annotate', *arguments])}"
        progress.message(f"stopped; the store is whole, old or new. Go on with:\n  {again}")
        raise
    result = replace(result, notes=(*source_notes, *result.notes))
    if flags.common.json:
        _print_json(flags, result)
    else:
        _print(flags, result)
    return EXIT_LEFT_OVER if result.unmatched or result.unusable else 0


def _source(flags: _Flags) -> tuple[Iterable[str], Revise, tuple[str, ...]]:
    """Names in the source, what it makes of a recording, and what it leaves out."""
    from extract.datasets import METADATA_FOLDERS, is_dataset

    for path in flags.source:
        if path.name.casefold() in METADATA_FOLDERS and is_dataset(path.absolute().parent):
            raise ConfigError(f"{path} is a part of a data set; give {path.absolute().parent}")
    datasets = [path for path in flags.source if is_dataset(path)]
    if datasets:
        if len(flags.source) > 1:
            raise ConfigError("--from takes one data set, or annotation files; not several things")
        return (*_dataset(flags.store, datasets[0], event=flags.event, mode=flags.mode), ())
    source = read_annotation_source(flags.source)
    rule = EventRule.of(source, event=flags.event)
    revise = revise_from_files(source, rule, mode=flags.mode)
    return source.by_recording, revise, (*source.notes, *rule.notes)


def _dataset(
    store: Path, path: Path, *, event: str | None, mode: Mode
) -> tuple[Iterable[str], Revise]:
    """How a data set changes annotations.

    Lengths stay those of the audio, speakers those that the features were built for. What the data
    set does not tell (words, turns, intervals, who speaks or laughs) stays as it is.
    """
    from extract.datasets import open_dataset
    from extract.word_speakers import with_speakers

    recordings = open_dataset(path, needs_audio=False).recordings
    by_name = {item.name: item for item in recordings}
    if event is not None:
        event = _class_there(event, store, recordings)

    def revise(name: str, old: Annotations) -> Revised:
        source = by_name[name]
        new = source.annotations()
        if not source.has_segments:
            new = replace(new, segments=old.segments)
            if new.words is not None:
                words = with_speakers(new.words, old.speakers, old.segments)
                new = replace(new, words=words)
        if not source.has_event_speakers:
            new = replace(new, events=with_known_speakers(new.events, old.events))
        events = [item for item in new.events if event in (None, event_class(item))]
        revised = joined(old, new, events)
        if revised == old:
            return Revised(old)
        brings_all = mode == "replace" and event is None
        notes = doubts(
            old,
            events,
            new.segments if brings_all else (),
            has_stale_intervals=revised.events != old.events
            and not (brings_all and new.intervals is not None),
        )
        return Revised(revised, notes)

    def joined(old: Annotations, new: Annotations, events: Sequence[Event]) -> Annotations:
        if mode == "merge":
            return replace(old, events=merge_events(old.events, events))
        if event is not None:
            kept = [item for item in old.events if event_class(item) != event]
            moved = (*kept, *events)
            same = sorted(map(repr, moved)) == sorted(map(repr, old.events))
            return old if same else replace(old, events=moved)
        return replace(
            old,
            events=new.events,
            segments=new.segments,
            turns=old.turns if new.turns is None else new.turns,
            intervals=old.intervals if new.intervals is None else new.intervals,
            words=old.words if new.words is None else new.words,
        )

    return by_name, revise


def _class_there(event: str, store: Path, recordings: Iterable["DatasetRecording"]) -> str:
    """Return the class that is meant by a name. Raises ConfigError when nothing is of it.

    A class that the store alone has is one that the data set no longer has.
    """
    wanted, there = well_known(event), set[str]()
    for item in recordings:
        with suppress(BadRecording):  # it is told of when its turn comes
            there.update(map(event_class, item.events()))
        if wanted in there:
            return wanted
    opened = open_store(store)
    for item in opened.recordings:
        there.update(map(event_class, opened.annotations(item.id).events))
    same = [name for name in there if name.casefold() == wanted.casefold()]
    if wanted in there or len(same) == 1:
        return wanted if wanted in there else same[0]
    shown = ", ".join(sorted(there)[:10]) + (", ..." if len(there) > 10 else "")
    raise ConfigError(
        f"neither the data set nor {store} has an event {event!r}; there are {shown or 'none'}"
    )


def _print(flags: _Flags, result: AnnotateResult) -> None:
    print_some("recordings changed", [_line(change) for change in result.changes])
    if result.num_unchanged:
        print(f"{counted(result.num_unchanged, 'recordings')} left as before")
    print_some("notes", result.notes)
    print_some("names without a recording in the store, left over", result.unmatched)
    print_some("recordings whose annotations cannot be used, left over", result.unusable)
    store = shlex.quote(str(flags.store))
    if not result.changes:
        print(f"nothing changes: {store} stays at generation {result.generation}")
    elif flags.dry_run:
        print(f"dry run: nothing was written, {store} stays at generation {result.generation}")
    else:
        print(f"{store} is now generation {result.generation}; features were not touched, and")
        print(
            f"generation {result.generation - 1} opens by its number until: {program()} gc {store}"
        )
        shards = shlex.quote(str(flags.store / layout.SHARDS))
        print(f"next: {program()} train --shards {shards} --out RUN")


def _line(change: RecordingChange) -> str:
    before, after = change.events_before, change.events_after
    classes = [
        f"{name or '(outside the classes)'} {before.get(name, 0)} -> {after.get(name, 0)}"
        for name in sorted({*before, *after})
    ]
    moved = f" ({change.num_added} new, {change.num_removed} gone)"
    also = f"; also {', '.join(change.also)}" if change.also else ""
    return f"{change.recording}: {', '.join(classes) or 'no events'}{moved}{also}"


def _print_json(flags: _Flags, result: AnnotateResult) -> None:
    report = {
        "store": str(flags.store),
        "generation": result.generation,
        "published": result.was_published,
        "dry_run": flags.dry_run,
        "changed": [asdict(change) for change in result.changes],
        "unchanged": result.num_unchanged,
        "unmatched": list(result.unmatched),
        "unusable": list(result.unusable),
        "notes": list(result.notes),
    }
    print(json.dumps(report, indent=2))
