"""Which run is gone on with, from which checkpoint, and whether it still is the same run."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from laughstore.errors import ConfigError, CorruptData, NotFound
from laughstore.sealed import canonical_json

from ..config import TrainConfig
from ..distributed.ranks import Ranks
from ..runs.checkpoint import Checkpoint, load_checkpoint, newest_sound, set_aside
from ..runs.run import Run, versions
from ..streaming.device import device_model
from ..streaming.skip import read_skip_list
from .course import Course

logger = logging.getLogger(__name__)

_FREE: Final = ("out", "shards", "device", "verify", "reader")
"""Settings that decide neither rows nor steps. What the shards hold is compared by digests."""
_PATHS: Final = ("annotations", "skip_corrupt")


@dataclass(frozen=True, eq=False)
class Resumed:
    """A run that is gone on with."""

    run: Run
    checkpoint: Checkpoint | None
    """None: it ended before it saved one, and begins again at its first step."""
    name: str = ""
    """Of that checkpoint."""


def find_run(config: TrainConfig) -> Resumed | None:
    """Return the run in `config.out` and where it goes on, or None when there is none.

    Broken checkpoints are kept, and told in warnings.

    Raises:
        ConfigError: the run was begun with another setting, which the message names, or its list of
            corrupt blocks was edited.
        CorruptData: the run's config.json was altered, or all of a run that had ended is left but
            its best checkpoint.
    """
    if not config.out.exists():
        return None
    run = Run.open(config.out)
    if run.probe_of is not None:
        raise ConfigError(
            f"{run.path} is a probe of {run.probe_of}, and is trained with the others there: go on"
            f" with --out {run.probe_of} --resume"
        )
    check_settings(run.config, config)
    _check_skipped(run, config)
    found = newest_sound(run.checkpoints)
    if found is None:
        logger.warning("%s holds no checkpoint: it begins at its first step", run.path)
        return Resumed(run, None)
    path, checkpoint = found
    if checkpoint.state.get("run") != run.identity:
        raise ConfigError(
            f"{path} is a checkpoint of another run than {run.path}; take it out of that folder"
        )
    course = Course.from_json(checkpoint.state, where=str(path))
    if course.best is not None and course.best_checkpoint is None:
        course.best_checkpoint = path.name
    _check_best(run, course)
    state = checkpoint.state | course.to_json()
    return Resumed(run, Checkpoint(checkpoint.model, checkpoint.optimiser, state), path.name)


def check_settings(begun: TrainConfig, given: TrainConfig) -> None:
    """Raise a ConfigError that names the settings in which a run differs from what is asked for."""
    was, now = _settings(begun), _settings(given)
    differ = [name for name in was | now if was.get(name) != now.get(name)]
    if differ:
        told = ", ".join(f"{name} was {was.get(name)} and is {now.get(name)}" for name in differ)
        raise ConfigError(
            f"{given.out} was begun with other settings, and cannot go on with these: {told}; give"
            " the same ones, or train into another --out"
        )


def check_ranks(ranks: Ranks, config: TrainConfig, rows: Mapping[str, str]) -> None:
    """Check that all ranks train the same run, on the same rows: hosts may have their own copies.

    Args:
        ranks: all of which make this call.
        config: of this rank.
        rows: digests of those that it trains and validates on, by what they are.

    Raises:
        ConfigError: they do not; the message names a rank and what differs.
    """
    mine = {**_settings(config), **rows}
    first, *others = [
        json.loads(data) for data in ranks.gather(canonical_json(mine), "the comparison of ranks")
    ]
    for rank, theirs in enumerate(others, 1):
        differ = [name for name in first | theirs if first.get(name) != theirs.get(name)]
        if differ:
            raise ConfigError(
                f"ranks 0 and {rank} differ in {', '.join(differ)}, and would not train one model;"
                " start all with the same command, on the same generation of the store and the same"
                " kind of device"
            )


def check_rows(state: Mapping[str, Any], digests: Mapping[str, str]) -> None:  # Any: JSON values
    """Raise a ConfigError unless a run is validated on the rows that it was validated on before."""
    was = state.get("validation")
    if was != digests:
        differ = [name for name, mine in digests.items() if (was or {}).get(name) != mine]
        raise ConfigError(
            f"the split that chooses the epoch has other {' and '.join(differ)} than when the run"
            " was saved, so its epochs could not be compared; restore the store or the annotations,"
            " or train into another --out"
        )


def made_on(device: torch.device, num_ranks: int) -> dict[str, Any]:  # Any: JSON values
    """Return what moves low bits, as a JSON object."""
    return {
        **versions(),
        "device": device_model(device),
        "threads": torch.get_num_threads(),
        "ranks": num_ranks,
    }


def check_made_on(was: Mapping[str, Any], now: Mapping[str, Any]) -> None:  # Any: JSON values
    """Warn when a run goes on where sums may be rounded otherwise."""
    differ = [name for name, mine in now.items() if was.get(name) != mine]
    if differ:
        told = ", ".join(f"{name} was {was.get(name)} and is {now[name]}" for name in differ)
        logger.warning("the same rows in the same order, but low bits may differ: %s", told)


def _check_skipped(run: Run, config: TrainConfig) -> None:
    """Raise a ConfigError unless the list of corrupt blocks holds what it held before.

    Digests of rows need not tell: a block whose rows are all ignored is context of others.
    """
    if config.skip_corrupt is None:
        return
    was, now = set(run.skip), set(read_skip_list(config.skip_corrupt))
    if was != now:
        told = [
            f"{len(keys)} {what}"
            for keys, what in ((now - was, "more"), (was - now, "fewer"))
            if keys
        ]
        raise ConfigError(
            f"{config.skip_corrupt} names other blocks than when {run.path} was begun"
            f" ({' and '.join(told)}, like {min(was ^ now)}); restore the list, or train into"
            " another --out"
        )


def _check_best(run: Run, course: Course) -> None:
    """Forget a best checkpoint of which nothing is left."""
    name = course.best_checkpoint
    if course.best is None or name is None:
        return
    path = run.checkpoints / name
    try:
        load_checkpoint(path)
    except (NotFound, CorruptData) as error:
        config = run.config
        if course.stopped(patience=config.patience, epochs=config.epochs) is not None:
            raise CorruptData(
                f"{run.path} has ended, and its best checkpoint is damaged: {error}"
            ) from error
        set_aside(path, error)
        logger.warning("epoch %d was the best, and is forgotten with it", course.best_epoch)
        course.forget_best()


def _settings(config: TrainConfig) -> dict[str, Any]:  # Any: JSON values
    data = config.to_json()
    for name in _PATHS:
        if data[name] is not None:
            data[name] = str(Path(data[name]).absolute())
    return {name: value for name, value in _flat(data) if name not in _FREE}


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:  # Any: JSON
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
