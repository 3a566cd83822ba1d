import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from laughstore.annotations import Annotations, Event, Speaker
from laughstore.cli.evaluate import report
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec, target_bouts
from laughstore.tables import RecordingTables, Vocabulary, recording_tables
from laughstore.timebase import FRAME_US, Span
from tests.stores import SPEAKERS, Episode, bf16_bits, laugh, write_store
from train import FrameFilter, HeadConfig, evaluate, train
from train.evaluation.baselines import seconds_since
from train.evaluation.result import EvaluationResult
from train.evaluation.train_side import direction
from train.model import ScoreModel
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.scoring.row_energy import row_energy
from train.scoring.score import StreamScores, by_stream, score_streams
from train.streaming.selection import select
from train.streaming.source import FrameSource

from .conftest import config_for, planted_episodes

DIM = 64


def tables_of(events: list[Event], num_frames: int = 60) -> RecordingTables:
    speakers = (Speaker("A", 2), Speaker("B", 1))
    annotations = Annotations("r", num_frames * FRAME_US, speakers, tuple(events))
    return recording_tables(annotations, Vocabulary.of([annotations, some_laughter()]))


def some_laughter() -> Annotations:
    """So that the class is in every vocabulary."""
    return Annotations("s", FRAME_US, (), (Event(0, 1, "Laughter", "Laughter", "A"),))


@st.composite
def many_events(draw) -> list[Event]:
    """Events that overlap, touch, and end on the moments of rows."""
    found = []
    for _ in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, 50 * 8)) * FRAME_US // 8
        length = draw(st.integers(1, 60)) * FRAME_US // 8
        found.append(
            Event(start, start + length, "Laughter", "Laughter", draw(st.sampled_from("AB")))
        )
    return found


def slow_since(events: list[Event], now_us: int) -> float:
    """Seconds since the last moment before now at which laughter stopped, moment by moment."""
    step = FRAME_US // 8  # all times are multiples
    last = None
    for moment in range(0, now_us, step):  # of the time before now
        laughs = any(item.start_us <= moment < item.end_us for item in events)
        before = any(item.start_us <= moment - step < item.end_us for item in events)
        if before and not laughs:
            last = moment
    return 1e9 if last is None else (now_us - last) / 1e6


@given(events=many_events(), whose=st.sampled_from(["main", "any"]))
@settings(max_examples=40, deadline=None)
def test_time_since_laughter_is_that_since_the_last_end_that_was_heard(events, whose):
    label = LabelSpec(whose=whose)
    heard = target_bouts(label, tables_of(events), main="A", other="B", merge_gap_us=0)
    found = seconds_since(heard.end_us, np.arange(60)).tolist()
    ours = [item for item in events if whose == "any" or item.speaker == "A"]
    assert found == [np.float32(slow_since(ours, t * FRAME_US)) for t in range(60)]


@given(events=many_events(), row=st.integers(0, 59), other=many_events())
@settings(max_examples=40, deadline=None)
def test_time_since_laughter_knows_nothing_of_what_comes(events, row, other):
    """What starts at the row's moment or later, and where what has begun will end, is not known."""
    now_us = row * FRAME_US

    def changed(item: Event) -> Event:
        return item if item.end_us < now_us else replace(item, end_us=item.end_us + 5 * FRAME_US)

    begun = [changed(item) for item in events if item.start_us < now_us]
    later = [item for item in other if item.start_us >= now_us]
    found = [
        seconds_since(
            target_bouts(
                LabelSpec(), tables_of(each, 200), main="A", other="B", merge_gap_us=0
            ).end_us,
            np.array([row]),
        ).tolist()
        for each in (events, begun + later)
    ]
    assert found[0] == found[1]


def test_energies_are_lengths_of_standardised_rows():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(30, 2, (700, 48))).bfloat16()
    mean, scale = rng.normal(30, 1, 48).astype(np.float32), rng.random(48).astype(np.float32)
    scale[3] = 0
    found = row_energy(x, torch.from_numpy(mean), torch.from_numpy(scale))
    expected = np.linalg.norm((x.double().numpy() - mean) * scale, axis=1)
    assert found.numpy() == pytest.approx(expected, rel=1e-5)
    huge = torch.full((1, 48), 3e38, dtype=torch.bfloat16)
    assert row_energy(huge, torch.zeros(48), torch.full((48,), 1e3)).isfinite().all()


