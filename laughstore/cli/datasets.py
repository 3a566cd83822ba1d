"""`laughstore datasets check`: what a data set holds, what it lacks, what is wrong with it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from extract.config import LayoutName

from ..errors import ConfigError
from ..spec import Speakers
from ..timebase import US_PER_SECOND
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .text import SHOWN, counted, percent, print_some, program

if TYPE_CHECKING:
    from extract.audit.report import AuditReport, Finding, LaughGaps, SplitContents

EXIT_NOT_WHOLE = 3
_CHECK = "check"
_BAR_WIDTH = 40
_PART_NAMES = {
    "tracks": "tracks",
    "mix": "mix",
    "segments": "diarization",
    "words": "transcript",
    "turns": "turns",
    "intervals": "prediction intervals",
}


@dataclass(frozen=True)
class _Flags:
    dataset: tyro.conf.Positional[Path]
    """Folder of a data set, or a manifest (*.jsonl): docs/datasets.md."""
    common: CommonFlags
    layout: LayoutName = "auto"
    """How the data set is laid out; auto looks."""
    speakers: Speakers = "top2"
    """Who is to be main, as in build: top2, all-pairs or mix."""
    audio_sample: int = 20
    """Listen to the laughs of so many recordings; 0 for none."""
    seed: int = 0
    """Chooses these recordings."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    word, *rest = arguments or [""]
    if word != _CHECK:
        if not {"-h", "--help"} & set(arguments):
            what = f"there is no {word!r} here" if word else "what is to be done?"
            raise ConfigError(f"datasets: {what}; the way is: {program()} datasets check PATH")
        rest = list(arguments)
    flags = parse(
        _Flags,
        f"datasets {_CHECK}",
        rest,
        "Tell what a data set holds, what is missing and what each gap means, and look for faults:"
        " laughs that cannot be heard, shows in two splits, transcripts in another unit, and more."
        " Reads headers and annotations, and the sound of some laughs; changes nothing. Exit code"
        " 3: gaps or errors were found.",
    )
    flags.common.configure_logging()
    from extract.audit.dataset import audit_dataset

    report = audit_dataset(
        flags.dataset,
        flags.layout,
        speakers=flags.speakers,
        audio_sample=flags.audio_sample,
        seed=flags.seed,
        progress=TerminalProgress(quiet=flags.common.quiet),
    )
    if flags.common.json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        _print(report)
    return 0 if report.is_whole else EXIT_NOT_WHOLE


def _print(report: "AuditReport") -> None:
    num_recordings = sum(split.recordings for split in report.splits.values())
    can_be_built = sum(split.can_be_built for split in report.splits.values())
    hours = sum(split.audio_us for split in report.splits.values()) / US_PER_SECOND / 3600
    print(
        f"{report.path}: layout {report.layout}, {counted(num_recordings, 'recordings')},"
        f" {can_be_built} can be built (--speakers {report.speakers}), {hours:.2f} h"
    )
    for note in report.notes:
        print(f"  {note}")
    for name, split in report.splits.items():
        _print_split(name, split)
    if report.sample_rates:
        rates = sorted(report.sample_rates.items())
        print("sample rates: " + ", ".join(f"{rate:,} Hz in {n} files" for rate, n in rates))
    _print_laugh_gaps(report.laugh_gaps)
    _print_audibility(report)
    lines = [f"{item.name} ({item.split}): {item.reason}" for item in report.left_out]
    print_some("recordings that cannot be built", lines)
    for finding in report.findings:
        _print_finding(finding, with_examples=finding.kind != "left-out")
    _print_end(report)


