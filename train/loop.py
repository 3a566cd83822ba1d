"""Train a head or many probes: open the splits, standardise, make the run folder, let it work.

Enters: a config. Leaves: a run folder and how it ended. Everything that can be refused is refused
before the folder is made.
"""

import logging
import shutil
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch

from laughstore.errors import ConfigError
from laughstore.index import Index
from laughstore.other_annotations import Annotate, read_other_annotations
from laughstore.reading.shard_cache import ShardCache, open_cache
from laughstore.store import open_shards

from .config import TrainConfig
from .counting import balanced_negatives, check_both_classes, counts_of
from .distributed.place import ALONE, Place
from .distributed.ranks import Ranks
from .distributed.signals import Interruptible
from .float32 import full_float32
from .moments import Standardiser, merged
from .probes.probe_rows import ProbeRows
from .probes.probe_runs import ProbeRuns
from .probes.probe_trainer import ProbeTrainer
from .runs.checkpoint import Checkpoint
from .runs.folds import TRAIN_SPLIT, VALIDATION_SPLIT, choose_fold, with_fold
from .runs.records import NoRecords, Records
from .runs.run import Run, check_absent, is_run
from .runs.run_lock import RunLock
from .statistics import stream_moments
from .streaming.device import choose_device, device_id
from .streaming.preload import check_preload
from .streaming.selection import select
from .streaming.skip import read_skip_list, skipped_blocks, without_blocks
from .streaming.source import FrameSource
from .streaming.stream import FrameStream
from .training.fitting import Parts
from .training.progress import Progress, ProgressCallback, silent
from .training.result import ProbesResult, TrainResult
from .training.resume import Resumed, check_ranks, find_run
from .training.trainer import Trainer

logger = logging.getLogger(__name__)

_FLOAT_BYTES = 4
_BEGUN = "begun"
"""What the attempts of one launch remember: there was no run when the first one looked."""


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    save_every_s: float = 60.0,
    place: Place = ALONE,
    progress: ProgressCallback | None = None,
    annotate: Annotate = read_other_annotations,
) -> TrainResult:
    """Train a head on the split `train`, choosing the epoch on `validation`.

    Ctrl-C, SIGTERM and errors of this package save the last step before they are raised, unless the
    weights are no longer finite; while statistics are made, there is no run yet, and the statistics
    are kept for the next one. A run that was killed goes on from its last checkpoint, and ends
    as if nothing had happened.

    Args:
        config: what to train, on what, and how.
        resume: go on with the run in `config.out`, if there is one.
        save_every_s: seconds after which a checkpoint is due that is only there to go on from.
        place: of this process among several that train together; all call this with the same
            config. The first writes the run, and the others need not see its folder.
        progress: called as work goes on, several times a second at most a step.
        annotate: reads `config.annotations`, if there are any. The command line gives one that
            knows data sets, too.

    Raises:
        ConfigError: the run exists and `resume` is not asked for, or was begun with other settings
            or rows; a split is missing or holds nothing to learn from; a setting cannot work; or
            the loss or a score is no longer finite.
        CorruptData: a shard was altered or cut, or holds values that are not finite.
        LaughstoreError: another rank died or hangs; the message names it and the step.
    """
    if config.probe:
        raise ConfigError("the config is of several probes; train them with train_probes")
    how = _How(resume, save_every_s, progress or silent, annotate)
    result = _train_on(config, how, place)
    assert isinstance(result, TrainResult), "of one head"
    return result


def train_probes(
    config: TrainConfig,
    *,
    resume: bool = False,
    save_every_s: float = 60.0,
    place: Place = ALONE,
    progress: ProgressCallback | None = None,
    annotate: Annotate = read_other_annotations,
) -> ProbesResult:
    """Train the probes of a config in one pass over the frames.

    Each learns what it would learn alone with the same settings, has its own rows, early stop and
    best epoch, and in the end a folder of its own (`TrainConfig.of_probe`). Arguments and errors
    are those of `train`.
    """
    if not config.probe:
        raise ConfigError("the config has no probe; give some, or train its label with train")
    how = _How(resume, save_every_s, progress or silent, annotate)
    result = _train_on(config, how, place)
    assert isinstance(result, ProbesResult), "of probes"
    return result


