"""`laughstore inspect`: what is in a store, its shards, or a run."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from ..errors import LaughstoreError, NotFound
from ..inspection import StoreSummary, store_root, summarise
from ..spec import UNKNOWN, FeatureSpec
from ..store import open_shards
from ..timebase import FRAME_US, US_PER_SECOND
from .flags import CommonFlags, parse, path_or_url
from .metric_text import metric_texts
from .text import counted, human_bytes, number, percent, print_other_devices, print_some

if TYPE_CHECKING:
    from train import TrainConfig
    from train.evaluation.operating import Operating
    from train.runs.run import Run

logger = logging.getLogger(__name__)

_RUN_CONFIG, _RUN_FORMAT = "config.json", "laughstore-run"


@dataclass(frozen=True)
class _Flags:
    path: tyro.conf.Positional[str]
    """A store or its shards folder (a path or a URL), or a run."""
    common: CommonFlags
    recordings: bool = False
    """List every recording."""
    spec: bool = False
    """Print the whole feature spec."""


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "inspect",
        arguments,
        "Tell what is in a store: recordings, hours, sizes, spec, events and label rates. No frame"
        " is read. Given a run: what it was trained on and how good it is.",
    )
    flags.common.configure_logging()
    where = path_or_url(flags.path)
    if isinstance(where, Path):
        if not where.exists():
            raise NotFound(f"{where} does not exist; give a store, its shards folder, or a run")
        if _is_run(where):
            _run(flags, where)
            return 0
    root = store_root(where)
    summary = summarise(where, open_shards(where), root)
    if flags.common.json:
        report = summary.to_json()
        if flags.recordings:
            report["recordings"] = _recordings(summary)
        print(json.dumps(report, indent=2))
    else:
        _print(flags, summary)
    return 0


def _print(flags: _Flags, summary: StoreSummary) -> None:
    index = summary.index
    spec = index.spec
    total = sum(split.shard_bytes for split in summary.splits)
    print(f"{summary.path}: generation {summary.generation}, spec {spec.spec_id}")
    if len(summary.generations) > 1:
        print(f"generations kept: {', '.join(map(str, summary.generations))}")
    print(f"features: {spec.dtype}[{spec.dim}] at 12.5 frames a second, {_origin(spec)}")
    print(
        f"shards: {len(index.shards)} of at most {spec.shard_frames} frames, blocks of"
        f" {spec.block_frames}, {human_bytes(total)}"
    )
    if summary.shards_are_links is not None:
        how = "hard links to" if summary.shards_are_links else "COPIES of (no links here)"
        print(f"tar names are {how} the Zarr chunks")
    print_other_devices(summary.other_devices)
    for split in summary.splits:
        print(
            f"{split.split}: {split.recordings} recordings of {split.groups} groups,"
            f" {split.hours:.2f} h, {split.streams} streams, {split.frames:,} frames,"
            f" {human_bytes(split.shard_bytes)}"
        )
        events = ", ".join(f"{name} {count:,}" for name, count in split.events.items())
        dropped = f" ({split.events_dropped} of them unusable)" if split.events_dropped else ""
        print(f"  events: {events or 'none'}{dropped}")
        if split.rates:
            rates = ", ".join(f"{label} {percent(rate)}" for label, rate in split.rates.items())
            print(f"  positive rows, Laughter of main: {rates}")
    if summary.no_rates is not None:
        print(f"no label rates: {summary.no_rates}")
    left_out = [
        f"{item['name']} ({item['split']}): {item['reason']}" for item in summary.quarantined
    ]
    print_some("recordings left out", left_out)
    if flags.spec:
        print(json.dumps(spec.to_json(), indent=2))
    if flags.recordings:
        for item in index.recordings:
            seconds = item.num_frames * FRAME_US / US_PER_SECOND
            streams = ", ".join(stream.assignment for stream in item.streams)
            print(f"{item.split}  {item.id}  {seconds:.1f} s  {streams}  {item.name}")


def _origin(spec: FeatureSpec) -> str:
    """What the features are of; of imported ones, as far as it was stated."""
    model = spec.model if spec.revision is None else f"{spec.model} at {spec.revision[:12]}"
    how = f"text {spec.text}, context {spec.context}"
    if spec.is_imported:
        stated = f"imported, as stated: model {model}, tap {spec.tap}, {how}"
        return stated.replace(UNKNOWN, "unknown")
    return f"{spec.tap} of {model} (weights {spec.weights_sha256[:12]}), {how}"


def _recordings(summary: StoreSummary) -> list[dict[str, object]]:
    return [
        {
            "id": item.id,
            "name": item.name,
            "split": item.split,
            "group": item.group,
            "frames": item.num_frames,
            "speakers": list(item.speakers),
            "assignments": [stream.assignment for stream in item.streams],
        }
        for item in summary.index.recordings
    ]


def _run(flags: _Flags, path: Path) -> None:
    from train.runs.looks import read_looks
    from train.runs.run import Run
    from train.scoring.metrics import FrameMetrics

    run_ = Run.open(path)
    if flags.common.json:
        fitted = _fitted(run_)
        about = {
            "config": run_.config.to_json(),
            **run_.about,
            "fitted_on_validation": None if fitted is None else fitted.to_json(),
            "test_looks": read_looks(run_),
        }
        print(json.dumps({"run": str(run_.path), **about}))
        return
    print(f"{run_.path}: a run on {run_.config.shards} (spec {run_.spec.spec_id})")
    if run_.config.probe:
        _print_probes(run_)
        return
    if run_.probe_of is not None:
        print(f"a probe of {run_.probe_of}")
    print(f"label: {run_.config.label.describe()}; {run_.config.filter.describe()}")
    for line in _other_rows(run_.config):
        print(line)
    for part in (run_.config.head, run_.config.loss):
        print(", ".join(f"{name} {value}" for name, value in part.to_json().items()))
    print(run_.config.describe_steps())
    for split, counts in run_.about["counts"].items():
        print(f"{split}: {counts['rows']:,} rows, {counts['positives']:,} positive")
    for last in _validations(run_.metrics_log)[-1:]:
        found = ", ".join(metric_texts(FrameMetrics.from_json(last)))
        print(f"latest validation (step {last['step']}): {found}")
    fitted = _fitted(run_)
    if fitted is not None:
        print(_fitted_text(fitted))
    for line in _looks(run_):
        print(line)


def _fitted(run_: "Run") -> "Operating | None":
    """What an evaluation fitted on validation for the best checkpoint; None if none did."""
    from train.evaluation.operating import load_operating

    try:
        return load_operating(run_)
    except LaughstoreError as error:  # a run without a sound checkpoint can be looked at, too
        logger.info("nothing fitted on validation is told: %s", error)
        return None


def _fitted_text(fitted: "Operating") -> str:
    chosen = fitted.chosen("f1")
    best = None if chosen is None else chosen.threshold
    others = counted(len(fitted.thresholds) - 1, "rules")
    return (
        f"fitted on validation, for {fitted.bound.checkpoint}: threshold {number(best)} by f1, and"
        f" those of {others} more (--json); temperature {number(fitted.temperature.value)}"
    )


def _looks(*runs: "Run") -> list[str]:
    """Return a line for each split that was looked at, and how often."""
    from train.runs.looks import read_looks

    by_split: dict[str, list[dict[str, Any]]] = {}  # Any: JSON values
    unread = 0
    for item in (look for run_ in runs for look in read_looks(run_)):
        if item is None:
            unread += 1
        else:
            by_split.setdefault(str(item.get("split")), []).append(item)
    lines: list[str] = []
    for split, looks in by_split.items():
        last = max(looks, key=lambda look: str(look.get("when")))
        lines.append(
            f"looks at {split}: {len(looks)}, the last of {last.get('checkpoint')} at"
            f" {last.get('when')}"
        )
    if unread:
        lines.append(f"looks that cannot be read: {unread}; they count for every split")
    return lines


def _print_probes(run_: "Run") -> None:
    """Print what a run of many probes is, and how good each is."""
    from train.probe import PROBES
    from train.runs.run import Run, is_run
    from train.scoring.metrics import FrameMetrics

    config = run_.config
    print(f"{counted(len(config.probes), 'probes')}; {config.filter.describe()}")
    for line in _other_rows(config):
        print(line)
    for part in (config.head, config.loss):
        print(", ".join(f"{name} {value}" for name, value in part.to_json().items()))
    print(config.describe_steps())
    for split, counts in run_.about["counts"].items():
        print(f"{split}: {counts['rows']:,} rows")
    latest = {line.get("probe"): line for line in _validations(run_.metrics_log)}
    for probe in config.probes:
        line = latest.get(probe.name)
        found = "not validated yet"
        if line is not None:
            texts = metric_texts(FrameMetrics.from_json(line))
            found = f"latest validation (step {line['step']}): {', '.join(texts)}"
        print(f"{probe.name}: {probe.label.describe()}; {found}")
    folders = [run_.path / PROBES / probe.name for probe in config.probes]
    for line in _looks(*(Run.open(path) for path in folders if is_run(path))):
        print(line)


def _other_rows(config: "TrainConfig") -> list[str]:
    """Return lines on what else decides which rows a run was trained on, and with which targets."""
    lines: list[str] = []
    if config.annotations is not None:
        lines.append(f"annotations: {config.annotations}, not the store's")
    if config.folds is not None:
        lines.append(f"fold {config.fold} of {config.folds} is validation")
    if config.balance != "off":
        lines.append(f"balance: {config.balance:g} negatives for each positive row of train")
    if config.skip_corrupt is not None:
        lines.append(f"without the corrupt blocks of {config.skip_corrupt}")
    return lines


def _is_run(path: Path) -> bool:
    """Whether a folder's config.json is that of a run; checkpoints of models have one too."""
    try:
        content = json.loads((path / _RUN_CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == _RUN_FORMAT


def _validations(path: Path) -> list[dict[str, Any]]:  # Any: JSON values
    """The lines of a run's log that hold validation metrics."""
    if not path.is_file():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [line for line in lines if line.get("kind") == "validation"]
