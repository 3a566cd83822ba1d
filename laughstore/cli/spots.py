"""`laughstore spots`: where a run hears an event that nobody annotated, as clips to correct."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tyro

from extract.config import LayoutName
from train.evaluation.spot_search import SpotSearch

from .. import layout
from ..annotation_formats.source import SPOTS_FILE
from ..errors import ConfigError
from ..files import write_atomic
from ..index import Index
from ..label_spec import FULL, LabelSpec
from ..new_folder import new_folder
from ..spots import Spot, SpotFolder, SpotFormat, read_verdicts
from ..spots.folder import SOUND_FILE, TABLE_FILE, label_file_of
from ..spots.label_files import label_texts
from ..timebase import FRAME_US, US_PER_SECOND, Span
from .flags import CommonFlags, parse
from .progress import TerminalProgress
from .scoring_flags import FrameFlags
from .text import counted, print_some, program

if TYPE_CHECKING:
    from train import FoundSpots

EXIT_WITHOUT_SOUND: Final = 3
_MAX_CONTEXT_US: Final = 60 * US_PER_SECOND
_SEARCH: Final = SpotSearch()
_CONTEXT: Final = Span("2s")


@dataclass(frozen=True)
class _Flags:
    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    audio: Path
    """The data set that the store was built from, for the clips."""
    out: Path
    """Folder to make: clips, a table, and the labels to correct."""
    common: CommonFlags
    frames: FrameFlags
    search: SpotSearch = _SEARCH
    """Which spots are wanted."""
    context: Span = _CONTEXT
    """Sound before and behind each spot."""
    format: SpotFormat = "textgrid"
    """Labels for Praat (textgrid) or Audacity (audacity)."""
    reviewed: tuple[Path, ...] = ()
    """Folders of earlier calls: spots that were accepted or rejected there do not come again."""
    layout: LayoutName = "auto"
    """How the data set is laid out; auto looks."""
    checkpoint: str = "best"
    """best, last, or the path of a checkpoint."""

    def __post_init__(self) -> None:
        if not 0 <= self.context.us <= _MAX_CONTEXT_US:
            raise ConfigError(f"context {self.context}: it must lie in 0s to 60s")


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns the exit code."""
    flags = parse(
        _Flags,
        "spots",
        arguments,
        "Find where a run hears an event that nobody annotated: the highest scores first, as short"
        " clips with labels that a person corrects in Praat or Audacity. `laughstore annotate STORE"
        " --from OUT` takes the corrections over.",
    )
    flags.common.configure_logging()
    from extract.datasets import open_dataset
    from train import find_spots

    _check_out(flags.out)
    dataset = open_dataset(flags.audio, flags.layout)
    reviewed = [
        spot for path in flags.reviewed for spot in read_verdicts(SpotFolder.open(path)).decided
    ]
    bar = TerminalProgress(quiet=flags.common.quiet)
    found = find_spots(
        flags.run,
        flags.search,
        reviewed=reviewed,
        checkpoint=flags.checkpoint,
        **flags.frames.arguments(bar),
    )
    folder = _folder(flags, found)
    silent: Mapping[str, str] = {}
    if found.spots:
        from .spot_clips import write_clips

        with new_folder(flags.out) as building:
            heard, silent = write_clips(
                building, found.spots, dataset, found.index, flags.context.frames, progress=bar
            )
            folder = replace(folder, spots=heard)
            _write_tables(building, folder, found)
            _check_out(flags.out)
    if flags.common.json:
        print(json.dumps(_to_json(folder, found, silent), indent=2))
    else:
        _print(folder, found, silent)
    return EXIT_WITHOUT_SOUND if silent else 0