@dataclass(frozen=True)
class _How:
    """Arguments of `train` that change nothing of what is learned."""

    resume: bool
    save_every_s: float
    report: ProgressCallback
    annotate: Annotate


def _train_on(config: TrainConfig, how: _How, place: Place) -> TrainResult | ProbesResult:
    interruptible = Interruptible()
    device = choose_device(config.device, place.local_rank)
    check_preload(config.preload, device)
    # Optimisers import it: not in the block below, where a signal would be raised amid that.
    import_module("torch._dynamo")
    with (
        interruptible.installed(),
        full_float32(),
        Ranks(place, interruptible) as ranks,
        RunLock() as lock,
    ):
        begun = _begin(config, how.resume, lock, ranks)
        return _train(config, begun, ranks, device, how)


@dataclass(frozen=True)
class _Begun:
    """What there is of a run before it is trained."""

    resumed: Resumed | None
    """On the first rank: the run that is gone on with, if there is one."""
    checkpoint: Checkpoint | None
    """On all: where it goes on."""
    lock: RunLock
    """Of the run, if there is one."""


def _begin(config: TrainConfig, resume: bool, lock: RunLock, ranks: Ranks) -> _Begun:
    """Look on the first rank for a run to go on with, and tell all."""
    found: list[Resumed | None] = []

    def look() -> bytes:
        # torchrun starts all ranks again when one has died, by the same command: they go on with
        # what they have begun, and with nothing else.
        if not (resume or ranks.remember(_BEGUN)):
            check_absent(config.out)
            ranks.keep_in_mind(_BEGUN)
        if is_run(config.out):
            lock.take(config.out)
        found.append(find_run(config))
        checkpoint = None if found[0] is None else found[0].checkpoint
        return b"" if checkpoint is None else checkpoint.to_bytes()

    data = ranks.share(look, "the start")
    checkpoint = Checkpoint.from_bytes(data) if data else None
    return _Begun(found[0] if found else None, checkpoint, lock)


