"""Build a store: survey the data set, plan, extract what is not there yet, commit.

Every step can be killed and run again: the plan is a pure function of data set and spec, finished
recordings are skipped, and the last step gives the same bytes whoever does it. Any number of
processes may run the same build at once: they share the recordings (`laughstore.sharing`).
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from laughstore import layout
from laughstore.annotations import write_annotations
from laughstore.buildplan import (
    BuildPlan,
    PlannedRecording,
    RecordingToPlan,
    SkippedRecording,
    begin_plan,
    check_store_folder,
    make_plan,
    read_plan,
)
from laughstore.commit import restore_names
from laughstore.errors import BadRecording, ConfigError, IncompleteStore, LaughstoreError
from laughstore.locks import StoreLocks
from laughstore.manifest import read_manifest
from laughstore.progress import NoProgress, Progress
from laughstore.sharing import Share, build_together, unfinished
from laughstore.spec import FeatureSpec, Numerics

from .audio import AudioTrack
from .config import DEFAULT_CHUNK_FRAMES, DEFAULT_ROWS, ROWS_PER_RECORDING, BuildConfig
from .features import FeatureFailure, Source, TrackReader, extract_features
from .model import FeatureModel, ModelFiles, load_model, resolve_model
from .survey import Survey, SurveyedRecording, survey
from .writer import StoreWriter


@dataclass(frozen=True)
class BuildResult:
    """What a build did."""

    plan: BuildPlan
    num_built: int
    """Recordings extracted by this run; the others had been finished before."""
    left_out: tuple[SkippedRecording, ...]
    """Recordings that are not in the store, with the reason."""
    was_finished: bool
    """The store had been finished before: what was left out then stays out."""
    notes: tuple[str, ...]
    """What is odd about recordings without stopping a build, one line each."""


def build(config: BuildConfig, progress: Progress | None = None) -> BuildResult:
    """Build a store, or go on with one that was interrupted.

    Args:
        config: what to build; `dry_run` is the caller's to handle (see `extract.survey`).
        progress: told of surveyed recordings and extracted frames.

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
    device = choose_device(config.device)
    files = resolve_model(config.model, config.revision)
    spec = spec_of(config, files, device)
    wanted = plan_of(spec, device, found)
    by_id = {item.source.id: item for item in found.recordings}
    if not was_finished:
        check_disk(config.store, wanted, by_id)
    plan = begin_plan(config.store, wanted)
    if was_finished:
        left_out = _check_finished(config, progress)
        return BuildResult(plan, 0, left_out, was_finished, found.notes)
    extraction = Extraction(config, plan, files, device, by_id, progress)
    with StoreLocks(config.store, progress) as locks:
        left_out = build_together(config.store, plan, locks, extraction.run, progress=progress)
    refuse_if_strict(config, left_out)
    return BuildResult(plan, extraction.num_built, left_out, was_finished, found.notes)


def _check_finished(config: BuildConfig, progress: Progress) -> tuple[SkippedRecording, ...]:
    """Check that a finished store is all there. Returns what it was finished without."""
    # Held alone: a generation published in between would lose its current index to this one's.
    with StoreLocks(config.store, progress) as locks, locks.exclusive():
        manifest = read_manifest(config.store)
        num_restored = restore_names(config.store, manifest)
    if num_restored:
        progress.message(f"{num_restored} lost names of files were given back")
    left_out = tuple(SkippedRecording(**item) for item in manifest.quarantined)
    refuse_if_strict(config, left_out)
    return left_out


def refuse_if_strict(config: BuildConfig, left_out: tuple[SkippedRecording, ...]) -> None:
    """Raise BadRecording when a strict build has left something out."""
    if config.strict and left_out:
        raise BadRecording(f"{config.store} was finished without {left_out[0].reason}")


