"""Sound of whole episodes, all speakers mixed, as PodcastFillers is published.

    audio/episode_wav/<split>/<episode>.wav      16 kHz mono
    audio/episode_mp3/<episode>.mp3              44.1 kHz stereo; or in folders of splits, too

Where an episode is in both, the wav is used: no decoder's delay can shift it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .folders import AUDIO_FOLDER, SPLIT_NAME, find_folder, readable, sound_name, visible

MIX_FOLDERS = ("episode_wav", "episode_mp3")
"""An episode's sound is taken from the first of these that has it."""


@dataclass(frozen=True, slots=True)
class EpisodeAudio:
    """One sound file of an episode."""

    path: Path
    folder: str
    """Of MIX_FOLDERS."""
    split: str | None
    """None where files lie side by side without splits."""


def has_episode_audio(root: Path) -> bool:
    """Tell whether a data set has a folder of mixed episodes."""
    audio = find_folder(root, AUDIO_FOLDER)
    return any(find_folder(audio, folder) is not None for folder in MIX_FOLDERS)


def find_episode_audio(root: Path) -> dict[str, list[EpisodeAudio]]:
    """Return the sound files of each episode, by name, the preferred ones first."""
    found: dict[str, list[EpisodeAudio]] = {}
    audio = find_folder(root, AUDIO_FOLDER)
    for name in MIX_FOLDERS:
        folder = find_folder(audio, name)
        for file, split in _files(folder) if folder else ():
            episode = sound_name(file)
            if episode is not None:
                item = EpisodeAudio(file, name, split)
                found.setdefault(readable(episode), []).append(item)
    return found


def choose(files: Sequence[EpisodeAudio]) -> tuple[EpisodeAudio | None, str | None]:
    """Return the file to use of an episode's, and why it cannot be told, if so (one line)."""
    if not files:
        return None, None
    best = [item for item in files if item.folder == files[0].folder]
    if len(best) > 1:
        return None, f"{best[0].path} and {best[1].path} are of one recording; keep one of them"
    splits = {item.split: item.path for item in files if item.split is not None}
    if len(splits) > 1:
        both = " and ".join(map(str, splits.values()))
        return None, f"{both} are of one recording in two splits; keep one of them"
    return best[0], None


def _files(folder: Path) -> Iterator[tuple[Path, str | None]]:
    for entry in visible(folder):
        if entry.is_dir() and SPLIT_NAME.fullmatch(entry.name):
            yield from ((file, entry.name) for file in visible(entry))
        else:
            yield entry, None
