"""A run that was stopped or killed ends as if it had never been."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from laughstore import open_store
from laughstore.commit import commit_annotations
from laughstore.errors import ConfigError, CorruptData
from laughstore.labels import LabelSpec
from laughstore.naming import recording_id
from laughstore.timebase import Span
from tests.stores import laugh
from train import LossConfig, Progress, TrainConfig, TrainResult, train
from train.optimiser_config import OptimiserConfig
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.runs.log import cut_log
from train.runs.run import Run
from train.runs.run_lock import RunLock

from .conftest import config_for
from .test_stream import flip_a_bit

EPOCHS = 4
WITH_L2 = OptimiserConfig(l2=1e-3)


def short(shards: Path, out: Path, **changes: object) -> TrainConfig:
    usual = {"epochs": EPOCHS, "balance": 3.0, "global_batch": 288, "optimiser": WITH_L2}
    return config_for(shards, out, **{**usual, **changes})


class Press:
    """A progress that sends this process a signal at a step, or in a validation."""

    def __init__(self, step: int, *, phase: str = "train", number: int = signal.SIGINT) -> None:
        self.step, self.phase, self.number = step, phase, number

    def __call__(self, report: Progress) -> None:
        here = report.epoch * report.total + report.done
        if report.phase == "validate":
            here = report.epoch
        if report.phase == self.phase and here == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def whole(planted_shards, tmp_path_factory) -> TrainResult:
    """The run that nobody disturbed."""
    return train(short(planted_shards, tmp_path_factory.mktemp("whole") / "run"))


def told(run_path: Path) -> list[dict[str, Any]]:
    """The log, without what the clock says."""
    lines = map(json.loads, Run.open(run_path).metrics_log.read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in ("seconds", "wait_ms")} for line in lines]


def weights(run_path: Path, which: Any = "last") -> bytes:
    path = checkpoint_path(run_path / "checkpoints", which)
    tensors = load_checkpoint(path)
    assert {"0.exp_avg", "1.exp_avg_sq"} < tensors.optimiser.keys()
    return b"".join((path / f"{name}.safetensors").read_bytes() for name in ("model", "optimiser"))


def assert_same(result: TrainResult, expected: TrainResult) -> None:
    assert weights(result.run) == weights(expected.run)
    assert weights(result.run, "best") == weights(expected.run, "best")
    assert told(result.run) == told(expected.run)
    assert replace(result, run=expected.run, seconds=expected.seconds) == expected


STEPS_AN_EPOCH = 9


@pytest.mark.parametrize(
    "stops",
    [
        (Press(1),),
        (Press(STEPS_AN_EPOCH),),  # all steps of an epoch, and not its validation
        (Press(0, phase="validate"), Press(1, phase="validate")),
        (Press(13), Press(14, number=signal.SIGTERM), Press(3 * STEPS_AN_EPOCH + 2)),
    ],
    ids=["first step", "end of an epoch", "validations", "again and again"],
)
def test_a_stopped_run_ends_as_one_that_nobody_disturbed(planted_shards, tmp_path, whole, stops):
    assert whole.steps == EPOCHS * STEPS_AN_EPOCH
    config = short(planted_shards, tmp_path / "run")
    for press in stops:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(config, resume=True, progress=press)
    assert_same(train(config, resume=True), whole)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from tests.train.test_resume import Press, short
from train import train
shards, out, step, save_every_s = sys.argv[1:]
press = Press(int(step), number=signal.SIGKILL)
train(short(Path(shards), Path(out)), resume=True, progress=press, save_every_s=float(save_every_s))
"""


def killed_at(step: int, shards: Path, out: Path, *, save_every_s: float) -> None:
    words = [sys.executable, "-c", KILLED, str(shards), str(out), str(step), str(save_every_s)]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_killed_at_any_step_ends_as_one_that_nobody_disturbed(
    planted_shards, tmp_path, whole
):
    """Killed before it saved anything; within an epoch that was saved; then at a random step."""
    out = tmp_path / "run"
    killed_at(3, planted_shards, out, save_every_s=1e9)
    assert not (out / "checkpoints").exists()
    killed_at(random.randint(4, 19), planted_shards, out, save_every_s=0.01)
    begun = load_checkpoint(checkpoint_path(out / "checkpoints", "last")).state["step"]
    assert begun > 0
    killed_at(random.randint(20, 30), planted_shards, out, save_every_s=0.01)
    assert_same(train(short(planted_shards, out), resume=True), whole)


@pytest.mark.parametrize("step", [10, STEPS_AN_EPOCH], ids=["line of the log", "end of an epoch"])
def test_a_signal_within_a_step_loses_no_line_of_the_log(step, planted_shards, tmp_path, whole):
    config = short(planted_shards, tmp_path / "run")
    num_steps = 0

    def press(*_: object) -> None:
        nonlocal num_steps
        num_steps += 1
        if num_steps == step:
            os.kill(os.getpid(), signal.SIGINT)

    hook = register_optimizer_step_post_hook(press)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config)
    finally:
        hook.remove()
    assert_same(train(config, resume=True), whole)


