"""`laughstore add`: append recordings to a finished store, as a new generation."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from extract.config import AddConfig

from .. import layout
from ..buildplan import SkippedRecording
from ..geometry import ShardGeometry
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .room_text import room_fields, room_text
from .text import counted, goes_on, human_bytes, print_left_out, print_some, program

if TYPE_CHECKING:
    from extract.addition import AddResult

EXIT_LEFT_OUT = 3


@dataclass(frozen=True)
class _Flags:
    config: AddConfig
    common: CommonFlags


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "add",
        arguments,
        "Append recordings to a finished store as a new generation, with the store's own model and"
        " settings. Recordings that the store has are passed over; what there is does not change.",
    )
    flags.common.configure_logging()
    progress = TerminalProgress(quiet=flags.common.quiet)
    if flags.config.dry_run:
        return _dry_run(flags, progress)
    from extract.addition import add

    with goes_on(progress, "add", arguments):
        result = add(flags.config, progress)
    _report(flags, result)
    return EXIT_LEFT_OUT if result.left_out else 0


def _report(flags: _Flags, result: "AddResult") -> None:
    store = flags.config.store
    if flags.common.json:
        report = asdict(result) | {"store": str(store)}
        print(json.dumps(report, indent=2))
        return
    _print_lists(result.already, result.left_out, result.notes)
    if not result.num_added:
        print(f"nothing was added: {store} stays at generation {result.generation}")
        return
    print(f"{counted(result.num_added, 'recordings')} added ({result.num_built} built now)")
    print(f"{store} is now generation {result.generation}; what it had before did not change")
    shards = shlex.quote(str(store / layout.SHARDS))
    print(f"next: {program()} train --shards {shards} --out RUN")


def _dry_run(flags: _Flags, progress: TerminalProgress) -> int:
    from extract.addition import survey_addition
    from extract.room import room_for

    surveyed = survey_addition(flags.config, progress)
    found, spec = surveyed.found, surveyed.manifest.spec
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    number = surveyed.manifest.num_plans + 1
    room = room_for(flags.config.store, found.recordings, geometry, number)
    if flags.common.json:
        report = {
            "store": str(flags.config.store),
            "recordings": len(found.recordings),
            "already": list(surveyed.already),
            "audio_hours": round(found.audio_hours, 4),
            "frames": found.num_frames,
            **room_fields(room),
            "left_out": [asdict(item) for item in found.skipped],
            "notes": list(found.notes),
        }
        print(json.dumps(report, indent=2))
    else:
        print(
            f"{counted(len(found.recordings), 'recordings')} to add,"
            f" {found.audio_hours:.2f} hours of audio, {found.num_frames:,} frames,"
            f" {human_bytes(room.num_bytes)}"
        )
        print(room_text(room, flags.config.store))
        _print_lists(surveyed.already, found.skipped, found.notes)
    return EXIT_LEFT_OUT if found.skipped or not room.is_enough else 0


def _print_lists(
    already: Sequence[str], left_out: Sequence[SkippedRecording], notes: Sequence[str]
) -> None:
    if already:
        print(f"{counted(len(already), 'recordings')} passed over: in the store already")
    print_some("notes", notes)
    print_left_out(left_out)