def test_a_direction_is_that_of_the_higher_auroc():
    positive = np.array([1, 0, 0, 1, 0], np.bool_)
    value = np.array([5, 1, 2, 3, 4], np.float32)
    assert direction(positive, value) == 1
    assert direction(positive, -value) == -1
    assert direction(positive, 0 * value) == 1
    assert direction(positive & False, value) is None


def scored(shards: Path, run: Path, split: str, label: LabelSpec) -> list[StreamScores]:
    index = read_index(shards)
    selection = select(index, split, label)
    model = ScoreModel(HeadConfig(), index.dim)
    model.load_state_dict(load_checkpoint(checkpoint_path(run / "checkpoints", "best")).model)
    with FrameSource(index, split) as source:
        return score_streams(model, selection, source, label, ignored_too=True, energies=True)


def value_of(found: EvaluationResult, name: str, metric: str) -> float:
    metrics = found.baselines[name].metrics
    assert metrics is not None
    value = metrics.values[metric]
    assert value is not None
    return value


def check_metrics(found: EvaluationResult, name: str, y, score) -> None:
    assert value_of(found, name, "average_precision") == pytest.approx(
        average_precision_score(y, score)
    )
    assert value_of(found, name, "auroc") == pytest.approx(roc_auc_score(y, score))
    ap, rate = (value_of(found, name, key) for key in ("average_precision", "base_rate"))
    assert value_of(found, name, "lift") == pytest.approx(ap / rate)


def slow_rows(shards: Path, split: str, label: LabelSpec, *, merged: bool):
    """(target, seconds since laughter, standardised length) of each row that counts, by stream."""
    index = read_index(shards)
    train_rows = np.concatenate([x for x, *_ in stream_rows(index, "train", label)])
    mean, std = train_rows.mean(axis=0), train_rows.std(axis=0)
    scale = np.where(std > 0, 1 / np.where(std > 0, std, 1), 0)
    found = []
    for x, y, counts, events in stream_rows(index, split, label):
        length = np.linalg.norm((x - mean) * scale, axis=1)
        ends = [(item, t) for t, item in enumerate(events)]
        now = np.arange(len(y)) * FRAME_US
        since = np.array([min((n - e for e, _ in ends if e < n), default=1e15) for n in now])
        found.append((y[counts], since[counts], length[counts]))
    if merged:
        found = [
            (y, since, (length + other) / 2)
            for (y, since, length), (*_, other) in zip(found[::2], found[1::2], strict=True)
        ]
    return found


def stream_rows(index, split, label):
    selection = select(index, split, label)
    every = replace(selection, eligible=selection.eligible | selection.ignored)
    frames = every.frames
    with FrameSource(index, split) as source:
        source.prepare(selection.blocks)
        bits = torch.empty(len(frames), index.dim, dtype=torch.int16)
        source.gather(frames, bits)
    x = bits.view(torch.bfloat16).double().numpy()
    for number, stream in enumerate(selection.streams):
        start, stop = every.stream_starts[number : number + 2].tolist()
        y, counts = selection.stream_targets(number)
        tables = index.tables(index.recording(stream.recording_id))
        ends = target_bouts(
            label, tables, main=stream.main, other=stream.other, merge_gap_us=0
        ).end_us.tolist()
        yield x[start:stop], y, counts, ends


@pytest.mark.parametrize("whose", ["main", "any"])
def test_baselines_are_those_of_slow_scores_on_the_same_rows(planted_shards, tmp_path, whose):
    label = LabelSpec("onset:8f", whose=whose)
    run = tmp_path / "run"
    train(config_for(planted_shards, run, label=label, epochs=1))
    found = evaluate(run, device="cpu", timelines=0, bootstrap=0, null=0)
    merged = whose == "any"
    fitted = slow_rows(planted_shards, "train", label, merged=merged)
    judged = slow_rows(planted_shards, "validation", label, merged=merged)
    y = np.concatenate([part[0] for part in judged])
    assert found.metrics.num_rows == len(y)
    names = {"time_since_laughter": ("longer", "shorter"), "row_energy": ("larger", "smaller")}
    for place, (name, (up, down)) in enumerate(names.items(), start=1):
        known, values = (np.concatenate([part[at] for part in fitted]) for at in (0, place))
        sign = 1 if roc_auc_score(known, values) >= 0.5 else -1
        assert found.baselines[name].higher == (up if sign == 1 else down)
        check_metrics(found, name, y, sign * np.concatenate([part[place] for part in judged]))
        lifts = [
            average_precision_score(part[0], sign * part[place]) / part[0].mean()
            for part in judged
            if part[0].any()
        ]
        within = found.baselines[name].to_json()["within_streams"]
        assert within["lift_mean"] == pytest.approx(np.mean(lifts))
    # No show of validation was trained on: a constant.
    assert found.baselines["train_base_rate"].known_of == {
        "stream": 0, "show": 0, "train": len(judged)
    }  # fmt: skip
    assert value_of(found, "train_base_rate", "average_precision") == pytest.approx(y.mean())
    assert value_of(found, "train_base_rate", "lift") == pytest.approx(1)
    assert value_of(found, "train_base_rate", "auroc") == 0.5
    json.dumps(found.to_json(), allow_nan=False)