def test_patience_is_remembered(planted_shards, tmp_path):
    changes = {"lr": 1e-12, "patience": 2, "epochs": 10}
    expected = train(short(planted_shards, tmp_path / "whole", **changes))
    assert expected.stopped == "patience"
    config = short(planted_shards, tmp_path / "run", **changes)
    for epoch in range(expected.epochs):
        with pytest.raises(KeyboardInterrupt):
            train(config, resume=True, progress=Press(epoch, phase="validate"))
    assert_same(train(config, resume=True), expected)


def test_an_ended_run_tells_how_it_ended_and_trains_no_more(planted_shards, tmp_path, whole):
    out = Path(shutil.copytree(whole.run, tmp_path / "run"))
    before, names = weights(out), sorted(path.name for path in (out / "checkpoints").iterdir())
    reports: list[Progress] = []
    result = train(short(planted_shards, out), resume=True, progress=reports.append)
    assert reports == []
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == names
    assert weights(out) == before
    assert_same(result, whole)


def test_nothing_is_drawn_from_a_random_generator_while_training(planted_shards, tmp_path):
    """Why no checkpoint holds the state of one."""
    states: set[bytes] = set()

    def look(report: Progress) -> None:
        if report.phase != "statistics":
            numpy_state = repr(np.random.get_state()).encode()  # noqa: NPY002
            ours = torch.get_rng_state().numpy().tobytes()
            states.add(ours + numpy_state + repr(random.getstate()).encode())

    train(short(planted_shards, tmp_path / "run", epochs=2), progress=look)
    assert len(states) == 1


@pytest.fixture
def stopped(planted_shards, tmp_path) -> TrainConfig:
    """A run stopped in its third epoch, with a checkpoint of each validation before."""
    config = short(planted_shards, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Press(2 * STEPS_AN_EPOCH + 3))
    return config


def test_broken_checkpoints_are_kept_and_the_run_goes_on_before_them(stopped, whole, caplog):
    folder = stopped.out / "checkpoints"
    last = checkpoint_path(folder, "last")
    (last / "optimiser.safetensors").write_bytes(b"")
    result = train(stopped, resume=True)
    assert f"kept as {last.name}.broken" in caplog.text
    assert (folder / f"{last.name}.broken/optimiser.safetensors").read_bytes() == b""
    assert_same(result, whole)


def test_a_run_of_which_all_is_broken_begins_again(stopped, whole, caplog):
    for path in (stopped.out / "checkpoints").glob("step-*"):
        (path / "MANIFEST.json").unlink()
    assert_same(train(stopped, resume=True), whole)
    assert "begins at its first step" in caplog.text


def test_a_damaged_best_checkpoint_is_forgotten_and_another_one_found(stopped, whole, caplog):
    folder = stopped.out / "checkpoints"
    best = checkpoint_path(folder, "best")
    assert best != checkpoint_path(folder, "last")
    (best / "model.safetensors").write_bytes(b"")
    result = train(stopped, resume=True)
    assert f"kept as {best.name}.broken" in caplog.text
    assert "is forgotten with it" in caplog.text
    assert weights(result.run) == weights(whole.run)
    named = load_checkpoint(checkpoint_path(folder, "best"))
    assert named.state["epoch"] == result.best_epoch >= 2


def test_an_ended_run_without_its_best_checkpoint_says_so(planted_shards, tmp_path):
    config = short(planted_shards, tmp_path / "run", lr=1e-12, patience=2, epochs=10)
    train(config)
    best = checkpoint_path(config.out / "checkpoints", "best")
    assert best != checkpoint_path(config.out / "checkpoints", "last")
    (best / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptData, match=f"has ended, and its best .*{best.name}"):
        train(config, resume=True)


def test_the_best_is_named_though_the_run_was_killed_before_it_was(stopped, whole):
    (stopped.out / "checkpoints/best.json").unlink()
    assert_same(train(stopped, resume=True), whole)


def test_a_damaged_name_of_the_best_stops_no_run(planted_shards, tmp_path, whole):
    config = short(planted_shards, tmp_path / "run")
    for step in (3, STEPS_AN_EPOCH - 1):
        with pytest.raises(KeyboardInterrupt):
            train(config, resume=True, progress=Press(step), save_every_s=0)
        (config.out / "checkpoints/best.json").write_bytes(b"{")
    assert_same(train(config, resume=True), whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 0.01}, "lr was 0.02 and is 0.01"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"balance": "off"}, "balance was 3.0 and is off"),
        ({"epochs": 5}, "epochs was 4 and is 5"),
        ({"label": LabelSpec("onset:0.8s")}, "label.kind was detection and is onset"),
        ({"label": LabelSpec(merge_gap=Span("1s"))}, "label.merge_gap"),
        ({"loss": LossConfig(pos_weight=2.0)}, "pos_weight was none and is 2.0"),
        ({"annotations": Path("a")}, "annotations was None and is /"),
        ({"global_batch": 1024, "lanes": 32}, "global_batch was 288 and is 1024"),
    ],
)
def test_another_setting_is_refused_and_named(changes, said, stopped):
    with pytest.raises(ConfigError, match=said):
        train(replace(stopped, **changes), resume=True)


