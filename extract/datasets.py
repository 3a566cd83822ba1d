"""Data sets on disk: which layout a path has, and its recordings.

In: a folder or a manifest. Out: a `Dataset` of `DatasetRecording`s, each with its sound, its
annotations, what is missing (`notes`) and why nothing can be built from it (`problem`). The layouts
are in `extract.layouts`, docs/datasets.md describes them. A folder that is none of them is refused
with what was found in it and what to do.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from laughstore.errors import ConfigError, NotFound

from .layouts.episode_audio import MIX_FOLDERS, has_episode_audio
from .layouts.folders import AUDIO_FOLDER, METADATA_FOLDERS, SPLIT_NAME, find_folder, visible
from .layouts.manifest import NAME as MANIFEST
from .layouts.manifest import SUFFIX as MANIFEST_SUFFIX
from .layouts.manifest import find_manifest, read_manifest_lines
from .layouts.per_speaker import (
    DIARIZATIONS,
    EVENTS,
    INTERVALS,
    TRACKS_FOLDER,
    TRANSCRIPTS,
    TURNS,
    has_speaker_events,
    has_tracks,
    read_per_speaker,
)
from .layouts.podcastfillers import is_published_layout, read_podcastfillers
from .layouts.recording import Dataset, DatasetRecording, FoundLayout

if TYPE_CHECKING:
    from .config import LayoutName

__all__ = [
    "AUDIO_FOLDER",
    "DIARIZATIONS",
    "EVENTS",
    "INTERVALS",
    "METADATA_FOLDERS",
    "SPLIT_NAME",
    "TRACKS_FOLDER",
    "TRANSCRIPTS",
    "TURNS",
    "Dataset",
    "DatasetRecording",
    "is_dataset",
    "open_dataset",
]

_EXPECTED: dict[FoundLayout, str] = {
    "per-speaker": f"{AUDIO_FOLDER}/{TRACKS_FOLDER}/<split>/<episode>/<SPEAKER>.wav",
    "podcastfillers": f"{AUDIO_FOLDER}/{MIX_FOLDERS[0]}/<split>/<episode>.wav",
    "manifest": MANIFEST,
}
_ARCHIVE = re.compile(r".*\.(zip|z\d\d)", re.IGNORECASE)
_UNPACK = (
    "join and unpack it (zip -s 0 PodcastFillers.zip --out whole.zip && unzip whole.zip, with all"
    " of its .z01, .z02, ... beside it), then give the folder that holds audio/ and metadata/"
)


def is_dataset(path: Path) -> bool:
    """Tell whether a path is of a layout that `open_dataset` reads, be it without audio."""
    return bool(_layouts_in(path))


def open_dataset(path: Path, layout: "LayoutName" = "auto", *, needs_audio: bool = True) -> Dataset:
    """Return the data set at a path.

    Args:
        path: of the folder that holds audio/ and metadata/, or of a manifest (*.jsonl) or the
            folder of one.
        layout: how it is laid out; auto looks. Where a folder has several layouts, tracks of
            speakers go first, then a manifest, then mixed episodes; `Dataset.notes` tells.
        needs_audio: False takes one that has only annotations, too.

    Raises:
        NotFound: no such file or folder.
        ConfigError: it has another layout, or its recordings cannot be told apart.
    """
    if not path.exists():
        raise NotFound(
            f"{path}: no such folder or file; give the folder that holds audio/ and metadata/, or"
            " a manifest (*.jsonl)"
        )
    there = _layouts_in(path)
    wanted = None if layout == "auto" else layout
    usable: list[FoundLayout] = [
        item for item in there if not needs_audio or _has_audio(path, item)
    ]
    allowed: list[FoundLayout] = [item for item in usable if wanted is None or item == wanted]
    if not allowed:
        raise _other_layout(path, there, wanted)
    chosen = allowed[0]
    notes: list[str] = []
    others = [item for item in usable if item != chosen]
    if others:
        notes.append(
            f"{path}: read as layout {chosen}; it has {' and '.join(others)}, too (--layout)"
        )
    if chosen == "manifest":
        manifest = find_manifest(path)
        assert manifest is not None
        recordings = read_manifest_lines(manifest)
    else:
        read = read_per_speaker if chosen == "per-speaker" else read_podcastfillers
        recordings, more = read(path)
        notes += more
    if not recordings:
        raise _other_layout(path, [], chosen)
    return Dataset(path, chosen, tuple(recordings), tuple(notes))


def _layouts_in(path: Path) -> list[FoundLayout]:
    """Return the layouts that a path has, the one to take first."""
    if not path.is_dir():
        return ["manifest"] if find_manifest(path) is not None else []
    found: list[FoundLayout] = []
    published = is_published_layout(path)
    speaker_events = has_speaker_events(path)
    if has_tracks(path) or (speaker_events and not has_episode_audio(path)):
        found.append("per-speaker")
    if find_manifest(path) is not None:
        found.append("manifest")
    if published:
        found.append("podcastfillers")
    if speaker_events and "per-speaker" not in found:  # of mixes only: when asked for
        found.append("per-speaker")
    return found


def _has_audio(path: Path, layout: FoundLayout) -> bool:
    if layout == "manifest":  # its lines tell
        return True
    return has_episode_audio(path) or (layout == "per-speaker" and has_tracks(path))


def _looks_like_one(folder: Path) -> bool:
    try:
        return bool(_layouts_in(folder))
    except ConfigError:  # of another user, or odd: the message at hand is about another folder
        return False


def _other_layout(
    path: Path, there: list[FoundLayout], wanted: FoundLayout | None = None
) -> ConfigError:
    """Return the error that a path is not what was expected, with the way out of common slips."""
    expected = (
        f"{_EXPECTED['per-speaker']} or {_EXPECTED['podcastfillers']} with metadata/ beside audio/,"
        f" or {MANIFEST}"
        if wanted is None
        else f"{_EXPECTED[wanted]} (layout {wanted})"
    )
    if not path.is_dir():
        if _ARCHIVE.fullmatch(path.name):
            return ConfigError(f"{path}: is a part of an archive; {_UNPACK}")
        return ConfigError(
            f"{path}: is no manifest (*{MANIFEST_SUFFIX}) and no folder; give the folder that holds"
            " audio/ and metadata/"
        )
    entries = visible(path)
    folders = [entry for entry in entries if entry.is_dir()]
    inner = [entry for entry in folders if not there and _looks_like_one(entry)]
    if inner:
        return ConfigError(f"{path}: no data set here, but in {inner[0].name}/; give {inner[0]}")
    around = path.absolute().parent
    if path.name.lower() in (AUDIO_FOLDER, *METADATA_FOLDERS) and _looks_like_one(around):
        return ConfigError(f"{path}: is a part of a data set; give {around}")
    archives = [entry.name for entry in entries if _ARCHIVE.fullmatch(entry.name)]
    if archives:
        return ConfigError(f"{path}: holds {archives[0]}, a part of an archive; {_UNPACK}")
    audio = find_folder(path, AUDIO_FOLDER)
    shown = [f"{AUDIO_FOLDER}/{entry.name}" for entry in visible(audio)] if audio else []
    shown += [entry.name for entry in entries if entry != audio]
    found = ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "") if shown else "nothing"
    if there:
        return ConfigError(
            f"{path}: annotations of layout {' and '.join(there)} and no audio; expected"
            f" {expected}, found {found}"
        )
    return ConfigError(f"{path}: expected {expected}, found {found}")
