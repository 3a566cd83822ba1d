"""Read the metadata of a store or of its shards: what it says it has, and whether that agrees.

Every kept generation is read. A file that cannot be read is told, and what else says the same is
used in its place: the numbered manifest for store.json, the index for a unit's record.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from .. import layout
from ..buildplan import BuildPlan, PlannedRecording
from ..errors import CorruptData, LaughstoreError, NotFound
from ..folders import Folder
from ..index import Index
from ..manifest import STORE_FORMAT, STORE_VERSION, Manifest, parse_manifest
from ..publishing import quarantine_json
from ..sealed import read_sealed, read_small, unseal
from ..unit import UnitRecord
from .claims import Survey, reason
from .file_check import Listing
from .index_check import RESTORE, check_index, check_units

_NUMBERED = re.compile(r"(\d{6})\.json")
_INDEX = re.compile(r"index-(\d{6})\.json")
_IN_SHARDS = f"{layout.SHARDS}/"
_HOLES = 16
"""Generations missing in a row, after which no older one is asked for."""
_STATS_FORMAT = "laughstore-stats"


def survey_store(folder: Folder, listing: Listing | None) -> tuple[Survey, Index | None]:
    """Read the metadata of every kept generation.

    Args:
        folder: of the store.
        listing: of everything in it; None when it is remote.

    Returns:
        What was found, and the newest index that can be read.
    """
    survey = Survey()
    manifests = _manifests(survey, folder, listing)
    shards = _shards(folder)
    units: dict[tuple[str, str], UnitRecord | None] = {}
    newest: Index | None = None
    for manifest in manifests:
        survey.generations.append(manifest.generation)
        of_generation = _claim_files(survey, folder, manifest, units)
        name = PurePosixPath(manifest.index).name
        index = None if shards is None else check_index(survey, shards, name, _IN_SHARDS)
        if index is None:
            continue
        newest = newest or index
        if index.index_id != manifest.index_id or index.spec != manifest.spec:
            what = f"is not the index of generation {manifest.generation}"
            survey.fault(manifest.index, what, RESTORE)
        check_units(survey, index, of_generation)
    _current_index(survey, folder, manifests)
    if manifests:
        _quarantine(survey, folder, manifests)
        _plans(survey, folder, listing, manifests[0].num_plans)
        annotations = {item.path for manifest in manifests for item in manifest.files}
        _named_annotations(survey, newest, annotations)
    elif shards is not None:
        newest = check_index(survey, shards, layout.INDEX_NAME, _IN_SHARDS)
    _unnamed_units(survey, folder, listing, claim_all=not manifests)
    _statistics(survey, folder, listing)
    return survey, newest


def survey_shards(folder: Folder, listing: Listing | None) -> tuple[Survey, Index | None]:
    """Read every index of a shards folder that stands alone. Returns as `survey_store`."""
    survey = Survey(own={layout.INDEX_NAME, layout.LOCK})
    current = check_index(survey, folder, layout.INDEX_NAME, "")
    if current is not None:
        survey.generations.append(current.generation)
    newest = current
    for number in reversed(_numbers(listing, "", _INDEX)):
        name = PurePosixPath(layout.index(number)).name
        survey.own.add(name)
        if current is not None and number == current.generation:
            _same_index(survey, folder, name)
            continue
        if current is not None and number > current.generation:
            survey.fault(
                layout.INDEX_NAME,
                f"stale: of generation {current.generation}, {name} stands beside it",
                f"copy {name} over it",
            )
        index = check_index(survey, folder, name, "")
        if index is not None:
            newest = newest or index
            survey.generations.append(index.generation)
    return survey, newest


def _same_index(survey: Survey, folder: Folder, name: str) -> None:
    """Check that the numbered index of the current generation is what index.json is."""
    try:
        is_same = read_small(folder, name) == read_small(folder, layout.INDEX_NAME)
        what = f"is not what {layout.INDEX_NAME} is, of the same generation"
    except (LaughstoreError, OSError) as error:
        is_same, what = False, reason(error, folder.describe(name))
    if not is_same:
        survey.fault(name, what, f"copy {layout.INDEX_NAME} over it")


def _manifests(survey: Survey, folder: Folder, listing: Listing | None) -> list[Manifest]:
    """Every manifest that can be read, the newest first; store.json is the newest if it can."""
    path = layout.STORE_JSON
    survey.own.update({path, layout.LOCK, layout.QUARANTINE_JSON, layout.CURRENT_INDEX})
    current, data, problem = _newest(folder)
    numbers = _numbers(listing, f"{layout.GENERATIONS}/", _NUMBERED)
    if listing is None and current is not None:
        numbers = _remote_generations(folder, current.generation)
    found = [] if current is None else [current]
    for number in reversed(numbers):
        name = layout.generation(number)
        survey.own.add(name)
        if current is not None and number > current.generation:
            survey.notes.append(f"{name} never counted: a commit was interrupted; run it again")
            continue
        try:
            content = read_small(folder, name)
            if current is not None and number == current.generation:
                if content != data:
                    survey.fault(name, f"is not what {path} is", f"copy {path} over it")
                continue
            manifest = _parsed(content, folder.describe(name))
            if manifest.generation != number:
                raise CorruptData(f"is generation {manifest.generation}")
            found.append(manifest)
        except (LaughstoreError, OSError) as error:
            survey.fault(name, reason(error, folder.describe(name)), RESTORE)
    if current is not None and current.generation not in numbers:
        name = layout.generation(current.generation)
        survey.own.add(name)
        survey.fault(name, "is missing", f"copy {path} there")
    if problem is not None:
        name = layout.generation(found[0].generation) if found else None
        survey.fault(path, problem, f"copy {name} over it" if name else RESTORE)
    return found


def _remote_generations(folder: Folder, newest: int) -> list[int]:
    """Numbers of the generations in a remote store, ascending.

    Where the folder cannot be listed they are asked for one by one, from the newest down, until
    many in a row are missing: a manifest may state any number, and each question takes a while.
    """
    names = folder.list_names(layout.GENERATIONS)
    if names is not None:
        found = [_NUMBERED.fullmatch(name) for name in names]
        return sorted(int(match[1]) for match in found if match is not None)
    numbers: list[int] = []
    missing = 0
    for number in range(newest, 0, -1):
        if folder.exists(layout.generation(number)):
            numbers.append(number)
            missing = 0
        elif (missing := missing + 1) == _HOLES:
            break
    return numbers[::-1]


def _newest(folder: Folder) -> tuple[Manifest | None, bytes, str | None]:
    """(manifest in store.json, its bytes, what is wrong with it)."""
    where, data = folder.describe(layout.STORE_JSON), b""
    try:
        data = read_small(folder, layout.STORE_JSON)
        return _parsed(data, where), data, None
    except (LaughstoreError, OSError) as error:
        _refuse_newer(data, where)
        return None, data, reason(error, where)


def _claim_files(
    survey: Survey,
    folder: Folder,
    manifest: Manifest,
    units: dict[tuple[str, str], UnitRecord | None],
) -> dict[str, UnitRecord | None]:
    """Claim what a manifest and its units name. Returns the units by recording id."""
    source = PurePosixPath(manifest.where).name
    source = layout.STORE_JSON if source == layout.STORE_JSON else f"{layout.GENERATIONS}/{source}"
    found: dict[str, UnitRecord | None] = {}
    for item in manifest.files:
        survey.claim(item, source)
        if not item.path.startswith(f"{layout.UNITS}/"):
            continue
        key = item.path, item.sha256
        if key not in units:
            unit = units[key] = _unit(survey, folder, item.path, item.sha256)
            for record in () if unit is None else unit.files:
                survey.claim(record, item.path)
        found[PurePosixPath(item.path).stem] = units[key]
    return found


def _unit(survey: Survey, folder: Folder, path: str, sha256: str) -> UnitRecord | None:
    """A unit's record; None when it is not what its manifest says, which its hash will tell."""
    try:
        data = read_small(folder, path)
        if hashlib.sha256(data).hexdigest() != sha256:
            return None
        record = UnitRecord.from_bytes(data, where=path)
        if record.status != "done" or path != layout.unit(record.id):
            raise CorruptData(f"{path}: is the record of {record.id}, {record.status}")
    except NotFound:
        return None
    except (LaughstoreError, OSError) as error:
        survey.fault(path, reason(error, folder.describe(path)), RESTORE)
        return None
    return record