def choose_device(name: str) -> torch.device:
    """Return the device a name stands for; `auto` is cuda if there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; use cpu, cuda, cuda:N or auto") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device is {name!r}, but torch finds no CUDA device; use cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(f"device is {name!r}; there are {torch.cuda.device_count()}")
    elif device.type != "cpu":
        raise ConfigError(f"device is {name!r}; use cpu, cuda, cuda:N or auto")
    return device


def device_kind(device: torch.device) -> str:
    """Return what tells apart devices whose low bits differ: the GPU's model, the CPU's vectors."""
    if device.type == "cuda":
        return f"cuda/{torch.cuda.get_device_name(device)}"
    return f"cpu/{torch.backends.cpu.get_cpu_capability()}"


def spec_of(config: BuildConfig, files: ModelFiles, device: torch.device) -> FeatureSpec:
    """Return the spec of what a build writes; what no flag sets is as in the store, if begun."""
    auto = _numerics_there(config.store) or Numerics(
        slots=DEFAULT_ROWS[device.type] // ROWS_PER_RECORDING,
        chunk_frames=DEFAULT_CHUNK_FRAMES[device.type],
        # On a GPU the CPU's threads compute nothing that is stored.
        threads=1 if device.type == "cuda" else torch.get_num_threads(),
        compute_dtype="bfloat16" if device.type == "cuda" else "float32",
        allow_tf32=False,
    )
    numerics = replace(
        auto,
        slots=config.rows // ROWS_PER_RECORDING if config.rows else auto.slots,
        chunk_frames=config.chunk_frames or auto.chunk_frames,
        compute_dtype=auto.compute_dtype if config.dtype == "auto" else config.dtype,
    )
    return FeatureSpec(
        model=files.repo,
        revision=files.revision,
        weights_sha256=files.weights_sha256(),
        dim=int(files.config["dim"]),
        numerics=numerics,
        codec=config.codec,
    )


def _numerics_there(store: Path) -> Numerics | None:
    """Numerics of a store that was begun: what no flag sets goes on as it was."""
    try:
        return read_plan(store).spec.numerics
    except IncompleteStore:
        return None


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


def check_disk(store: Path, plan: BuildPlan, by_id: dict[str, SurveyedRecording]) -> None:
    """Refuse to begin what the disk cannot hold."""
    left = tuple(by_id[item.id] for item in unfinished(store, plan))
    needed = Survey(left, (), ()).num_bytes(plan.geometry)
    free = free_disk_bytes(store)
    if needed > free:
        raise LaughstoreError(
            f"{store}: {needed / 1e9:.3g} GB are needed and {free / 1e9:.3g} GB are free; free some"
            " space, give another --store, or build a part with --split or --recordings"
        )


def free_disk_bytes(path: Path) -> int:
    """Return the bytes free on the file system that a path is, or will be, on."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


@dataclass
class Extraction:
    """Extracts the recordings that this process takes; the model is loaded for the first."""

    config: BuildConfig
    plan: BuildPlan
    files: ModelFiles
    device: torch.device
    by_id: dict[str, SurveyedRecording]
    progress: Progress
    num_built: int = 0
    _model: FeatureModel | None = None

    def run(self, share: Share) -> None:
        """Extract until there is no recording to take."""
        first = share.take()
        if first is None:
            return
        self._write_annotations()
        numerics = self.plan.spec.numerics
        chunks = extract_features(
            self._loaded_model(),
            self._sources(first, share),
            slots=numerics.slots,
            chunk_frames=numerics.chunk_frames,
        )
        num_frames = sum(item.num_frames for item in (first, *share.left))
        self.progress.begin("extract", num_frames, "frame")
        try:
            with StoreWriter(self.config.store, self.plan) as writer:
                for item in chunks:
                    if isinstance(item, FeatureFailure) and self.config.strict:
                        raise item.error
                    writer.put(item)
                    if isinstance(item, FeatureFailure):
                        self.num_built -= 1
                        self.progress.message(f"left out: {item.error}")
                    else:
                        self.progress.advance(item.features.shape[1])
        finally:
            self.progress.end()

    def _sources(self, first: PlannedRecording, share: Share) -> Iterator[Source | None]:
        item: PlannedRecording | None = first
        while True:
            if item is not None:
                self.num_built += 1
            yield None if item is None else _source(self.by_id[item.id])
            item = share.take()

    def _write_annotations(self) -> None:
        store = self.config.store
        for item in self.plan.recordings:
            path = layout.annotations(item.annotations_id, item.split, item.id)
            if not (store / path).exists():  # named by its content
                write_annotations(store, self.by_id[item.id].annotations(), item.split, item.id)

    def _loaded_model(self) -> FeatureModel:
        if self._model is None:
            numerics = self.plan.spec.numerics
            torch.set_num_threads(numerics.threads)
            torch.backends.cuda.matmul.allow_tf32 = numerics.allow_tf32
            torch.backends.cudnn.allow_tf32 = numerics.allow_tf32
            dtype = torch.bfloat16 if numerics.compute_dtype == "bfloat16" else torch.float32
            self._model = load_model(self.files, device=self.device, dtype=dtype)
        return self._model


def _source(recording: SurveyedRecording) -> Source:
    def open_tracks() -> list[TrackReader]:
        tracks: list[TrackReader] = []
        try:
            tracks.extend(AudioTrack(path) for path in recording.tracks)
        except BadRecording:
            for track in tracks:
                track.close()
            raise
        return tracks

    return Source(recording.source.id, recording.num_frames, open_tracks)
