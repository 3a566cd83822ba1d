"""Label files of `spots.wav`: what is proposed, for a person to correct in Praat or Audacity.

Every spot is proposed as `Laughter?`. To accept it, the question mark goes; to reject it, the label
goes. A window in which an event begins is `Laughter begins here?`: the event gets a label. Which
clip is what stands beside it, on other tiers (Praat) or in a file of its own whose labels begin
with `#` (Audacity exports all label tracks into one file): neither is read back.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..annotation_formats.spans import tidy
from ..bouts import Times, merge_bouts
from .folder import CLIPS_FILE, SILENCE_US, Spot, SpotFolder, seconds_text

SPOTS_TIER, CLIPS_TIER, CONTEXT_TIER = "spots", "clips", "context"
NOTE_MARK = "#"
"""Begins the labels of an Audacity track that are for reading alone."""


class ReelLabel(NamedTuple):
    """A label of `spots.wav`; times in microseconds."""

    start_us: int
    end_us: int
    text: str


def label_texts(folder: SpotFolder, annotated: Mapping[int, Times]) -> dict[str, str]:
    """Return the texts of the label files by their names.

    Args:
        folder: whose spots have clips.
        annotated: by rank, what is annotated of the class near a spot, in the recording's time.
    """
    spots = folder.heard
    proposed = [_placed(spot, spot.start_us, spot.end_us, folder.proposal) for spot in spots]
    clips = [_clip_label(spot) for spot in spots]
    of_stream: dict[tuple[str, str], list[Spot]] = {}
    for spot in folder.spots:
        of_stream.setdefault((spot.recording_id, spot.assignment), []).append(spot)
    context = [
        label
        for spot in spots
        for label in _context(
            folder.name,
            spot,
            annotated.get(spot.rank),
            of_stream[spot.recording_id, spot.assignment],
        )
    ]
    if folder.label_file.endswith(".txt"):
        notes = [
            label._replace(text=f"{NOTE_MARK} {label.text}")
            for label in sorted([*clips, *context], key=lambda item: (item.start_us, item.end_us))
        ]
        return {folder.label_file: _audacity(proposed), CLIPS_FILE: _audacity(notes)}
    tiers = {SPOTS_TIER: proposed, CLIPS_TIER: clips, CONTEXT_TIER: context}
    return {folder.label_file: _textgrid(tiers, reel_end_us(spots))}


def reel_end_us(spots: Sequence[Spot]) -> int:
    """Return how long `spots.wav` is: silence behind the last clip, too."""
    ends = [spot.clip.reel_us + spot.clip.length_us for spot in spots if spot.clip is not None]
    return max(ends, default=0) + SILENCE_US


def _clip_label(spot: Spot) -> ReelLabel:
    assert spot.clip is not None
    where = f"{spot.recording} {seconds_text(spot.start_us)[:-4]} s"
    text = f"{spot.rank}: {where}, {spot.who}, {spot.score:.3g}"
    return _placed(spot, spot.clip.start_us, spot.clip.start_us + spot.clip.length_us, text)


def _context(
    name: str, spot: Spot, annotated: Times | None, of_stream: Iterable[Spot]
) -> Iterable[ReelLabel]:
    """Yield what else is known of a clip: what is annotated, and other spots of it; disjoint."""
    if annotated is not None:
        bouts = merge_bouts(annotated, 0)
        for start_us, end_us in zip(bouts.start_us.tolist(), bouts.end_us.tolist(), strict=True):
            yield _placed(spot, start_us, end_us, f"annotated {name}")
    assert spot.clip is not None
    stop_us = spot.clip.start_us + spot.clip.length_us
    for other in of_stream:
        inside = other.start_us < stop_us and other.end_us > spot.clip.start_us
        if inside and other.rank != spot.rank:
            yield _placed(spot, other.start_us, other.end_us, f"spot {other.rank}")


def _placed(spot: Spot, start_us: int, end_us: int, text: str) -> ReelLabel:
    assert spot.clip is not None, "it is heard"
    return ReelLabel(spot.clip.in_reel(start_us), spot.clip.in_reel(end_us), tidy(text))


def _audacity(labels: Iterable[ReelLabel]) -> str:
    return "".join(
        f"{seconds_text(item.start_us)}\t{seconds_text(item.end_us)}\t{item.text}\n"
        for item in labels
    )


def _textgrid(tiers: Mapping[str, Sequence[ReelLabel]], end_us: int) -> str:
    """Return a TextGrid in the long form, as Praat itself saves it."""
    end = seconds_text(end_us)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {end}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, labels) in enumerate(tiers.items(), 1):
        intervals = _filled(labels, end_us)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"']
        lines += [f'        name = "{name}"', "        xmin = 0", f"        xmax = {end}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for place, item in enumerate(intervals, 1):
            text = item.text.replace('"', '""')
            lines += [
                f"        intervals [{place}]:",
                f"            xmin = {seconds_text(item.start_us)}",
                f"            xmax = {seconds_text(item.end_us)}",
                f'            text = "{text}"',
            ]
    return "\n".join(lines) + "\n"


def _filled(labels: Iterable[ReelLabel], end_us: int) -> list[ReelLabel]:
    """Return the labels with empty ones between them: intervals cover all of a tier."""
    found: list[ReelLabel] = []
    before_us = 0
    for item in sorted(labels):
        start_us = max(item.start_us, before_us)
        if item.end_us <= start_us:
            continue
        if start_us > before_us:
            found.append(ReelLabel(before_us, start_us, ""))
        found.append(item._replace(start_us=start_us))
        before_us = item.end_us
    if before_us < end_us:
        found.append(ReelLabel(before_us, end_us, ""))
    return found