def _train(
    config: TrainConfig, begun: _Begun, ranks: Ranks, device: torch.device, how: _How
) -> TrainResult | ProbesResult:
    index = open_shards(config.shards)
    if config.annotations is not None:
        index = how.annotate(index, config.annotations)
    fold = None
    if config.folds is not None and config.fold is not None:
        fold = choose_fold(index, config.folds, config.fold, seed=config.seed)
        index = with_fold(index, fold)
    cache = open_cache(config.cache, config.cache_gb, index.folder)
    _check_splits(index)
    validation = select(index, VALIDATION_SPLIT, config.stream_label, config.filter)
    skip: tuple[str, ...] = ()
    skipped = np.empty(0, np.int64)
    if config.skip_corrupt is not None:
        skip = read_skip_list(config.skip_corrupt)
        found = skipped_blocks(index, VALIDATION_SPLIT, skip, where=str(config.skip_corrupt))
        skipped = np.array(list(found), np.int64)
        validation = without_blocks(validation, skipped)
    if not config.probe:
        check_both_classes(validation)
    with (
        _open_stream(index, config, ranks, device, cache) as stream,
        FrameSource(
            index,
            VALIDATION_SPLIT,
            verify=config.verify,
            reader=config.reader,
            damaged=config.skip_corrupt is not None,
            cache=cache,
        ) as source,
    ):
        num_here = ranks.num_with(device_id(device), "the comparison of ranks")
        stream.preloading.check_memory(ranks.local_world_size, num_here)
        # What the first layer makes of a row, and its derivative.
        outputs = config.head.channels if device.type == "cpu" and stream.sequence else 0
        stream.room.check(
            ranks.local_world_size,
            more_row_bytes=2 * outputs * _FLOAT_BYTES,
            # Ranks make the next one while they wait for each other: see `Ranks.made_meanwhile`.
            num_batches=1 if ranks.world_size == 1 else 2,
        )
        rows = None
        if config.probe:
            skipped = np.concatenate([stream.skipped_blocks, skipped])
            rows = ProbeRows.of(config, stream.selection, validation, skipped)
        else:
            check_both_classes(stream.selection)
        counts = counts_of(stream.selection, validation)
        if stream.balance is not None:
            counts[TRAIN_SPLIT]["balanced_negatives"] = balanced_negatives(
                stream.selection, stream.balance
            )
        # Before the statistics: ranks share the streams, and must mean the same ones.
        meant = {f"validation {name}": digest for name, digest in validation.digests.items()}
        meant |= {"training rows": stream.identity, **({} if rows is None else rows.digests)}
        meant["device"] = device.type  # where a driver is broken, auto takes the CPU
        check_ranks(ranks, config, meant)
        # A checkpoint holds its own.
        is_new = begun.checkpoint is None
        standardiser = _standardiser(stream, ranks, how.report) if is_new else None
        stream.preloading.load(
            stream.source, lambda done, total: how.report(Progress("preload", done, total, 0))
        )
        made: list[Run] = []

        def make() -> Records:
            resumed, after = begun.resumed, (0, False)
            if resumed is None:
                made.append(Run.create(config, index, counts, fold=fold, skip=skip))
                begun.lock.take(config.out)
                return Records(made[0], save_every_s=how.save_every_s)
            made.append(resumed.run)
            if begun.checkpoint is not None:
                state = begun.checkpoint.state
                after = state["step"], state["validated"]
            return Records(made[0], after, save_every_s=how.save_every_s)

        with ranks.interruptible.held():
            records = ranks.first(make, "the start") or NoRecords()
        logger.info("%r on %s", stream, device)
        try:
            with closing(records):
                parts = Parts(
                    config, stream, validation, source, device, records, ranks, how.report
                )
                if rows is None:
                    trainer = Trainer(parts, standardiser)
                else:
                    runs = None
                    if made:  # on the first rank
                        runs = ProbeRuns(made[0], config, index, rows, fold=fold, skip=skip)
                    trainer = ProbeTrainer(parts, standardiser, rows, runs)
                if begun.checkpoint is not None:
                    name = "" if begun.resumed is None else begun.resumed.name
                    trainer.resume(begun.checkpoint, name)
                return trainer.fit()
        except BaseException:
            # A run that holds nothing is in the way. The log of one that diverged tells how.
            for run in made:
                if run.is_empty:
                    shutil.rmtree(run.path, ignore_errors=True)
            raise


def _open_stream(
    index: Index,
    config: TrainConfig,
    ranks: Ranks,
    device: torch.device,
    cache: ShardCache | None,
) -> FrameStream:
    return FrameStream(
        index,
        TRAIN_SPLIT,
        label=config.stream_label,
        frames=config.filter,
        balance=config.balance_ratio,
        global_batch=config.global_batch,
        lanes=config.lanes,
        window_blocks=config.window_blocks,
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
        mix=config.mix,
        sequence=config.sequence_shape(index.block_frames),
        verify=config.verify,
        reader=config.reader,
        pin_memory=device.type == "cuda",
        preload=config.preload,
        preload_to=device,
        skip_corrupt=config.skip_corrupt,
        cache=cache,
    )


def _standardiser(stream: FrameStream, ranks: Ranks, report: ProgressCallback) -> Standardiser:
    """Statistics of exactly the streams trained on."""
    selection = stream.selection

    def progress(done: int, total: int) -> None:
        report(Progress("statistics", done, total, 0))

    parts = stream_moments(
        selection.index,
        selection.streams,
        stream.source,
        skip=stream.skipped_blocks,
        ranks=ranks,
        progress=progress,
    )
    return Standardiser.of(merged(parts, selection.index.dim))


def _check_splits(index: Index) -> None:
    index.check_split(TRAIN_SPLIT)
    if VALIDATION_SPLIT not in index.splits:
        raise ConfigError(
            f"{index.where} has no split {VALIDATION_SPLIT!r} (it has {', '.join(index.splits)}),"
            " and the best epoch is never chosen on training data; add recordings with this split"
            " to the data set and build them into the store"
        )
