"""The files of predictions: which there are for a name, and how a folder of them is begun and kept.

The JSON of a recording is written last, so it says that all others are there. The folder remembers
how its predictions are made, and goes on only with the same settings.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...annotation_formats.writers import audacity_text, rttm_text, table_text, textgrid_text
from ...errors import ConfigError
from ...files import TEMPORARY_MARK, write_atomic
from ...sealed import canonical_json
from .heard import Heard
from .plot import prediction_plot
from .result import PREDICTION_FORMAT, Prediction, frames_pieces, json_pieces

SETTINGS_FILE: Final = ".laughstore-predictions.json"
_JSON: Final = ".json"
_TEMPORARY: Final = re.compile(rf".+{re.escape(TEMPORARY_MARK)}[0-9a-f]{{12}}", re.DOTALL)


def _audacity(found: Prediction) -> bytes:
    return audacity_text(found.spans).encode()


def _csv(found: Prediction) -> bytes:
    return table_text(found.heard.name, found.spans).encode()


def _textgrid(found: Prediction) -> bytes:
    return textgrid_text(found.name, found.spans, found.heard.duration_us).encode()


def _rttm(found: Prediction) -> bytes:
    return rttm_text(found.heard.name, found.spans).encode()


WRITERS: Final[Mapping[str, tuple[str, Callable[[Prediction], bytes]]]] = {
    "csv": (".csv", _csv),
    "audacity": (".txt", _audacity),
    "textgrid": (".TextGrid", _textgrid),
    "rttm": (".rttm", _rttm),
    "png": (".png", prediction_plot),
}
"""Ending and content of each format beside JSON."""
FRAMES_FOLDER: Final = "frames"
"""Where the scores of each frame stand, apart from files that are annotations."""


@dataclass(frozen=True)
class Wanted:
    """Which files are written for each recording; its JSON is one of them always."""

    formats: tuple[str, ...]
    """Of `WRITERS`."""
    frames: bool
    """The score of each frame, too."""

    def paths(self, name: str) -> list[str]:
        """Return the files of a name, relative to its folder, its JSON last."""
        found = [name + WRITERS[item][0] for item in self.formats]
        if self.frames:
            found.append(f"{FRAMES_FOLDER}/{name}.csv")
        return [*found, name + _JSON]


class PredictionFolder:
    """A folder of predictions.

    Args:
        path: of the folder.
        settings: JSON object of all that decides what stands in it.
        wanted: files of each recording.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], wanted: Wanted) -> None:
        self.path, self._settings, self._wanted = path, dict(settings), wanted

    def check(self, *, resume: bool) -> None:
        """Check that the folder is new, or can be gone on with.

        Raises:
            ConfigError: it exists, or was begun with other settings.
        """
        if self.path.exists() or self.path.is_symlink():
            if not resume:
                raise ConfigError(
                    f"{self.path} exists; choose another --out, delete it, or go on with it:"
                    " --resume"
                )
            self._compare(self.path / SETTINGS_FILE)

    def make(self) -> None:
        """Make the folder if it is new, and take away what a killed process was writing."""
        file = self.path / SETTINGS_FILE
        if file.exists():
            for left in self.path.rglob(f"*{TEMPORARY_MARK}*"):
                # Recordings may be called so, too: theirs has an ending behind the mark.
                if _TEMPORARY.fullmatch(left.name) and left.is_file():
                    left.unlink(missing_ok=True)
        else:
            write_atomic(file, canonical_json(self._settings) + b"\n")

    def _compare(self, file: Path) -> None:
        try:
            there = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.path} holds no predictions that can be gone on with; choose another --out"
            ) from error
        found = there if isinstance(there, dict) else {}
        changed = sorted(
            key
            for key in found.keys() | self._settings.keys()
            if found.get(key) != self._settings.get(key)
        )
        if changed:
            key = changed[0]
            raise ConfigError(
                f"{self.path} was begun with {key} {_shown(found.get(key))}, now it is"
                f" {_shown(self._settings.get(key))}; go on with the same settings, or choose"
                " another --out"
            )

    def json_path(self, heard: Heard) -> Path:
        """Return the path of a recording's JSON."""
        return self.path / heard.folder / (heard.name + _JSON)

    def has(self, heard: Heard) -> bool:
        """Tell whether all files of a recording are there, made after its sound.

        Raises:
            ConfigError: those of another sound stand there.
        """
        path = self.json_path(heard)
        try:
            made_ns = path.stat().st_mtime_ns
            content = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return False
        if not isinstance(content, dict) or content.get("format") != PREDICTION_FORMAT:
            return False
        if content.get("audio") != audio_json(heard):
            raise ConfigError(
                f"{path} is of other audio than {', '.join(map(str, heard.files.values()))}; choose"
                " another --out"
            )
        return all(file.stat().st_mtime_ns <= made_ns for file in heard.files.values()) and all(
            (path.parent / item).is_file() for item in self._wanted.paths(heard.name)
        )

    def write(self, found: Prediction, more: Mapping[str, Any]) -> list[Path]:
        """Write the files of a recording, its JSON last, and return their paths.

        Args:
            found: of the recording.
            more: JSON object of what its JSON says besides.
        """
        folder, name = self.path / found.heard.folder, found.heard.name
        # What is made anew is not whole any more.
        self.json_path(found.heard).unlink(missing_ok=True)
        contents: list[Callable[[Prediction], bytes | Iterable[bytes]]]
        contents = [WRITERS[item][1] for item in self._wanted.formats]
        contents += [frames_pieces] if self._wanted.frames else []
        *paths, last = [folder / item for item in self._wanted.paths(name)]
        for path, content in zip(paths, contents, strict=True):
            write_atomic(path, content(found))
        told = {"audio": audio_json(found.heard), **more}
        write_atomic(last, json_pieces(found, frames=self._wanted.frames, more=told))
        return [*paths, last]


def audio_json(heard: Heard) -> dict[str, str]:
    """Return the sound files by their roles, as a JSON object."""
    return {role: str(path.absolute()) for role, path in heard.files.items()}


def formats_of(text: str | None, *, has_segments: bool) -> tuple[str, ...]:
    """Return the formats that a comma-separated list names, JSON left out: it is always written.

    Args:
        text: as typed; None: all there are.
        has_segments: whether the run's label has any.

    Raises:
        ConfigError: there is no such format, or it tells of segments and there are none.
    """
    known = ["json", *WRITERS]
    if text is None:
        text = ",".join(known if has_segments else ("json", "png"))
    names = [name.strip().lower() for name in text.split(",")]
    odd = [name for name in names if name not in known]
    if odd:
        raise ConfigError(f"format is {odd[0]!r}; the formats are {', '.join(known)}")
    only_segments = [name for name in names if name not in ("json", "png")]
    if not has_segments and only_segments:
        raise ConfigError(
            f"format {only_segments[0]} tells of segments, and the run's label has values without"
            " any; use json, png"
        )
    return tuple(name for name in WRITERS if name in names)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