def _check_out(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists; choose another --out, or delete it")


def _folder(flags: _Flags, found: "FoundSpots") -> SpotFolder:
    label, full_label = _class(found.label, found.index)
    return SpotFolder(
        path=flags.out,
        label_file=label_file_of(flags.format),
        event=found.label.event,
        label=label,
        full_label=full_label,
        are_windows=found.are_windows,
        classes=tuple(name for name in found.index.vocabulary.labels if name),
        run=str(flags.run.absolute()),
        index_id=found.index.index_id,
        generation=found.index.generation,
        threshold=found.threshold,
        spots=found.spots,
    )


def _class(spec: LabelSpec, index: Index) -> tuple[str, str]:
    """Return the classes of an accepted event: consolidated, and in the full vocabulary.

    Of `full:NAME` the consolidated one is that of most events of this name.
    """
    if not spec.event.startswith(FULL):
        return spec.event, spec.event
    name, vocabulary = spec.event.removeprefix(FULL), index.vocabulary
    code = vocabulary.full_labels.index(name)
    counts = dict.fromkeys(vocabulary.labels, 0)
    for tables in index.all_tables:
        events = tables.events
        for label in events.label[events.full_label == code].tolist():
            counts[vocabulary.labels[label]] += 1
    return max(sorted(counts), key=lambda item: counts[item]), name


def _write_tables(building: Path, folder: SpotFolder, found: "FoundSpots") -> None:
    """Write all but the sound; the file that makes it a folder of spots comes last."""
    if folder.heard:
        annotated = {spot.rank: found.annotated(spot) for spot in folder.heard}
        for name, text in label_texts(folder, _near(folder.heard, annotated)).items():
            write_atomic(building / name, text.encode())
    write_atomic(building / TABLE_FILE, folder.table().encode())
    write_atomic(building / SPOTS_FILE, folder.to_bytes())


def _near(spots: Sequence[Spot], annotated: Mapping[int, Any]) -> dict[int, Any]:  # Any: Times
    """Return what of the annotated times lies in the clip of each spot, by rank."""
    near = {}
    for spot in spots:
        clip, times = spot.clip, annotated[spot.rank]
        assert clip is not None
        inside = (times.start_us < clip.start_us + clip.length_us) & (times.end_us > clip.start_us)
        near[spot.rank] = type(times)(times.start_us[inside], times.end_us[inside])
    return near


def _print(folder: SpotFolder, found: "FoundSpots", silent: Mapping[str, str]) -> None:
    splits, spots = ", ".join(found.splits), folder.spots
    hours = found.num_rows * FRAME_US / US_PER_SECOND / 3600
    print(f"{splits}: {found.label.describe()}; {hours:.2f} hours of rows")
    if found.other_annotations is not None:
        print(found.other_annotations)
    reaching = counted(found.num_reaching, "spots")
    before = f", beside {found.num_reviewed:,} decided before" if found.num_reviewed else ""
    print(f"{reaching} reach {found.threshold:.3g} where no {folder.name} is annotated{before}")
    if not spots:
        print("no spot found, nothing was written; a lower --threshold finds more")
        return
    lines = [
        f"{spot.rank:>4}  {spot.score:.3f}  {spot.start_us / US_PER_SECOND:9.2f} s"
        f"  {(spot.end_us - spot.start_us) / US_PER_SECOND:5.2f} s long  {spot.recording}"
        f" ({spot.who})"
        for spot in spots
    ]
    print_some("spots, the highest score first", lines)
    count = len(spots)
    if count == found.num_reaching:
        print("these are all; a lower --threshold finds more")
    reasons = [f"{name}: {reason}" for name, reason in silent.items()]
    print_some("recordings without sound, whose spots are in the table and have no clip", reasons)
    print(f"table: {folder.path / TABLE_FILE}")
    if not folder.heard:
        return
    print(f"clips: {folder.path / SOUND_FILE}, all {len(folder.heard)} one after the other")
    accept = "take the ? from a label to accept it"
    if folder.are_windows:
        accept = f"where {folder.name} begins in a window, label it so from its start to its end"
    print(f"correct {folder.labels_path} (docs/annotation-loop.md):")
    print(f"{accept}, delete the label to reject it; then:")
    print(f"next: {_next_command(folder, found.index)}")


def _next_command(folder: SpotFolder, index: Index) -> str:
    out, shards = shlex.quote(str(folder.path)), index.folder.local
    if shards is None:
        return f"{program()} annotate COPY --from {out}, of a copy of {index.where} on this machine"
    store = shards.parent if (shards.parent / layout.STORE_JSON).is_file() else Path("STORE")
    return f"{program()} annotate {shlex.quote(str(store))} --from {out}"


def _to_json(
    folder: SpotFolder, found: "FoundSpots", silent: Mapping[str, str]
) -> dict[str, Any]:  # Any: JSON values
    spots = folder.spots
    return {
        "out": str(folder.path) if spots else None,
        "labels": str(folder.labels_path) if folder.heard else None,
        "run": folder.run,
        "splits": list(found.splits),
        "label": found.label.identity(),
        "label_text": found.label.describe(),
        "generation": folder.generation,
        "threshold": folder.threshold,
        "are_windows": folder.are_windows,
        "rows": found.num_rows,
        "reaching": found.num_reaching,
        "reviewed": found.num_reviewed,
        "other_annotations": found.other_annotations,
        "spots": [asdict(spot) for spot in spots],
        "without_sound": [{"recording": name, "reason": reason} for name, reason in silent.items()],
    }
