"""What a folder of spots holds, and the file that remembers it.

laughstore-spots.json  sealed: every spot, where its clip is in `spots.wav` and in the recording
spots.csv              the same for people and their programs; never read back
spots.wav              all clips, the highest score first, with a silence before each
spots.TextGrid, or     the labels of `spots.wav` that a person corrects
spots.txt, clips.txt   (Audacity; `clips.txt` tells which clip is what, and is never read back)
clips/<rank>-<id>.wav  each clip alone
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

from ..annotation_formats.source import SPOTS_FILE, is_spot_folder
from ..errors import ConfigError, CorruptData, NotFound
from ..sealed import MAX_BYTES, seal, unseal
from ..timebase import US_PER_SECOND

SpotFormat = Literal["textgrid", "audacity"]
SOUND_FILE: Final = "spots.wav"
TABLE_FILE: Final = "spots.csv"
CLIPS_FOLDER: Final = "clips"
CLIPS_FILE: Final = "clips.txt"
LABEL_FILES: Final[Mapping[SpotFormat, str]] = {
    "textgrid": "spots.TextGrid",
    "audacity": "spots.txt",
}
SILENCE_US: Final = 800_000
"""Before each clip in `spots.wav`, so that clips do not run into each other: ten frames."""
_FORMAT, _VERSION = "laughstore-spots", 1


@dataclass(frozen=True)
class Clip:
    """Where a spot is heard."""

    file: str
    """Path in the folder."""
    start_us: int
    """Its first audio sample, in the recording."""
    reel_us: int
    """The same sample in `spots.wav`."""
    length_us: int

    def in_recording(self, reel_us: int) -> int:
        """Return the moment of the recording that a moment of `spots.wav` is."""
        return reel_us - self.reel_us + self.start_us

    def in_reel(self, time_us: int) -> int:
        """Return the moment of `spots.wav` that a moment of the recording is, cut to the clip."""
        inside_us = min(max(time_us - self.start_us, 0), self.length_us)
        return self.reel_us + inside_us


@dataclass(frozen=True)
class Spot:
    """A stretch of a recording that may be an event that nobody annotated."""

    rank: int
    """From 1, the highest score first."""
    recording_id: str
    recording: str
    """Its original name."""
    split: str
    assignment: str
    speaker: str | None
    """Whose event it would be; None: the label does not say (a mix, `--whose pair|any`)."""
    asked: tuple[str, ...] | None
    """Speakers whose events the label asks for here; None: everybody's."""
    start_us: int
    end_us: int
    score: float
    """The highest of its rows."""
    clip: Clip | None = None
    """None where there is no sound."""

    @property
    def who(self) -> str:
        """Whose event it would be, for people."""
        if self.speaker is not None:
            return self.speaker
        return "anybody" if self.asked is None else " or ".join(self.asked)

    def asks_the_same(self, other: "Spot") -> bool:
        """Tell whether both are about one recording and may be about one speaker."""
        if self.recording_id != other.recording_id:
            return False
        if self.asked is None or other.asked is None:
            return True
        return not set(self.asked).isdisjoint(other.asked)

    def overlaps(self, other: "Spot") -> bool:
        """Tell whether both may be the same event."""
        shares = self.start_us < other.end_us and other.start_us < self.end_us
        return shares and self.asks_the_same(other)


