"""Build a store: survey the data set, plan, extract what is not there yet, commit.

Every step can be killed and run again: the plan is a pure function of data set and spec, finished
recordings are skipped, and the last step gives the same bytes whoever does it. Any number of
processes may run the same build at once: they share the recordings (`laughstore.sharing`).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from laughstore import layout
from laughstore.buildplan import (
    BuildPlan,
    RecordingToPlan,
    SkippedRecording,
    begin_plan,
    check_store_folder,
    make_plan,
)
from laughstore.commit import restore_names
from laughstore.errors import BadRecording, LaughstoreError
from laughstore.finishing import not_built, quarantined
from laughstore.locks import StoreLocks
from laughstore.manifest import read_manifest
from laughstore.parts import Part
from laughstore.progress import NoProgress, Progress
from laughstore.sharing import ALONE, Worker, build_part, build_together
from laughstore.spec import FeatureSpec

from .config import BuildConfig
from .extraction import Extraction
from .result import BuildResult
from .room import check_disk
from .settings import choose_device, device_kind, find_model, spec_of
from .survey import Survey, settle, survey


def build(
    config: BuildConfig,
    progress: Progress | None = None,
    *,
    worker: Worker = ALONE,
    local_rank: int | None = None,
) -> BuildResult:
    """Build a store, or go on with one that was interrupted.

    Args:
        config: what to build; `dry_run` (see `extract.survey`), `commit` (see
            `laughstore.finishing`) and `nproc` are the caller's to handle.
        progress: told of surveyed recordings and extracted frames.
        worker: what this process was told, if it is one of several.
        local_rank: its number among those of this machine, each of which has a GPU.

    Raises:
        NotFound: the data set or the model does not exist.
        ConfigError: a setting cannot work.
        LaughstoreError: the disk is too small, or nothing could be built.
        SpecMismatch: the store holds features of another spec.
        BadRecording: a recording cannot be built and the build is strict.
    """
    progress = progress or NoProgress()
    check_store_folder(config.store)
    was_finished = (config.store / layout.STORE_JSON).exists()
    found = survey(config, progress)
    for item in found.skipped:
        progress.message(f"left out: {item.reason}")
    if not found.recordings:
        raise LaughstoreError(
            f"{config.dataset}: none of {len(found.skipped)} recordings can be built; the first:"
            f" {found.skipped[0].reason}"
        )
    asked, config = config, settle(config, found)
    if config != asked:
        progress.message("no recording has a track a speaker: this is a store of mixes")
    device = choose_device(config.device, local_rank)
    files = find_model(config)
    spec = spec_of(config, files, device)
    wanted = plan_of(spec, device, found)
    by_id = {item.source.id: item for item in found.recordings}
    if not was_finished:
        check_disk(config.store, wanted)
    plan = begin_plan(config.store, wanted, allow_mixed_devices=config.allow_mixed_devices)
    if was_finished:
        left_out = check_finished(config.store, progress)
        refuse_if_strict(config.store, left_out, strict=config.strict)
        return BuildResult(0, left_out, was_finished=True, notes=found.notes)
    other = None if wanted.device_kind == plan.device_kind else wanted.device_kind
    if other is not None:
        progress.message(f"the store was begun on {plan.device_kind}, this is {other}: recorded")
    extraction = Extraction(config, plan, files, device, by_id, progress, other_device_kind=other)
    waiting = progress if worker.tells_waiting else NoProgress()
    if worker.tells_waiting:  # otherwise whoever does counts what each of them has done
        worker = replace(worker, settled=lambda item: progress.advance(item.num_frames))
    with StoreLocks(config.store, waiting) as locks:
        if config.part is None:
            left_out = build_together(
                config.store, plan, locks, extraction.run, worker=worker, progress=waiting
            )
        else:
            worker = replace(worker, part=Part.parse(config.part))
            left_out = build_part(
                config.store, plan, locks, extraction.run, worker=worker, progress=waiting
            )
    num_built, missing = extraction.num_built, ()
    if left_out is None:
        missing = tuple(item.name for item in not_built(config.store))
        left_out = quarantined(config.store, plan, config.part)
    refuse_if_strict(config.store, left_out, strict=config.strict)
    return BuildResult(num_built, left_out, was_finished=False, notes=found.notes, missing=missing)


def check_finished(store: Path, progress: Progress) -> tuple[SkippedRecording, ...]:
    """Check that a finished store is all there. Returns what it was finished without."""
    # Held alone: a generation published in between would lose its current index to this one's.
    with StoreLocks(store, progress) as locks, locks.exclusive():
        manifest = read_manifest(store)
        num_restored = restore_names(store, manifest)
    if num_restored:
        progress.message(f"{num_restored} lost names of files were given back")
    return tuple(SkippedRecording(**item) for item in manifest.quarantined)


def refuse_if_strict(store: Path, left_out: tuple[SkippedRecording, ...], *, strict: bool) -> None:
    """Raise BadRecording when something was left out of what was to be strict."""
    if strict and left_out:
        raise BadRecording(f"{store} was finished without {left_out[0].reason}")


def plan_of(
    spec: FeatureSpec,
    device: torch.device,
    found: Survey,
    first_shards: Mapping[str, int] | None = None,
) -> BuildPlan:
    """Return the plan of what was surveyed; shards are numbered from `first_shards`, or from 0."""
    return make_plan(
        spec,
        device_kind(device),
        [
            RecordingToPlan(
                id=item.source.id,
                name=item.source.name,
                split=item.source.split,
                group=item.source.group,
                num_frames=item.num_frames,
                assignments=item.assignments,
                annotations_id=item.annotations_id,
            )
            for item in found.recordings
        ],
        found.skipped,
        first_shards,
    )
