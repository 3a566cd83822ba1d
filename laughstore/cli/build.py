"""`laughstore build`: extract features from recordings into a store."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.config import MOSHI_DIM, BuildConfig

from .. import layout
from ..buildplan import SkippedRecording, check_store_folder
from ..errors import NotFound
from ..geometry import ShardGeometry
from ..store import open_shards
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .text import human_bytes, print_some, program

if TYPE_CHECKING:
    from extract.run import BuildResult

EXIT_LEFT_OUT = 3
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


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
        return _dry_run(flags, progress)
    from extract.run import build

    try:
        result = build(flags.config, progress)
    except (KeyboardInterrupt, SystemExit):
        again = f"{program()} {shlex.join(['build', *arguments])}"
        progress.message(f"stopped; finished recordings are kept. Go on with:\n  {again}")
        raise
    _report(flags, result)
    return EXIT_LEFT_OUT if result.left_out else 0


def _report(flags: _Flags, result: "BuildResult") -> None:
    store = flags.config.store
    index = open_shards(store)
    num_frames = sum(s.num_frames for item in index.recordings for s in item.streams)
    num_bytes = sum(shard.num_bytes for shard in index.shards)
    if flags.common.json:
        report = {
            "store": str(store),
            "recordings": len(index.recordings),
            "built_now": result.num_built,
            "left_out": [asdict(item) for item in result.left_out],
            "notes": list(result.notes),
            "frames": num_frames,
            "shards": len(index.shards),
            "shard_bytes": num_bytes,
            "spec_id": index.spec_id,
        }
        print(json.dumps(report, indent=2))
        return
    print(
        f"{len(index.recordings)} recordings ({result.num_built} built now), {num_frames:,} frames"
        f" of {index.dim} channels, {human_bytes(num_bytes)}"
    )
    print_some("notes", result.notes)
    _print_left_out(result.left_out)
    if result.left_out:
        print(f"their list: {store / layout.QUARANTINE_JSON}")
        if result.was_finished:
            words = shlex.join([str(store), str(flags.config.dataset)])
            print(f"the store was finished without them: once repaired, {program()} add {words}")
    print(f"store: {store}")
    shards = shlex.quote(str(store / layout.SHARDS))
    print(f"next: {program()} train --shards {shards} --out RUN")


def _dry_run(flags: _Flags, progress: TerminalProgress) -> int:
    from extract.run import free_disk_bytes
    from extract.survey import survey

    config = flags.config
    check_store_folder(config.store)
    dim, assumed = _dim(config)
    found = survey(config, progress)
    geometry = ShardGeometry(dim)
    num_bytes = found.num_bytes(geometry)
    free = free_disk_bytes(config.store)
    if flags.common.json:
        report: dict[str, Any] = {  # Any: JSON values
            "recordings": len(found.recordings),
            "audio_hours": round(found.audio_hours, 4),
            "frames": found.num_frames,
            "dim": dim,
            "dim_assumed": assumed,
            "bytes": num_bytes,
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
        print(f"{human_bytes(num_bytes)} on disk at {dim} channels{why}")
        print(
            f"{human_bytes(free)} free at {config.store}: "
            + ("enough" if free > num_bytes else "NOT ENOUGH")
        )
        _print_left_out(found.skipped)
        print_some("notes", found.notes)
    return EXIT_LEFT_OUT if found.skipped or not found.recordings else 0


def _dim(config: BuildConfig) -> tuple[int, bool]:
    """Channels of the model, and whether that is a guess because it has not been fetched."""
    if not Path(config.model).expanduser().is_dir():
        if not _REPOSITORY.fullmatch(config.model):
            raise NotFound(
                f"{config.model} does not exist; give a model directory, or a Hugging Face"
                " repository (OWNER/NAME)"
            )
        return MOSHI_DIM, True
    from extract.model import resolve_model

    return int(resolve_model(config.model, config.revision).config["dim"]), False


def _print_left_out(items: Sequence[SkippedRecording]) -> None:
    lines = [f"{item.name} ({item.split}): {item.reason}" for item in items]
    print_some("recordings left out", lines)
