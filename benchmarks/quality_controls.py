"""Is it anticipation? A model that predicts laughs, where nothing, or a tone, foretells them.

(a) Of laughs at times drawn uniformly, an onset model's average precision lies among those of its
    labels rotated. (b) A tone before each laugh of the same recordings raises it. (c) Muting every
    laugh of those recordings changes no bit of the features and scores of rows that have heard no
    laugh yet: what is known there was not heard in the laugh.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from extract.config import BuildConfig
from extract.run import build
from extract.synthetic.tiny_checkpoint import write_tiny_checkpoint
from laughstore import open_store
from laughstore.labels import LabelSpec
from laughstore.timebase import SAMPLES_PER_FRAME, Span
from train import TrainConfig, train
from train.evaluation.null import shift_null
from train.model import ScoreModel
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.scoring.ranking import Ranking
from train.scoring.score import StreamScores, score_streams
from train.streaming.selection import select
from train.streaming.source import FrameSource

from .quality_corpus import CUE_S, LAUGHS_PER_MINUTE, Talk, draw_talks, write_talks

LABEL: Final = LabelSpec("onset:0.8s", whose="any", merge_gap=Span("0s"))
"""Bouts are not merged: a gap in which none may begin would tell something of chance, too."""
_TEST: Final = "test"
_DRAWS: Final = 2000


@dataclass(frozen=True)
class ControlSettings:
    """How much is synthesised, and how it is learned."""

    train: int = 24
    """Recordings of the split."""
    validation: int = 6
    test: int = 24
    seconds: float = 90
    epochs: int = 30
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _Scored:
    """The test recordings of a store, with the scores of a model."""

    store: Path
    streams: list[StreamScores]
    average_precision: float
    base_rate: float

    @classmethod
    def of(cls, store: Path, run: Path) -> "_Scored":
        """Score with the best checkpoint of a run."""
        index = open_store(store).index
        model = ScoreModel(TrainConfig(shards=store, out=run, label=LABEL).head, index.dim)
        best = checkpoint_path(run / "checkpoints", "best")
        model.load_state_dict(load_checkpoint(best).model)
        with FrameSource(index, _TEST) as source:
            streams = score_streams(
                model, select(index, _TEST, LABEL), source, LABEL, ignored_too=True
            )
        y, score, counts = (
            np.concatenate([getattr(item, name) for item in streams])
            for name in ("y", "score", "eligible")
        )
        found = Ranking(score).average_precision(y > 0, counts)
        return cls(store, streams, found, float(y[counts].mean()))


def run_controls(folder: Path, settings: ControlSettings) -> dict[str, Any]:  # Any: JSON values
    """Synthesise, extract, train and compare. Returns a JSON object.

    Args:
        folder: for sound, stores and runs; empty.
        settings: how much.
    """
    counts = {name: getattr(settings, name) for name in ("train", "validation", _TEST)}
    talks = draw_talks(counts, settings.seconds, settings.seed)
    model = write_tiny_checkpoint(folder / "model", size="nano", seed=settings.seed)
    plain, cued = (
        _train(folder, model, talks, settings, name, cues=name == "cued")
        for name in ("plain", "cued")
    )
    muted = _build(folder, model, {_TEST: talks[_TEST]}, "muted", cues=True, laughs=False)
    without = _Scored.of(muted, folder / "run-cued")
    null = shift_null(plain.streams, seed=settings.seed)
    low, high = difference_interval(plain.streams, cued.streams, seed=settings.seed)
    return {
        "recordings": settings.test,
        "seconds": settings.seconds,
        "laughs_per_minute": LAUGHS_PER_MINUTE,
        "label": LABEL.describe(),
        "cue_seconds": CUE_S,
        "rows": sum(int(item.eligible.sum()) for item in plain.streams),
        "base_rate": plain.base_rate,
        "without_cue": null.to_json(),
        "with_cue": {
            "average_precision": cued.average_precision,
            "null": shift_null(cued.streams, seed=settings.seed).to_json(),
            "rise": cued.average_precision - plain.average_precision,
            "rise_95": [low, high],
            "bootstrap_draws": _DRAWS,
        },
        "muted": compare_muted(cued, without, talks[_TEST]),
    }


def difference_interval(
    before: Sequence[StreamScores], after: Sequence[StreamScores], *, seed: int
) -> tuple[float, float]:
    """Return where 95 % of differences of average precision lie over draws of recordings.

    Args:
        before: scores of one stream a recording.
        after: others of the same rows.
        seed: of the draws.
    """
    assert [item.row.tolist() for item in before] == [item.row.tolist() for item in after]
    rng = np.random.Generator(np.random.Philox(seed))
    sides = []
    for streams in (before, after):
        ranking = Ranking(np.concatenate([item.score for item in streams]))
        positive = np.concatenate([item.y > 0 for item in streams])
        counts = np.concatenate([item.eligible for item in streams])
        sides.append((ranking, positive, counts))
    lengths = [len(item.row) for item in before]
    found = []
    for _ in range(_DRAWS):
        drawn = np.bincount(rng.integers(0, len(before), len(before)), minlength=len(before))
        times = np.repeat(drawn, lengths)
        old, new = (
            ranking.average_precision(positive, counts * times)
            for ranking, positive, counts in sides
        )
        found.append(new - old)
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def compare_muted(whole: _Scored, muted: _Scored, talks: Sequence[Talk]) -> dict[str, int | bool]:
    """Return how many rows have heard no laugh yet, and whether all their bits are the same.

    Args:
        whole: recordings with their laughs.
        muted: the same ones without.
        talks: all of them.
    """
    first_row = {talk.name: talk.spans[0][0] // SAMPLES_PER_FRAME for talk in talks}
    """Row t has heard the sound strictly before frame t: the frame of the first laugh counts."""
    stores = [open_store(scored.store) for scored in (whole, muted)]
    rows = positives = later = 0
    same_features = same_scores = True
    for with_laughs, without in zip(whole.streams, muted.streams, strict=True):
        stream = with_laughs.stream
        assert stream.recording_id == without.stream.recording_id
        name = stores[0].index.recording(stream.recording_id).name
        unheard = with_laughs.row <= first_row[name]
        features = [
            store.frames(stream.recording_id, stream.assignment, 0, stream.num_frames)
            for store in stores
        ]
        equal = (_bits(features[0]) == _bits(features[1])).all(axis=1)
        same_features &= bool(equal[: first_row[name] + 1].all())
        later += int((~equal).sum())
        same_scores &= np.array_equal(with_laughs.score[unheard], without.score[unheard])
        rows += int(unheard.sum())
        positives += int(with_laughs.y[unheard].sum())
    return {
        "rows_before_a_laugh": rows,
        "positive": positives,
        "same_features": same_features,
        "same_scores": same_scores,
        "other_rows_that_differ": later,
    }


def _bits(frames: NDArray[Any]) -> NDArray[np.uint16]:
    return np.asarray(frames).view(np.uint16)


def _train(
    folder: Path,
    model: Path,
    talks: dict[str, list[Talk]],
    settings: ControlSettings,
    name: str,
    *,
    cues: bool,
) -> _Scored:
    store = _build(folder, model, talks, name, cues=cues)
    run = folder / f"run-{name}"
    config = TrainConfig(
        shards=store,
        out=run,
        label=LABEL,
        global_batch=512,
        lr=3e-3,
        epochs=settings.epochs,
        patience=settings.epochs,
        seed=settings.seed,
        device="cpu",
    )
    train(config)
    return _Scored.of(store, run)


def _build(
    folder: Path,
    model: Path,
    talks: dict[str, list[Talk]],
    name: str,
    *,
    cues: bool,
    laughs: bool = True,
) -> Path:
    dataset = write_talks(folder / f"talks-{name}", talks, cues=cues, laughs=laughs)
    store = folder / f"store-{name}"
    build(BuildConfig(dataset=dataset, store=store, model=str(model), device="cpu", strict=True))
    return store
