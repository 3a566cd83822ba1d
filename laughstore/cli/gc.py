"""`laughstore gc`: remove what no kept generation of a store names."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from ..errors import ConfigError
from ..evolution.gc import GcResult, collect_garbage
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .text import counted, human_bytes, print_some, program


@dataclass(frozen=True)
class _Flags:
    store: tyro.conf.Positional[Path]
    """A finished store."""
    common: CommonFlags
    keep: int = 1
    """Generations to keep, the newest ones."""
    unfinished: bool = False
    """Remove an addition too that was begun and not finished."""
    dry_run: bool = False
    """Only tell what would be removed."""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"keep is {self.keep}; the newest generation always stays: give 1")


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "gc",
        arguments,
        "Remove what no kept generation names: older generations, annotations that were replaced,"
        " files that a killed process has left. Files that no store writes are left alone.",
    )
    flags.common.configure_logging()
    progress = TerminalProgress(quiet=flags.common.quiet)
    try:
        result = collect_garbage(
            flags.store,
            keep=flags.keep,
            unfinished=flags.unfinished,
            dry_run=flags.dry_run,
            progress=progress,
        )
    except (KeyboardInterrupt, SystemExit):
        again = f"{program()} {shlex.join(['gc', *arguments])}"
        progress.message(f"stopped; what is kept is whole. Go on with:\n  {again}")
        raise
    if flags.common.json:
        about = {"store": str(flags.store), "dry_run": flags.dry_run}
        print(json.dumps(about | asdict(result), indent=2))
    else:
        _print(flags, result)
    return 0


def _print(flags: _Flags, result: GcResult) -> None:
    store = shlex.quote(str(flags.store))
    kept = ", ".join(str(number) for number in result.kept)
    dropped = ", ".join(str(number) for number in result.dropped)
    print(f"{store}: generations kept: {kept}; dropped: {dropped or 'none'}")
    if result.unfinished:
        number = len(result.unfinished)
        how = f"removed with --unfinished ({number} recordings)" if flags.unfinished else "kept"
        print(f"an addition was begun and not finished: {how}; the same `add` goes on with it")
    would = "would be removed" if flags.dry_run else "removed"
    print_some(f"files {would}", result.removed)
    print_some("not ours, left alone", result.left_alone)
    print(f"{counted(len(result.removed), 'files')} {would}, {human_bytes(result.num_bytes)}")
    if flags.dry_run and result.removed:
        print(f"next: {program()} gc {store}" + _flags_again(flags))


def _flags_again(flags: _Flags) -> str:
    words = [f" --keep {flags.keep}"] if flags.keep != 1 else []
    return "".join([*words, " --unfinished" if flags.unfinished else ""])
