"""From what a person said about spots to a store's annotations.

`merge` adds the events that were accepted. `replace` takes away, too, what is annotated of the
class where a spot was decided: there was nothing when the folder was made, so it came from an
earlier correction of the same spots. Nothing else of a recording changes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..annotation_formats import Mode, doubts, event_class, well_known
from ..annotation_formats.events import speakers_of
from ..annotations import Annotations, Event
from ..errors import BadRecording
from ..evolution.annotate import Revise, Revised, merge_events
from .folder import Spot, SpotFolder
from .verdicts import Accepted, Verdicts

_BETWEEN = " \t:@,;/-_"
"""What may stand between a class and a speaker."""


def revise_from_spots(
    folder: SpotFolder, verdicts: Verdicts, *, mode: Mode, event: str | None = None
) -> tuple[Iterable[str], Revise]:
    """Return the recordings that something was said about, and how their annotations change.

    Args:
        folder: of spots.
        verdicts: on them.
        mode: `merge` or `replace`, see above.
        event: take events of this class alone.
    """
    accepted: dict[str, list[Accepted]] = {}
    decided: dict[str, list[Spot]] = {}
    for item in verdicts.accepted:
        accepted.setdefault(item.spot.recording, []).append(item)
    for spot in verdicts.decided:
        decided.setdefault(spot.recording, []).append(spot)
    wanted = None if event is None else well_known(event)

    def revise(name: str, old: Annotations) -> Revised:
        speakers = speakers_of(old)
        events = [_event(folder, item, speakers) for item in accepted.get(name, ())]
        events = [item for item in events if wanted in (None, event_class(item))]
        kept = old.events
        if mode == "replace" and wanted in (None, folder.event):
            stays = {_key(item) for item in events}
            spots = decided.get(name, ())
            kept = tuple(
                item
                for item in old.events
                if _key(item) in stays or not _is_of_spot(item, folder, spots)
            )
        new = replace(old, events=merge_events(kept, events))
        if new == old:
            return Revised(old)
        notes = doubts(old, events, (), has_stale_intervals=True)
        return Revised(new, notes)

    return dict.fromkeys([*decided, *accepted]), revise


def _key(event: Event) -> Event:
    return replace(event, confidence=1.0)


def _is_of_spot(event: Event, folder: SpotFolder, spots: Iterable[Spot]) -> bool:
    """Tell whether an event is what was once accepted at one of these spots."""
    is_full = folder.event.startswith("full:")
    of_class = event.full_label == folder.full_label if is_full else event.label == folder.label
    return of_class and any(
        event.start_us < spot.end_us
        and spot.start_us < event.end_us
        and (spot.asked is None or event.speaker is None or event.speaker in spot.asked)
        for spot in spots
    )


def _event(folder: SpotFolder, item: Accepted, speakers: Sequence[str]) -> Event:
    """Return the event that a label is: a class, or a class and the name of a speaker."""
    by_fold = _classes(folder)
    text, speaker = item.text.strip("[](){}<>* "), item.spot.speaker
    label = by_fold.get(text.casefold())
    for name in sorted(speakers, key=len, reverse=True) if label is None else ():
        if text.casefold().endswith(name.casefold()):
            rest = text[: len(text) - len(name)]
            found = by_fold.get(rest.rstrip(_BETWEEN).casefold())
            if found is not None and rest != rest.rstrip(_BETWEEN):
                label, speaker = found, name
                break
    if label is None:
        known = ", ".join(dict.fromkeys([folder.name, *folder.classes]))
        raise BadRecording(
            f"{item.where}: the label {item.text[:40]!r} is none of the classes ({known}), alone or"
            f" with a speaker behind it ({', '.join(speakers) or 'there are none'}); correct it"
        )
    if label == folder.name:
        return Event(item.start_us, item.end_us, folder.label, folder.full_label, speaker)
    return Event(item.start_us, item.end_us, label, label, speaker)


def _classes(folder: SpotFolder) -> Mapping[str, str]:
    """Names that a label may have, in lower case, and the class that each is."""
    found = {name.casefold(): name for name in folder.classes if name}
    for word in ("laugh", "laughs", "laughing"):
        if "Laughter" in (folder.name, *folder.classes):
            found.setdefault(word, "Laughter")
    return found | {folder.name.casefold(): folder.name}
