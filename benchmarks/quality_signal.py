"""Does streaming cost accuracy? The linear head beside scikit-learn's, trained on all rows at once.

Frames of 4096 channels with scales and offsets of their own are written to a store; in 0.4 % of
them, spans of 3 to 10, somebody laughs, which moves them along one direction. `laughstore train`
streams them; scikit-learn gets the same bfloat16 numbers, standardised, in memory. Both minimise
the mean cross-entropy plus l2 / 2 times the squared norm of the standardised weights.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from laughstore import open_store
from laughstore.annotations import Annotations, Event, Speaker, write_annotations
from laughstore.arrays import CODE_STREAMS, MISSING_CODE
from laughstore.buildplan import Assignment, RecordingToPlan, begin_plan, make_plan
from laughstore.commit import commit_plan
from laughstore.labels import LabelSpec, frame_targets
from laughstore.naming import assignment_name, recording_id
from laughstore.timebase import FRAME_US
from laughstore.unitwriter import UnitWriter

from .data import bench_spec

_SPEAKER: Final = "SPEAKER_00"
_RATE: Final = 0.004
_SPANS: Final = (3, 10)
"""Frames of a laugh, both included."""
_LABEL: Final = LabelSpec()


@dataclass(frozen=True)
class SignalSettings:
    """How much is written, and how it is learned."""

    dim: int = 4096
    train: int = 8
    """Recordings of the split."""
    validation: int = 4
    frames: int = 8192
    """Of each recording."""
    strength: float = 4.0
    """How far a laugh moves a frame, in standard deviations of every direction."""
    l2: float = 0.01
    global_batch: int = 4096
    lr: float = 3e-4
    epochs: int = 50
    seed: int = 0


def run_signal(folder: Path, settings: SignalSettings) -> dict[str, Any]:  # Any: JSON values
    """Write, train both, and compare on the split validation. Returns a JSON object."""
    store = _write_store(folder / "store", settings)
    run = folder / "run"
    ours = _train(store, run, settings)
    theirs = _scikit_learn(store, settings)
    best, last = ours["validation"], _last_validation(run)["average_precision"]
    return {
        "dim": settings.dim,
        "train_rows": theirs["train_rows"],
        "train_positives": theirs["train_positives"],
        "validation_rows": best["rows"],
        "base_rate": best["base_rate"],
        "l2": settings.l2,
        "C": theirs["C"],
        "epochs": ours["epochs"],
        "steps": ours["steps"],
        "scikit_learn": theirs["average_precision"],
        "average_precision": last,
        "difference": last - theirs["average_precision"],
        "best_epoch": ours["best_epoch"] + 1,
        "best_average_precision": best["average_precision"],
    }


def _train(store: Path, run: Path, settings: SignalSettings) -> dict[str, Any]:  # Any: JSON values
    command = [sys.executable, "-m", "laughstore", "train", "--shards", str(store / "shards")]
    flags = {
        "--out": run,
        "--l2": settings.l2,
        "--weight-decay": 0,
        "--global-batch": settings.global_batch,
        "--lr": settings.lr,
        "--epochs": settings.epochs,
        "--patience": settings.epochs,
        "--device": "cpu",
    }
    command += [word for name, value in flags.items() for word in (name, str(value))]
    done = subprocess.run([*command, "-q", "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _last_validation(run: Path) -> dict[str, Any]:  # Any: JSON values
    """Of the last epoch, where both have minimised the same: the best one was chosen by it."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "validation"][-1]


def _scikit_learn(store: Path, settings: SignalSettings) -> dict[str, Any]:  # Any: JSON values
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score

    x, y = _all_rows(store, "train")
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    _standardise(x, mean, std)
    c = 1 / (len(x) * settings.l2)
    model = LogisticRegression(C=c, tol=1e-6, max_iter=1000).fit(x, y)
    rows, positives = len(x), int(y.sum())
    del x
    held_out, truth = _all_rows(store, "validation")
    _standardise(held_out, mean, std)
    found = float(average_precision_score(truth, model.decision_function(held_out)))
    return {
        "average_precision": found,
        "C": c,
        "train_rows": rows,
        "train_positives": positives,
    }


