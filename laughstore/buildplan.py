"""The build plan: every name, size and number of a store, fixed before a frame is extracted.

It is a pure function of the data set and the FeatureSpec, so that any number of processes, killed
and started again, write the same files. A recording that fails later leaves a hole; nothing moves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from . import layout
from .errors import ConfigError, CorruptData, IncompleteStore, NotFound, SpecMismatch
from .files import TEMPORARY_MARK, create_atomic
from .folders import LocalFolder
from .geometry import ShardGeometry
from .naming import is_path_part
from .sealed import read_sealed, seal
from .spec import FeatureSpec
from .values import MAX_FRAMES, integer, listed, mapping, optional_text, path_part, text

PLAN_FORMAT = "laughstore-plan"
PLAN_VERSION = 1


@dataclass(frozen=True)
class Assignment:
    """Roles of a recording's speakers in one of its streams."""

    name: str
    """In paths: `<main>--<other>`."""
    main: str
    other: str | None
    """None: silence."""


@dataclass(frozen=True)
class PlannedRecording:
    """A recording that will be extracted, and where its shards go."""

    id: str
    name: str
    split: str
    group: str
    num_frames: int
    annotations_id: str
    assignments: tuple[Assignment, ...]
    first_shards: tuple[int, ...]
    """Of each assignment: number of its first shard in the split."""


@dataclass(frozen=True)
class SkippedRecording:
    """A recording that cannot be built, known before extraction."""

    name: str
    split: str
    reason: str


@dataclass(frozen=True)
class RecordingToPlan:
    """What the plan needs to know of a recording."""

    id: str
    name: str
    split: str
    group: str
    num_frames: int
    assignments: tuple[Assignment, ...]
    annotations_id: str


@dataclass(frozen=True)
class BuildPlan:
    """What a build will write."""

    spec: FeatureSpec
    device_kind: str
    """Kind of device that extracts; another kind moves the low bits of features."""
    recordings: tuple[PlannedRecording, ...]
    skipped: tuple[SkippedRecording, ...] = ()

    @property
    def geometry(self) -> ShardGeometry:
        """Of all shards."""
        return ShardGeometry(self.spec.dim, self.spec.block_frames, self.spec.shard_frames)

    def to_json(self) -> dict[str, Any]:  # Any: a JSON object
        """Return the plan as a JSON object."""
        return {"format": PLAN_FORMAT, "version": PLAN_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str) -> Self:
        """Return the plan that `to_json` wrote. Raises CorruptData when it is none."""
        if data.get("format") != PLAN_FORMAT or data.get("version") != PLAN_VERSION:
            raise CorruptData(
                f"{where}: {data.get('format')} version {data.get('version')} is not readable;"
                f" this release reads {PLAN_FORMAT} version {PLAN_VERSION}"
            )
        recordings = tuple(
            _planned_from_json(mapping(item, where=where), where=where)
            for item in listed(data.get("recordings"), "recordings", where=where)
        )
        if len({item.id for item in recordings}) != len(recordings):
            raise CorruptData(f"{where}: a recording's id occurs twice; do not trust this file")
        return cls(
            spec=FeatureSpec.from_json(mapping(data.get("spec"), where=where), where=where),
            device_kind=text(data, "device_kind", where=where),
            recordings=recordings,
            skipped=tuple(
                _skipped_from_json(mapping(item, where=where), where=where)
                for item in listed(data.get("skipped"), "skipped", where=where)
            ),
        )


