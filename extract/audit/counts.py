"""What is counted of each recording that can be built: contents, gaps, events, words, lengths."""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from laughstore.annotations import Event
from laughstore.bouts import Times
from laughstore.spec import Speakers
from laughstore.timebase import US_PER_SECOND

from ..annotation_files import transcript_lengths
from ..text import is_tag
from .findings import Findings
from .look import LookedAt, where
from .report import LaughGaps, SplitContents

TOLERANCE_US = US_PER_SECOND
"""Lengths that differ by more than this do not belong together."""
_is_tag = lru_cache(maxsize=1 << 16)(is_tag)


def count_contents(looked: LookedAt, split: SplitContents) -> None:
    """Count what a recording adds to its split."""
    split.can_be_built += 1
    split.audio_us += looked.annotations.duration_us
    split.streams += len(looked.roles.assignments)
    num_speakers = len(looked.annotations.speakers)
    split.speakers[str(num_speakers) if num_speakers < 3 else "3+"] += 1
    split.has.update(looked.parts)
    for event in looked.events:
        label = event.label or f"full:{event.full_label}"
        split.events[label] += 1
        if event.speaker is None and looked.recording.has_event_speakers:
            split.events_of_nobody[label] += 1


def count_gaps(looked: LookedAt, policy: Speakers, found: Findings) -> None:
    """Count what a recording lacks."""
    has, roles = looked.parts, looked.roles
    missing = {
        "no-words": "words" not in has and not roles.is_mix,  # a mix is fed no text
        "no-intervals": "intervals" not in has,
        "no-segments": "segments" not in has,
        "no-turns": "turns" not in has,
        "no-tracks": roles.is_mix and policy != "mix",
        "one-speaker": not roles.is_mix and len(roles.assignments) == 1,
    }
    for kind, is_missing in missing.items():
        found.out_of(kind, 1)
        found.add(kind, looked.recording.name, int(is_missing))
    if looked.recording.has_segments:
        speakers = {speaker.name for speaker in looked.annotations.speakers}
        tracks = looked.recording.tracks
        found.out_of("tracks-of-nobody", len(tracks))
        for name in sorted(tracks.keys() - speakers):
            found.add("tracks-of-nobody", f"{looked.recording.name}: {tracks[name]}")


def count_events(looked: LookedAt, found: Findings) -> None:
    """Count events that no label uses, and why."""
    recording, faults = looked.recording, looked.faults
    for kind, count in {
        "events-empty": faults.empty,
        "events-behind-end": faults.past_end,
        "events-twice": faults.duplicates,
        "events-cut": faults.cut,
    }.items():
        found.out_of(kind, len(looked.annotations.events))
        found.add(kind, f"{recording.name}: {count}", count)
    if looked.roles.is_mix:
        return  # everybody's events are the mix's
    mains = {item.main for item in looked.roles.assignments}
    known = {speaker.name for speaker in looked.annotations.speakers} | set(recording.tracks)
    laughs = looked.laughs
    for event in laughs:
        if event.speaker is None:
            found.add("laughs-of-nobody", where(recording, event))
        elif event.speaker not in known:
            found.add("laughs-of-unknown", where(recording, event))
        elif event.speaker not in mains:
            found.add("third-laughs", where(recording, event))
    for kind in ("laughs-of-nobody", "laughs-of-unknown", "third-laughs"):
        found.out_of(kind, len(laughs))


def count_laugh_gaps(looked: LookedAt, gaps: LaughGaps) -> None:
    """Count the time between laughs of one speaker, or of anybody where nobody can be told."""
    by_speaker: defaultdict[str | None, list[Event]] = defaultdict(list)
    for event in looked.laughs:
        if event.speaker is not None or not looked.recording.has_event_speakers:
            by_speaker[event.speaker].append(event)
    for events in by_speaker.values():
        gaps.add(_times(events))


def _times(events: Sequence[Event]) -> Times:
    return Times(
        np.array([event.start_us for event in events], np.int64),
        np.array([event.end_us for event in events], np.int64),
    )


def count_words(looked: LookedAt, found: Findings) -> None:
    """Count words that no text uses, and transcripts that go on after the end."""
    recording, annotations = looked.recording, looked.annotations
    words = annotations.words or ()
    if not words:
        return
    tags = [word.text for word in words if _is_tag(word.text)]
    found.add("laugh-tags", f"{recording.name}: {'; '.join(tags[:5])}", len(tags))
    found.out_of("laugh-tags", len(words))
    if recording.has_segments:
        alone = [word for word in words if word.speaker is None]
        if alone:
            first = f"{alone[0].text!r} at {alone[0].start_us / US_PER_SECOND:.3f} s"
            found.add("words-of-nobody", f"{recording.name}: {first}", len(alone))
        found.out_of("words-of-nobody", len(words))
    last_us = max(word.end_us for word in words)
    found.out_of("words-behind-end", 1)
    if last_us > annotations.duration_us + TOLERANCE_US:
        found.add(
            "words-behind-end",
            f"{recording.name}: the last word ends at {last_us / US_PER_SECOND:.1f} s of"
            f" {annotations.duration_us / US_PER_SECOND:.1f} s",
        )


def count_lengths(looked: LookedAt, found: Findings) -> None:
    """Compare the sound's length with that of annotations and transcript."""
    recording, audio_us = looked.recording, looked.annotations.duration_us
    sound = f"the sound has {audio_us / US_PER_SECOND:.1f} s"
    found.out_of("stated-duration", 1)
    if abs(looked.stated_us - audio_us) > TOLERANCE_US:
        stated_s = looked.stated_us / US_PER_SECOND
        found.add("stated-duration", f"{recording.name}: stated are {stated_s:.1f} s, {sound}")
    if recording.transcript is None:
        return
    for kind in ("transcript-unit", "transcript-length"):
        found.out_of(kind, 1)
    wrong: dict[str, str] = {}
    for length in transcript_lengths(recording.transcript, audio_us):
        said = "'duration'" if length.is_stated else "the end of the last word"
        example = f"{recording.name}: {said} is {length.length}, {sound}"
        if length.unit is None:
            wrong.setdefault("transcript-length", example)
        elif length.unit != "100 ns":
            wrong.setdefault("transcript-unit", f"{example}: the unit seems to be {length.unit}")
    # One finding a transcript: where a unit is wrong, it is also why the other length fits none.
    kind = next((kind for kind in ("transcript-unit", "transcript-length") if kind in wrong), None)
    if kind is not None:
        found.add(kind, wrong[kind])
