"""Many probes in one pass: each is what it would be alone, whatever is trained beside it."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from laughstore import open_store
from laughstore.annotations import Event
from laughstore.commit import commit_annotations
from laughstore.errors import ConfigError
from laughstore.labels import LabelSpec
from laughstore.naming import recording_id
from laughstore.timebase import Span
from tests.stores import SPEAKERS, laugh
from train import (
    FrameFilter,
    FrameStream,
    HeadConfig,
    LossConfig,
    ProbesResult,
    TrainConfig,
    evaluate,
    train,
    train_probes,
)
from train.losses import EpochRows, make_loss
from train.model import ScoreModel
from train.moments import Standardiser, merged
from train.optimiser_config import OptimiserConfig
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.runs.run import Run
from train.scoring.metrics import FrameMetrics
from train.statistics import stream_moments
from train.streaming.selection import select
from train.training.optimiser import learning_rate, make_optimiser

from .conftest import config_for
from .processes import on_ranks
from .test_resume import Press, told

LABELS = ("onset:0.4s", "onset:0.8s,guard=2f", "detection", "regression:2s")


def several(shards: Path, out: Path, *labels: str, **changes: Any) -> TrainConfig:
    small = {"epochs": 3, "global_batch": 96, "lanes": 8, "lr": 0.01}
    return config_for(shards, out, probe=labels, **{**small, **changes})


def best_tensors(run: Path) -> dict[str, np.ndarray]:
    found = load_checkpoint(checkpoint_path(run / "checkpoints", "best"))
    return {name: value.numpy() for name, value in found.model.items()}


def assert_close(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """To 1e-5 of the head's largest weight; a bias may be on its way through zero."""
    assert ours.keys() == theirs.keys()
    scale = max(np.abs(value).max() for name, value in theirs.items() if name.startswith("head."))
    for name, value in theirs.items():
        if name.startswith("head."):
            assert np.abs(ours[name] - value).max() <= 1e-5 * scale, name
        else:
            assert np.array_equal(ours[name], value), name


def assert_same_metrics(ours: FrameMetrics, theirs: FrameMetrics) -> None:
    """A product of one column rounds otherwise than one of many: a row may cross the threshold."""
    assert ours.num_rows == theirs.num_rows
    assert ours.values.keys() == theirs.values.keys()
    for name, value in theirs.values.items():
        near = 2 / theirs.num_positives if name in ("f1", "precision", "recall") else 1e-5
        assert ours.values[name] == pytest.approx(value, rel=1e-5, abs=near), name


KINDS = {
    "linear": {"patience": 1, "epochs": 4},
    "weighed": {"probe": LABELS[:3], "loss": LossConfig(pos_weight="auto")},
    "focal": {"probe": LABELS[:3], "loss": LossConfig("adaptive_focal")},
    "summed": {"probe": LABELS[:3], "loss": LossConfig("focal", focal_reduction="legacy")},
    "hidden units": {"head": HeadConfig("mlp", hidden=8, dropout=0.25), "lr": 0.005, "seeds": 2},
    "seeds": {"seeds": 2, "epochs": 2},
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] if kind in ("summed", "seeds") else [])
        for kind in KINDS
    ],
)
def test_each_probe_is_what_it_is_alone(kind, planted_shards, tmp_path):
    changes = dict(KINDS[kind])
    labels = changes.pop("probe", LABELS)
    result = train_probes(several(planted_shards, tmp_path / "all", *labels, **changes))
    together = {item.probe.name: item for item in result.probes}
    assert len(together) == len(labels) * changes.get("seeds", 1)
    alone: dict[str, Any] = {}
    for number, label in enumerate(labels):
        config = several(planted_shards, tmp_path / str(number), label, **changes)
        alone |= {item.probe.name: item for item in train_probes(config).probes}
    assert alone.keys() == together.keys()
    for name, ours in together.items():
        theirs = alone[name]
        assert (ours.epochs, ours.best_epoch) == (theirs.epochs, theirs.best_epoch)
        assert_close(best_tensors(ours.run), best_tensors(theirs.run))
        for metric, value in theirs.best.values.items():
            # A rank among equals may turn: a pair of some hundred thousand.
            assert ours.best.values[metric] == pytest.approx(value, rel=1e-3), (name, metric)
    if kind == "linear":
        epochs = {item.epochs for item in result.probes}
        assert len(epochs) > 1, "one stopped while others went on"


