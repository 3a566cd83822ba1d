"""`laughstore build`: extract features from recordings into a store."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.config import MOSHI_DIM, BuildConfig

from .. import layout
from ..buildplan import SkippedRecording
from ..errors import NotFound
from ..geometry import ShardGeometry
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .text import human_bytes, print_some

if TYPE_CHECKING:
    from extract.run import BuildResult
    from extract.survey import Survey

EXIT_LEFT_OUT = 3


@dataclass(frozen=True)
class _Flags:
    config: BuildConfig
    common: CommonFlags


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "build",
        arguments,
        "Extract Moshi's hidden states for every recording of a data set into a store.",
    )
    flags.common.configure_logging()
    progress = TerminalProgress(quiet=flags.common.quiet)
    if flags.config.dry_run:
        return _dry_run(flags)
    from extract.run import build

    try:
        result = build(flags.config, progress)
    except (KeyboardInterrupt, SystemExit):
        again = shlex.join(["laughstore", "build", *arguments])
        progress.message(f"stopped; finished recordings are kept. Go on with:\n  {again}")
        raise
    _report(flags, result)
    return EXIT_LEFT_OUT if result.left_out else 0


def _report(flags: _Flags, result: "BuildResult") -> None:
    store, plan = flags.config.store, result.plan
    num_left_out = len(result.left_out)
    num_recordings = len(plan.recordings) + len(plan.skipped) - num_left_out
    if flags.common.json:
        report = {
            "store": str(store),
            "recordings": num_recordings,
            "built_now": result.num_built,
            "left_out": [asdict(item) for item in result.left_out],
            "frames": plan.num_frames,
            "shards": plan.num_shards,
            "shard_bytes": plan.shard_bytes,
            "spec_id": plan.spec.spec_id,
        }
        print(json.dumps(report, indent=2))
        return
    print(
        f"{num_recordings} recordings ({result.num_built} built now), {plan.num_frames:,} frames of"
        f" {plan.spec.dim} channels, {human_bytes(plan.shard_bytes)}"
    )
    _print_left_out(result.left_out)
    if num_left_out:
        print(f"their list: {store / layout.QUARANTINE_JSON}")
    print(f"store: {store}")
    shards = shlex.quote(str(store / layout.SHARDS))
    print(f"next: laughstore train --shards {shards} --out RUN")


def _dry_run(flags: _Flags) -> int:
    from extract.run import free_disk_bytes
    from extract.survey import survey

    config = flags.config
    found = survey(config)
    dim, assumed = _dim(config)
    num_bytes = _shard_bytes(found, ShardGeometry(dim))
    free = free_disk_bytes(config.store)
    if flags.common.json:
        report: dict[str, Any] = {  # Any: JSON values
            "recordings": len(found.recordings),
            "audio_hours": round(found.audio_hours, 4),
            "frames": found.num_frames,
            "dim": dim,
            "dim_assumed": assumed,
            "shard_bytes": num_bytes,
            "free_disk_bytes": free,
            "left_out": [asdict(item) for item in found.skipped],
            "notes": list(found.notes),
        }
        print(json.dumps(report, indent=2))
    else:
        streams = sum(len(item.assignments) for item in found.recordings)
        print(
            f"{len(found.recordings)} recordings, {found.audio_hours:.2f} hours of audio,"
            f" {streams} streams (each speaker main once), {found.num_frames:,} frames"
        )
        why = f" (assumed: {config.model} is fetched when building)" if assumed else ""
        print(f"{human_bytes(num_bytes)} of features at {dim} channels{why}")
        print(
            f"{human_bytes(free)} free at {config.store}: "
            + ("enough" if free > num_bytes else "NOT ENOUGH")
        )
        _print_left_out(found.skipped)
        print_some("gaps that stop nothing", found.notes)
    return EXIT_LEFT_OUT if found.skipped or not found.recordings else 0


def _dim(config: BuildConfig) -> tuple[int, bool]:
    """Channels of the model, and whether that is a guess because it has not been fetched."""
    if not Path(config.model).is_dir():
        if config.model.startswith((".", "/", "~")):
            raise NotFound(f"{config.model} does not exist; give a model directory or a repository")
        return MOSHI_DIM, True
    from extract.model import resolve_model

    return int(resolve_model(config.model, config.revision).config["dim"]), False


def _shard_bytes(found: "Survey", geometry: ShardGeometry) -> int:
    return sum(
        len(item.assignments)
        * sum(
            geometry.shard_bytes(geometry.blocks_in_shard(item.num_frames, shard))
            for shard in range(geometry.num_shards(item.num_frames))
        )
        for item in found.recordings
    )


def _print_left_out(items: Sequence[SkippedRecording]) -> None:
    lines = [f"{item.name} ({item.split}): {item.reason}" for item in items]
    print_some("recordings left out", lines)
