"""What TensorBoard shows of a run: scalars, curves and histograms, each step once."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer
from tensorboard.util.tensor_util import make_ndarray

from train import train
from train.runs.curve_points import curve_points
from train.runs.log import RunLog, cut_log

from .test_resume import STEPS_AN_EPOCH, Press, short

CURVE = "validation/precision-recall"
HISTOGRAMS = ("validation/scores of negatives", "validation/scores of positives")


@pytest.fixture(autouse=True)
def _few_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one second are read in the order of their names: a tenth one before the ninth."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def told(folder: Path) -> dict[str, list]:
    """What each tag tells, as TensorBoard reads it, without what the clock says."""
    # All are tensors to it: f4[] scalars, f8[buckets, 3] histograms, f4[6, points] curves.
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        name: [(event.step, make_ndarray(event.tensor_proto).tolist()) for event in tensors]
        for name in found.Tags()["tensors"]
        if not name.endswith(("seconds", "wait_ms"))
        for tensors in [found.Tensors(name)]
    }


def test_event_files_tell_each_step_once_and_the_same_after_a_resume(planted_shards, tmp_path):
    whole = told(train(short(planted_shards, tmp_path / "whole")).run / "tensorboard")
    assert {CURVE, *HISTOGRAMS, "train/loss", "validation/f1"} < whole.keys()
    validated = [STEPS_AN_EPOCH * (epoch + 1) for epoch in range(4)]
    for name in (CURVE, *HISTOGRAMS, "validation/average_precision"):
        assert [event[0] for event in whole[name]] == validated
    config = short(planted_shards, tmp_path / "run")
    for press in (Press(2 * STEPS_AN_EPOCH), Press(2 * STEPS_AN_EPOCH + 3)):
        with pytest.raises(KeyboardInterrupt):
            train(config, resume=True, progress=press)
    train(config, resume=True)
    assert told(config.out / "tensorboard") == whole


def test_a_validation_that_no_checkpoint_holds_is_void_and_the_step_s_other_lines_are_not(tmp_path):
    """As after a kill between the validation and its checkpoint."""
    path, events = tmp_path / "metrics.jsonl", tmp_path / "events"
    y, score = np.array([0, 1], np.uint8), np.array([0.25, 0.5], np.float32)

    def validate(log: RunLog, auroc: float) -> None:
        log.write("validation", 9, {"auroc": auroc})
        log.write_scores(9, y, score)

    with RunLog(path, events) as log:
        log.write("train", 5, {"loss": 2.0})
        log.write("train", 9, {"loss": 1.0})
        log.sync()
        validate(log, 0.5)
    for validated, auroc in ((False, 0.25), (True, 0.125)):
        cut_log(path, step=9, validated=validated)
        with RunLog(path, events, after=(9, validated)) as log:
            if not validated:
                validate(log, auroc)
            log.write("train", 15, {"loss": 0.5 + validated})
    found = told(events)
    assert found["train/loss"] == [(5, 2.0), (9, 1.0), (15, 1.5)]
    assert found["validation/auroc"] == [(9, 0.25)]
    assert [len(found[name]) for name in (CURVE, *HISTOGRAMS)] == [1, 1, 1]
    assert len(path.read_text().splitlines()) == 4


def test_what_a_checkpoint_holds_is_in_the_event_files_of_a_process_that_was_killed(tmp_path):
    log = RunLog(tmp_path / "metrics.jsonl", tmp_path / "events")
    log.write("train", 5, {"loss": 2.0})
    log.sync()
    assert told(tmp_path / "events") == {"train/loss": [(5, 2.0)]}
    log.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_full_disk_ends_the_event_files_too(tmp_path):
    before = threading.active_count()
    log = RunLog(Path("/dev/full"), tmp_path / "events")
    assert threading.active_count() > before, "one writes the event files"
    for fail in (lambda: log.write("train", 9, {"loss": 2.0}), log.close):
        with pytest.raises(OSError, match="No space left"):
            fail()
    assert threading.active_count() == before


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=60),
    st.integers(2, 20),
)
@example([(True, value) for value in (2, 3, 0, 0, 1, 1)], 7)  # recalls that are no floats
def test_points_lie_on_the_exact_curve_with_recall_in_equal_steps(rows, num):
    positive = np.array([is_positive for is_positive, _ in rows])
    assume(positive.any())
    score = np.array([value / 10 for _, value in rows], np.float32)
    points = curve_points(positive, score, num=num).T
    precision, recall, _ = precision_recall_curve(positive, score)
    exact = list(zip(precision[:-1].tolist(), recall[:-1].tolist(), strict=True))
    for number, (hits, wrong, quiet, missed, *at) in enumerate(points.tolist()):
        assert any(at == pytest.approx(point) for point in exact)
        assert at == pytest.approx([hits / (hits + wrong), hits / (hits + missed)])
        assert hits + missed == positive.sum()
        assert wrong + quiet == (~positive).sum()
        wanted = 1 - number / (num - 1)
        assert at[1] >= wanted - 1e-9
        assert not [r for _, r in exact if wanted - 1e-9 <= r < at[1] - 1e-9]
    assert (points[0, 5], points[-1, 4:].tolist()) == (1, pytest.approx(exact[-1]))