def reference(config: TrainConfig) -> dict[str, np.ndarray]:
    """Weights of the only probe of a config after its last step, by a plain loop over its rows."""
    probe = config.probes[0]
    with FrameStream(
        config.shards,
        "train",
        label=None,
        frames=config.filter,
        global_batch=config.global_batch,
        lanes=config.lanes,
        seed=config.seed,
    ) as stream:
        index = stream.selection.index
        counted = select(index, "train", probe.label, config.filter)
        y = dict(zip(counted.frames.tolist(), counted.targets.tolist(), strict=True))
        moments = stream_moments(index, counted.streams, stream.source)
        loss = make_loss(config.of_probe(probe).loss, EpochRows.of(counted, None))
        model = ScoreModel.new(
            config.head,
            Standardiser.of(merged(moments, index.dim)),
            pos_weight=loss.pos_weight,
            bias=loss.start,
            scores=loss.scores,
            seed=probe.seed,
        )
        optimiser = make_optimiser(model, config)
        step = 0
        for epoch in range(config.epochs):
            stream.set_epoch(epoch)
            for batch in stream:
                mine = [i for i, frame in enumerate(batch.frame.tolist()) if frame in y]
                targets = torch.tensor([y[frame] for frame in batch.frame[mine].tolist()])
                each = loss.of_rows(model(batch.x[mine]), targets.float())
                optimiser.zero_grad()
                each.mean().backward()
                num_steps = config.epochs * stream.num_steps
                optimiser.param_groups[0]["lr"] = optimiser.param_groups[1]["lr"] = learning_rate(
                    step, num_steps, peak=config.lr
                )
                optimiser.step()
                step += 1
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("label", ["onset:0.8s", "detection,edge=2f,whose=pair", "regression:2s"])
def test_a_probe_learns_from_the_rows_that_its_label_counts(label, planted_shards, tmp_path):
    """After some hundred steps: a loop that knows one label, one head and no tables."""
    frames = FrameFilter(min_context=Span("40f"), exclude="*part-3*")
    config = several(planted_shards, tmp_path / "run", label, epochs=4, filter=frames)
    result = train_probes(config)
    assert result.steps > 150
    last = load_checkpoint(checkpoint_path(tmp_path / "run/checkpoints", "last")).model
    expected = reference(config)
    assert expected["head.first.weight"].any()
    ours = {
        f"head.{name}": last[f"heads.{name}"].numpy() for name in ("first.weight", "first.bias")
    }
    assert_close(ours, {name: expected[name] for name in ours})


def test_a_probe_beside_a_run_of_its_label_alone_learns_as_much(planted_shards, tmp_path, trained):
    """Other rows are in its batches, and the optimum is the same."""
    config, alone, _ = trained
    probes = train_probes(replace(config, out=tmp_path / "run", probe=("detection", "onset:0.8s")))
    ours = probes.probes[0].best
    assert ours.num_rows == alone.best.num_rows
    assert ours.average_precision == pytest.approx(alone.best.average_precision, abs=0.01)


@pytest.fixture(scope="module")
def whole(planted_shards, tmp_path_factory) -> ProbesResult:
    """Probes that nobody disturbed; some stop early."""
    return train_probes(to_resume(planted_shards, tmp_path_factory.mktemp("whole") / "run"))


def to_resume(shards: Path, out: Path) -> TrainConfig:
    return several(
        shards, out, *LABELS, epochs=5, patience=1, global_batch=512, lanes=16, seeds=2, lr=0.02
    )


def assert_same(result: ProbesResult, expected: ProbesResult) -> None:
    """Bit for bit."""
    assert told(result.run) == told(expected.run)
    for ours, theirs in zip(result.probes, expected.probes, strict=True):
        assert replace(ours, run=theirs.run) == theirs
        assert told(ours.run) == told(theirs.run)
        for name, value in best_tensors(theirs.run).items():
            assert np.array_equal(best_tensors(ours.run)[name], value), (ours.probe.name, name)
    for which in ("last",):
        ours, theirs = (
            load_checkpoint(checkpoint_path(item.run / "checkpoints", which))
            for item in (result, expected)
        )
        for part in ("model", "optimiser"):
            mine, other = getattr(ours, part), getattr(theirs, part)
            assert mine.keys() == other.keys()
            assert all(torch.equal(mine[name], value) for name, value in other.items())


STEPS_AN_EPOCH = 12


