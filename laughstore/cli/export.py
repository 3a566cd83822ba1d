"""`laughstore export`: a part of a store as a store of its own."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from ..evolution.export import ExportResult, export
from ..store import open_store
from .flags import CommonFlags, parse, path_or_url
from .progress import TerminalProgress
from .text import counted, human_bytes, program


@dataclass(frozen=True)
class _Flags:
    store: tyro.conf.Positional[str]
    """A finished store; a folder or a URL."""
    out: Path
    """Folder of the new store; must not exist, or hold the same export, interrupted."""
    common: CommonFlags
    split: str | None = None
    """Take this split only."""
    recordings: str | None = None
    """Shell pattern: take only recordings whose name or id matches."""
    no_annotations: bool = False
    """Leave out events, segments, turns, intervals and words; names of speakers stay."""
    copy: bool = False
    """Copy files, even where hard links could be made."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "export",
        arguments,
        "Write recordings of a store as a store of its own. Feature files are hard links where"
        " they can be (their bytes are not read: `laughstore verify` compares them); the old store"
        " may then be deleted without harm.",
    )
    flags.common.configure_logging()
    progress = TerminalProgress(quiet=flags.common.quiet)
    try:
        result = export(
            open_store(path_or_url(flags.store)),
            flags.out,
            split=flags.split,
            recordings=flags.recordings,
            with_annotations=not flags.no_annotations,
            copy=flags.copy,
            progress=progress,
        )
    except (KeyboardInterrupt, SystemExit):
        again = f"{program()} {shlex.join(['export', *arguments])}"
        progress.message(f"stopped; finished recordings are kept. Go on with:\n  {again}")
        raise
    if flags.common.json:
        print(json.dumps(asdict(result) | {"out": str(result.out)}, indent=2))
    else:
        _print(flags, result)
    return 0


def _print(flags: _Flags, result: ExportResult) -> None:
    print(
        f"{counted(result.num_recordings, 'recordings')}, {counted(result.num_shards, 'shards')},"
        f" {human_bytes(result.num_shard_bytes)}: {counted(result.num_linked, 'files')} linked,"
        f" {result.num_copied} copied"
    )
    if flags.no_annotations:
        print("nothing annotated went along; names of recordings and of main speakers stay, and")
        print("the codes, from which Mimi can make the sound again")
    print(f"store: {result.out}")
    if result.num_linked:
        print("linked files were not read; what is wrong in the old store is so in this one too")
    command = "verify" if result.num_linked else "inspect"
    print(f"next: {program()} {command} {shlex.quote(str(result.out))}")
