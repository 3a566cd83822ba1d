"""How long a run takes to its first step, begun or resumed, in processes of its own."""

import shutil
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from train import Progress, TrainConfig, train

from .measure import Result, summary
from .process_memory import apart

# What optimisers and logs load when they are first used.
IMPORTS = ("torch._dynamo", "torch.distributed.fsdp", "train.loop")
_STEPS = 2
"""Made before the run is stopped."""


def resuming(store: Path, folder: Path, repeats: int, *, global_batch: int) -> list[Result]:
    """Return seconds from the call of `train()` to the end of its first step, and of `resume=True`.

    Args:
        store: whose split `train` is trained on, and validated on a fourth of it.
        folder: of the runs.
        repeats: processes of each.
        global_batch: so that an epoch has more than two steps.
    """
    stopped, out = folder / "stopped", folder / "run"
    config = TrainConfig(
        shards=store, out=out, folds=4, fold=0, device="cpu", global_batch=global_batch
    )
    begun: list[float] = []
    resumed: list[float] = []
    for _ in range(repeats):
        begun.append(apart(_train_a_little, config, False))
        if not stopped.exists():
            shutil.copytree(out, stopped)
        shutil.rmtree(out)
        shutil.copytree(stopped, out)
        resumed.append(apart(_train_a_little, config, True))
        shutil.rmtree(out)
    name = "to the end of the first step, beyond imports"
    return [summary(f"train, {name}", "s", begun), summary(f"--resume, {name}", "s", resumed)]


def _train_a_little(config: TrainConfig, resume: bool) -> float:
    """Train until a few steps are made, or one more; return the seconds to the first."""
    for name in IMPORTS:
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
