"""Every kind of finding that an audit knows: its level, what it means, what to do about it."""

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass

from .report import Finding, Level

MAX_EXAMPLES = 3
_LEVELS: tuple[Level, ...] = ("error", "gap", "note")
_MAX_EXAMPLE_LETTERS = 300


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding."""

    level: Level
    what: str
    """What is counted, in the plural."""
    means: str
    todo: str


KINDS: Mapping[str, Kind] = {
    "group-in-two-splits": Kind(
        "error",
        "groups (shows) in more than one split",
        "voices and habits of one show are trained on and tested on: scores would be too good",
        "keep each group in one split, or correct the groups (key 'group' of a manifest)",
    ),
    "sound-in-two-splits": Kind(
        "error",
        "sound files that are in two splits under two names",
        "the same sound is trained on and tested on: scores would be too good",
        "remove one of the recordings",
    ),
    "id-twice": Kind(
        "error",
        "recordings whose id another one has",
        "ids name files: one would take the place of the other",
        "rename one of them",
    ),
    "transcript-unit": Kind(
        "error",
        "transcripts whose times are not in units of 100 ns",
        "words are read at wrong times, so text modes would tell of the wrong moments",
        "multiply their times so that one second is 10,000,000",
    ),
    "left-out": Kind(
        "gap",
        "recordings that cannot be built",
        "a build leaves them out and ends with exit code 3",
        "do what each reason says (all of them: --json)",
    ),
    "missing-split": Kind(
        "gap",
        "splits that are not there",
        "train needs train and validation, to choose among checkpoints; a final score needs test",
        "move recordings of whole groups there",
    ),
    "no-laughs": Kind(
        "gap",
        "splits without an event of class Laughter",
        "labels of the default event have no positive frame there",
        "check the names of the classes; another one is given to train with --event",
    ),
    "no-words": Kind(
        "gap",
        "recordings without a transcript",
        "text modes causal and aligned leave them out; text none does not need it",
        "add transcripts, or build with --text none",
    ),
    "no-intervals": Kind(
        "gap",
        "recordings without prediction intervals",
        "labels of kind interval cannot be made for them; onset can",
        "add them, or use --label onset:0.8s",
    ),
    "no-segments": Kind(
        "gap",
        "recordings in which nobody knows who speaks when",
        "words have no speaker, so no text is fed; filters on turns (--turn-within) need turns",
        "diarize them, or use --speakers mix and --text none",
    ),
    "no-tracks": Kind(
        "gap",
        "recordings without a track a speaker",
        "policies top2 and all-pairs cannot be used: their mix is heard, and labels are of"
        " anybody's events (--whose any)",
        "separate the speakers, or build with --speakers mix to say that it is meant",
    ),
    "laughs-of-nobody": Kind(
        "gap",
        "laughs without a speaker",
        "their frames are ignored in labels of main, other and pair; only --whose any uses them",
        "assign them to speakers, or use --whose any",
    ),
    "laughs-of-unknown": Kind(
        "gap",
        "laughs of speakers whom the diarization does not know",
        "nobody who can be main is called that: these laughs count as nobody's cue and no target",
        "write names as in the diarization",
    ),
    "laughs-silent": Kind(
        "gap",
        "laughs that are silent in their speaker's track",
        "positive frames without a sound: masking by a diarizer that took the laugh for no speech",
        "leave these laughs out of masks, or compare with --speakers mix as control",
    ),
    "laughs-cut": Kind(
        "gap",
        "laughs that are silent for more than half of their time in their speaker's track",
        "the mask of the track opens or closes within the laugh",
        "widen the masks around laughs, or compare with --speakers mix as control",
    ),
    "laughs-quiet": Kind(
        "gap",
        "laughs more than 30 dB below the speaker's own level in their track",
        "hardly audible: of somebody else, or at another time than annotated",
        "listen to some; correct the speaker or the times",
    ),
    "laughs-in-no-track": Kind(
        "gap",
        "laughs without a speaker that are silent in every track",
        "no stream hears them, though they happened",
        "use --speakers mix as control",
    ),
    "laughs-silent-in-mix": Kind(
        "gap",
        "laughs that are silent in the mix",
        "annotations and sound do not fit together",
        "check that both are of one recording",
    ),
    "track-silent": Kind(
        "gap",
        "tracks without a sound while their speaker speaks",
        "features of silence, with labels of somebody who laughs",
        "make the tracks again",
    ),
    "sound-damaged": Kind(
        "gap",
        "recordings that cannot be decoded",
        "a build finds that out after hours, and leaves them out",
        "do what each reason says",
    ),
    "stated-duration": Kind(
        "gap",
        "recordings that last more than 1 s longer or shorter than their annotations say",
        "annotations may be of another version, cut or with another introduction: all shifted",
        "check that both are of one recording",
    ),
    "track-lengths": Kind(
        "gap",
        "recordings whose sound files differ in length by more than 1 s",
        "one track was cut, or starts at another time; the shorter one ends in silence",
        "export the tracks again with one length",
    ),
    "events-behind-end": Kind(
        "gap",
        "events that begin after the recording's end",
        "they are in no label; the rest may be shifted, or in another unit of time",
        "check that annotations and sound are of one recording",
    ),
    "words-behind-end": Kind(
        "gap",
        "recordings with words more than 1 s after their end",
        "the transcript may be of another recording, or in another unit of time",
        "check that both are of one recording",
    ),
    "transcript-length": Kind(
        "gap",
        "transcripts whose length fits the sound in no unit of time",
        "they may be of another recording, or hold a part only",
        "check that both are of one recording",
    ),
    "sound-twice": Kind(
        "gap",
        "sound files that occur twice, in one split or in one recording",
        "a recording counts twice, or two speakers are one",
        "remove or correct one of them",
    ),
    "other-sound": Kind(
        "note",
        "sound files that cannot be read and are not needed",
        "this build does not hear them; another policy of speakers would",
        "do what each reason says, if you need them",
    ),
    "tracks-of-nobody": Kind(
        "note",
        "tracks of nobody in the diarization",
        "no policy hears them, nor are they added up to a mix",
        "name tracks as in the diarization, or remove them",
    ),
    "no-turns": Kind(
        "note",
        "recordings without turns",
        "filters on turns (--turn-within) use the diarization, where there is one",
        "add turns if you filter on them",
    ),
    "one-speaker": Kind(
        "note",
        "recordings with one speaker",
        "one stream instead of two; the other party is silence",
        "nothing, if there is really one",
    ),
    "third-laughs": Kind(
        "note",
        "laughs of speakers who are never main",
        "they are no target of any stream: neither laughs nor unknown",
        "build with --speakers all-pairs to use them, or with mix",
    ),
    "events-empty": Kind(
        "note",
        "events that end before they begin, or when they begin",
        "left out of labels",
        "correct or remove them",
    ),
    "events-twice": Kind(
        "note",
        "events that are exact duplicates of another one",
        "left out of labels",
        "remove them",
    ),
    "events-cut": Kind(
        "note",
        "events that end after the recording's end",
        "cut there",
        "nothing, if it is little",
    ),
    "records-dropped": Kind(
        "note",
        "annotation files with records that are not used",
        "records without usable times or text are dropped",
        "correct them, if they matter",
    ),
    "words-of-nobody": Kind(
        "note",
        "words during which nobody speaks, by the diarization",
        "they are in nobody's text",
        "nothing, if it is a small share; else check that both are of one recording",
    ),
    "laugh-tags": Kind(
        "note",
        "words that are tags of laughter or stand in brackets",
        "they would tell of laughs: left out of every text",
        "nothing",
    ),
    "laughs-clipped": Kind(
        "note",
        "laughs with more than 1 % of their samples at full scale",
        "distorted; models have seldom heard that",
        "lower the gain before tracks are written, if you can",
    ),
    "odd-name": Kind(
        "note",
        "names that are very long, or hold control characters or white space at an end",
        "they are stored as they are, but are hard to type and to match",
        "rename them, if you can",
    ),
    "remark": Kind(
        "note",
        "remarks on recordings",
        "each says for itself",
        "nothing, if it is meant",
    ),
}
"""By stable name, in the order in which they are told, level by level."""


class Findings:
    """Counts findings and keeps the first examples of each."""

    def __init__(self, as_notes: Container[str] = ()) -> None:
        """Begin with nothing; gaps of the kinds `as_notes` are told as notes."""
        self._as_notes = as_notes
        self._counts: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count a finding of a kind; an example is one line that says where."""
        assert kind in KINDS, kind
        if not count:
            return
        self._counts[kind] += count
        kept = self._examples.setdefault(kind, [])
        if len(kept) < MAX_EXAMPLES:
            kept.append(_one_line(example))

    def out_of(self, kind: str, total: int) -> None:
        """Count things among which findings of a kind were looked for."""
        assert kind in KINDS, kind
        self._totals[kind] += total

    def all(self) -> tuple[Finding, ...]:
        """Return what was found, errors first."""
        levels: dict[str, Level] = {
            name: "note" if name in self._as_notes else kind.level for name, kind in KINDS.items()
        }
        order = sorted(KINDS, key=lambda name: _LEVELS.index(levels[name]))
        return tuple(
            Finding(
                kind=name,
                level=levels[name],
                what=KINDS[name].what,
                count=self._counts[name],
                total=self._totals[name] or None,
                means=KINDS[name].means,
                todo=KINDS[name].todo,
                examples=tuple(self._examples[name]),
            )
            for name in order
            if self._counts[name]
        )


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    if len(line) > _MAX_EXAMPLE_LETTERS:
        line = f"{line[: _MAX_EXAMPLE_LETTERS - 3]}..."
    # Names can hold control characters, which would move the cursor.
    return "".join(letter if letter.isprintable() else "?" for letter in line)
