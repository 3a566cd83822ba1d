"""Append recordings to a finished store: a plan of its own, then a generation.

Shards, blocks and frame ids that there are keep their numbers; new ones follow behind. An addition
can be killed and run again like a build, and any number of processes may run the same one. There is
one at a time: its plan stands in the store until it is finished or withdrawn.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from laughstore import layout
from laughstore.buildplan import BuildPlan, SkippedRecording, begin_plan, read_plan
from laughstore.commit import NothingBuilt, refresh_copies
from laughstore.errors import ConfigError, LaughstoreError, SpecMismatch
from laughstore.evolution.generations import next_shards, unfinished_addition, withdraw_addition
from laughstore.locks import POLL_S, StoreLocks
from laughstore.manifest import Manifest, read_manifest
from laughstore.progress import NoProgress, Progress
from laughstore.sharing import build_together
from laughstore.spec import FeatureSpec
from laughstore.store import open_store

from .config import AddConfig, BuildConfig
from .extraction import Extraction
from .room import check_disk
from .run import plan_of, refuse_if_strict
from .settings import choose_device, device_kind, find_model, spec_of
from .survey import Survey, chosen_recordings, survey


@dataclass(frozen=True)
class AddSurvey:
    """What an addition would add."""

    config: BuildConfig
    """The build that extracts the same way as the store's own."""
    manifest: Manifest
    """The newest generation before."""
    found: Survey
    """Recordings that the store does not have."""
    already: tuple[str, ...]
    """Names of recordings that it has; they are passed over."""


@dataclass(frozen=True)
class AddResult:
    """What an addition did."""

    generation: int
    """The newest after it."""
    num_added: int
    """Recordings of the addition that are in the store now."""
    num_built: int
    """Of these, recordings extracted by this run."""
    already: tuple[str, ...]
    """Names of recordings that the store had before."""
    left_out: tuple[SkippedRecording, ...]
    """Recordings that could not be added, with the reason."""
    notes: tuple[str, ...]
    """What is odd about recordings without stopping anything, one line each."""


def survey_addition(config: AddConfig, progress: Progress | None = None) -> AddSurvey:
    """Look at what an addition would add; writes nothing.

    Raises:
        NotFound: the store or the data set does not exist.
        IncompleteStore: the store has not been finished.
        ConfigError: the store's model is a directory that has to be given; as `survey`.
        BadRecording: a recording cannot be added and the addition is strict.
    """
    progress = progress or NoProgress()
    opened = open_store(config.store)
    spec = opened.manifest.spec
    build_config = _build_config(config, spec)
    there = {item.id: item for item in opened.recordings}
    already: list[str] = []
    for item in chosen_recordings(build_config)[0]:
        if item.id in there:
            already.append(item.name)
            split = there[item.id].split
            if item.split != split:
                progress.message(f"{item.name}: is in the store's split {split}; it stays there")
    found = survey(build_config, progress, without=there)
    for item in found.skipped:
        progress.message(f"left out: {item.reason}")
    return AddSurvey(build_config, opened.manifest, found, tuple(already))