def make_plan(
    spec: FeatureSpec,
    device_kind: str,
    recordings: Sequence[RecordingToPlan],
    skipped: Sequence[SkippedRecording] = (),
    first_shards: Mapping[str, int] | None = None,
) -> BuildPlan:
    """Number the shards of every recording, split by split, in the order given.

    Args:
        spec: of the features.
        device_kind: that extracts them.
        recordings: to plan.
        skipped: that cannot be built, for the record.
        first_shards: of each split, the number to begin with; 0 by default. An addition goes on
            behind the last number that any plan before it has given.

    Raises:
        ConfigError: two recordings share an id, one has no assignment, a split's name cannot
            stand in a path, or two differ in case only.
    """
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    next_shard = dict(first_shards or {})
    seen: dict[str, str] = {}
    planned: list[PlannedRecording] = []
    refuse_like_splits((item.split for item in recordings), next_shard)
    for item in recordings:
        if not is_path_part(item.split):
            raise ConfigError(
                f"split {item.split!r} cannot be part of a file name; use letters, digits, - and _"
            )
        if item.id in seen:
            raise ConfigError(
                f"recordings {seen[item.id]!r} and {item.name!r} have one id, {item.id};"
                " each recording may occur once, in one split"
            )
        if not item.assignments:
            raise ConfigError(
                f"recording {item.name!r} has no assignment: nobody's stream would be extracted;"
                " give it one, or leave it out"
            )
        seen[item.id] = item.name
        num_shards = geometry.num_shards(item.num_frames)
        first = next_shard.get(item.split, 0)
        next_shard[item.split] = first + num_shards * len(item.assignments)
        planned.append(
            PlannedRecording(
                id=item.id,
                name=item.name,
                split=item.split,
                group=item.group,
                num_frames=item.num_frames,
                annotations_id=item.annotations_id,
                assignments=item.assignments,
                first_shards=tuple(first + i * num_shards for i in range(len(item.assignments))),
            )
        )
    return BuildPlan(spec, device_kind, tuple(planned), tuple(skipped))


def refuse_like_splits(splits: Iterable[str], known: Mapping[str, object] | None = None) -> None:
    """Refuse splits that differ in case only.

    On macOS, Windows and exFAT their files would overwrite one another.

    Args:
        splits: of recordings.
        known: splits that a store has, and may have, already.

    Raises:
        ConfigError: two are such.
    """
    there = dict(known or {})
    first = {split.casefold(): split for split in there}
    for split in splits:
        same = first.setdefault(split.casefold(), split)
        if split != same and split not in there:
            raise ConfigError(
                f"splits {same!r} and {split!r} differ in case only, which some file systems do not"
                " tell apart; rename one of them"
            )


def read_plan(store: Path, number: int = 1) -> BuildPlan:
    """Return a plan of a store that was begun.

    Args:
        store: folder of the store.
        number: 1 is the plan that the store was begun with, later ones are additions.

    Raises:
        IncompleteStore: there is no such plan.
        CorruptData: the plan was altered.
    """
    path = layout.plan(number)
    folder = LocalFolder(store)
    try:
        content, _ = read_sealed(folder, path)
    except NotFound as error:
        raise IncompleteStore(
            f"{store} holds no {path}; begin it with: laughstore build DATASET --store {store}"
        ) from error
    return BuildPlan.from_json(content, where=folder.describe(path))


def begin_plan(
    store: Path, plan: BuildPlan, number: int = 1, *, allow_mixed_devices: bool = False
) -> BuildPlan:
    """Write a plan into a store, or check that the plan there is the same.

    Of several processes that begin at once, one writes the plan and the others find it.

    Args:
        store: folder of the store.
        plan: what this process would do.
        number: 1 for the store's own plan, more for additions.
        allow_mixed_devices: take a plan that was begun on another kind of device.

    Returns:
        The plan that holds: that of the store if it was begun before.

    Raises:
        ConfigError: the folder holds something else than a store, or a store of other recordings.
        SpecMismatch: the store holds features of another model or other settings.
    """
    if number == 1:
        check_store_folder(store)
    create_atomic(store / layout.plan(number), seal(plan.to_json()))
    there = read_plan(store, number)
    _check_same(store, there, plan, allow_mixed_devices=allow_mixed_devices)
    return there


