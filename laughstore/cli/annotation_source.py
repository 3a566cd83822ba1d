"""Annotations from a data set or from files of other tools, for every command that takes them."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
    Revise,
    Revised,
    merge_events,
    revise_from_files,
    with_known_speakers,
)
from ..index import Index
from ..other_annotations import with_annotations
from ..spots import find_spot_folder, read_verdicts, revise_from_spots
from ..store import open_store

if TYPE_CHECKING:
    from extract.datasets import DatasetRecording


def with_source(index: Index, path: Path) -> Index:
    """Return an index whose labels are made from the annotations at a path.

    Unlike `laughstore.other_annotations.read_other_annotations`, it knows data sets, too.

    Raises:
        NotFound, ConfigError, BadRecording: as `annotation_source` and `with_annotations`.
    """
    names, revise, notes = annotation_source([path])
    return with_annotations(index, names, revise, where=str(path), notes=notes)


def annotation_source(
    paths: Sequence[Path],
    *,
    store: Path | None = None,
    event: str | None = None,
    mode: Mode = "replace",
) -> tuple[Iterable[str], Revise, tuple[str, ...]]:
    """Return the names in a source, what it makes of a recording, and what it leaves out.

    Args:
        paths: one data set, one folder of `laughstore spots`, or annotation files and folders of
            them.
        store: that is annotated; needed when one class alone is taken.
        event: this class alone.
        mode: how new events meet old ones.

    Raises:
        NotFound, ConfigError, BadRecording: the source cannot be read.
    """
    from extract.datasets import METADATA_FOLDERS, is_dataset

    spots = find_spot_folder(paths)
    if spots is not None:
        verdicts = read_verdicts(*spots)
        names, revise = revise_from_spots(spots[0], verdicts, mode=mode, event=event)
        return names, revise, (verdicts.describe(),)
    for path in paths:
        if path.name.casefold() in METADATA_FOLDERS and is_dataset(path.absolute().parent):
            raise ConfigError(f"{path} is a part of a data set; give {path.absolute().parent}")
    datasets = [path for path in paths if is_dataset(path)]
    if datasets:
        if len(paths) > 1:
            raise ConfigError("--from takes one data set, or annotation files; not several things")
        return (*_dataset(store, datasets[0], event=event, mode=mode), ())
    source = read_annotation_source(paths)
    rule = EventRule.of(source, event=event)
    revise = revise_from_files(source, rule, mode=mode)
    return source.by_recording, revise, (*source.notes, *rule.notes)


def _dataset(
    store: Path | None, path: Path, *, event: str | None, mode: Mode
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
        assert store is not None, "a class is looked for in the store, too"
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
