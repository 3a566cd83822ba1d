"""What an audit of a data set has found: its contents by split, and findings by level.

Everything here is plain numbers and text, and turns into JSON with `AuditReport.to_json`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from laughstore.bouts import Times, merge_bouts
from laughstore.buildplan import SkippedRecording
from laughstore.timebase import US_PER_SECOND

Level = Literal["error", "gap", "note"]
"""error: results would be wrong, or too good. gap: something is missing, is left out, or cannot be
used. note: odd, and stops nothing."""
MERGE_GAP_US = US_PER_SECOND // 2
"""Laughs this near are one bout unless `--merge-gap` says something else."""
_GAP_EDGES_MS = (0, 100, 200, 300, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000)
GAP_EDGES_US = tuple(edge * 1_000 for edge in _GAP_EDGES_MS)
"""Upper edges of the histogram's bins, inclusive; behind the last one there is one more bin."""


@dataclass(frozen=True)
class Finding:
    """One kind of thing that is not as it should be, wherever it occurs."""

    kind: str
    """Stable name, of `extract.audit.findings.KINDS`."""
    level: Level
    what: str
    """What was counted, in the plural."""
    count: int
    total: int | None
    """Out of how many; None where that says nothing."""
    means: str
    todo: str
    examples: tuple[str, ...]
    """The first ones, one line each."""


@dataclass
class SplitContents:
    """What one split holds: all but `recordings` and `groups` of what can be built."""

    recordings: int = 0
    groups: Counter[str] = field(default_factory=Counter)
    """Recordings of each group (show)."""
    can_be_built: int = 0
    audio_us: int = 0
    streams: int = 0
    """Of features: a recording of two speakers has two, each of them main once."""
    speakers: Counter[str] = field(default_factory=Counter)
    """Recordings with `0` (nobody knows who speaks), `1`, `2` and `3+` speakers."""
    events: Counter[str] = field(default_factory=Counter)
    """Usable events by class; `full:NAME` for those outside the consolidated classes."""
    events_of_nobody: Counter[str] = field(default_factory=Counter)
    """Those of them without a speaker, where events can have one."""
    has: Counter[str] = field(default_factory=Counter)
    """Recordings that have tracks, a mix, segments, words, turns, intervals."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return all of it as a JSON object."""
        return {
            "recordings": self.recordings,
            "can_be_built": self.can_be_built,
            "groups": dict(sorted(self.groups.items())),
            "hours": round(self.audio_us / US_PER_SECOND / 3600, 6),
            "streams": self.streams,
            "speakers": {key: self.speakers[key] for key in SPEAKER_COUNTS},
            "events": dict(self.events.most_common()),
            "events_without_speaker": dict(self.events_of_nobody.most_common()),
            "has": {key: self.has[key] for key in PARTS},
        }


SPEAKER_COUNTS = ("0", "1", "2", "3+")
PARTS = ("tracks", "mix", "segments", "words", "turns", "intervals")


@dataclass
class LaughGaps:
    """Histogram of the time from the end of a laugh to the next laugh of the same speaker.

    Where nobody knows who laughs, of anybody. The end is the largest one so far, as for bouts.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(GAP_EDGES_US) + 1))
    """Gaps of at most each of `GAP_EDGES_US` (the first: overlaps), then longer ones."""
    num_laughs: int = 0
    num_bouts: int = 0

    def add(self, times: Times) -> None:
        """Count the laughs of one speaker in one recording, in any order."""
        if not len(times.start_us):
            return
        order = np.argsort(times.start_us, kind="stable")
        ends_us = np.maximum.accumulate(times.end_us[order])
        gaps_us = times.start_us[order][1:] - ends_us[:-1]
        for place in np.searchsorted(GAP_EDGES_US, gaps_us, side="left"):
            self.counts[place] += 1
        self.num_laughs += len(order)
        self.num_bouts += len(merge_bouts(times, MERGE_GAP_US).start_us)

    @property
    def num_gaps(self) -> int:
        """All of them."""
        return sum(self.counts)

    @property
    def num_merged(self) -> int:
        """Gaps of at most `MERGE_GAP_US`."""
        return sum(self.counts[: GAP_EDGES_US.index(MERGE_GAP_US) + 1])

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return all of it as a JSON object."""
        return {
            "laughs": self.num_laughs,
            "bouts": self.num_bouts,
            "merge_gap_s": MERGE_GAP_US / US_PER_SECOND,
            "within_merge_gap": self.num_merged,
            "edges_s": [edge / US_PER_SECOND for edge in GAP_EDGES_US],
            "counts": list(self.counts),
        }


@dataclass
class Audibility:
    """How many laughs can be heard where they are annotated, in the recordings listened to."""

    recordings: int = 0
    laughs: int = 0
    """Looked for in their speaker's track, or in a mix where there is nothing else."""
    audible: int = 0
    silent: int = 0
    cut: int = 0
    """Silent for more than half of their time."""
    quiet: int = 0
    heard_in_other_track: int = 0
    """Of those that are silent or quiet; one may be heard in the mix, too."""
    heard_in_mix: int = 0
    heard_nowhere: int = 0
    of_nobody: int = 0
    """Laughs without a speaker, looked for in every track."""
    of_nobody_in_no_track: int = 0

    def to_json(self) -> dict[str, int]:
        """Return all of it as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class AuditReport:
    """What a data set holds, what it lacks, and what is wrong with it."""

    path: str
    layout: str
    notes: tuple[str, ...]
    """What is to be known about the layout, one line each."""
    speakers: str
    """Policy that roles were chosen by: top2, all-pairs or mix."""
    audio_sample: int
    seed: int
    splits: Mapping[str, SplitContents]
    sample_rates: Mapping[int, int]
    """Sound files of each sample rate (Hz)."""
    laugh_gaps: LaughGaps
    audibility: Audibility
    left_out: tuple[SkippedRecording, ...]
    """Recordings that a build would leave out."""
    findings: tuple[Finding, ...]
    """Errors, then gaps, then notes."""

    @property
    def is_whole(self) -> bool:
        """Whether there are neither errors nor gaps."""
        return all(finding.level == "note" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return all of it as a JSON object; docs/datasets.md has its keys."""
        return {
            "dataset": self.path,
            "layout": self.layout,
            "notes": list(self.notes),
            "speakers": self.speakers,
            "audio_sample": self.audio_sample,
            "seed": self.seed,
            "whole": self.is_whole,
            "splits": {name: split.to_json() for name, split in self.splits.items()},
            "sample_rates": {str(rate): n for rate, n in sorted(self.sample_rates.items())},
            "laugh_gaps": self.laugh_gaps.to_json(),
            "audibility": self.audibility.to_json(),
            "left_out": [asdict(item) for item in self.left_out],
            "findings": [
                asdict(finding) | {"examples": list(finding.examples)} for finding in self.findings
            ],
        }
