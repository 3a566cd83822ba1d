"""Windows of memory stay as large as they are: epoch after epoch, in a real process."""

import sys

import numpy as np
import pytest

from benchmarks.data import DIM, FRAME_BYTES, annotations, bench_spec, plan_of, random_frames
from benchmarks.stream_memory import EPOCHS, LANES, TIMES_THE_LIMIT, WINDOW_BLOCKS, watch_apart
from laughstore.annotations import write_annotations
from laughstore.arrays import CODE_STREAMS, MISSING_CODE
from laughstore.buildplan import begin_plan
from laughstore.commit import commit_plan
from laughstore.unitwriter import UnitWriter

_BLOCK_FRAMES = 16
"""Blocks of 128 KiB, an eighth of the usual ones, so that so much data is ten times the limit."""
_NUM_RECORDINGS, _FRAMES = 4, 4600
_NUM_FRAMES = 2 * _NUM_RECORDINGS * _FRAMES
_BATCH = 256

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("window") / "store"
    notes = [annotations(f"episode {i}", _FRAMES, 40) for i in range(_NUM_RECORDINGS)]
    plan = plan_of(
        [_FRAMES] * _NUM_RECORDINGS,
        notes,
        bench_spec(block_frames=_BLOCK_FRAMES, shard_frames=512),
    )
    begin_plan(path, plan)
    for number, (planned, note) in enumerate(zip(plan.recordings, notes, strict=True)):
        write_annotations(path, note, planned.split, planned.id)
        with UnitWriter(path, plan, planned, note) as writer:
            frames = random_frames(2 * _FRAMES, number).reshape(2, _FRAMES, DIM)
            codes = np.full((2, _FRAMES, CODE_STREAMS), MISSING_CODE, np.int16)
            writer.write(frames, codes)
            writer.finish()
    commit_plan(path, plan)
    return path


def test_memory_and_handles_are_the_same_in_every_epoch(store):
    watched = watch_apart(store, _NUM_FRAMES, 0, _BATCH)
    assert watched.limit_bytes * TIMES_THE_LIMIT <= _NUM_FRAMES * FRAME_BYTES
    anonymous = [held.most_anonymous_bytes for held in watched.epochs]
    assert len(anonymous) == EPOCHS
    # Windows themselves are in what was counted, and all that was read would not fit.
    added = [held - watched.before_bytes for held in anonymous]
    assert min(added) > LANES * WINDOW_BLOCKS * _BLOCK_FRAMES * FRAME_BYTES / 2
    assert max(added) <= watched.limit_bytes
    assert max(anonymous) <= 1.05 * min(anonymous)
    assert len({held.most_handles for held in watched.epochs}) == 1
    assert len({held.most_shared_bytes for held in watched.epochs}) == 1
    assert {held.shared_files for held in watched.epochs} == {0}


def test_workers_hold_the_same_in_every_epoch(store):
    watched = watch_apart(store, _NUM_FRAMES, 2, _BATCH)
    first, *later = watched.epochs
    for held in later:
        # Each of a batch's four tensors that is under way is a handle; an epoch makes hundreds.
        assert held.most_handles <= first.most_handles + 16
        assert held.most_anonymous_bytes <= 1.05 * first.most_anonymous_bytes
        # A batch more or less may be under way.
        assert held.most_shared_bytes <= first.most_shared_bytes + 2 * _BATCH * FRAME_BYTES
    assert {held.shared_files for held in watched.epochs} == {0}
