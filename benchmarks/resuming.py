"""How long a run that was stopped takes to make its next step, in a process that has begun anew."""

import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from train import Progress, TrainConfig, train

from .measure import Result, summary

_STEPS = 2
"""Made before the run is stopped."""
# What optimisers and logs load when they are first used.
_IMPORTS = ("torch._dynamo", "torch.distributed.fsdp", "train.loop")


def resuming(store: Path, folder: Path, repeats: int, *, global_batch: int) -> Result:
    """Return seconds from the call of `train(resume=True)` to the end of its first step.

    Args:
        store: whose split `train` is trained on, and validated on a fourth of it.
        folder: of the runs.
        repeats: processes that go on with one.
        global_batch: so that an epoch has more than two steps.
    """
    stopped, out = folder / "stopped", folder / "run"
    config = TrainConfig(
        shards=store, out=out, folds=4, fold=0, device="cpu", global_batch=global_batch
    )
    _apart(config, False)
    out.rename(stopped)
    seconds = []
    for _ in range(repeats):
        shutil.copytree(stopped, out)
        seconds.append(_apart(config, True))
        shutil.rmtree(out)
    return summary("--resume to the end of its first step, beyond imports", "s", seconds)


def _apart(config: TrainConfig, resume: bool) -> float:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_train_a_little, config, resume).result()


def _train_a_little(config: TrainConfig, resume: bool) -> float:
    """Train until a few steps are made, or one more; return the seconds to the first."""
    for name in _IMPORTS:
        import_module(name)
    first: list[float] = []
    steps: list[int] = []

    def stop(progress: Progress) -> None:
        if progress.phase != "train":
            return
        first.append(time.perf_counter() - began)
        steps.append(progress.done)
        if resume or progress.done == _STEPS:
            raise KeyboardInterrupt

    began = time.perf_counter()
    with suppress(KeyboardInterrupt):
        train(config, resume=resume, progress=stop)
    if steps != ([_STEPS + 1] if resume else [1, _STEPS]):
        raise AssertionError(f"steps {steps} were made")
    return first[0]
