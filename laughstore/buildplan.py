"""The build plan: every name, size and number of a store, fixed before a frame is extracted.

It is a pure function of the data set and the FeatureSpec, so that any number of processes, killed
and started again, write the same files. A recording that fails later leaves a hole; nothing moves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from . import layout
from .errors import ConfigError, CorruptData, IncompleteStore, SpecMismatch
from .files import TEMPORARY_MARK, write_atomic
from .geometry import ShardGeometry
from .naming import is_path_part
from .sealed import seal, unseal
from .spec import FeatureSpec

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
        try:
            return cls(
                spec=FeatureSpec.from_json(data["spec"], where=where),
                device_kind=data["device_kind"],
                recordings=tuple(_planned_from_json(item) for item in data["recordings"]),
                skipped=tuple(SkippedRecording(**item) for item in data["skipped"]),
            )
        except (KeyError, TypeError) as error:
            raise CorruptData(f"{where}: field missing or of another kind ({error})") from error


def make_plan(
    spec: FeatureSpec,
    device_kind: str,
    recordings: Sequence[RecordingToPlan],
    skipped: Sequence[SkippedRecording] = (),
) -> BuildPlan:
    """Number the shards of every recording, split by split, in the order given.

    Raises:
        ConfigError: two recordings share an id, or a split's name cannot stand in a path.
    """
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    next_shard: dict[str, int] = {}
    seen: dict[str, str] = {}
    planned: list[PlannedRecording] = []
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


def read_plan(store: Path) -> BuildPlan:
    """Return the plan of a store that was begun.

    Raises:
        IncompleteStore: there is no plan.
        CorruptData: the plan was altered.
    """
    path = store / layout.PLAN_JSON
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IncompleteStore(
            f"{store} holds no {layout.PLAN_JSON}; begin it with: laughstore build DATASET --store"
            f" {store}"
        ) from error
    return BuildPlan.from_json(unseal(data, where=str(path))[0], where=str(path))


def begin_store(store: Path, plan: BuildPlan) -> BuildPlan:
    """Write the plan into a new store, or check that the store there has the same one.

    Returns:
        The plan that holds: that of the store if it was begun before.

    Raises:
        ConfigError: the folder holds something else than a store, or a store of other recordings.
        SpecMismatch: the store holds features of another model or other settings.
    """
    if (store / layout.PLAN_JSON).exists():
        there = read_plan(store)
        _check_same(store, there, plan)
        return there
    check_store_folder(store)
    write_atomic(store / layout.PLAN_JSON, seal(plan.to_json()))
    return plan


def check_store_folder(store: Path) -> None:
    """Check that a store stands in this folder, or could be begun there.

    Raises:
        ConfigError: it is a file, or a folder that holds something else.
    """
    if not store.exists() or (store / layout.PLAN_JSON).exists():
        return
    # A plan that was being written when its process was killed is nobody's work.
    if not store.is_dir() or any(TEMPORARY_MARK not in item.name for item in store.iterdir()):
        raise ConfigError(f"{store} exists and is no laughstore store; give another --store")


def _check_same(store: Path, there: BuildPlan, wanted: BuildPlan) -> None:
    changes = there.spec.differences(wanted.spec)
    if changes:
        raise SpecMismatch(
            f"{store} holds features of another spec ({'; '.join(changes)}: there, asked for);"
            " use another --store, or the settings it was begun with"
        )
    if there.device_kind != wanted.device_kind:
        raise SpecMismatch(
            f"{store} was begun on {there.device_kind}, this is {wanted.device_kind}: bytes would"
            " differ in their low bits; finish it where it was begun, or use another --store"
        )
    mine = {item.id: item for item in there.recordings}
    theirs = {item.id: item for item in wanted.recordings}
    for key in [*mine, *theirs]:
        if mine.get(key) != theirs.get(key):
            item = mine.get(key) or theirs[key]
            how = "is new" if key not in mine else "is gone" if key not in theirs else "has changed"
            raise ConfigError(
                f"{store} was planned from other data: recording {item.name!r} ({item.split})"
                f" {how}; use another --store, or the data set it was begun with"
            )


def _planned_from_json(item: Mapping[str, Any]) -> PlannedRecording:
    return PlannedRecording(
        **{
            **item,
            "assignments": tuple(Assignment(**entry) for entry in item["assignments"]),
            "first_shards": tuple(item["first_shards"]),
        }
    )
