"""`laughstore verify`: is every byte of a store what was written?"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from ..errors import ConfigError
from ..files import write_atomic
from ..integrity.report import VerifyReport
from ..integrity.verify import verify
from .flags import CommonFlags, parse, path_or_url
from .progress import TerminalProgress
from .text import human_bytes, print_some

EXIT_FAULTS = 3


@dataclass(frozen=True)
class _Flags:
    store: tyro.conf.Positional[str]
    """A store or a shards folder: a path or a URL."""
    common: CommonFlags
    quick: bool = False
    """Look at sizes, seals, indexes and the ends of shards only; read no features."""
    jobs: int | None = None
    """Files read at the same time; by default one for each CPU, 8 for a URL."""
    bad_blocks: Path | None = None
    """Write the keys of the blocks that cannot be read as written to this file, one a line."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "verify",
        arguments,
        "Compare every file of a store with what was written: sizes, seals, SHA-256. Tells each"
        " fault with file, sample and byte, and what to do. Changes nothing. Exit code 3: faults.",
    )
    flags.common.configure_logging()
    if flags.bad_blocks is not None:
        _check_target(flags.bad_blocks)
    where = path_or_url(flags.store)
    progress = TerminalProgress(quiet=flags.common.quiet)
    report = verify(where, quick=flags.quick, jobs=flags.jobs, progress=progress)
    if flags.bad_blocks is not None:
        keys = "".join(f"{key}\n" for key in report.bad_blocks)
        write_atomic(flags.bad_blocks, keys.encode())
    if flags.common.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        _print(report, flags.bad_blocks)
    return EXIT_FAULTS if report.faults else 0


def _check_target(path: Path) -> None:
    """Refuse what cannot become a file, before a long pass and not after it."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file; give another --bad-blocks")
    around = next(folder for folder in path.absolute().parents if folder.exists())
    if not around.is_dir() or not os.access(around, os.W_OK):
        raise ConfigError(f"{path} cannot be written; give another --bad-blocks")


def _print(report: VerifyReport, bad_blocks: Path | None) -> None:
    print_some("faults", [str(fault) for fault in report.faults])
    print_some("notes", report.notes)
    what = "shards folder alone" if report.shards_alone else "store"
    generations = ", ".join(str(number) for number in report.generations) or "none"
    print(
        f"{report.where}: {what}, generation {generations}; {report.num_recordings} recordings,"
        f" {report.num_shards} shards, {report.num_blocks:,} blocks, {report.num_files:,} files"
    )
    rate = report.num_bytes / max(report.seconds, 1e-9)
    how = "sizes, seals and indexes only" if report.quick else "every byte"
    print(
        f"checked {how}: {human_bytes(report.num_bytes)} hashed in {report.seconds:.1f} s"
        f" ({human_bytes(rate)} a second)"
    )
    if bad_blocks is not None:
        print(f"{_counted(report.bad_blocks, 'bad block')}, their keys: {bad_blocks}")
    if not report.faults:
        more = "; `verify` without --quick reads the features too" if report.quick else ""
        print(f"no faults{more}")
        return
    blocks = f"; not readable as written from shards/: {_counted(report.bad_blocks, 'block')}"
    print(
        f"{_counted(report.faults, 'fault')} in {_counted(report.bad_files, 'file')}"
        f"{blocks if report.bad_blocks else ''}"
    )
    print("next: do what each line says (all of them: --json), then verify again")


def _counted(items: Sequence[object], name: str) -> str:
    return f"{len(items):,} {name}{'' if len(items) == 1 else 's'}"
