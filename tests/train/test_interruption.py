import os
import signal
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from laughstore.errors import CorruptData, NotFound
from tests.stores import Episode, laugh, random_features, write_store
from train import FrameStream, Progress, evaluate, train
from train.distributed.signals import Interruptible
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.runs.run import Run

from .conftest import config_for
from .test_stream import flip_a_bit


def test_a_flipped_bit_ends_training_with_shard_and_sample(own_shards, tmp_path):
    name, key = flip_a_bit(own_shards)
    with pytest.raises(CorruptData, match=f"{name}, sample {key}"):
        train(config_for(own_shards, tmp_path / "run"))


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_saves_the_last_step_and_leaves_a_valid_run(
    planted_shards, tmp_path, number, error
):
    stop_at = 17

    def press(report: Progress) -> None:
        if report.phase == "train" and report.epoch * report.total + report.done == stop_at:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(error):
        train(config_for(planted_shards, tmp_path / "run"), progress=press)
    assert signal.getsignal(number) == before
    run = Run.open(tmp_path / "run")
    state = load_checkpoint(checkpoint_path(run.checkpoints, "last")).state
    assert state["step"] == stop_at
    assert (state["epoch"], state["validated"]) == (1, False)
    with FrameStream(planted_shards, "train", global_batch=512, lanes=16) as stream:
        stream.load_state_dict(state["stream"])
        assert stream.epoch * stream.num_steps + stream.num_steps - len(stream) == stop_at
    assert not [t for t in threading.enumerate() if t.name == "laughstore-readahead"]


def test_ctrl_c_while_statistics_are_made_leaves_no_run(own_shards, tmp_path):
    def press(report: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config_for(own_shards, tmp_path / "run"), progress=press)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_validating_keeps_the_epoch_s_steps(planted_shards, tmp_path):
    def press(report: Progress) -> None:
        if report.phase == "validate":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config_for(planted_shards, tmp_path / "run"), progress=press)
    last = checkpoint_path(tmp_path / "run" / "checkpoints", "last")
    state = load_checkpoint(last).state
    assert state["step"] == state["stream"]["step"] > 0
    assert (state["epoch"], state["validated"]) == (0, False)
    evaluation = evaluate(tmp_path / "run", checkpoint="last", device="cpu", timelines=0)
    assert evaluation.checkpoint == last
    with pytest.raises(NotFound, match="--checkpoint last"):
        evaluate(tmp_path / "run", device="cpu")


def test_a_signal_within_a_step_waits_for_its_end():
    interruptible = Interruptible()
    finished: list[bool] = []

    def step() -> None:
        with interruptible.installed(), interruptible.held():
            os.kill(os.getpid(), signal.SIGINT)
            finished.append(True)

    with pytest.raises(KeyboardInterrupt):
        step()
    assert finished == [True]


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_while_statistics_are_made_keeps_them(own_shards, tmp_path, number, error):
    def outer(*_: object) -> None:
        raise AssertionError("the handler of whoever called train was asked")

    reports: list[Progress] = []

    def press(report: Progress) -> None:
        reports.append(report)
        if report.phase == "statistics" and report.done == 4:
            os.kill(os.getpid(), number)

    before = signal.signal(number, outer)
    try:
        with pytest.raises(error) as raised:
            train(config_for(own_shards, tmp_path / "run"), progress=press)
        assert signal.getsignal(number) is outer
    finally:
        signal.signal(number, before)
    if number == signal.SIGTERM:
        assert raised.value.code == 143
    assert not (tmp_path / "run").exists()
    total = reports[0].total
    del reports[:]
    train(config_for(own_shards, tmp_path / "run", epochs=1), progress=reports.append)
    assert sum(report.phase == "statistics" for report in reports) == total - 4


def test_damage_found_in_mid_epoch_keeps_the_steps_made(own_shards, tmp_path):
    name = ""
    seen: list[int] = []

    def damage(report: Progress) -> None:
        nonlocal name
        if report.phase == "train":
            seen.append(report.epoch * report.total + report.done)
        elif report.phase == "validate" and report.done == report.total and not name:
            name, _ = flip_a_bit(own_shards)

    config = config_for(own_shards, tmp_path / "run", verify="always", window_blocks=1)
    with pytest.raises(CorruptData) as raised:
        train(config, progress=damage)
    assert name in str(raised.value)
    last = checkpoint_path(tmp_path / "run" / "checkpoints", "last")
    state = load_checkpoint(last).state
    assert state["step"] == seen[-1] > state["stream"]["step"] > 0
    assert (state["epoch"], state["validated"]) == (1, False)


def test_bad_features_in_validation_are_named_and_keep_the_steps_made(tmp_path):
    def features(name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
        bits = random_features(16)(name, assignment, num_frames)
        if name == "bad":
            bits[150, 3] = 0x7FC0  # NaN
        return bits

    episodes = [
        Episode("good", "train", 300, [laugh(2, 6)]),
        Episode("bad", "validation", 300, [laugh(2, 6)]),
    ]
    store = write_store(tmp_path / "store", episodes, features, dim=16)
    with pytest.raises(CorruptData, match=r"frame 150 of bad-[^ ]* holds a value that is not"):
        train(config_for(store / "shards", tmp_path / "run", global_batch=64, epochs=2))
    state = load_checkpoint(checkpoint_path(tmp_path / "run" / "checkpoints", "last")).state
    assert state["step"] == state["stream"]["step"] > 0
    assert (state["epoch"], state["validated"]) == (0, False)
