"""Runs to predict with, and what an evaluation says of the same recordings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laughstore.cli.main import main
from laughstore.store import open_shards
from train import TrainConfig, train
from train.runs.run import Run
from train.runs.trained import load_trained
from train.scoring.score import StreamScores, score_streams
from train.streaming.selection import select
from train.streaming.source import FrameSource

SPLIT = "validation"


def trained_on(store: Path, out: Path, **changes: Any) -> Path:
    """Train a head a little, and return its run."""
    quick = {"global_batch": 64, "lanes": 8, "epochs": 2, "lr": 0.02, "device": "cpu"}
    train(TrainConfig(shards=store / "shards", out=out, **{**quick, **changes}))
    return out


def evaluated(run: Path) -> list[StreamScores]:
    """Scores of the validation split, as `evaluate` makes them: of all rows."""
    opened = Run.open(run)
    index = open_shards(opened.config.shards)
    selection = select(index, SPLIT, opened.config.label, opened.config.filter)
    model = load_trained(opened, "best").model
    with FrameSource(index, SPLIT) as source:
        return score_streams(model, selection, source, opened.config.label, ignored_too=True)


def tracks(corpus: Path, split: str = SPLIT) -> dict[str, Path]:
    """The tracks of the split's only episode, by speaker."""
    (episode,) = (corpus / "audio" / "episode_wav_dial" / split).iterdir()
    return {path.stem: path for path in sorted(episode.iterdir())}


def predicted(out: Path, *arguments: object) -> dict[str, Any]:
    """Predict one recording, with its frames, and return its JSON."""
    words = ["predict", *map(str, arguments), "--out", str(out), "--frames", "--device", "cpu"]
    assert main([*words, "-q", "--format", "json"]) == 0
    (path,) = (path for path in out.rglob("*.json") if not path.name.startswith("."))
    return json.loads(path.read_text())


def scores_of(content: dict[str, Any]) -> NDArray[np.float32]:
    """f4[n], of each frame."""
    return np.array(content["frames"]["scores"], np.float64).astype(np.float32)