def _shards(folder: Folder) -> Folder | None:
    """The shards folder; None where a symbolic link stands in its place, which is told as one."""
    try:
        return folder.child(layout.SHARDS)
    except CorruptData:
        return None


def _current_index(survey: Survey, folder: Folder, manifests: list[Manifest]) -> None:
    """Check that shards/index.json is the copy of the newest generation's index."""
    path = layout.CURRENT_INDEX
    advice = f"copy {manifests[0].index} over it" if manifests else RESTORE
    try:
        content, digest = unseal(read_small(folder, path), where=folder.describe(path))
    except (LaughstoreError, OSError) as error:
        survey.fault(path, reason(error, folder.describe(path)), advice)
        return
    if manifests and digest != manifests[0].index_id:
        what = f"stale: of generation {content.get('generation')}, not {manifests[0].generation}"
        survey.fault(path, what, advice)


def _quarantine(survey: Survey, folder: Folder, manifests: list[Manifest]) -> None:
    """Check the list of recordings left out, which is written after store.json."""
    path = layout.QUARANTINE_JSON
    expected, *older = [quarantine_json(item.quarantined) for item in manifests]
    found: bytes | None = None
    try:
        found = read_small(folder, path)
    except NotFound:
        if folder.local is None:  # `push` sends what has a hash
            return
    except (LaughstoreError, OSError) as error:
        survey.fault(path, reason(error, folder.describe(path)), RESTORE)
        return
    if found == expected:
        return
    if found is None or found in older:
        survey.notes.append(
            f"{path} is not of the newest generation: a commit was interrupted; run it again, or"
            " `laughstore gc`"
        )
        return
    advice = RESTORE if expected is not None else "delete it: nothing was left out"
    survey.fault(path, "is not the list that store.json holds", advice)


