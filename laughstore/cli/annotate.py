"""`laughstore annotate`: a new generation of a store with other annotations, features untouched."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from .. import layout
from ..annotation_formats import (
    Mode,
)
from ..errors import ConfigError
from ..evolution.annotate import (
    AnnotateResult,
    RecordingChange,
    annotate,
)
from ..manifest import read_manifest
from .annotation_source import annotation_source
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .text import counted, print_some, program

if TYPE_CHECKING:
    pass

EXIT_LEFT_OVER = 3


@dataclass(frozen=True)
class _Flags:
    store: tyro.conf.Positional[Path]
    """A finished store."""
    source: Annotated[tuple[Path, ...], tyro.conf.arg(name="from")]
    """A data set (its metadata/ is enough, or a manifest, *.jsonl); a folder of `laughstore spots`;
    or .TextGrid, .eaf, .txt (Audacity), .csv, .tsv, .rttm files or their folders."""
    common: CommonFlags
    event: str | None = None
    """Take events of this class only (such as Laughter); other classes stay as they are."""
    replace: bool = False
    """Put the new events in the place of the old ones of the same classes (the default); of spots,
    in the place of what was accepted of the same spots before. A recording with rows that cannot be
    used keeps its old events; the exit code is then 3."""
    merge: bool = False
    """Add the new events that are not there yet; remove none."""
    dry_run: bool = False
    """Only tell what would change; write nothing."""

    def __post_init__(self) -> None:
        if self.replace and self.merge:
            raise ConfigError("--replace and --merge exclude each other; give one of them")
        if not self.source:
            raise ConfigError("--from names nothing; give a data set or annotation files")

    @property
    def mode(self) -> Mode:
        """How new events meet old ones."""
        return "merge" if self.merge else "replace"


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "annotate",
        arguments,
        "Publish a new generation of a store with changed annotations. Features are not touched;"
        " the generation before stays readable until `laughstore gc`.",
    )
    flags.common.configure_logging()
    progress = TerminalProgress(quiet=flags.common.quiet)
    read_manifest(flags.store)  # before all files of a source are read
    names, revise, source_notes = annotation_source(
        flags.source, store=flags.store, event=flags.event, mode=flags.mode
    )
    try:
        result = annotate(flags.store, names, revise, dry_run=flags.dry_run, progress=progress)
    except (KeyboardInterrupt, SystemExit):
        again = f"{program()} {shlex.join(['annotate', *arguments])}"
        progress.message(f"stopped; the store is whole, old or new. Go on with:\n  {again}")
        raise
    result = replace(result, notes=(*source_notes, *result.notes))
    if flags.common.json:
        _print_json(flags, result)
    else:
        _print(flags, result)
    return EXIT_LEFT_OVER if result.unmatched or result.unusable else 0


def _print(flags: _Flags, result: AnnotateResult) -> None:
    print_some("recordings changed", [_line(change) for change in result.changes])
    if result.num_unchanged:
        print(f"{counted(result.num_unchanged, 'recordings')} left as before")
    print_some("notes", result.notes)
    print_some("names without a recording in the store, left over", result.unmatched)
    print_some("recordings whose annotations cannot be used, left over", result.unusable)
    store = shlex.quote(str(flags.store))
    if not result.changes:
        print(f"nothing changes: {store} stays at generation {result.generation}")
    elif flags.dry_run:
        print(f"dry run: nothing was written, {store} stays at generation {result.generation}")
    else:
        print(f"{store} is now generation {result.generation}; features were not touched, and")
        print(
            f"generation {result.generation - 1} opens by its number until: {program()} gc {store}"
        )
        shards = shlex.quote(str(flags.store / layout.SHARDS))
        print(f"next: {program()} train --shards {shards} --out RUN")


def _line(change: RecordingChange) -> str:
    before, after = change.events_before, change.events_after
    classes = [
        f"{name or '(outside the classes)'} {before.get(name, 0)} -> {after.get(name, 0)}"
        for name in sorted({*before, *after})
    ]
    moved = f" ({change.num_added} new, {change.num_removed} gone)"
    also = f"; also {', '.join(change.also)}" if change.also else ""
    return f"{change.recording}: {', '.join(classes) or 'no events'}{moved}{also}"


def _print_json(flags: _Flags, result: AnnotateResult) -> None:
    report = {
        "store": str(flags.store),
        "generation": result.generation,
        "published": result.was_published,
        "dry_run": flags.dry_run,
        "changed": [asdict(change) for change in result.changes],
        "unchanged": result.num_unchanged,
        "unmatched": list(result.unmatched),
        "unusable": list(result.unusable),
        "notes": list(result.notes),
    }
    print(json.dumps(report, indent=2))
