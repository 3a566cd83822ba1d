"""What training tells where there is no terminal."""

import numpy as np
import pytest

from laughstore.cli.progress import TerminalProgress
from laughstore.cli.training_progress import TrainingProgress
from train import Progress
from train.scoring.metrics import FrameMetrics, frame_metrics

from .test_progress import clock

__all__ = ["clock"]

EPOCHS = 5


def train_epoch(
    shown: TrainingProgress,
    clock: list[float],
    epoch: int,
    validation: FrameMetrics | None,
    *,
    waited_s: float,
) -> None:
    """Ten steps of 5 s and 4000 frames each, and a validation of 20 s."""
    for step in range(1, 11):
        clock[0] += 5
        waited = waited_s / 10 * step
        shown(Progress("train", step, 10, epoch, 0.25, validation, 4000 * step, waited))
    for done in (1000, 2000):
        clock[0] += 10
        shown(Progress("validate", done, 2000, epoch, None, validation, 2 * done))


def test_frames_a_second_waiting_and_time_left_are_told(clock, capsys):
    shown = TrainingProgress(TerminalProgress(), epochs=EPOCHS)
    train_epoch(shown, clock, 0, None, waited_s=2.5)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 1: 7 of 10 steps, 30 s, about 13 s left"
        " (loss 0.2500, 800 frames/s, 5 % waiting for frames)"
    ]
    found = frame_metrics(np.array([1, 0, 1], np.uint8), np.array([0.9, 0.5, 0.2], np.float32))
    train_epoch(shown, clock, 1, found, waited_s=25.0)
    shown.close()
    epoch, steps = capsys.readouterr().err.splitlines()
    assert epoch.startswith("epoch 1: validation AP 0.833, base rate 66.67 %")
    # From the first step of an epoch to that of the next: 70 s, and four epochs are left.
    assert epoch.endswith("(at most 0:04:40 left)")
    assert steps == (
        "epoch 2: 7 of 10 steps, 30 s, about 13 s left"
        " (loss 0.2500, 800 frames/s, 50 % waiting for frames)"
    )


@pytest.mark.parametrize("phase", ["train", "validate"])
def test_a_validation_tells_its_frames_and_nothing_is_told_of_no_time(clock, capsys, phase):
    shown = TrainingProgress(TerminalProgress(), epochs=EPOCHS)
    shown(Progress(phase, 1, 9, 0, None, None, 4000, 0.0))
    clock[0] += 40
    shown(Progress(phase, 2, 9, 0, None, None, 84_000, None))
    line = capsys.readouterr().err
    assert line.endswith("s left (2,000 frames/s)\n")