@dataclass(frozen=True)
class SpotFolder:
    """What `laughstore-spots.json` says."""

    path: Path
    label_file: str
    """Name of the file that a person corrects."""
    event: str
    """Class of the spots, as labels name it: `Laughter`, or `full:NAME`."""
    label: str
    """Consolidated class of an event that is accepted; may be empty for `full:NAME`."""
    full_label: str
    """Its class in the full vocabulary."""
    are_windows: bool
    """An event is expected to begin in each spot; else each is expected to be an event."""
    classes: tuple[str, ...]
    """Consolidated classes of the store, which a spot may turn out to be."""
    run: str
    index_id: str
    generation: int
    """Of the store that was searched."""
    threshold: float
    spots: tuple[Spot, ...]
    """The highest score first."""

    @property
    def name(self) -> str:
        """What the class is called in label files."""
        return self.label if not self.event.startswith("full:") else self.full_label

    @property
    def proposal(self) -> str:
        """The label of a spot that nobody has decided."""
        # Of a window, taking the mark away makes no class: the event itself is to be labelled.
        return f"{self.name} begins here?" if self.are_windows else f"{self.name}?"

    @property
    def labels_path(self) -> Path:
        """The file that a person corrects."""
        return self.path / self.label_file

    @property
    def heard(self) -> tuple[Spot, ...]:
        """Spots with a clip, in the order of `spots.wav`."""
        return tuple(spot for spot in self.spots if spot.clip is not None)

    def to_bytes(self) -> bytes:
        """Return the bytes of `laughstore-spots.json`."""
        content = asdict(self)
        del content["path"]
        return seal({"format": _FORMAT, "version": _VERSION, **content})

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return what a folder of spots holds.

        Raises:
            NotFound: there is none.
            CorruptData: its file was altered, or is of another release.
        """
        file = path / SPOTS_FILE
        where = str(file)
        try:
            with file.open("rb") as opened:
                data = opened.read(MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(
                f"{path} holds no {SPOTS_FILE}: it is no folder of spots; give the one that"
                " laughstore spots --out made"
            ) from error
        content, _ = unseal(data, where=where)
        if (content.pop("format", None), content.pop("version", None)) != (_FORMAT, _VERSION):
            raise CorruptData(f"{where}: not of a version that this release reads; make it again")
        try:
            spots = tuple(_spot(item) for item in content.pop("spots"))
            classes = tuple(content.pop("classes"))
            found = cls(path=path, classes=classes, spots=spots, **content)
        except (TypeError, KeyError, AttributeError) as error:
            raise CorruptData(f"{where}: a field is missing or strange; make it again") from error
        if found.label_file not in LABEL_FILES.values():
            raise CorruptData(f"{where}: {found.label_file!r} is no file of labels; make it again")
        return found

    def table(self) -> str:
        """Return the spots as the text of a CSV file, times in seconds."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        columns = ["rank", "recording_id", "recording", "split", "assignment", "speaker"]
        columns += ["start_s", "end_s", "score", "clip", "clip_start_s", "spots_wav_s"]
        writer.writerow(columns)
        for spot in self.spots:
            clip = spot.clip
            where = ("", "", "")
            if clip is not None:
                where = (clip.file, seconds_text(clip.start_us), seconds_text(clip.reel_us))
            writer.writerow(
                [
                    spot.rank,
                    spot.recording_id,
                    spot.recording,
                    spot.split,
                    spot.assignment,
                    spot.speaker or "",
                    seconds_text(spot.start_us),
                    seconds_text(spot.end_us),
                    f"{spot.score:.6g}",
                    *where,
                ]
            )
        return out.getvalue()


def _spot(item: dict[str, Any]) -> Spot:  # Any: JSON values
    clip, asked = item.pop("clip"), item.pop("asked")
    return Spot(
        **item,
        asked=None if asked is None else tuple(asked),
        clip=None if clip is None else Clip(**clip),
    )


def seconds_text(time_us: int) -> str:
    """Return a time in seconds with six decimals: exact."""
    return f"{time_us // US_PER_SECOND}.{time_us % US_PER_SECOND:06d}"


def label_file_of(kind: SpotFormat) -> str:
    """Return the name of the file that a person corrects. Raises ConfigError."""
    if kind not in get_args(SpotFormat):
        raise ConfigError(f"format {kind!r}: it must be one of {', '.join(get_args(SpotFormat))}")
    return LABEL_FILES[kind]


def find_spot_folder(paths: Sequence[Path]) -> tuple[SpotFolder, Path] | None:
    """Return the folder of spots that is meant by what a command was given, and its labels.

    Args:
        paths: one of them the folder, or a file of labels in it (saved under another name).

    Returns:
        None when none of them is of a folder of spots.

    Raises:
        ConfigError: several things were given, or a file of the folder that nobody corrects.
        CorruptData: as `SpotFolder.open`.
    """
    for path in paths:
        folder = path if path.is_dir() else path.absolute().parent
        if not is_spot_folder(folder):
            continue
        if len(paths) > 1:
            raise ConfigError(f"{path}: give a folder of spots alone, not several things")
        found = SpotFolder.open(folder)
        if path.is_dir():
            return found, found.labels_path
        wanted = Path(found.label_file).suffix.lower()
        if path.suffix.lower() != wanted or path.name == CLIPS_FILE:
            raise ConfigError(
                f"{path} is not what is corrected; correct {found.labels_path}, and give {folder}"
            )
        return found, path
    return None
