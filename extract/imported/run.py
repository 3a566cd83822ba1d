"""Import features: survey, plan, write what is not there yet, commit.

As a build, it can be killed and run again, any number of processes may run the same one at once,
and the same files give the same bytes.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from laughstore import layout
from laughstore.annotations import write_annotations
from laughstore.arrays import CODE_STREAMS, MISSING_CODE
from laughstore.buildplan import (
    BuildPlan,
    PlannedRecording,
    RecordingToPlan,
    begin_plan,
    check_store_folder,
    make_plan,
)
from laughstore.errors import BadRecording, LaughstoreError
from laughstore.locks import StoreLocks
from laughstore.progress import NoProgress, Progress
from laughstore.sharing import Share, build_together
from laughstore.unit import UnitRecord, remove_unit_files, write_unit
from laughstore.unitwriter import UnitWriter

from ..reasons import reason_of
from ..room import check_disk
from ..run import check_finished, refuse_if_strict
from ..stored_annotations import stored_annotations
from .config import ImportConfig
from .files import FeatureFile, open_feature_file
from .layouts import FoundStream
from .result import ImportResult
from .survey import ImportSurvey, SurveyedFeatures, survey_features

DEVICE_KIND = "imported"
"""In the place of the kind of device that extracts."""
_CHUNK_FRAMES = 1024
"""Read and rounded at once: 16 MiB of float32 at 4096 channels, and twice that while it is."""


def import_features(config: ImportConfig, progress: Progress | None = None) -> ImportResult:
    """Import features into a store, or go on with an import that was interrupted.

    Args:
        config: what to import; `dry_run` is the caller's to handle (see `survey_features`).
        progress: told of surveyed recordings and written frames.

    Raises:
        NotFound: a folder does not exist.
        ConfigError: a setting cannot work.
        LaughstoreError: the disk is too small, or nothing could be imported.
        SpecMismatch: the store holds features of another spec: of an extraction, for one.
        BadRecording: a recording cannot be imported and the import is strict.
    """
    progress = progress or NoProgress()
    store = config.store
    check_store_folder(store)
    was_finished = (store / layout.STORE_JSON).exists()
    found = survey_features(config, progress)
    for item in found.skipped:
        progress.message(f"left out: {item.reason}")
    if not found.recordings:
        raise LaughstoreError(
            f"{config.features}: none of {len(found.skipped)} recordings can be imported; the"
            f" first: {found.skipped[0].reason}"
        )
    wanted = _plan_of(config, found)
    if not was_finished:
        check_disk(store, wanted)
    plan = begin_plan(store, wanted)
    if was_finished:
        left_out = check_finished(store, progress)
        refuse_if_strict(store, left_out, strict=config.strict)
        return ImportResult(0, 0, 0, left_out, was_finished=True, notes=found.notes)
    writing = _Writing(config, plan, {item.id: item for item in found.recordings}, progress)
    with StoreLocks(store, progress) as locks:
        left_out = build_together(store, plan, locks, writing.run, progress=progress)
    refuse_if_strict(store, left_out, strict=config.strict)
    return ImportResult(
        writing.num_imported,
        writing.num_values,
        writing.num_rounded,
        left_out,
        was_finished=False,
        notes=found.notes,
    )


def _plan_of(config: ImportConfig, found: ImportSurvey) -> BuildPlan:
    return make_plan(
        config.spec(found.dim),
        DEVICE_KIND,
        [
            RecordingToPlan(
                id=item.id,
                name=item.name,
                split=item.split,
                group=item.group,
                num_frames=item.num_frames,
                assignments=item.assignments,
                annotations_id=item.annotations_id,
            )
            for item in found.recordings
        ],
        found.skipped,
    )


@dataclass
class _Writing:
    """Writes the recordings that this process takes."""

    config: ImportConfig
    plan: BuildPlan
    by_id: dict[str, SurveyedFeatures]
    progress: Progress
    num_imported: int = 0
    num_values: int = 0
    num_rounded: int = 0
    _checked: set[Path] = field(default_factory=set)

    def run(self, share: Share) -> None:
        """Write until there is no recording to take."""
        item = share.take()
        if item is None:
            return
        self._write_annotations()
        num_frames = sum(one.num_frames for one in (item, *share.left))
        self.progress.begin("import", num_frames, "frame")
        try:
            while item is not None:
                try:
                    self._write(item)
                except BadRecording as error:
                    self._leave_out(item, error)
                item = share.take()
        finally:
            self.progress.end()

    def _write(self, planned: PlannedRecording) -> None:
        """Write one recording as a unit. Raises BadRecording when its features cannot be used."""
        store, found = self.config.store, self.by_id[planned.id]
        notes = stored_annotations(store, planned.annotations_id, planned.split, planned.id)
        files = [self._open(stream) for stream in found.streams]
        num_values = num_rounded = 0
        with UnitWriter(store, self.plan, planned, notes) as writer:
            for start in range(0, planned.num_frames, _CHUNK_FRAMES):
                stop = min(start + _CHUNK_FRAMES, planned.num_frames)
                parts = [
                    file.read(
                        stream.index,
                        stream.first_row + start,
                        stream.first_row + stop,
                        first_frame=stream.first_row,
                    )
                    for file, stream in zip(files, found.streams, strict=True)
                ]
                bits = np.stack([part.bits for part in parts])  # u2[A, n, D]
                # Nobody kept what the model was fed.
                codes = np.full((*bits.shape[:2], CODE_STREAMS), MISSING_CODE, np.int16)
                writer.write(bits, codes)
                num_values += bits.size
                num_rounded += sum(part.num_rounded for part in parts)
                self.progress.advance(stop - start)
            for file in files:
                file.refuse_changed()
            writer.finish()
        self.num_imported += 1
        self.num_values += num_values
        self.num_rounded += num_rounded

    def _open(self, stream: FoundStream) -> FeatureFile:
        try:
            file = open_feature_file(stream.path)
        except BadRecording as error:  # a moment ago, in the survey, it could be opened
            raise _changed(stream.path) from error
        # Of a split in one file many recordings are read: its bytes are compared once.
        if stream.path not in self._checked:
            try:
                file.check_bytes()
            except BadRecording:
                file.refuse_changed()
                raise
            self._checked.add(stream.path)
        if (
            file.dim != self.plan.spec.dim
            or stream.index >= file.num_streams
            or stream.first_row + stream.num_rows > file.num_rows
        ):
            raise _changed(stream.path)
        return file

    def _leave_out(self, item: PlannedRecording, error: BadRecording) -> None:
        if self.config.strict:
            raise error
        reason = reason_of(error, *self.config.places)
        remove_unit_files(self.config.store, self.plan, item)
        write_unit(self.config.store, UnitRecord(item.id, "quarantined", reason))
        self.progress.message(f"left out: {reason}")

    def _write_annotations(self) -> None:
        store = self.config.store
        for item in self.plan.recordings:
            path = layout.annotations(item.annotations_id, item.split, item.id)
            if not (store / path).exists():  # named by its content
                write_annotations(store, self.by_id[item.id].annotations(), item.split, item.id)


def _changed(path: Path) -> LaughstoreError:
    """Return what ends the import: left out, a recording would stay so for ever."""
    return LaughstoreError(
        f"{path}: changed since the import was begun; run the same command again, which takes it if"
        " it is of the same shape, or says what to do"
    )
