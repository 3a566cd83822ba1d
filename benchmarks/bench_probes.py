"""Many probes trained in one pass over the frames, beside as many runs of one.

    uv run python -m benchmarks.bench_probes [--gb 0.3] [--dir DIR] [--repeats 5] [--quick]

A run is all of `laughstore train` but the start of Python: labels, planning, epochs, validation,
checkpoints. Frames have 4096 channels. torch has as many threads as it likes, as users have.
"""

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import linear

from laughstore.annotations import write_annotations
from laughstore.arrays import CODE_STREAMS, MISSING_CODE
from laughstore.buildplan import RecordingToPlan, begin_plan, make_plan
from laughstore.commit import commit_plan
from laughstore.naming import recording_id
from laughstore.unitwriter import UnitWriter
from train import TrainConfig, train, train_probes

from .data import DIM, FRAME_BYTES, annotations, assignments, bench_spec, random_frames
from .measure import Contestant, Result, Unit, measure, summary
from .report import Report, parse_options, working_folder

NAME = "probes"
EPOCHS = 5
DEFAULT_GB = 0.3
PROBES = tuple(
    text
    for n in range(1, 17)
    for text in (f"onset:{n}f", f"shift:{n}f", f"detection,lead={n - 9}f", f"regression:{n}s")
)
"""64 labels: four kinds, sixteen spans of each."""
ALONE = tuple(PROBES[5 * kind] for kind in range(4))
"""Trained alone: one of each kind."""
_SPLITS = ("train",) * 6 + ("validation",) * 2
"""Of the recordings."""
_BATCH = 4096
_UNIT = Unit("probe-rows/s", 1)
"""A row of the training split counts once for each probe and epoch."""


def make_training_data(folder: Path, gb: float) -> Path:
    """Write a store of random frames with both splits, or find it under `folder`.

    Args:
        folder: what is there of the same size is used again.
        gb: size of the frames in 1e9 bytes.

    Returns:
        Its folder.
    """
    per_stream = max(64, round(gb * 1e9 / FRAME_BYTES / len(_SPLITS) / len(assignments())))
    store = folder / f"training-{per_stream}"
    if (store / "store.json").exists():
        return store
    notes = [annotations(f"episode {i}", per_stream, per_stream // 50) for i in range(len(_SPLITS))]
    plan = make_plan(
        bench_spec(),
        "benchmark",
        [
            RecordingToPlan(
                id=recording_id(note.recording),
                name=note.recording,
                split=split,
                group=note.recording,
                num_frames=per_stream,
                assignments=assignments(),
                annotations_id=note.content_id(),
            )
            for note, split in zip(notes, _SPLITS, strict=True)
        ],
    )
    begin_plan(store, plan)
    num_streams = len(assignments())
    codes = np.full((num_streams, per_stream, CODE_STREAMS), MISSING_CODE, np.int16)
    for number, (planned, note) in enumerate(zip(plan.recordings, notes, strict=True)):
        write_annotations(store, note, planned.split, planned.id)
        frames = random_frames(num_streams * per_stream, number)
        with UnitWriter(store, plan, planned, note) as writer:
            writer.write(frames.reshape(num_streams, per_stream, DIM), codes)
            writer.finish()
    commit_plan(store, plan)
    return store


class Trainings:
    """Trainings of some probes, in one pass or one after the other.

    Args:
        store: to train on.
        out: folder for runs; it is emptied.
        passes: probes of each pass.
    """

    def __init__(self, store: Path, out: Path, passes: Sequence[Sequence[str]]) -> None:
        self._store, self._out, self._passes = store, out, passes
        self.seconds_a_probe: list[float] = []
        """Of each round."""

    def before(self) -> None:
        """Remove the runs of the last round."""
        shutil.rmtree(self._out, ignore_errors=True)

    def run(self) -> float:
        """Train. Returns the rows trained on, once for each probe and epoch."""
        began = time.perf_counter()
        num_rows = 0
        for number, probes in enumerate(self._passes):
            together = TrainConfig(
                shards=self._store,
                out=self._out / str(number),
                probe=tuple(probes),
                global_batch=_BATCH,
                epochs=EPOCHS,
                patience=EPOCHS,
                device="cpu",
            )
            if len(probes) == 1:
                train(together.of_probe(together.probes[0]))
            else:
                train_probes(together)
        num_probes = sum(map(len, self._passes))
        self.seconds_a_probe.append((time.perf_counter() - began) / num_probes)
        return num_rows
