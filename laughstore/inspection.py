"""Sum up a store or its shards: sizes, spec, recordings and label rates, without reading frames."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import layout
from .bouts import clean_events
from .errors import ConfigError, IncompleteStore
from .evolution.generations import kept_generations
from .folders import Folder, open_folder
from .index import Index
from .label_counts import LabelCounts, count
from .labels import LabelSpec, check_event, check_whose, frame_targets
from .manifest import Manifest, read_manifest
from .timebase import SAMPLE_RATE, SAMPLES_PER_FRAME
from .unit import read_unit

RATES = (LabelSpec("detection"), LabelSpec("onset:0.8s"))
"""Labels whose rates are shown: the main speaker laughs now, or begins to within 0.8 s."""

_GENERATIONS_LOOKED_FOR = 20
"""Below the newest, in a remote store: one request each."""


@dataclass(frozen=True)
class SplitSummary:
    """One split of a store."""

    split: str
    recordings: int
    groups: int
    hours: float
    """Of audio; each recording counts once."""
    streams: int
    frames: int
    shards: int
    shard_bytes: int
    events: dict[str, int]
    """Annotated events by class, most first."""
    events_dropped: int
    """Of these: empty, behind the end, or exact duplicates; no label counts them."""
    rates: dict[str, float | None]
    """Share of positive rows by label."""


@dataclass(frozen=True)
class StoreSummary:
    """What is in a store."""

    path: Path | str
    """As the user gave it: a folder or a URL."""
    generation: int
    generations: tuple[int, ...]
    """Generations that can be opened, the newest last; of shards alone only theirs."""
    splits: tuple[SplitSummary, ...]
    index: Index
    quarantined: tuple[dict[str, str], ...]
    """Recordings left out, with the reason; empty when only the shards are at hand."""
    shards_are_links: bool | None
    """Whether shards and Zarr chunks are one file; None for shards alone and remote stores."""
    no_rates: str | None
    """Why label rates are missing, if they are."""
    other_devices: dict[str, int]
    """Recordings by the kind of device they were extracted on, where that is not the plan's; empty
    for shards alone and remote stores."""

    def to_json(self) -> dict[str, Any]:  # Any: a JSON object
        """Return a JSON object."""
        spec = self.index.spec
        return {
            "path": str(self.path),
            "generation": self.generation,
            "generations": list(self.generations),
            "index_id": self.index.index_id,
            "spec_id": spec.spec_id,
            "spec": spec.to_json(),
            "splits": [asdict(split) for split in self.splits],
            "quarantined": list(self.quarantined),
            "shards_are_links": self.shards_are_links,
            "no_rates": self.no_rates,
            "other_devices": self.other_devices,
        }


def summarise(path: Path | str, index: Index, root: Folder | None) -> StoreSummary:
    """Sum up an index, and the store around it if there is one.

    Args:
        path: as the user gave it.
        index: of the shards.
        root: the store, see `store_root`; None when the shards stand alone.

    Raises:
        IncompleteStore: a file that a store of this machine names is missing.
        CorruptData, Unreachable: as `read_manifest`.
    """
    manifest = None if root is None else read_manifest(root)
    no_rates = _why_no_rates(index)
    return StoreSummary(
        path=path,
        generation=index.generation,
        generations=(index.generation,) if root is None else _generations(root, index.generation),
        splits=tuple(_split(index, split, with_rates=no_rates is None) for split in index.splits),
        index=index,
        quarantined=() if manifest is None else manifest.quarantined,
        shards_are_links=_are_links(root, manifest),
        no_rates=no_rates,
        other_devices={}
        if root is None or root.local is None
        else other_devices(root.local, index),
    )


def other_devices(store: Path, index: Index) -> dict[str, int]:
    """Count recordings that were extracted on another kind of device than their plan was begun on.

    Args:
        store: folder of a finished store.
        index: of its shards.

    Returns:
        Recordings by kind of device; empty as long as nobody built with `--allow-mixed-devices`.
    """
    units = (read_unit(store, item.id) for item in index.recordings)
    kinds = Counter(unit.device_kind for unit in units if unit is not None)
    return {kind: num for kind, num in sorted(kinds.items(), key=str) if kind is not None}


def _generations(root: Folder, newest: int) -> tuple[int, ...]:
    if root.local is not None:
        return kept_generations(root.local)
    numbers = range(max(1, newest - _GENERATIONS_LOOKED_FOR), newest)
    return (*(i for i in numbers if root.exists(layout.generation(i))), newest)


def _why_no_rates(index: Index) -> str | None:
    try:
        check_event(RATES[0], index.vocabulary)
        check_whose(RATES[0], index.all_tables, index.mains)
    except ConfigError as error:
        return str(error)
    return None


def _are_links(folder: Folder | None, manifest: Manifest | None) -> bool | None:
    if folder is None or manifest is None or folder.local is None:
        return None
    root = folder.local
    linked = True
    for item in manifest.all_files(folder):
        for path in (item.path, item.also):
            if path is not None and not (root / path).is_file():
                raise IncompleteStore(
                    f"{root / path} is missing, {layout.STORE_JSON} names it; restore it (the"
                    " same `laughstore build` links it again if its other name is left)"
                )
        if item.also is not None:
            linked = linked and (root / item.path).samefile(root / item.also)
    return linked


def _split(index: Index, split: str, *, with_rates: bool) -> SplitSummary:
    recordings = [item for item in index.recordings if item.split == split]
    streams = index.streams(split)
    shards = index.split_shards(split)
    events: Counter[str] = Counter()
    num_dropped = 0
    totals = {spec.label: LabelCounts() for spec in RATES if with_rates}
    for recording in recordings:
        tables = index.tables(recording)
        codes, numbers = np.unique(tables.events.label, return_counts=True)
        for code, times in zip(codes.tolist(), numbers.tolist(), strict=True):
            events[index.vocabulary.labels[code] or "(outside the classes)"] += times
        num_dropped += clean_events(tables)[1].dropped
        for spec in RATES if with_rates else ():
            for stream in recording.streams:
                targets = frame_targets(
                    spec,
                    tables,
                    main=stream.main,
                    other=stream.other,
                    num_frames=stream.num_frames,
                )
                totals[spec.label] += count(targets)
    samples = sum(recording.num_frames for recording in recordings) * SAMPLES_PER_FRAME
    return SplitSummary(
        split=split,
        recordings=len(recordings),
        groups=len({recording.group for recording in recordings}),
        hours=samples / SAMPLE_RATE / 3600,
        streams=len(streams),
        frames=sum(stream.num_frames for stream in streams),
        shards=len(shards),
        shard_bytes=sum(shard.num_bytes for shard in shards),
        events=dict(events.most_common()),
        events_dropped=num_dropped,
        rates={label: total.base_rate for label, total in totals.items()},
    )


def store_root(path: Path | str) -> Folder | None:
    """Return the store that a path or URL means (STORE or STORE/shards), None for shards alone.

    Raises:
        ConfigError, Unreachable: as `open_folder` and its folders.
    """
    folder = open_folder(path)
    if folder.exists(layout.STORE_JSON):
        return folder
    around = folder.parent()
    name = Path(folder.describe()).absolute().name if folder.local else folder.describe()
    if around is None or name.rpartition("/")[2] != layout.SHARDS:
        return None
    return around if around.exists(layout.STORE_JSON) else None
