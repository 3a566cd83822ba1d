"""Data sets on disk, small and silent, that a test changes before it opens them."""

import csv
import json

import numpy as np
import soundfile

from extract.datasets import DIARIZATIONS, EVENTS, INTERVALS, TRANSCRIPTS, TURNS, open_dataset

NAME = 'Dr. Who, "live"_Ep 1. Chelle B.'


def diarization(**changes):
    return {
        "original_duration": 3.0,
        "speaker_statistics": {
            "SPEAKER_00": {"total_time": 1.2},
            "SPEAKER_01": {"total_time": 1.5},
        },
        "segments": [
            {"start": 0.0, "end": 1.2, "speaker_id": "SPEAKER_00"},
            {"start": 1.0, "end": 2.5, "speaker_id": "SPEAKER_01"},
        ],
    } | changes


def event(start=0.5, end=0.8, **changes):
    return {
        "label_consolidated_vocab": "Laughter",
        "label_full_vocab": "Laughter",
        "event_start_inepisode": start,
        "event_end_inepisode": end,
        "speaker_id": "SPEAKER_01",
        "confidence": 0.75,
    } | changes


CONTENT = {
    DIARIZATIONS: diarization(),
    EVENTS: {"events": [event()]},
    TRANSCRIPTS: {
        "segments": [
            {
                "speaker": 7,
                "nbest": [
                    {"words": [{"text": " so ", "offset": 1_000_000, "duration": 2_000_005}]},
                    {"words": [{"text": "sow", "offset": 0, "duration": 0}]},
                ],
            },
            {"nbest": []},
        ]
    },
    TURNS: {"turns": [{"start": 0, "end": 1.2, "speaker_id": "SPEAKER_00"}, {"end": 2.5}]},
    INTERVALS: {
        "intervals": [
            {
                "speaker_id": "SPEAKER_01",
                "event_start_inepisode": 0.5,
                "current_turn_start": 0.0,
                "prediction_interval_end": 0.5,
            }
        ]
    },
}


def silence(path, seconds=3.0, sample_rate=24_000, channels=1):
    """Write a silent sound file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    num_samples = int(sample_rate * seconds)
    soundfile.write(path, np.zeros((num_samples, channels), np.float32), sample_rate)
    return path


class Tree:
    """PodcastFillers with one track a speaker."""

    def __init__(self, root):
        self.root = root

    def annotation(self, kind, name=NAME, split="train", *, folder="metadata"):
        if kind == DIARIZATIONS:
            return self.root / folder / kind / split / name / "metadata.json"
        return self.root / folder / kind / split / f"{name}.json"

    def write(self, kind, content, **where):
        path = self.annotation(kind, **where)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def track(self, speaker, name=NAME, split="train", seconds=3.0, suffix=".wav"):
        folder = self.root / "audio" / "episode_wav_dial" / split / name
        return silence(folder / f"{speaker}{suffix}", seconds)

    def mix(self, name=NAME, split="train", folder="episode_wav", suffix=".wav", seconds=3.0):
        return silence(self.root / "audio" / folder / split / f"{name}{suffix}", seconds)

    def episode(self, name=NAME, split="train"):
        for speaker in ("SPEAKER_00", "SPEAKER_01"):
            self.track(speaker, name, split, seconds=0.1)
        for kind, content in CONTENT.items():
            self.write(kind, content, name=name, split=split)
        return self

    @property
    def only(self):
        (recording,) = open_dataset(self.root).recordings
        return recording


COLUMNS = [
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
]


def row(start=1.0, end=1.5, name=NAME, split="train", **changes):
    """A row as published."""
    values = {
        "clip_name": "00000.wav",
        "pfID": 0,
        "label_full_vocab": "Laughter",
        "label_consolidated_vocab": "Laughter",
        "podcast_filename": name,
        "event_start_inepisode": start,
        "event_end_inepisode": end,
        "confidence": 0.75,
        "n_annotators": 2,
        "episode_split_subset": split,
        "clip_split_subset": "extra",
        "pitch_cent": 1234.5,
    }
    return dict.fromkeys(COLUMNS, 0.5) | values | changes


def write_table(path, rows, columns=COLUMNS, encoding="utf-8"):
    """Write rows (mappings) as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


class Published:
    """PodcastFillers as published."""

    def __init__(self, root):
        self.root = root

    def sound(self, name=NAME, split="train", folder="episode_wav", suffix=".wav", seconds=3.0):
        return silence(self.root / "audio" / folder / split / f"{name}{suffix}", seconds, 16_000)

    def own(self, rows, name=NAME, split="train", **options):
        folder = self.root / "metadata/episode_annotations"
        return write_table(folder / split / f"{name}.csv", rows, **options)

    def table(self, rows, folder="metadata", **options):
        return write_table(self.root / folder / "PodcastFillers.csv", rows, **options)

    def transcript(self, name=NAME, split="train", content=None):
        path = self.root / "metadata/episode_transcripts" / split / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(CONTENT[TRANSCRIPTS] if content is None else content))
        return path

    def episode(self, name=NAME, split="train"):
        self.sound(name, split)
        self.own([row(name=name, split=split)], name, split)
        self.transcript(name, split)
        return self

    @property
    def only(self):
        (recording,) = open_dataset(self.root).recordings
        return recording
