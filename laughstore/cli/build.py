"""`laughstore build`: extract features from recordings into a store."""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from extract.config import MIMI_DIM, MOSHI_DIM, BuildConfig, is_model_directory
from extract.result import BuildResult

from .. import layout
from ..buildplan import check_store_folder
from ..errors import ConfigError
from ..finishing import finish_store
from ..geometry import ShardGeometry
from ..inspection import other_devices
from ..sharing import Worker
from ..store import open_shards
from .flags import CommonFlags, parse
from .orphans import die_with
from .progress import TerminalProgress
from .ranks import Rank
from .room_text import room_fields, room_text
from .text import (
    counted,
    goes_on,
    human_bytes,
    print_left_out,
    print_other_devices,
    print_some,
    program,
)

if TYPE_CHECKING:
    from extract.survey import Survey

EXIT_LEFT_OUT = 3


@dataclass(frozen=True)
class _Flags:
    """Flags of the command."""

    config: BuildConfig
    common: CommonFlags


def parse_build(arguments: Sequence[str]) -> _Flags:
    """Return the flags. Raises SystemExit as `flags.parse`."""
    return parse(
        _Flags,
        "build",
        arguments,
        "Extract Moshi's hidden states for every recording of a data set into a store.",
    )


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse_build(arguments)
    config, rank = flags.config, Rank.of_torchrun()
    flags.common.configure_logging()
    if rank is not None:
        _check_rank(config)
        die_with(os.getppid())
    if not config.commit:
        is_model_directory(config.model)  # a misspelt one is refused before the survey
    progress = TerminalProgress(
        quiet=flags.common.quiet or (rank is not None and rank.local_rank > 0)
    )
    if config.dry_run:
        return _dry_run(flags, progress)
    if config.commit:
        left_out = finish_store(config.store, partial=config.partial, progress=progress)
        return _ended(flags, BuildResult(0, left_out), "now")
    with goes_on(progress, "build", arguments, by_torchrun=rank is not None):
        result = _build(arguments, config, progress, rank)
    if rank is not None and rank.rank > 0:
        return 0  # the first rank tells what came of it
    if rank is None:
        return _ended(flags, result, "now")
    code = _ended(flags, result, "by this process")
    if code:
        # torchrun takes every code but 0 for a failure: it would start all ranks again, or wait for
        # those of another host.
        num_left_out = counted(len(result.left_out), "recordings")
        words = shlex.join([str(config.dataset), "--store", str(config.store), "--commit"])
        progress.message(
            f"THE STORE IS FINISHED WITHOUT {num_left_out}; under torchrun the exit code is 0 all"
            f" the same, and {code} that of: {program()} build {words}"
        )
    return 0


def _check_rank(config: BuildConfig) -> None:
    for name, given in (("--nproc", config.nproc), ("--part", config.part)):
        if given is not None:
            raise ConfigError(
                f"torchrun has started this process, one of several that share the recordings;"
                f" leave {name} out, or start without torchrun"
            )
    for name, given in (("--commit", config.commit), ("--dry-run", config.dry_run)):
        if given:
            raise ConfigError(f"{name} is for one process; start it without torchrun")


def _build(
    arguments: Sequence[str], config: BuildConfig, progress: TerminalProgress, rank: Rank | None
) -> BuildResult:
    if config.nproc is not None:
        from .workers import Workers

        return Workers(arguments, config, progress).run(config.nproc)
    from extract.run import build

    if rank is None:
        return build(config, progress)
    return build(config, progress, worker=Worker(part=rank.part), local_rank=rank.local_rank)


def _ended(flags: _Flags, result: BuildResult, built: str) -> int:
    """Tell what a build has done, and what was built now or by whom. Returns its exit code."""
    if result.missing:
        _report_part(flags, result)
    else:
        _report(flags, result, built)
    return EXIT_LEFT_OUT if result.left_out else 0


def _report_part(flags: _Flags, result: BuildResult) -> None:
    config = flags.config
    commit = [str(config.dataset), "--store", str(config.store), "--commit"]
    if flags.common.json:
        report = {
            "store": str(config.store),
            "finished": False,
            "part": config.part,
            "built_now": result.num_built,
            "missing": list(result.missing),
            "left_out": [asdict(item) for item in result.left_out],
            "notes": list(result.notes),
        }
        print(json.dumps(report, indent=2))
        return
    print(f"part {config.part} is built ({result.num_built} recordings now)")
    print_some("notes", result.notes)
    print_left_out(result.left_out)
    print(
        f"the store is not finished: {counted(len(result.missing), 'recordings')} of other parts"
        f" missing, the first is {result.missing[0]!r}"
    )
    print("the last part to end finishes it. Should one be lost, run that part again; or see with:")
    print(f"  {program()} build {shlex.join(commit)}")