def test_where_shards_lie_and_how_they_are_read_is_free(stopped, whole, tmp_path):
    shutil.copytree(Path(stopped.shards).parent, tmp_path / "elsewhere")
    moved = replace(stopped, shards=tmp_path / "elsewhere/shards", reader="window", verify="always")
    assert_same(train(moved, resume=True), whole)


def test_other_rows_are_refused(own_shards, tmp_path):
    config = short(own_shards, tmp_path / "run", label=LabelSpec("onset:0.8s"))
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Press(3))
    store = own_shards.parent
    for split, wrong in (
        ("validation", "the split that chooses the epoch has other targets"),
        ("train", "it yields other rows: targets was"),
    ):
        name = f"{split}, part 0"
        annotations = replace(open_store(store).annotations(name), events=(laugh(3, 4),))
        commit_annotations(store, {recording_id(name): annotations})
        with pytest.raises(ConfigError, match=wrong):
            train(config, resume=True)


def test_moving_low_bits_is_told(stopped, caplog):
    torch.set_num_threads(2)
    try:
        train(stopped, resume=True)
    finally:
        torch.set_num_threads(1)
    assert "low bits may differ: threads was 1 and is 2" in caplog.text


def test_a_log_is_cut_behind_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    cut_log(path, step=20, validated=False)
    assert not path.exists()
    kinds = [("train", 10), ("train", 20), ("validation", 20), ("train", 30)]
    lines = [json.dumps({"kind": kind, "step": step}) + "\n" for kind, step in kinds]
    for validated in (True, False):
        path.write_text("".join(lines) + '{"kind": "tra')
        cut_log(path, step=20, validated=validated)
        assert path.read_text().splitlines(keepends=True) == lines[: 2 + validated]


@pytest.mark.slow
def test_damage_is_mended_and_the_run_goes_on(own_shards, tmp_path, whole):
    """What ends a run with an error is saved, too."""
    copy = shutil.copytree(own_shards, tmp_path / "sound")
    damaged: list[str] = []

    def damage(report: Progress) -> None:
        if report.phase == "validate" and report.epoch == 1 and not damaged:
            damaged.append(flip_a_bit(own_shards)[0])

    config = short(own_shards, tmp_path / "run", verify="always")
    with pytest.raises(CorruptData):
        train(config, progress=damage)
    for name in damaged:
        (own_shards / name).chmod(0o644)
        (own_shards / name).write_bytes((copy / name).read_bytes())
    assert_same(train(config, resume=True), whole)


def test_resume_begins_a_run_that_is_not_there(planted_shards, tmp_path, whole):
    assert_same(train(short(planted_shards, tmp_path / "run"), resume=True), whole)
    with pytest.raises(ConfigError, match=r"run exists; choose another --out.*--resume"):
        train(short(planted_shards, tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_tells_how_to_go_on_in_its_last_line(number, code, planted_shards, tmp_path):
    flags = ["--shards", planted_shards, "--out", tmp_path / "a run", "--global-batch", 64]
    words = [sys.executable, "-m", "laughstore", "train", *map(str, flags), "--epochs", "2000"]
    process = subprocess.Popen(
        [*words, "--lanes", "16", "--patience", "2000"],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch 1: validation AP" in line:
            break
    process.send_signal(number)
    said = process.communicate(timeout=10)[1]
    assert process.returncode == code
    last = said.splitlines()[-1].strip()
    assert last.startswith("laughstore train --shards ")
    assert last.endswith("--resume")
    assert f"'{tmp_path / 'a run'}'" in last
    step = load_checkpoint(checkpoint_path(tmp_path / "a run/checkpoints", "last")).state["step"]
    assert f"stopped at step {step}, saved in " in said


def test_two_processes_do_not_train_one_run(stopped, monkeypatch):
    monkeypatch.setattr("train.runs.run_lock._WAIT_S", 0.2)
    with RunLock() as lock:
        lock.take(stopped.out)
        with pytest.raises(ConfigError, match="run is being trained by another process"):
            train(stopped, resume=True)
    train(stopped, resume=True)


@pytest.mark.slow
def test_a_lock_of_a_run_that_was_deleted_meanwhile_is_none(tmp_path):
    """Who ends before the first step deletes the run; whoever waited for it begins another one."""
    run = tmp_path / "run"
    run.mkdir()
    with ThreadPoolExecutor(1) as pool, RunLock() as waiting:
        with RunLock() as lock:
            lock.take(run)
            taken = pool.submit(waiting.take, run)
            time.sleep(0.3)
            assert not taken.done()
            shutil.rmtree(run)
        taken.result(timeout=5)
        run.mkdir()
        waiting.take(run)
        with RunLock() as other, pytest.raises(ConfigError, match="another process"):
            other.take(run)