def test_streams_and_shows_that_were_trained_on_have_rates_of_their_own(planted_shards, tmp_path):
    label = LabelSpec()
    config = config_for(
        planted_shards, tmp_path / "run", epochs=1, filter=FrameFilter(min_context=Span("5f"))
    )
    train(config)
    found = evaluate(config.out, split="train", device="cpu", timelines=0, bootstrap=0, null=0)
    streams = scored(planted_shards, config.out, "train", label)
    counted = [item.eligible & (item.row >= 5) for item in streams]
    y = np.concatenate([item.y[rows] for item, rows in zip(streams, counted, strict=True)])
    rates = [item.y[rows].mean() for item, rows in zip(streams, counted, strict=True)]
    score = np.repeat(rates, [rows.sum() for rows in counted]).astype(np.float32)
    check_metrics(found, "train_base_rate", y, score)
    known_of = found.baselines["train_base_rate"].known_of
    assert known_of == {"stream": len(streams), "show": 0, "train": 0}


def test_a_show_that_was_trained_on_lends_its_rate(tmp_path):
    often, rarely = [laugh(k, k + 1) for k in (2, 4, 6, 8)], [laugh(5, 6)]
    episodes = [
        Episode("a 1", "train", 150, often, show="a"),
        Episode("b 1", "train", 150, rarely, show="b"),
        Episode("a 2", "validation", 150, often[:3], show="a"),
        Episode("b 2", "validation", 150, rarely, show="b"),
        Episode("c 1", "validation", 150, rarely, show="c"),
    ]

    def features(name: str, assignment: int, num_frames: int):
        rng = np.random.default_rng([assignment, *name.encode()])
        return bf16_bits(rng.standard_normal((num_frames, 16), np.float32))

    store = write_store(tmp_path / "store", episodes, features, dim=16, block_frames=32)
    config = config_for(store / "shards", tmp_path / "run", epochs=1, lanes=4, global_batch=64)
    train(config)
    found = evaluate(config.out, device="cpu", timelines=0, bootstrap=0, null=0)
    assert found.baselines["train_base_rate"].known_of == {"stream": 0, "show": 4, "train": 2}
    y, score = [], []
    for item in scored(store / "shards", config.out, "validation", LabelSpec()):
        show = item.stream.recording_id[0]
        rate = {"a": 52, "b": 13, "c": 52 + 13}[show] / {"a": 300, "b": 300, "c": 600}[show]
        y.append(item.y[item.eligible])
        score.append(np.full(item.eligible.sum(), rate, np.float32))
    check_metrics(found, "train_base_rate", np.concatenate(y), np.concatenate(score))


