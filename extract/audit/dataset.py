"""What a data set holds, what it lacks and what each gap means, and what is wrong with it.

In: a path, as `laughstore build` takes it. Out: an `AuditReport`. Reads names, headers and
annotations, one recording after the other, keeping counts only; then listens to the laughs of a few
recordings (`extract.audit.sound`). Loads no model, writes nothing.
"""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from laughstore.buildplan import SkippedRecording
from laughstore.errors import BadRecording, ConfigError
from laughstore.progress import NoProgress, Progress
from laughstore.spec import Speakers
from laughstore.timebase import SAMPLE_RATE, US_PER_SECOND

from ..datasets import Dataset, DatasetRecording, open_dataset
from ..layouts.folders import SPLIT_ORDER
from ..layouts.recording import UNKNOWN_SPLIT, FoundLayout
from ..reasons import reason_of
from ..sound.tracks import AudioFile, probe_audio
from .copies import Copies, SoundUse
from .counts import (
    TOLERANCE_US,
    count_contents,
    count_events,
    count_gaps,
    count_laugh_gaps,
    count_lengths,
    count_words,
)
from .findings import Findings
from .look import LAUGHTER, LookedAt, dropped_records, look_at
from .report import Audibility, AuditReport, LaughGaps, SplitContents
from .sound import listen

if TYPE_CHECKING:
    from ..config import LayoutName

DEFAULT_AUDIO_SAMPLE = 20
_MAX_NAME_BYTES = 200
_CANNOT_HAVE: Mapping[FoundLayout, Container[str]] = {
    "podcastfillers": frozenset(["no-tracks", "no-segments", "no-turns", "no-intervals"])
}
"""What no data set of a layout has: told as notes, or none would be whole."""


