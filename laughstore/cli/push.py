"""`laughstore push`: send a store to a bucket or the hub."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from ..errors import ConfigError
from ..remote.push import DEFAULT_JOBS, PushResult, push
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .text import human_bytes, program


@dataclass(frozen=True)
class _Flags:
    store: tyro.conf.Positional[Path]
    """A finished store on this machine."""
    url: tyro.conf.Positional[str]
    """s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or hf://datasets/OWNER/NAME/FOLDER."""
    common: CommonFlags
    jobs: int = DEFAULT_JOBS
    """Files sent at the same time; each of up to 64 MiB is held in memory."""
    zarr_keys: bool = False
    """Give shards their Zarr names there too, for stock remote Zarr readers: bytes stored twice."""
    dry_run: bool = False
    """Only tell what would be sent."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ConfigError(f"jobs is {self.jobs}; at least one file is sent at a time")


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "push",
        arguments,
        "Send the newest generation of a store to a bucket or the hub: data first, the manifest"
        " last, so that readers there see all of it or what was there before. Stopped, it goes on"
        " when the same command is run again. Credentials come from the environment.",
    )
    flags.common.configure_logging()
    progress = TerminalProgress(quiet=flags.common.quiet)
    try:
        result = push(
            flags.store,
            flags.url,
            jobs=flags.jobs,
            zarr_keys=flags.zarr_keys,
            dry_run=flags.dry_run,
            progress=progress,
        )
    except (KeyboardInterrupt, SystemExit):
        again = f"{program()} {shlex.join(['push', *arguments])}"
        progress.message(f"stopped; what has been sent stays. Go on with:\n  {again}")
        raise
    if flags.common.json:
        print(json.dumps({"store": str(flags.store)} | asdict(result), indent=2))
    else:
        _print(flags, result)
    return 0


def _print(flags: _Flags, result: PushResult) -> None:
    url = shlex.quote(result.url)
    print(
        f"{url}: generation {result.generation}, {result.num_files:,} files,"
        f" {human_bytes(result.num_bytes)}; {result.num_there:,} were there already"
    )
    would = "would be " if result.dry_run else ""
    print(f"{would}sent: {result.num_sent:,} files, {human_bytes(result.num_bytes_sent)}")
    if flags.zarr_keys:
        print(
            f"{would}copied there under Zarr names: {result.num_copied:,} shards,"
            f" {human_bytes(result.num_bytes_copied)}, stored twice"
        )
    if result.dry_run:
        arguments = [str(flags.store), flags.url, *(["--zarr-keys"] if flags.zarr_keys else [])]
        if flags.jobs != DEFAULT_JOBS:
            arguments += ["--jobs", str(flags.jobs)]
        print(f"next: {program()} push {shlex.join(arguments)}")
        return
    print(f"next: {program()} inspect {url}, or: {program()} verify {url}")