def check_store_folder(store: Path) -> None:
    """Check that a store stands in this folder, or could be begun there.

    Raises:
        ConfigError: it is a file, or a folder that holds something else.
    """
    plan = store / layout.FIRST_PLAN
    # The second look: another process may have begun the store since the first.
    if store.exists() and not plan.exists() and _holds_more(store) and not plan.exists():
        raise ConfigError(f"{store} exists and is no laughstore store; give another --store")


def _holds_more(store: Path) -> bool:
    """Whether there is more than what a process leaves that was killed while it began a store."""
    ours = (layout.PLANS, layout.LOCK)
    if not store.is_dir() or any(
        item.name not in ours and TEMPORARY_MARK not in item.name for item in store.iterdir()
    ):
        return True
    plans = store / layout.PLANS
    return plans.exists() and any(TEMPORARY_MARK not in item.name for item in plans.iterdir())


def _check_same(
    store: Path, there: BuildPlan, wanted: BuildPlan, *, allow_mixed_devices: bool
) -> None:
    changes = there.spec.differences(wanted.spec)
    if changes:
        raise SpecMismatch(
            f"{store} holds features of another spec ({'; '.join(changes)}: there, asked for);"
            " use another --store, or the settings it was begun with"
        )
    if there.device_kind != wanted.device_kind and not allow_mixed_devices:
        raise SpecMismatch(
            f"{store} was begun on {there.device_kind}, this is {wanted.device_kind}: bytes would"
            " differ in their low bits; finish it where it was begun, use another --store, or go on"
            " all the same with --allow-mixed-devices (the store then says which are from where)"
        )
    mine = {item.id: item for item in there.recordings}
    theirs = {item.id: item for item in wanted.recordings}
    new = [item.name for key, item in theirs.items() if key not in mine]
    # A new recording moves the shard numbers of those behind it.
    is_more = all(
        key in theirs and replace(theirs[key], first_shards=item.first_shards) == item
        for key, item in mine.items()
    )
    if new and is_more and (store / layout.STORE_JSON).exists() and not there.spec.is_imported:
        raise ConfigError(
            f"{store} is finished, and the data set has more than it was planned from:"
            f" {len(new)} new, the first is {new[0]!r}; append them with: laughstore add"
            f" {store} DATASET"
        )
    for key in [*mine, *theirs]:
        if mine.get(key) != theirs.get(key):
            item = mine.get(key) or theirs[key]
            how = "is new" if key not in mine else "is gone" if key not in theirs else "has changed"
            raise ConfigError(
                f"{store} was planned from other data: recording {item.name!r} ({item.split})"
                f" {how}; use another --store, or the data set it was begun with"
            )


def _planned_from_json(item: Mapping[str, Any], *, where: str) -> PlannedRecording:
    assignments = [
        mapping(entry, where=where)
        for entry in listed(item.get("assignments"), "assignments", where=where)
    ]
    first_shards = listed(item.get("first_shards"), "first_shards", where=where)
    if not assignments or len(first_shards) != len(assignments):
        raise CorruptData(
            f"{where}: {len(assignments)} assignments with {len(first_shards)} first_shards;"
            " restore it"
        )
    return PlannedRecording(
        id=path_part(item, "id", where=where),
        name=text(item, "name", where=where),
        split=path_part(item, "split", where=where),
        group=text(item, "group", where=where),
        num_frames=integer(item, "num_frames", where=where, low=1, high=MAX_FRAMES),
        annotations_id=path_part(item, "annotations_id", where=where),
        assignments=tuple(
            Assignment(
                name=path_part(entry, "name", where=where),
                main=text(entry, "main", where=where),
                other=optional_text(entry, "other", where=where),
            )
            for entry in assignments
        ),
        first_shards=tuple(
            integer({"first shard": number}, "first shard", where=where) for number in first_shards
        ),
    )


def _skipped_from_json(item: Mapping[str, Any], *, where: str) -> SkippedRecording:
    return SkippedRecording(
        *(text(item, name, where=where) for name in ("name", "split", "reason"))
    )