def _plans(survey: Survey, folder: Folder, listing: Listing | None, num_plans: int) -> None:
    """Read all plans: those carried out for the annotations of builds, others for their files."""
    numbers = _numbers(listing, f"{layout.PLANS}/", _NUMBERED)
    for number in numbers or [i + 1 for i in range(num_plans)]:
        path = layout.plan(number)
        survey.own.add(path)
        try:
            content, _ = read_sealed(folder, path)
            plan = BuildPlan.from_json(content, where=path)
        except NotFound:
            continue
        except (LaughstoreError, OSError) as error:
            survey.fault(path, reason(error, folder.describe(path)), RESTORE)
            continue
        for item in plan.recordings:
            if number <= num_plans:
                survey.plan_annotations[item.id] = item.annotations_id
            else:
                survey.in_progress.update(_planned_files(plan, item))
        if number > num_plans:
            survey.notes.append(
                f"{path} has not been finished ({len(plan.recordings)} recordings); run the same"
                " `laughstore add` again to go on"
            )


def _planned_files(plan: BuildPlan, item: PlannedRecording) -> Iterator[str]:
    yield layout.unit(item.id)
    num_shards = plan.geometry.num_shards(item.num_frames)
    for first in item.first_shards:
        for number in range(first, first + num_shards):
            yield layout.shard(item.split, number)


def _unnamed_units(
    survey: Survey, folder: Folder, listing: Listing | None, *, claim_all: bool
) -> None:
    """Check the seals of units that no generation names: quarantined ones, unfinished additions."""
    for path in () if listing is None else listing.files:
        if not path.startswith(f"{layout.UNITS}/") or path in survey.claims:
            continue
        if not path.endswith(".json"):
            continue
        try:
            record = UnitRecord.from_bytes(read_small(folder, path), where=path)
            if path != layout.unit(record.id):
                raise CorruptData(f"{path}: is the record of {record.id}")
        except (LaughstoreError, OSError) as error:
            survey.fault(path, reason(error, folder.describe(path)), RESTORE)
            continue
        survey.own.add(path)
        if claim_all or path in survey.in_progress:
            for item in record.files:
                survey.claim(item, path)


def _statistics(survey: Survey, folder: Folder, listing: Listing | None) -> None:
    """Check the seals of statistics, which are derived: they can be made again."""
    for path in () if listing is None else listing.files:
        if not path.startswith(f"{layout.STATS}/") or not path.endswith(".json"):
            continue
        survey.own.add(path)
        try:
            content, _ = read_sealed(folder, path)
            if content.get("format") != _STATS_FORMAT:
                raise CorruptData(f"{path}: is no file of statistics")
            if content.get("recording") != PurePosixPath(path).stem:
                raise CorruptData(f"{path}: is of another recording")
        except (LaughstoreError, OSError) as error:
            survey.fault(
                path,
                reason(error, folder.describe(path)),
                "delete it: it is made again when it is needed",
            )


def _named_annotations(survey: Survey, index: Index | None, named: set[str]) -> None:
    """Check that the newest generation names the annotations of all its recordings."""
    for item in () if index is None else index.recordings:
        path = layout.annotations(item.annotations_id, item.split, item.id)
        if path not in named:
            survey.fault(layout.STORE_JSON, f"does not name {path}", RESTORE)


def _numbers(listing: Listing | None, prefix: str, pattern: re.Pattern[str]) -> list[int]:
    """Numbers of the files of this kind, ascending."""
    found = [
        pattern.fullmatch(path.removeprefix(prefix))
        for path in (() if listing is None else (*listing.files, *listing.links))
        if path.startswith(prefix)
    ]
    return sorted(int(match[1]) for match in found if match is not None)


def _parsed(data: bytes, where: str) -> Manifest:
    """A manifest and its file records: hostile ones are found here."""
    manifest = parse_manifest(data, where=where)
    assert manifest.files is not None
    return manifest


def _refuse_newer(data: bytes, where: str) -> None:
    """Raise CorruptData for a sound manifest that a newer release has written."""
    try:
        content, _ = unseal(data, where=where)
    except CorruptData:
        return
    version = content.get("version")
    if content.get("format") == STORE_FORMAT and type(version) is int and version > STORE_VERSION:
        parse_manifest(data, where=where)