def add(config: AddConfig, progress: Progress | None = None) -> AddResult:
    """Append recordings to a store, or go on with an addition that was interrupted.

    Args:
        config: what to add; `dry_run` is the caller's to handle (see `survey_addition`).
        progress: told of surveyed recordings and extracted frames.

    Raises:
        NotFound: the store, the data set or the model does not exist.
        IncompleteStore: the store has not been finished.
        ConfigError: a setting cannot work, or another addition has not been finished.
        SpecMismatch: model, settings or kind of device are not the store's.
        LaughstoreError: the disk is too small, or nothing could be built.
        BadRecording: a recording cannot be added and the addition is strict.
    """
    progress = progress or NoProgress()
    surveyed = survey_addition(config, progress)
    found, store = surveyed.found, config.store
    with StoreLocks(store, progress) as locks:
        if not found.recordings:
            return _nothing(surveyed, locks, store)
        device = choose_device(config.device)
        files = find_model(surveyed.config)
        spec = spec_of(surveyed.config, files, device)
        _check_spec(store, surveyed.manifest.spec, spec, device_kind(device))
        shards = next_shards(store, surveyed.manifest.num_plans)
        wanted = plan_of(spec, device, found, shards)
        by_id = {item.source.id: item for item in found.recordings}
        check_disk(store, wanted)
        number = surveyed.manifest.num_plans + 1
        plan = _begin(store, wanted, number, locks, progress)
        extraction = Extraction(surveyed.config, plan, files, device, by_id, progress)
        try:
            left_out = build_together(
                store, plan, locks, extraction.run, number=number, progress=progress
            )
        except NothingBuilt as error:
            with locks.exclusive():
                withdraw_addition(store, read_manifest(store))
            raise LaughstoreError(f"{error}; nothing was added") from error
    refuse_if_strict(store, left_out, strict=surveyed.config.strict)
    missing = {item.name for item in left_out}
    return AddResult(
        generation=read_manifest(store).generation,
        num_added=sum(item.name not in missing for item in plan.recordings),
        num_built=extraction.num_built,
        already=surveyed.already,
        left_out=left_out,
        notes=found.notes,
    )


def _build_config(config: AddConfig, spec: FeatureSpec) -> BuildConfig:
    if spec.is_imported:
        raise ConfigError(
            f"{config.store} holds imported features, and what would be extracted for it would not"
            " be the same numbers; import the others with them into another store (laughstore"
            " import)"
        )
    if config.model is None and spec.revision is None and spec.tap != "logmel":
        raise ConfigError(
            f"{config.store} was built with a model from a directory; give that one: --model DIR"
        )
    model = config.model or spec.model
    revision = spec.revision if model == spec.model else None
    return config.build_config(model=model, revision=revision, spec=spec)


def _nothing(surveyed: AddSurvey, locks: StoreLocks, store: Path) -> AddResult:
    """Nothing can be added. Gives back what a kill behind the last commit may have left undone."""
    if unfinished_addition(store, surveyed.manifest) is not None:
        raise _other_addition(store)
    with locks.exclusive():
        refresh_copies(store, read_manifest(store))
    return AddResult(
        generation=surveyed.manifest.generation,
        num_added=0,
        num_built=0,
        already=surveyed.already,
        left_out=surveyed.found.skipped,
        notes=surveyed.found.notes,
    )


def _check_spec(store: Path, there: FeatureSpec, wanted: FeatureSpec, kind: str) -> None:
    changes = there.differences(wanted)
    if changes:
        raise SpecMismatch(
            f"{store} holds features of another spec ({'; '.join(changes)}: there, asked for);"
            " all recordings of a store are extracted in one way: use another store for these"
        )
    begun = read_plan(store).device_kind
    if begun != kind:
        raise SpecMismatch(
            f"{store} was built on {begun}, this is {kind}: bytes would differ in their low bits;"
            " add to it where it was built, or use another store"
        )


def _begin(
    store: Path, wanted: BuildPlan, number: int, locks: StoreLocks, progress: Progress
) -> BuildPlan:
    """Write the addition's plan, or find the same one there."""
    has_told = False
    while not (store / layout.plan(number)).exists():
        with locks.exclusive(wait=False) as held:
            if held:
                if read_manifest(store).num_plans >= number:
                    raise LaughstoreError(
                        f"{store}: another addition was finished just now; run this one again"
                    )
                return begin_plan(store, wanted, number)
        # Somebody annotates or exports, or has begun the same addition.
        if not has_told:
            progress.message(f"{store}: another process uses this store; waiting for it")
            has_told = True
        time.sleep(POLL_S)
    try:
        return begin_plan(store, wanted, number)
    except (ConfigError, SpecMismatch) as error:
        raise _other_addition(store) from error


def _other_addition(store: Path) -> ConfigError:
    return ConfigError(
        f"{store}: another addition was begun and not finished; finish it with its own command and"
        f" unchanged data, or drop it with: laughstore gc {store} --unfinished"
    )