@pytest.mark.parametrize(
    "stops",
    [
        (Press(5), Press(STEPS_AN_EPOCH)),
        (Press(1, phase="validate"), Press(2, phase="validate", number=signal.SIGTERM)),
        (Press(3 * STEPS_AN_EPOCH + 4),),  # when some have stopped
    ],
    ids=["steps", "validations", "fewer probes"],
)
def test_stopped_probes_end_as_if_nobody_had_disturbed_them(stops, planted_shards, tmp_path, whole):
    assert {item.epochs for item in whole.probes} > {whole.epochs}, "one stopped early"
    config = to_resume(planted_shards, tmp_path / "run")
    for press in stops:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train_probes(config, resume=True, progress=press)
    assert_same(train_probes(config, resume=True), whole)
    assert_same(train_probes(config, resume=True), whole)  # ended: nothing is trained


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.train.test_probes import to_resume
from tests.train.test_resume import Press
from train import train_probes
shards, out, step = sys.argv[1:]
press = Press(int(step), number=signal.SIGKILL)
train_probes(to_resume(Path(shards), Path(out)), resume=True, progress=press, save_every_s=0.0)
"""


@pytest.mark.slow
def test_killed_probes_end_as_if_nobody_had_disturbed_them(planted_shards, tmp_path, whole):
    out = tmp_path / "run"
    words = [sys.executable, "-c", KILLED, str(planted_shards), str(out), "31"]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not (out / "probes").exists()
    assert_same(train_probes(to_resume(planted_shards, out), resume=True), whole)


@pytest.mark.slow
def test_probes_of_a_stopped_run_can_be_evaluated(planted_shards, tmp_path):
    config = several(planted_shards, tmp_path / "run", "detection", "onset:0.8s")
    with pytest.raises(KeyboardInterrupt):
        train_probes(config, progress=Press(1, phase="validate"))
    folder = config.of_probe(config.probes[0]).out
    assert evaluate(folder, timelines=0).metrics.average_precision is not None
    result = train_probes(config, resume=True)
    last = result.probes[0]
    assert last.run == folder
    assert_same_metrics(evaluate(folder, timelines=0).metrics, last.best)


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["main", "pair"])
def test_a_probe_is_a_run_that_can_be_evaluated(whose, planted_shards, tmp_path):
    config = several(
        planted_shards,
        tmp_path / "run",
        *(f"{label},whose={whose}" for label in LABELS[1:]),
        folds=2,
        fold=1,
        filter=FrameFilter(min_context=Span("1s")),
    )
    result = train_probes(config)
    for item in result.probes:
        run = Run.open(item.run)
        assert run.config.label.identity() == item.probe.label.identity()
        assert run.config.seed == item.probe.seed
        found = evaluate(item.run, timelines=0)
        assert_same_metrics(found.metrics, item.best)
        log = [json.loads(line) for line in run.metrics_log.read_text().splitlines()]
        assert [line["epoch"] for line in log] == list(range(item.epochs))
        num_streams = 2 if whose == "pair" else 1  # that ask the same
        counts = run.about["counts"]["validation"]
        assert counts["positives"] == num_streams * item.best.num_positives
    with pytest.raises(ConfigError, match=r"holds 3 probes .*evaluate one of them"):
        evaluate(result.run)
    of_probe = config.of_probe(config.probes[0])
    with pytest.raises(ConfigError, match=r"is a probe of .*go on with --out .*run --resume"):
        train(of_probe, resume=True)


def test_ranks_train_the_probes_that_one_process_trains(planted_shards, tmp_path):
    config = several(
        planted_shards, tmp_path / "run", *LABELS, epochs=4, patience=1, global_batch=512, lanes=16
    )
    alone = train_probes(config)
    config = replace(config, out=tmp_path / "two")
    ended = on_ranks(2, lambda place: train_probes(config, place=place))
    results = [end.result() for end in ended]
    assert replace(results[0], seconds=0) == replace(results[1], seconds=0)
    for ours, theirs in zip(results[0].probes, alone.probes, strict=True):
        assert (ours.epochs, ours.best_epoch) == (theirs.epochs, theirs.best_epoch)
        assert_close(best_tensors(ours.run), best_tensors(theirs.run))


def test_probes_of_seeds_begin_elsewhere_and_end_alike(planted_shards, tmp_path):
    config = several(planted_shards, tmp_path / "run", "detection", seeds=3, epochs=4)
    first, *others = [best_tensors(item.run) for item in train_probes(config).probes]
    for other in others:
        weight, theirs = first["head.first.weight"], other["head.first.weight"]
        assert not np.allclose(weight, theirs, rtol=1e-3)
        assert np.corrcoef(weight[0], theirs[0])[0, 1] > 0.99


def test_other_annotations_end_a_resume_with_the_label_that_they_change(own_shards, tmp_path):
    config = several(own_shards, tmp_path / "run", "onset:0.8s", "detection,event=Laughter,edge=2f")
    with pytest.raises(KeyboardInterrupt):
        train_probes(config, progress=Press(3))
    with open_store(own_shards.parent) as store:
        name = "train, part 0"
        notes = store.annotations(name)
        late = laugh(notes.duration_us / 1e6 - 1.0, notes.duration_us / 1e6 - 0.5)
        changed = replace(notes, events=(*notes.events, late))
        commit_annotations(own_shards.parent, {recording_id(name): changed})
    with pytest.raises(ConfigError, match=r"train rows of onset:0.8s .*are others than when"):
        train_probes(config, resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"balance": 3.0}, "balance is 3.0, which is for one label at a time"),
        ({"head": HeadConfig("temporal")}, "head temporal reads rows before each row"),
        ({"optimiser": OptimiserConfig(ema=0.9)}, "ema is 0.9, which is for one label at a time"),
        ({"label": LabelSpec("onset:1f")}, "label is onset:1f, beside probes"),
        ({"probe": ("onset:0.8s", "onset:10f")}, "the same as, or would be named like"),
        ({"probe": ("onset:1f", "onset:1f")}, "give each label once"),
        ({"probe": ("onset:1f,colour=red",)}, "'colour=red' is no setting of a label"),
        ({"probe": ("onset:1f,whose=any,whose=main",)}, "gives whose twice"),
        ({"probe": ("onset:1f,guard",)}, "'guard' is no setting of a label"),
        ({"probe": ("detection,fill-gaps=1",)}, "write true or false"),
        ({"probe": ("detection,min-confidence=much",)}, "it must be a number"),
        ({"probe": ("detection", "regression:2s"), "loss": LossConfig("bce")}, "use --loss mse or"),
        ({"seeds": 0}, "seeds is 0; it must be at least 1"),
        ({"probe": (), "seeds": 2}, "it is for probes; use --probe LABEL"),
        ({"probe": ("detection,event=" + "x" * 200,)}, "longer than 160 characters"),
    ],
)
def test_probes_that_cannot_work_are_refused(changes, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        config_for(tmp_path, tmp_path / "run", **{"probe": ("detection",), **changes})


def test_a_label_without_positive_rows_is_told_from_others_of_its_kind(own_shards, tmp_path):
    config = several(own_shards, tmp_path / "other", "detection", "detection,event=Music")
    with pytest.raises(ConfigError, match="'Music' occurs nowhere"):
        train_probes(config)
    with open_store(own_shards.parent) as store:
        notes = store.annotations("train, part 0")
        music = Event(2_000_000, 3_000_000, "Music", "Music", SPEAKERS[0])
        changed = replace(notes, events=(*notes.events, music))
        commit_annotations(own_shards.parent, {recording_id(notes.recording): changed})
    with pytest.raises(ConfigError, match=r"'validation' has no positive row of .* of Music"):
        train_probes(config)


def test_settings_of_a_probe_are_those_of_a_label(tmp_path):
    base = LabelSpec(merge_gap=Span("1s"))
    texts = ("onset:0.8s,guard=2f", "detection,event=full:Big laugh,whose=any,fill_gaps=true")
    config = config_for(tmp_path, tmp_path / "run", probe=texts, label=base, seeds=2, seed=7)
    first, second = (
        LabelSpec("onset:0.8s", guard=Span("2f"), merge_gap=Span("1s")),
        LabelSpec(event="full:Big laugh", whose="any", fill_gaps=True, merge_gap=Span("1s")),
    )
    assert [item.label.identity() for item in config.probes[::2]] == [
        first.identity(),
        second.identity(),
    ]
    assert [item.seed for item in config.probes] == [7, 8, 7, 8]
    assert [item.name for item in config.probes] == [
        "onset-0.8s-guard-2f-seed7",
        "onset-0.8s-guard-2f-seed8",
        "detection-event-full-Big-laugh-whose-any-fill-gaps-true-seed7",
        "detection-event-full-Big-laugh-whose-any-fill-gaps-true-seed8",
    ]
    again = TrainConfig.from_json(json.loads(json.dumps(config.to_json())), where="here")
    assert again.to_json() == config.to_json()
    assert again.probes == config.probes


def test_all_rows_that_pass_are_streamed_without_a_label(planted_shards):
    frames = FrameFilter(min_context=Span("40f"))
    with (
        FrameStream(planted_shards, "train", label=None, frames=frames) as stream,
        FrameStream(planted_shards, "train", frames=frames) as labelled,
    ):
        selection, counted = stream.selection, labelled.selection
        assert np.array_equal(selection.eligible, counted.eligible | counted.ignored)
        assert selection.num_rows > counted.num_rows
        frames_seen = torch.cat([batch.frame for batch in stream])
        assert sorted(frames_seen[frames_seen >= 0].tolist()) == selection.frames.tolist()
        assert not any(batch.y.any() for batch in stream)
        with pytest.raises(ConfigError, match=r"targets was .*label was None and is"):
            labelled.load_state_dict(stream.state_dict())