def _print_split(name: str, split: "SplitContents") -> None:
    hours = split.audio_us / US_PER_SECOND / 3600
    speakers = ", ".join(
        f"{who if who != '0' else 'not known'} in {split.speakers[who]}"
        for who in sorted(split.speakers)
    )
    print(
        f"{name}: {counted(split.recordings, 'recordings')} ({split.can_be_built} can be built),"
        f" {hours:.2f} h, {counted(split.streams, 'streams')}; speakers: {speakers or 'none'}"
    )
    has = [f"{part} {split.has[key]}" for key, part in _PART_NAMES.items()]
    print(f"  has: {', '.join(has)}")
    print(f"  events: {_classes(split.events)}")
    nobody = [
        f"{label} {n:,} ({percent(n / split.events[label])})"
        for label, n in split.events_of_nobody.items()
    ]
    if nobody:
        print(f"  without speaker: {', '.join(nobody)}")
    groups = [repr(group) for group in sorted(split.groups)]
    more = f", and {len(groups) - SHOWN} more (--json)" if len(groups) > SHOWN else ""
    print(f"  {counted(len(groups), 'groups')} (shows): {', '.join(groups[:SHOWN])}{more}")


def _classes(events: Mapping[str, int]) -> str:
    return ", ".join(f"{label} {n:,}" for label, n in events.items()) or "none"


def _print_laugh_gaps(gaps: "LaughGaps") -> None:
    if not gaps.num_gaps:
        return
    data = gaps.to_json()
    edges = [f"{edge:g} s" for edge in data["edges_s"]]
    names = ["overlap", *(f"up to {edge}" for edge in edges[1:]), f"more than {edges[-1]}"]
    width, longest = max(map(len, names)), max(gaps.counts)
    print("from the end of a laugh to the same speaker's next one (anybody's, in mixes):")
    for name, count in zip(names, gaps.counts, strict=True):
        bar = "#" * -(-_BAR_WIDTH * count // longest)
        print(f"  {name:>{width}} {count:>7,}  {bar}".rstrip())
    print(
        f"  {gaps.num_merged:,} of {gaps.num_gaps:,} ({percent(gaps.num_merged / gaps.num_gaps)})"
        f" are at most {data['merge_gap_s']:g} s: pieces of one laugh. So they are merged to bouts"
        f" ({gaps.num_laughs:,} laughs, {gaps.num_bouts:,} bouts), or frames within a laugh would"
        " count as before one (--merge-gap)"
    )


def _print_audibility(report: "AuditReport") -> None:
    heard = report.audibility
    if not report.audio_sample:
        print("laughs were not listened to (--audio-sample 0)")
        return
    if heard.laughs:
        print(
            f"listened to {counted(heard.laughs, 'laughs')} of"
            f" {counted(heard.recordings, 'recordings')} (seed {report.seed}): {heard.audible}"
            f" audible ({percent(heard.audible / heard.laughs)}), {heard.silent} silent,"
            f" {heard.cut} cut, {heard.quiet} quiet"
        )
    if heard.silent or heard.quiet:
        print(
            f"  of the silent and quiet ones: in another track {heard.heard_in_other_track}, in the"
            f" mix {heard.heard_in_mix}, nowhere {heard.heard_nowhere}"
        )
    if heard.of_nobody:
        print(
            f"  of {counted(heard.of_nobody, 'laughs')} without a speaker"
            f" {heard.of_nobody_in_no_track} are in no track"
        )


def _print_finding(finding: "Finding", *, with_examples: bool) -> None:
    count = f"{finding.count:,}"
    if finding.total is not None:
        count += f" of {finding.total:,}"
        if finding.total:
            count += f" ({percent(finding.count / finding.total)})"
    print(f"{finding.level}: {finding.what}: {count} [{finding.kind}]")
    print(f"  means: {finding.means}")
    print(f"  to do: {finding.todo}")
    for example in finding.examples if with_examples else ():
        print(f"  such as {example}")


def _print_end(report: "AuditReport") -> None:
    levels = [finding.level for finding in report.findings]
    if not levels:
        print("nothing is missing, no faults found")
    else:
        print(
            f"{counted(levels.count('error'), 'errors')}, {counted(levels.count('gap'), 'gaps')},"
            f" {counted(levels.count('note'), 'notes')}"
        )
    if report.is_whole:
        print(f"next: {program()} build {shlex.quote(report.path)} --store STORE")
    else:
        print("next: do what each line says, as far as it matters to you, then check again")
