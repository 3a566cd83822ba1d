"""Who is main: the pairs of sides that a recording is heard as, for each policy of speakers.

A pair has two sides, side 0 and side 1; each is a speaker's sound, the mix of everybody, or
silence. Its assignments are the roles: assignment a has side a as main. `top2` and a recording of
one speaker are one pair, `all-pairs` one of each two speakers. In a mix, which is also what is left
of a recording without a track a speaker, main's side is silent and other's side is everybody.

It opens no file.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations

from laughstore.buildplan import Assignment
from laughstore.errors import BadRecording
from laughstore.naming import MIX, assignment_names
from laughstore.spec import Speakers
from laughstore.timebase import SAMPLE_RATE

from .datasets import DatasetRecording
from .feeding import TrackReader
from .sound.tracks import AudioFile, AudioTrack, MixedTrack


@dataclass(frozen=True)
class Side:
    """One side of a pair: what it sounds like and whose words its text is."""

    speaker: str | None
    """None: silence, or a mix."""
    files: tuple[AudioFile, ...]
    """Their sum is heard; none is silence."""

    def open(self, lengths: Mapping[AudioFile, int] | None = None) -> TrackReader | None:
        """Return the sound, or None for silence.

        Args:
            lengths: audio samples at 24 kHz that each file had when it was looked at.

        Raises:
            BadRecording: a file cannot be opened, or has another length now.
        """
        with ExitStack() as opened:
            tracks = []
            for file in self.files:
                tracks.append(AudioTrack(file))
                opened.callback(tracks[-1].close)
                if lengths is not None:
                    _refuse_other_length(tracks[-1], lengths[file])
            opened.pop_all()
        if len(tracks) > 1:
            return MixedTrack(tracks)
        return tracks[0] if tracks else None


SILENT = Side(None, ())


@dataclass(frozen=True)
class Pair:
    """Two sides that are heard together."""

    sides: tuple[Side, Side]
    num_assignments: int
    """2: each side is main once. 1: side 0 alone."""

    def describe(self) -> str:
        """Return who is heard, for people."""
        heard = [side.speaker or "the mix of all" for side in self.sides if side.files]
        return " and ".join(heard)

    def open(self, lengths: Mapping[AudioFile, int] | None = None) -> list[TrackReader | None]:
        """Return both sides' sound; arguments and errors as of `Side.open`."""
        with ExitStack() as opened:
            tracks: list[TrackReader | None] = []
            for side in self.sides:
                track = side.open(lengths)
                tracks.append(track)
                if track is not None:
                    opened.callback(track.close)
            opened.pop_all()
        return tracks


@dataclass(frozen=True)
class Roles:
    """What is heard of a recording, and as whom."""

    pairs: tuple[Pair, ...]
    assignments: tuple[Assignment, ...]
    """Of all pairs, in order."""
    is_mix: bool
    notes: tuple[str, ...] = ()
    """What is odd about it, one line each."""

    @property
    def files(self) -> tuple[AudioFile, ...]:
        """Every file that is heard, once."""
        sides = [side for pair in self.pairs for side in pair.sides]
        return tuple(dict.fromkeys(file for side in sides for file in side.files))


def _refuse_other_length(track: AudioTrack, num_samples: int) -> None:
    """Refuse a file that was replaced: its end would be cut, or filled with zeros."""
    now = track.info.num_samples_24k
    if now != num_samples:
        raise BadRecording(
            f"{track.file}: lasts {now / SAMPLE_RATE:.3f} s, and {num_samples / SAMPLE_RATE:.3f} s"
            " when it was looked at: it was replaced meanwhile; when the store is finished,"
            " laughstore add takes it"
        )


def choose_roles(recording: DatasetRecording, policy: Speakers) -> Roles:
    """Return how a recording is heard.

    Args:
        recording: of a data set.
        policy: top2, all-pairs or mix; a recording without tracks is heard as a mix in any case.

    Raises:
        BadRecording: there is no such sound.
    """
    if policy == "mix":
        return _mix(recording)
    if not recording.tracks and recording.mix is not None:
        note = "no track a speaker: the mix of all is heard, and every event is its own"
        return _mix(recording, note)
    names = [speaker.name for speaker in recording.speakers]
    if not names:
        raise BadRecording(
            f"{recording.name}: nobody knows who speaks, so nobody can be main; diarize it, or use"
            " --speakers mix"
        )
    if MIX in names:
        raise BadRecording(
            f"{recording.name}: a speaker is named {MIX!r}, which stands for a mix; rename them"
        )
    wanted = names[:2] if policy == "top2" else names
    problem = recording.track_problem(wanted)
    if problem is not None:
        raise BadRecording(problem)
    sides = [Side(name, (recording.tracks[name],)) for name in wanted]
    if len(sides) == 1:
        return Roles(
            (Pair((sides[0], SILENT), 1),),
            _assignments([(wanted[0], None)]),
            is_mix=False,
            notes=(f"one speaker ({wanted[0]}); the other is silence",),
        )
    pairs = tuple(Pair((a, b), 2) for a, b in combinations(sides, 2))
    couples = [(a, b) for a, b in combinations(wanted, 2)]
    return Roles(
        pairs,
        _assignments([who for a, b in couples for who in ((a, b), (b, a))]),
        is_mix=False,
    )


def _mix(recording: DatasetRecording, *notes: str) -> Roles:
    """Return one pair: silence, and everybody."""
    if recording.mix is not None:
        files = (recording.mix,)
    else:
        names, strangers = _tracks_of_mix(recording)
        files = tuple(recording.tracks[name] for name in names)
        notes = (*notes, f"no file of the whole sound: {len(files)} tracks are added up to the mix")
        if strangers:
            who = ", ".join(strangers)
            notes = (*notes, f"tracks of nobody in the diarization are not in the mix: {who}")
    if not files:
        raise BadRecording(f"{recording.name}: no sound; add its audio, or leave it out")
    pair = Pair((SILENT, Side(None, files)), 1)
    return Roles((pair,), _assignments([(MIX, None)]), is_mix=True, notes=notes)


def _tracks_of_mix(recording: DatasetRecording) -> tuple[list[str], list[str]]:
    """Return whose tracks add up to the mix, and the other tracks: a mix among them, maybe.

    Raises:
        BadRecording: a diarization names none of the tracks, or cannot be read.
    """
    names = sorted(recording.tracks)
    if not recording.has_segments:
        return names, []
    speakers = {speaker.name for speaker in recording.speakers}
    known = [name for name in names if name in speakers]
    if names and not known:
        raise BadRecording(
            f"{recording.name}: none of its tracks ({', '.join(names)}) is of a speaker in the"
            f" diarization ({', '.join(sorted(speakers))}); name both alike, or add the mix"
        )
    return known, [name for name in names if name not in speakers]


def _assignments(roles: Sequence[tuple[str, str | None]]) -> tuple[Assignment, ...]:
    names = assignment_names(roles)
    return tuple(Assignment(name, *who) for name, who in zip(names, roles, strict=True))
