"""A small synthetic corpus in the per-speaker PodcastFillers layout, for the demo and for tests.

In: how many episodes of which length. Out: a folder that `extract.datasets` opens, with everything
that the layout has: tracks, diarizations, event-speaker mapping, transcripts, turns, prediction
intervals, `PodcastFillers.csv`. No recording of a person is in it, and its README says so.

Two people take turns. Laughs come at times drawn without regard to turns and speech, from either of
them, so their moment cannot be told from the conversation: what a model finds is the sound.
Deterministic for a seed: the same files, byte for byte. A folder appears whole or not at all.
"""

import csv
import io
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import soundfile
from numpy.typing import NDArray

from laughstore.errors import ConfigError
from laughstore.new_folder import new_folder
from laughstore.timebase import SAMPLE_RATE

from ..datasets import (
    AUDIO_FOLDER,
    DIARIZATIONS,
    EVENTS,
    INTERVALS,
    METADATA_FOLDERS,
    SPLIT_NAME,
    TRACKS_FOLDER,
    TRANSCRIPTS,
    TURNS,
)
from ..json_records import TICK_DIGITS
from .conversation import (
    MAX_LAUGHS_PER_MINUTE,
    Sound,
    Span,
    plan_distractors,
    plan_laughs,
    plan_turns,
    spoken_pieces,
    word_times,
)
from .voices import Track, Voice

DEFAULT_EPISODES: Mapping[str, int] = MappingProxyType({"train": 6, "validation": 2, "test": 2})
MIN_SECONDS = 10
MAX_SECONDS = 600
SPEAKERS = ("SPEAKER_00", "SPEAKER_01")
README = """\
This corpus is synthetic. A program (laughstore, extract/synthetic) made every sound in it; no
recording of any person was used. It has the folders and files of the PodcastFillers data set with
one track a speaker, so that the whole pipeline can be tried without data. Scores on it say that the
pipeline works; they say nothing about laughter of people.
"""
LICENSE = """\
This synthetic corpus is dedicated to the public domain (CC0 1.0,
https://creativecommons.org/publicdomain/zero/1.0/).
"""
_PEAK = 0.7
_CSV_COLUMNS: tuple[str, ...] = (
    "clip_name",
    "pfID",
    "label_full_vocab",
    "label_consolidated_vocab",
    "podcast_filename",
    "event_start_inepisode",
    "event_end_inepisode",
    "event_start_inclip",
    "event_end_inclip",
    "clip_start_inepisode",
    "clip_end_inepisode",
    "duration",
    "confidence",
    "n_annotators",
    "episode_split_subset",
    "clip_split_subset",
    "pitch_cent",
)


@dataclass(frozen=True)
class _Episode:
    """One episode: what happens in it, and its two tracks f32[N]."""

    name: str
    split: str
    seconds: float
    sounds: Sequence[Sound]
    turns: Sequence[Span]
    phrases: Sequence[Span]
    words: Sequence[Sequence[tuple[float, float, str]]]
    """Words (start, end, text) of each phrase."""
    tracks: Sequence[NDArray[np.float32]]