def _report(flags: _Flags, result: BuildResult, built: str) -> None:
    store = flags.config.store
    index = open_shards(store)
    num_frames = sum(s.num_frames for item in index.recordings for s in item.streams)
    num_bytes = sum(shard.num_bytes for shard in index.shards)
    others = other_devices(store, index)
    if flags.common.json:
        report = {
            "store": str(store),
            "finished": True,
            "recordings": len(index.recordings),
            "built_now": result.num_built,
            "left_out": [asdict(item) for item in result.left_out],
            "notes": list(result.notes),
            "frames": num_frames,
            "shards": len(index.shards),
            "shard_bytes": num_bytes,
            "spec_id": index.spec_id,
            "other_devices": others,
        }
        print(json.dumps(report, indent=2))
        return
    print(
        f"{len(index.recordings)} recordings ({result.num_built} built {built}), {num_frames:,}"
        f" frames of {index.dim} channels, {human_bytes(num_bytes)}"
    )
    print_other_devices(others)
    print_some("notes", result.notes)
    print_left_out(result.left_out)
    if result.left_out:
        print(f"their list: {store / layout.QUARANTINE_JSON}")
        if result.was_finished or flags.config.commit:
            words = shlex.join([str(store), str(flags.config.dataset)])
            print(f"the store was finished without them: {program()} add {words} appends them")
    print(f"store: {store}")
    shards = shlex.quote(str(store / layout.SHARDS))
    print(f"next: {program()} train --shards {shards} --out RUN")


def _dry_run(flags: _Flags, progress: TerminalProgress) -> int:
    from extract.room import room_for
    from extract.survey import settle, survey

    config = flags.config
    check_store_folder(config.store)
    dim, assumed = _dim(config)
    found = survey(config, progress)
    settle(config, found)  # refuses what the build would refuse
    room = room_for(config.store, found.recordings, ShardGeometry(dim))
    if flags.common.json:
        report: dict[str, Any] = {  # Any: JSON values
            "recordings": len(found.recordings),
            "audio_hours": round(found.audio_hours, 4),
            "frames": found.num_frames,
            "dim": dim,
            "dim_assumed": assumed,
            **room_fields(room),
            "left_out": [asdict(item) for item in found.skipped],
            "notes": list(found.notes),
        }
        print(json.dumps(report, indent=2))
    else:
        print(
            f"{len(found.recordings)} recordings, {found.audio_hours:.2f} hours of audio,"
            f" {_streams(found, config)}, {found.num_frames:,} frames"
        )
        why = f" (assumed: {config.model} is fetched when building)" if assumed else ""
        print(f"{human_bytes(room.num_bytes)} on disk at {dim} channels{why}")
        print(room_text(room, config.store))
        print_left_out(found.skipped)
        print_some("notes", found.notes)
    is_whole = found.recordings and not found.skipped and room.is_enough
    return 0 if is_whole else EXIT_LEFT_OUT


def _streams(found: "Survey", config: BuildConfig) -> str:
    """Return how many streams there are, and of what."""
    num_mixes = sum(item.roles.is_mix for item in found.recordings)
    num_others = sum(len(item.assignments) for item in found.recordings) - num_mixes
    streams = counted(num_mixes + num_others, "streams")
    if num_mixes:
        of_them = f"{num_mixes} of them " if num_others else ""
        return f"{streams} ({of_them}mixes of all speakers)"
    who = "ordered pair of speakers" if config.speakers == "all-pairs" else "speaker main"
    return f"{streams} (each {who} once)"


def _dim(config: BuildConfig) -> tuple[int, bool]:
    """Channels of a frame, and whether that is a guess because the model has not been fetched."""
    if config.tap != "logmel" and not is_model_directory(config.model):
        return MIMI_DIM if config.tap == "mimi" else MOSHI_DIM, True
    from extract.model import feature_dim
    from extract.settings import find_model

    return feature_dim(find_model(config), config.tap), False