def audit_dataset(
    path: Path,
    layout: "LayoutName" = "auto",
    *,
    speakers: Speakers = "top2",
    audio_sample: int = DEFAULT_AUDIO_SAMPLE,
    seed: int = 0,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit a data set.

    Args:
        path: folder of a data set, or a manifest.
        layout: how it is laid out; auto looks.
        speakers: policy that chooses who is main, as in a build.
        audio_sample: how many of the recordings with laughs are listened to; 0 for none.
        seed: chooses them. A recording's place in the draw depends on its id only.
        progress: told of each recording.

    Raises:
        NotFound: the path does not exist.
        ConfigError: it is no data set, or a number is out of range.
    """
    for name, value in (("audio_sample", audio_sample), ("seed", seed)):
        if value < 0:
            raise ConfigError(f"{name} is {value}; it must be 0 or more")
    dataset = open_dataset(path, layout, needs_audio=False)
    audit = _Audit(path, dataset, speakers, progress or NoProgress())
    audit.look_at_names()
    with dropped_records(audit.found):
        with_laughs = audit.look_at_recordings()
    with dropped_records(None):
        audit.listen_to(_draw(with_laughs, audio_sample, seed))
    audit.look_at_splits()
    return AuditReport(
        path=str(path),
        layout=dataset.layout,
        notes=dataset.notes,
        speakers=speakers,
        audio_sample=audio_sample,
        seed=seed,
        splits=audit.splits,
        sample_rates=audit.sample_rates,
        laugh_gaps=audit.gaps,
        audibility=audit.audibility,
        left_out=tuple(audit.left_out),
        findings=audit.found.all(),
    )


class _Audit:
    """Counts, recording by recording."""

    def __init__(
        self, path: Path, dataset: Dataset, speakers: Speakers, progress: Progress
    ) -> None:
        self.path, self.dataset, self.progress = path, dataset, progress
        self.speakers: Speakers = speakers
        self.found = Findings(as_notes=_CANNOT_HAVE.get(dataset.layout, ()))
        self.splits = {name: SplitContents() for name in dataset.splits}
        self.gaps = LaughGaps()
        self.audibility = Audibility()
        self.sample_rates: Counter[int] = Counter()
        self.left_out: list[SkippedRecording] = []
        self._copies = Copies()

    def look_at_names(self) -> None:
        """Look at what needs no file: groups, ids, names."""
        splits_of: defaultdict[str, dict[str, str]] = defaultdict(dict)
        name_of: dict[str, str] = {}
        for recording in self.dataset.recordings:
            name = recording.name
            split = self.splits[recording.split]
            split.recordings += 1
            split.groups[recording.group] += 1
            if recording.split != UNKNOWN_SPLIT:
                splits_of[recording.group].setdefault(recording.split, name)
            other = name_of.setdefault(recording.id, name)
            if other != name:
                self.found.add("id-twice", f"{name!r} and {other!r}: {recording.id}")
            if _is_odd(name):
                self.found.add("odd-name", repr(name))
        for group, splits in splits_of.items():
            if len(splits) > 1:
                places = " and ".join(f"{split} ({name})" for split, name in splits.items())
                self.found.add("group-in-two-splits", f"{group!r}: {places}")
        self.found.out_of("group-in-two-splits", len(splits_of))

    def look_at_recordings(self) -> list[DatasetRecording]:
        """Look at each recording. Returns those that can be built and have laughs."""
        with_laughs: list[DatasetRecording] = []
        self.progress.begin("check", len(self.dataset.recordings), "recording")
        try:
            for recording in self.dataset.recordings:
                looked = self._look_at(recording)
                self._look_at_files(recording, looked)
                if looked is not None and looked.laughs:
                    with_laughs.append(recording)
                self.progress.advance(1)
        finally:
            self.progress.end()
        return with_laughs

    def listen_to(self, recordings: Sequence[DatasetRecording]) -> None:
        """Listen to the laughs of recordings that can be built."""
        self.progress.begin("listen", len(recordings), "recording")
        try:
            for recording in recordings:
                self.found.out_of("sound-damaged", 1)
                try:
                    looked = look_at(recording, self.speakers)
                    listen(looked, self.found, self.audibility)
                except BadRecording as error:
                    self.found.add("sound-damaged", f"{recording.name}: {error}")
                self.progress.advance(1)
        finally:
            self.progress.end()

    def look_at_splits(self) -> None:
        """Look at what each split holds, once all recordings are counted."""
        for name in SPLIT_ORDER:
            if name not in self.splits:
                self.found.add("missing-split", name)
        for name, split in self.splits.items():
            if split.can_be_built and not split.events[LAUGHTER]:
                there = ", ".join(split.events) or "none"
                self.found.add("no-laughs", f"{name} (classes: {there})")

    def _look_at(self, recording: DatasetRecording) -> LookedAt | None:
        self.found.out_of("left-out", 1)
        try:
            looked = look_at(recording, self.speakers)
        except BadRecording as error:
            reason = reason_of(error, self.path)  # as a build tells it
            skipped = SkippedRecording(recording.name, recording.split, reason)
            self.left_out.append(skipped)
            self.found.add("left-out", f"{skipped.name} ({skipped.split}): {skipped.reason}")
            return None
        count_contents(looked, self.splits[recording.split])
        count_gaps(looked, self.speakers, self.found)
        count_events(looked, self.found)
        count_laugh_gaps(looked, self.gaps)
        count_words(looked, self.found)
        count_lengths(looked, self.found)
        for note in looked.recording.notes:
            if not note.startswith("no "):  # those are counted as gaps
                self.found.add("remark", f"{recording.name}: {note}")
        return looked

    def _look_at_files(self, recording: DatasetRecording, looked: LookedAt | None) -> None:
        """Look at the headers of all sound files, heard or not, and for copies."""
        uses: list[tuple[str | None, AudioFile]] = [*recording.tracks.items()]
        if recording.mix is not None:
            uses.append((None, recording.mix))
        num_samples: dict[AudioFile, int] = {}
        for speaker, file in uses:
            try:
                info = probe_audio(file)
            except BadRecording as error:
                if looked is not None:  # not a file that it is built from
                    self.found.add("other-sound", f"{recording.name}: {error}")
                continue
            num_samples[file] = info.num_samples_24k
            self.sample_rates[info.sample_rate] += 1
            earlier = self._copies.add(
                SoundUse(file, recording.name, recording.split, recording.group, speaker)
            )
            if earlier is not None:
                kind = "twice" if earlier.split == recording.split else "in-two-splits"
                places = f"{recording.name}: {file} and {earlier.recording}: {earlier.file}"
                self.found.add(f"sound-{kind}", places)
        if not num_samples:
            return
        self.found.out_of("track-lengths", 1)
        longest = max(num_samples, key=num_samples.__getitem__)
        shortest = min(num_samples, key=num_samples.__getitem__)
        spread = num_samples[longest] - num_samples[shortest]
        if spread * US_PER_SECOND > TOLERANCE_US * SAMPLE_RATE:
            lengths = [
                f"{file.path.name} has {num_samples[file] / SAMPLE_RATE:.1f} s"
                for file in (longest, shortest)
            ]
            self.found.add("track-lengths", f"{recording.name}: {', '.join(lengths)}")


def _draw(recordings: Sequence[DatasetRecording], number: int, seed: int) -> list[DatasetRecording]:
    """Return some recordings, in their order."""

    def place(recording: DatasetRecording) -> bytes:
        return hashlib.sha256(f"{seed}:{recording.id}".encode()).digest()

    drawn = {item.id for item in sorted(recordings, key=place)[:number]}
    return [item for item in recordings if item.id in drawn]


def _is_odd(name: str) -> bool:
    return (
        name != name.strip()
        or len(name.encode(errors="replace")) > _MAX_NAME_BYTES
        or any(unicodedata.category(letter).startswith("C") for letter in name)
    )