def write_synthetic_corpus(
    out: Path,
    *,
    episodes: Mapping[str, int] = DEFAULT_EPISODES,
    seconds: float = 60,
    seed: int = 0,
    laughs_per_minute: float = 6,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a synthetic corpus and return its folder.

    Args:
        out: a folder that does not exist yet, or is empty.
        episodes: how many, by split.
        seconds: length of each episode, 10 to 600.
        seed: 0 or more; another seed, other voices and conversations.
        laughs_per_minute: of both speakers together; at 6, each one laughs 3 to 6 % of the time.
        progress: called with one line after each episode.

    Raises:
        ConfigError: a value is out of range, or the folder holds something.
    """
    _check(out, episodes, seconds, seed, laughs_per_minute)
    rows: list[dict[str, object]] = []
    with new_folder(out) as building:
        for split, count in episodes.items():
            for number in range(count):
                episode = _episode(split, number, seconds, seed, laughs_per_minute)
                rows += _write_episode(building, episode, first_id=len(rows))
                if progress is not None:
                    progress(f"{split} {number + 1}/{count}: {episode.name}")
        _write_csv(building / METADATA_FOLDERS[0] / "PodcastFillers.csv", rows)
        (building / "README.txt").write_text(README)
        (building / "LICENSE").write_text(LICENSE)
    return out


def _check(
    out: Path, episodes: Mapping[str, int], seconds: float, seed: int, laughs: float
) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: exists and is not an empty folder; give a new one")
    if not any(episodes.values()) or any(count < 0 for count in episodes.values()):
        raise ConfigError(f"episodes {dict(episodes)}: one split needs 1 or more, none less than 0")
    bad = [split for split in episodes if not SPLIT_NAME.fullmatch(split)]
    if bad:
        raise ConfigError(f"split {bad[0]!r}: names of splits are letters, digits, - and _")
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ConfigError(f"seconds {seconds}: an episode has {MIN_SECONDS} to {MAX_SECONDS}")
    if seed < 0:
        raise ConfigError(f"seed {seed}: 0 or more")
    if not 0 <= laughs <= MAX_LAUGHS_PER_MINUTE:
        raise ConfigError(f"laughs_per_minute {laughs}: 0 to {MAX_LAUGHS_PER_MINUTE} fit in")


def _episode_name(split: str, number: int) -> str:
    """Return a name; shows (before the `_`) are never shared by splits, some have odd letters."""
    if number == 0:
        return f"Dr. Nobody, Live ({split})_No. 1, the pilot"
    return f"Synthetic {split} talk {number // 2 + 1}_Episode {number % 2 + 1}"


def _episode(split: str, number: int, seconds: float, seed: int, laughs: float) -> _Episode:
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number])
    sounds = plan_laughs(rng, seconds, max(1, round(laughs * seconds / 60)) if laughs else 0)
    sounds = plan_distractors(rng, seconds, sounds)
    turns, planned = plan_turns(rng, seconds)
    phrases = [piece for phrase in planned for piece in spoken_pieces(phrase, sounds)]
    num_samples = math.ceil(seconds * SAMPLE_RATE)
    people = [Track(Voice.random(rng), num_samples, rng) for _ in SPEAKERS]
    words = [word_times(rng, people[p.speaker].speak(p.start_s, p.end_s)) for p in phrases]
    for sound in sounds:
        person = people[sound.speaker]
        paint = {"Laughter": person.laugh, "Breath": person.breathe, "Noise": person.cough}
        paint[sound.kind](sound.start_s, sound.end_s)
    tracks = [person.render() for person in people]
    loudest = max(float(np.abs(track).max()) for track in tracks)
    tracks = [track * np.float32(_PEAK / max(loudest, 1e-6)) for track in tracks]
    return _Episode(
        _episode_name(split, number), split, seconds, sounds, turns, phrases, words, tracks
    )


def _write_episode(root: Path, episode: _Episode, *, first_id: int) -> list[dict[str, object]]:
    """Write an episode's files; return its rows of `PodcastFillers.csv`."""
    folder = root / AUDIO_FOLDER / TRACKS_FOLDER / episode.split / episode.name
    folder.mkdir(parents=True)
    for speaker, track in zip(SPEAKERS, episode.tracks, strict=True):
        sound = io.BytesIO()  # libsndfile itself does not say that a disk is full
        soundfile.write(sound, track, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        (folder / f"{speaker}.wav").write_bytes(sound.getvalue())
    rows = [_event_row(episode, sound, first_id + k) for k, sound in enumerate(episode.sounds)]
    head = {"episode_name": episode.name, "split": episode.split}
    events = [
        row | {"speaker_id": SPEAKERS[sound.speaker]}
        for row, sound in zip(rows, episode.sounds, strict=True)
    ]
    files = {
        DIARIZATIONS: head | _diarization(episode),
        EVENTS: head | {"events": events},
        TRANSCRIPTS: _transcript(episode),
        TURNS: head
        | {
            "episode_duration": episode.seconds,
            "turns": [_segment(turn) for turn in episode.turns],
        },
        INTERVALS: head | _intervals(episode),
    }
    for kind, content in files.items():
        where = root / METADATA_FOLDERS[0] / kind / episode.split
        name = f"{episode.name}/metadata.json" if kind == DIARIZATIONS else f"{episode.name}.json"
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(json.dumps(content, indent=1))
    return rows


def _event_row(episode: _Episode, sound: Sound, event_id: int) -> dict[str, object]:
    length_s = sound.end_s - sound.start_s
    middle_s = (sound.start_s + sound.end_s) / 2
    consolidated = None if sound.kind == "Noise" else sound.kind
    values = (
        f"{event_id:05d}.wav",
        event_id,
        sound.kind,
        consolidated,
        episode.name,
        sound.start_s,
        sound.end_s,
        round(max(0.0, 0.5 - length_s / 2), 6),
        round(min(1.0, 0.5 + length_s / 2), 6),
        round(middle_s - 0.5, 6),
        round(middle_s + 0.5, 6),
        round(length_s, 6),
        1.0,
        2,
        episode.split,
        episode.split if consolidated else "extra",
        0.0,
    )
    return dict(zip(_CSV_COLUMNS, values, strict=True))


def _write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _CSV_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _segment(span: Span) -> dict[str, object]:
    return {"start": span.start_s, "end": span.end_s, "speaker_id": SPEAKERS[span.speaker]}


def _diarization(episode: _Episode) -> dict[str, object]:
    own_sounds = [Span(s.speaker, s.start_s, s.end_s) for s in episode.sounds]
    spans = sorted([*episode.phrases, *own_sounds], key=lambda span: (span.start_s, span.speaker))
    last_s = max((span.end_s for span in spans), default=episode.seconds)
    statistics = {}
    for number, speaker in enumerate(SPEAKERS):
        lengths = [span.end_s - span.start_s for span in spans if span.speaker == number]
        total_s = round(sum(lengths), 6)
        statistics[speaker] = {
            "total_time": total_s,
            "num_segments": len(lengths),
            "avg_segment_duration": round(total_s / max(len(lengths), 1), 6),
            "speaking_ratio": round(total_s / last_s, 6),
        }
    return {
        "original_duration": episode.seconds,
        "original_sample_rate": SAMPLE_RATE,
        "num_speakers": len(SPEAKERS),
        "speaker_statistics": statistics,
        "segments": [_segment(span) for span in spans],
    }


def _transcript(episode: _Episode) -> dict[str, object]:
    segments = []
    for words in episode.words:
        items = [
            {
                "confidence": 1.0,
                "duration": _ticks(end_s - start_s),
                "offset": _ticks(start_s),
                "text": text,
            }
            for start_s, end_s, text in words
        ]
        segments.append(
            {
                "speaker": 1,
                "offset": _ticks(words[0][0]),
                "duration": _ticks(words[-1][1] - words[0][0]),
                "nbest": [{"text": " ".join(word[2] for word in words), "words": items}],
            }
        )
    return {"duration": _ticks(episode.seconds), "language": "en-US", "segments": segments}


def _ticks(seconds: float) -> int:
    """Return a transcript's unit of time, 100 ns, rounded to whole milliseconds."""
    return round(seconds * 1_000) * 10**TICK_DIGITS // 1_000


def _intervals(episode: _Episode) -> dict[str, object]:
    intervals = []
    for sound in episode.sounds:
        if sound.kind == "Laughter":
            begun = [turn.start_s for turn in episode.turns if turn.start_s <= sound.start_s]
            intervals.append(
                {
                    "speaker_id": SPEAKERS[sound.speaker],
                    "event_start_inepisode": sound.start_s,
                    "event_end_inepisode": sound.end_s,
                    "current_turn_start": begun[-1] if begun else 0.0,
                    "prediction_interval_end": sound.start_s,
                }
            )
    counts = [sum(item["speaker_id"] == speaker for item in intervals) for speaker in SPEAKERS]
    coverage = {
        speaker: {
            "num_intervals": count,
            "coverage_percent": round(min(100.0, 100 * 10 * count / episode.seconds), 6),
        }
        for speaker, count in zip(SPEAKERS, counts, strict=True)
    }
    return {
        "episode_duration": episode.seconds,
        "speaker_statistics": coverage,
        "intervals": intervals,
    }
