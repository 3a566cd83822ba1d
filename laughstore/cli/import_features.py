"""`laughstore import`: features that the earlier scripts wrote, as a store."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from extract.imported.config import ImportConfig

from .. import layout
from ..buildplan import check_store_folder, refuse_like_splits
from ..geometry import MIN_DIM, ShardGeometry
from ..store import open_shards
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .room_text import room_fields, room_text
from .text import counted, goes_on, human_bytes, print_left_out, print_some, program

if TYPE_CHECKING:
    from extract.imported.result import ImportResult

EXIT_LEFT_OUT = 3


@dataclass(frozen=True)
class _Flags:
    config: ImportConfig
    common: CommonFlags


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "import",
        arguments,
        "Make a store of features that the earlier scripts wrote (.pt, .npy). Values become the"
        " nearest bfloat16; no pickled code runs. What is known about the features is stated by"
        " flags, the rest is recorded as unknown; they never mix with features extracted here.",
    )
    flags.common.configure_logging()
    progress = TerminalProgress(quiet=flags.common.quiet)
    if flags.config.dry_run:
        return _dry_run(flags, progress)
    from extract.imported.run import import_features

    with goes_on(progress, "import", arguments):
        result = import_features(flags.config, progress)
    _report(flags, result)
    return EXIT_LEFT_OUT if result.left_out else 0


def _report(flags: _Flags, result: "ImportResult") -> None:
    store = flags.config.store
    index = open_shards(store)
    num_frames = sum(s.num_frames for item in index.recordings for s in item.streams)
    num_bytes = sum(shard.num_bytes for shard in index.shards)
    if flags.common.json:
        report = {
            "store": str(store),
            "recordings": len(index.recordings),
            "imported_now": result.num_imported,
            "values_now": result.num_values,
            "rounded_now": result.num_rounded,
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
        f"{counted(len(index.recordings), 'recordings')} ({result.num_imported} imported now),"
        f" {num_frames:,} frames of {index.dim} channels, {human_bytes(num_bytes)}"
    )
    if result.num_imported:
        print(
            f"{result.num_rounded:,} of {result.num_values:,} values were rounded to the nearest"
            " bfloat16, the others are as they were"
        )
    print_some("notes", result.notes)
    print_left_out(result.left_out)
    if result.left_out:
        print(f"their list: {store / layout.QUARANTINE_JSON}")
    print(f"store: {store}")
    if flags.config.dataset is None:
        print(f"next: {program()} annotate {shlex.quote(str(store))} --from DATASET")
    else:
        shards = shlex.quote(str(store / layout.SHARDS))
        print(f"next: {program()} train --shards {shards} --out RUN")


def _dry_run(flags: _Flags, progress: TerminalProgress) -> int:
    from extract.imported.survey import survey_features
    from extract.room import room_for

    config = flags.config
    check_store_folder(config.store)
    found = survey_features(config, progress)
    refuse_like_splits(item.split for item in found.recordings)  # as the import would
    geometry = ShardGeometry(found.dim or MIN_DIM)  # of nothing at all, if there is no dim
    room = room_for(config.store, found.recordings, geometry)
    if flags.common.json:
        report = {
            "recordings": len(found.recordings),
            "audio_hours": round(found.audio_hours, 4),
            "frames": found.num_frames,
            "dim": found.dim,
            **room_fields(room),
            "left_out": [asdict(item) for item in found.skipped],
            "notes": list(found.notes),
        }
        print(json.dumps(report, indent=2))
    else:
        num_streams = sum(len(item.streams) for item in found.recordings)
        print(
            f"{counted(len(found.recordings), 'recordings')}, {found.audio_hours:.2f} hours of"
            f" audio, {counted(num_streams, 'streams')}, {found.num_frames:,} frames of"
            f" {found.dim} channels"
        )
        print(f"{human_bytes(room.num_bytes)} on disk, {room_text(room, config.store)}")
        print_some("notes", found.notes)
        print_left_out(found.skipped)
    is_whole = found.recordings and not found.skipped and room.is_enough
    return 0 if is_whole else EXIT_LEFT_OUT