class Loud:
    """Features that are large where somebody laughs, in train; small there, elsewhere."""

    def __init__(self, episodes) -> None:
        self._episodes = {episode.name: episode for episode in episodes}

    def __call__(self, name: str, assignment: int, num_frames: int):
        episode = self._episodes[name]
        x = np.random.default_rng([assignment, *name.encode()]).standard_normal((num_frames, 16))
        for event in episode.events:
            if event.speaker == SPEAKERS[assignment]:
                heard = slice(event.start_us // FRAME_US, -(-event.end_us // FRAME_US))
                x[heard] *= 3 if episode.split == "train" else 0.2
        return bf16_bits(x.astype(np.float32))


@pytest.fixture(scope="module")
def loud(tmp_path_factory) -> Path:
    episodes = planted_episodes()
    path = tmp_path_factory.mktemp("loud") / "store"
    write_store(path, episodes, Loud(episodes), dim=16, block_frames=32, shard_frames=256)
    train(config_for(path / "shards", path.parent / "run", epochs=1))
    return path


def test_what_is_evaluated_chooses_no_direction(loud, capsys):
    found = evaluate(loud.parent / "run", device="cpu", timelines=0, bootstrap=0, null=0)
    assert found.baselines["row_energy"].higher == "larger"
    assert value_of(found, "row_energy", "auroc") < 0.1
    report(found, as_json=False)
    said = capsys.readouterr().out
    assert "baseline, length of a row's features: AP 0." in said
    assert "(larger is higher, as in train)" in said
    assert "baseline, rate of positive rows in train: AP 0." in said


def test_without_the_rows_trained_on_there_are_reasons(loud, tmp_path, capsys):
    episodes = [Episode("t", "test", 200, [laugh(2, 3)])]
    other = write_store(
        tmp_path / "other", episodes, Loud(episodes), dim=16, block_frames=32, shard_frames=256
    )
    first = evaluate(
        loud.parent / "run", split="test", shards=other / "shards", out=tmp_path / "first",
        device="cpu", timelines=0, bootstrap=0, null=0,
    )  # fmt: skip
    assert first.baselines["row_energy"].higher == "larger"  # of the run's own shards
    gone = tmp_path / "gone"
    (loud / "shards").rename(gone)
    try:
        found = evaluate(
            loud.parent / "run", split="test", shards=other / "shards", out=tmp_path / "second",
            device="cpu", timelines=0, bootstrap=0, null=0,
        )  # fmt: skip
    finally:
        gone.rename(loud / "shards")
    assert found.metrics == first.metrics
    content = found.to_json()["baselines"]
    assert content.keys() == {"train_base_rate", "time_since_laughter", "row_energy"}
    for each in content.values():
        assert "the rows trained on are not there" in each["reason"]
        assert each["average_precision"] is None
    report(found, as_json=False)
    assert "no baselines: the rows trained on are not there: " in capsys.readouterr().out


def test_damaged_rows_of_train_leave_the_other_baselines(loud, tmp_path):
    shutil.copytree(loud, tmp_path / "store")
    config = config_for(tmp_path / "store" / "shards", tmp_path / "run", epochs=1)
    train(config)
    for shard in (tmp_path / "store" / "shards").glob("train-*.tar"):
        shard.chmod(0o644)
        data = bytearray(shard.read_bytes())
        for place in range(600, len(data) - 600, 200):
            data[place] ^= 1
        shard.write_bytes(data)
    found = evaluate(config.out, device="cpu", timelines=0, bootstrap=0, null=0)
    assert "rows of train cannot be read" in (found.baselines["row_energy"].reason or "")
    assert found.baselines["time_since_laughter"].metrics is not None


def test_numbers_have_baselines_of_a_target_above_0(planted_shards, tmp_path):
    label = LabelSpec("regression:2s")
    config = config_for(planted_shards, tmp_path / "run", label=label, epochs=1)
    train(config)
    found = evaluate(config.out, device="cpu", timelines=0, bootstrap=0, null=0)
    streams = scored(planted_shards, config.out, "validation", label)
    y = np.concatenate([item.y[item.eligible] > 0 for item in streams])
    energies = np.concatenate(
        [item.energy[item.eligible] for item in streams if item.energy is not None]
    )
    sign = 1 if found.baselines["row_energy"].higher == "larger" else -1
    check_metrics(found, "row_energy", y, sign * energies)
    assert found.baselines["row_energy"].within is None
    fitted = scored(planted_shards, config.out, "train", label)
    mean = np.concatenate([item.y[item.eligible] for item in fitted]).mean(dtype=np.float64)
    truth = np.concatenate([item.y[item.eligible] for item in streams])
    assert value_of(found, "train_base_rate", "rmse") == pytest.approx(
        np.sqrt(np.square(truth - mean).mean()), rel=1e-5
    )
    assert value_of(found, "train_base_rate", "mae") == pytest.approx(
        np.abs(truth - mean).mean(), rel=1e-5
    )


def test_energies_of_streams_that_ask_the_same_are_averaged(planted_shards):
    index, label = read_index(planted_shards), LabelSpec(whose="pair")
    selection = select(index, "validation", label)
    rng = np.random.default_rng(0)
    scores, energy = rng.random((2, selection.num_rows)).astype(np.float32)
    found = by_stream(
        selection, scores, selection.targets, np.ones(len(scores), bool), label, energy=energy
    )
    starts = selection.stream_starts.tolist()
    for number, item in enumerate(found):
        first, second = (energy[starts[k] : starts[k + 1]] for k in (2 * number, 2 * number + 1))
        assert item.energy == pytest.approx((first + second) / 2, rel=1e-6)