def _standardise(
    x: NDArray[np.float32], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> None:
    x -= mean.astype(np.float32)
    x /= std.astype(np.float32)


def _all_rows(store: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return f4[N, D] and u1[N], read by the store's own reader and not by the stream."""
    opened = open_store(store)
    frames, targets = [], []
    for recording in opened.index.recordings:
        if recording.split != split:
            continue
        (stream,) = recording.streams
        found = opened.frames(recording.id, stream.assignment, 0, stream.num_frames)
        label = frame_targets(
            _LABEL,
            opened.index.tables(recording),
            main=stream.main,
            other=stream.other,
            num_frames=stream.num_frames,
        )
        frames.append(np.asarray(found)[~label.ignored])
        targets.append(label.y[~label.ignored])
    return np.concatenate(frames).astype(np.float32), np.concatenate(targets)


def _write_store(store: Path, settings: SignalSettings) -> Path:
    features = _features(settings)
    spec = replace(bench_spec(), dim=settings.dim)
    counts = {"train": settings.train, "validation": settings.validation}
    assignment = Assignment(assignment_name(_SPEAKER, None), _SPEAKER, None)
    names = [f"{split} {number}" for split, count in counts.items() for number in range(count)]
    rngs = [np.random.default_rng([settings.seed, number]) for number in range(len(names))]
    notes = [
        _annotations(name, settings.frames, rng) for name, rng in zip(names, rngs, strict=True)
    ]
    plan = make_plan(
        spec,
        "benchmark",
        [
            RecordingToPlan(
                id=recording_id(name),
                name=name,
                split=name.split()[0],
                group=name,
                num_frames=settings.frames,
                assignments=(assignment,),
                annotations_id=note.content_id(),
            )
            for name, note in zip(names, notes, strict=True)
        ],
    )
    begin_plan(store, plan)
    codes = np.full((1, settings.frames, CODE_STREAMS), MISSING_CODE, np.int16)
    for planned, note, rng in zip(plan.recordings, notes, rngs, strict=True):
        write_annotations(store, note, planned.split, planned.id)
        with UnitWriter(store, plan, planned, note) as writer:
            writer.write(features(note, rng)[None], codes)
            writer.finish()
    commit_plan(store, plan)
    return store


def _annotations(name: str, num_frames: int, rng: np.random.Generator) -> Annotations:
    """Return laughs of whole frames, in 0.4 % of them or hardly more."""
    count = max(1, round(_RATE * num_frames / np.mean(_SPANS)))
    starts = np.sort(rng.choice(num_frames // 32 - 1, count, replace=False)) * 32
    lengths = rng.integers(_SPANS[0], _SPANS[1] + 1, count)
    spans = zip(starts.tolist(), lengths.tolist(), strict=True)
    return Annotations(
        recording=name,
        duration_us=num_frames * FRAME_US,
        speakers=(Speaker(_SPEAKER, num_frames * FRAME_US),),
        events=tuple(
            Event(start * FRAME_US, (start + length) * FRAME_US, "Laughter", "Laughter", _SPEAKER)
            for start, length in spans
        ),
    )


def _features(
    settings: SignalSettings,
) -> Callable[[Annotations, np.random.Generator], NDArray[np.uint16]]:
    """Return what makes u2[T, D], bits of bfloat16, of a recording."""
    rng = np.random.default_rng([settings.seed, settings.dim])
    direction, level, size = rng.standard_normal((3, settings.dim)).astype(np.float32)
    direction *= settings.strength / np.linalg.norm(direction)
    scale = np.exp(size)

    def features(note: Annotations, rng: np.random.Generator) -> NDArray[np.uint16]:
        x = rng.standard_normal((settings.frames, settings.dim), np.float32)
        for event in note.events:
            x[event.start_us // FRAME_US : event.end_us // FRAME_US] += direction
        return ((x + level) * scale).astype(ml_dtypes.bfloat16).view(np.uint16)

    return features
