"""Many probes trained in one pass over the frames, beside as many runs of one.

    uv run python -m benchmarks.bench_probes [--gb 4] [--dir DIR] [--repeats 5] [--quick]

A training is all of `laughstore train` but the start of Python: labels, planning, epochs,
validation, checkpoints. Beside them stand the commands, each in a process of its own. Frames have
4096 channels; they are a sixteenth of --gb, because a round trains on them many times. torch has
as many threads as it likes, as users have.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import linear

from laughstore import open_shards
from laughstore.annotations import write_annotations
from laughstore.arrays import CODE_STREAMS, MISSING_CODE
from laughstore.buildplan import begin_plan
from laughstore.commit import commit_plan
from laughstore.unitwriter import UnitWriter
from train import TrainConfig, train, train_probes
from train.runs.checkpoint import checkpoint_path
from train.runs.run import Run

from .data import (
    DIM,
    FRAME_BYTES,
    annotations,
    assignments,
    bench_spec,
    plan_of,
    random_frames,
)
from .measure import Contestant, Result, Unit, measure, summary
from .report import Report, parse_options, working_folder

NAME = "probes"
EPOCHS = 5
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
_LEAST_FRAMES = 250
"""Of a stream: labels look 200 frames ahead."""
_SHARE_OF_GB = 1 / 16
_RATE = Unit("thousand probe-rows/s", 1e-3)
"""A row of the training split counts once for each probe and epoch."""
_FLOPS = Unit("GFLOP/s", 4 * DIM * 1e-9)
"""Of two products with DIM channels for each probe and row: answers, and gradients."""


def make_training_data(folder: Path, gb: float) -> Path:
    """Write a store of random frames with both splits, or find it under `folder`.

    Args:
        folder: what is there of the same size is used again.
        gb: size of the frames in 1e9 bytes.

    Returns:
        Its folder.
    """
    per_stream = max(
        _LEAST_FRAMES, round(gb * 1e9 / FRAME_BYTES / len(_SPLITS) / len(assignments()))
    )
    store = folder / f"training-{per_stream}"
    if (store / "store.json").exists():
        return store
    notes = [annotations(f"episode {i}", per_stream, per_stream // 50) for i in range(len(_SPLITS))]
    plan = plan_of([per_stream] * len(notes), notes, bench_spec(), _SPLITS)
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
    """Trainings of some probes, in one pass or one after the other, in this process.

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
        for number, probes in enumerate(self._passes):
            self._train(probes, self._out / str(number))
        num_probes = sum(map(len, self._passes))
        self.seconds_a_probe.append((time.perf_counter() - began) / num_probes)
        return float(num_training_rows(self._store) * EPOCHS * num_probes)

    def _train(self, probes: Sequence[str], out: Path) -> None:
        together = TrainConfig(
            shards=self._store,
            out=out,
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

    def check(self) -> None:
        """Every probe was trained for all epochs, and its best one is kept."""
        found = sorted(self._out.glob("**/config.json"))
        runs = [run for run in (Run.open(path.parent) for path in found) if not run.config.probe]
        if len(runs) != sum(map(len, self._passes)):
            raise AssertionError(f"{len(runs)} probes are kept")
        for run in runs:
            lines = map(json.loads, run.metrics_log.read_text().splitlines())
            epochs = [line["epoch"] for line in lines if line["kind"] == "validation"]
            if epochs != list(range(EPOCHS)):
                raise AssertionError(f"{run.path} was validated after epochs {epochs}")
            checkpoint_path(run.checkpoints, "best")


class Commands(Trainings):
    """The same trainings, each a command in a process of its own."""

    def _train(self, probes: Sequence[str], out: Path) -> None:
        command = [sys.executable, "-m", "laughstore", "train", "--quiet"]
        command += ["--shards", str(self._store), "--out", str(out), "--device", "cpu"]
        command += ["--global-batch", str(_BATCH)]
        command += ["--epochs", str(EPOCHS), "--patience", str(EPOCHS)]
        if len(probes) == 1:
            label, *settings = probes[0].split(",")
            command += ["--label", label, *(f"--{setting}" for setting in settings)]
        else:
            command += [word for probe in probes for word in ("--probe", probe)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")


def num_training_rows(store: Path) -> int:
    """Return the frames of the training split."""
    return sum(stream.num_frames for stream in open_shards(store).streams("train"))


def products() -> Contestant:
    """Return the two matrix products of a step of all probes, and nothing else."""
    x, weight = torch.randn(_BATCH, DIM), torch.randn(len(PROBES), DIM)
    slope = torch.randn(_BATCH, len(PROBES))

    def run() -> float:
        for _ in range(EPOCHS):
            linear(x, weight)
            torch.mm(slope.t(), x)
        return float(EPOCHS * _BATCH * len(PROBES))

    name = f"limit: the products of steps of {len(PROBES)} probes alone"
    why = "its numbers are random, and nobody keeps what comes out"
    return Contestant(name, run, (_RATE, _FLOPS), unchecked=why)


@dataclass(frozen=True)
class Pair:
    """Trainings one at a time, and in one pass."""

    name: str
    single: Trainings
    together: Trainings

    @classmethod
    def of(cls, name: str, kind: type[Trainings], store: Path, out: Path) -> "Pair":
        """Return both, with runs in folders under `out`."""
        alone = [[probe] for probe in ALONE]
        return cls(name, kind(store, out / "single", alone), kind(store, out / "all", [PROBES]))

    def contestants(self, limit: Contestant) -> list[Contestant]:
        """Return what is measured of them."""
        names = ("one run after the other", f"{len(PROBES)} probes in one pass")
        return [
            Contestant(
                f"{self.name}, {name}",
                each.run,
                (_RATE,),
                limit=limit,
                before=each.before,
                check=each.check,
            )
            for name, each in zip(names, (self.single, self.together), strict=True)
        ]

    def times_as_fast(self, repeats: int) -> Result:
        """Return how many runs take the time of one probe in a pass with the others, by round.

        Args:
            repeats: rounds that count, of both, the last ones.
        """
        rounds = zip(
            self.single.seconds_a_probe[-repeats:],
            self.together.seconds_a_probe[-repeats:],
            strict=True,
        )
        num = len(PROBES)
        name = f"{self.name}, {num} probes in one pass, beside {num} runs"
        return summary(name, "times as fast", [alone / shared for alone, shared in rounds])


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write benchmarks/results/probes.json."""
    options = parse_options("Many probes in one pass, beside as many runs.", argv)
    with working_folder(options) as folder:
        store = make_training_data(folder, options.gb * _SHARE_OF_GB)
        report = Report.begin(NAME, options)
        limit = products()
        pairs = [Pair.of("training", Trainings, store, folder / "runs")]
        if not options.quick:  # ten processes, which mostly import
            pairs.append(Pair.of("the command", Commands, store, folder / "commands"))
        found = [limit, *(each for pair in pairs for each in pair.contestants(limit))]
        results = measure(found, repeats=options.repeats, say=print)
        settings = {
            "frames": num_training_rows(store),
            "dim": DIM,
            "probes": len(PROBES),
            "epochs": EPOCHS,
            "global_batch": _BATCH,
            "torch_threads": torch.get_num_threads(),
            "checked": "after each run: every probe was trained and validated for all epochs",
        }
        compared = [pair.times_as_fast(options.repeats) for pair in pairs]
        report.finish(settings, [*results, *compared])


if __name__ == "__main__":
    main()
