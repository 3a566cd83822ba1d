"""Manifests on disk, with silent sound."""

import json

from extract.datasets import open_dataset

from .trees import silence

EVENT = {"start_s": 1.0, "end_s": 1.5, "label": "Laughter", "speaker": "Ann"}


def line(**changes):
    """A line that has everything."""
    full = {
        "name": "Talk 1. part, 2",
        "split": "train",
        "group": "Talks",
        "audio": {"path": "mix.wav", "channel": None},
        "speakers": [
            {"name": "Bo", "audio": {"path": "both.wav", "channel": 1}, "total_s": 1.5},
            {"name": "Ann", "audio": "ann.wav"},
            {"name": "Cy"},
        ],
        "events": [EVENT | {"full_label": "Giggle", "confidence": 0.5}, EVENT | {"speaker": None}],
        "segments": [
            {"start_s": 0, "end_s": 1.25, "speaker": "Ann"},
            {"start_s": 1, "end_s": 2.000001, "speaker": "Ann"},
        ],
        "turns": [{"start_s": 0, "end_s": 2.5}, {"start_s": 2, "end_s": 3, "speaker": "Bo"}],
        "intervals": [{"speaker": "Ann", "event_start_s": 1, "turn_start_s": 0, "end_s": 1}],
        "words": [
            {"start_s": 0.1, "end_s": 0.3, "text": " so "},
            {"start_s": 0.1, "end_s": 0.3, "text": "None", "speaker": "Bo"},
            {"start_s": 2.5, "end_s": 2.5, "text": "well", "speaker": None},
        ],
    }
    return {key: value for key, value in (full | changes).items() if value != "LEFT OUT"}


def small(name="a", **changes):
    return {"name": name, "split": "train", "audio": "mix.wav", "events": []} | changes


class Corpus:
    def __init__(self, root):
        self.root = root
        self.path = root / "manifest.jsonl"
        silence(root / "mix.wav", 4.0)
        silence(root / "ann.wav", 3.0)
        silence(root / "both.wav", 3.0, channels=2)

    def write(self, *lines):
        texts = [item if isinstance(item, str) else json.dumps(item) for item in lines]
        self.path.write_text("".join(f"{text}\n" for text in texts))
        return self

    @property
    def only(self):
        (recording,) = open_dataset(self.path).recordings
        return recording


def changed(kind, **changes):
    """A change of the first item of a list."""
    items = line()[kind]
    return {kind: [items[0] | changes, *items[1:]]}
