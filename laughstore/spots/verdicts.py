"""What a person said about spots: the corrected file of labels, read back.

A label without a question mark accepts: its times, class and speaker become an event. A label with
one says nothing yet. A clip without a label was looked at, and there is nothing in it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..annotation_formats.rules import UNDECIDED
from ..annotation_formats.source import read_annotation_file
from ..annotation_formats.spans import LabelledSpan, show_faults
from ..errors import BadRecording
from .folder import Spot, SpotFolder, seconds_text
from .label_files import NOTE_MARK, SPOTS_TIER


@dataclass(frozen=True)
class Accepted:
    """A label without a question mark, in the time of its recording."""

    spot: Spot
    """In whose clip it lies."""
    start_us: int
    end_us: int
    text: str
    where: str
    """File and time in it, for messages."""


@dataclass(frozen=True)
class Verdicts:
    """What was said about the spots of a folder."""

    path: Path
    """The file of labels."""
    accepted: tuple[Accepted, ...] = field(repr=False)
    decided: tuple[Spot, ...] = field(repr=False)
    """Spots whose clip has no label with a question mark left: accepted, or rejected."""
    num_spots: int
    """That could be heard."""

    @property
    def accepted_ranks(self) -> frozenset[int]:
        """Ranks of the spots in whose clips something is accepted."""
        return frozenset(item.spot.rank for item in self.accepted)

    @property
    def num_rejected(self) -> int:
        """Spots whose clip has no label any more."""
        return sum(spot.rank not in self.accepted_ranks for spot in self.decided)

    @property
    def num_undecided(self) -> int:
        """Spots whose clip has a label with a question mark."""
        return self.num_spots - len(self.decided)

    def describe(self) -> str:
        """Return one line for people."""
        num_accepted = len(self.decided) - self.num_rejected
        line = f"{self.path}: of {self.num_spots} spots {num_accepted} accepted"
        line += f", {self.num_rejected} rejected (no label left), {self.num_undecided} undecided"
        return line + (f" (a label ends with {UNDECIDED}: left out)" if self.num_undecided else "")


def read_verdicts(folder: SpotFolder, path: Path | None = None) -> Verdicts:
    """Return what a person said about the spots of a folder.

    Args:
        folder: of spots.
        path: of its labels, if they were saved under another name.

    Raises:
        NotFound: there is no such file.
        BadRecording: it is no file of labels, or a label lies in no clip, in several, or has no
            length; the message names the file and the time.
    """
    path = folder.labels_path if path is None else path
    if not folder.heard:
        return Verdicts(path, (), (), 0)  # there was nothing to correct
    file = read_annotation_file(path)
    if file.dropped:
        raise BadRecording(f"{path}: {show_faults(file.dropped)}; correct the labels")
    spots = folder.heard
    # Tiers without a label cannot be told from tiers that are gone, but for what stands beside.
    tiers = {span.tier for span in file.spans if span.tier is not None}
    if SPOTS_TIER not in tiers and tiers and not tiers <= {"clips", "context"}:
        raise BadRecording(
            f"{path}: no label on tier {SPOTS_TIER!r}, and some on {', '.join(sorted(tiers))};"
            f" correct the labels on tier {SPOTS_TIER!r}"
        )
    accepted: list[Accepted] = []
    undecided: set[int] = set()
    for span in file.spans:
        if span.tier not in (None, SPOTS_TIER) or span.label.startswith(NOTE_MARK):
            continue
        place = f"{path}, {seconds_text(span.start_us)} s"
        spot = _spot_of(span, spots, place)
        assert spot.clip is not None
        if span.label.endswith(UNDECIDED):
            undecided.add(spot.rank)
            continue
        if span.start_us == span.end_us:
            raise BadRecording(f"{place}: the label {span.label[:40]!r} has no length; give it one")
        start_us, end_us = spot.clip.in_recording(span.start_us), span.end_us
        accepted.append(
            Accepted(
                spot,
                max(start_us, spot.clip.start_us),
                min(
                    spot.clip.in_recording(end_us),
                    spot.clip.start_us + spot.clip.length_us,
                ),
                span.label,
                place,
            )
        )
    decided = tuple(spot for spot in spots if spot.rank not in undecided)
    return Verdicts(path, tuple(accepted), decided, len(spots))


def _spot_of(span: LabelledSpan, spots: Sequence[Spot], place: str) -> Spot:
    """Return the spot in whose clip a label lies; it may reach into the silence around it."""
    begins = [spot.clip.reel_us for spot in spots if spot.clip is not None]
    first = max(bisect_right(begins, span.start_us) - 1, 0)
    touched = []
    for spot in spots[first:]:
        assert spot.clip is not None
        stop_us = spot.clip.reel_us + spot.clip.length_us
        if spot.clip.reel_us > span.end_us:
            break
        # A point lies in the clip that holds it, edges included.
        begins_before = spot.clip.reel_us < span.end_us or span.start_us == span.end_us
        if begins_before and (span.start_us < stop_us or span.start_us == span.end_us == stop_us):
            touched.append(spot)
    if len(touched) == 1:
        return touched[0]
    what = f"the label {span.label[:40]!r} lies in"
    if touched:
        raise BadRecording(f"{place}: {what} several clips; give each clip a label of its own")
    raise BadRecording(f"{place}: {what} no clip, but in the silence between; move or delete it")
