"""Read an index whole and hold it against the units, arrays and files that it describes."""

from collections.abc import Mapping, Set
from pathlib import PurePosixPath

import numpy as np

from .. import layout
from ..arrays import CODE_STREAMS
from ..errors import LaughstoreError
from ..folders import Folder
from ..index import Index, Recording, Stream
from ..index_file import read_index
from ..manifest import FileRecord
from ..sealed import parse_json, read_sealed, read_small
from ..unit import UnitRecord
from ..values import mapping, text
from .claims import Survey, reason
from .report import Fault
from .shard_check import ShardView

RESTORE = "restore it from a copy of the store"


def check_index(survey: Survey, shards: Folder, name: str, prefix: str) -> Index | None:
    """Read an index and all its columns, and claim the shards it describes.

    Args:
        survey: to be added to.
        shards: the shards folder.
        name: of the index.
        prefix: of the paths of its files: `shards/`, or nothing when the shards stand alone.

    Returns:
        The index; None when it or its columns cannot be read: then that is told.
    """
    path = f"{prefix}{name}"
    try:
        index = read_index(shards, name)
    except (LaughstoreError, OSError) as error:
        columns = _claim_columns(survey, shards, name, prefix)
        survey.suspect((path, columns), Fault(path, reason(error, shards.describe(name)), RESTORE))
        return None
    columns = f"{prefix}{index.columns.name}"
    survey.claim(FileRecord(columns, index.columns.num_bytes, index.columns.sha256), path)
    try:
        index.all_tables  # noqa: B018  # read for its checks
        views = [ShardView(index, shard) for shard in index.shards]
        digests = index.shard_sha256
        sound = all(view.num_bytes == view.shard.num_bytes for view in views)
        sound = sound and int(index.block_crc32c.size) == index.num_blocks
    except (LaughstoreError, OSError) as error:
        survey.suspect(
            (path, columns), Fault(columns, reason(error, shards.describe(name)), RESTORE)
        )
        return None
    if not sound:
        what = "its shards have other sizes than their blocks take"
        survey.suspect((path, columns), Fault(columns, what, RESTORE))
        return None
    for view, digest in zip(views, digests, strict=True):
        shard = f"{prefix}{view.shard.name}"
        also = zarr_name(view) if prefix else None
        survey.claim(FileRecord(shard, view.shard.num_bytes, digest, also), columns)
        survey.views.setdefault(shard, view)
    return index


def _claim_columns(survey: Survey, shards: Folder, name: str, prefix: str) -> str:
    """Claim the columns of an index that cannot be opened, as far as it names them."""
    path = f"{prefix}{PurePosixPath(name).stem}.columns"
    try:
        content, _ = read_sealed(shards, name)
        columns = mapping(content.get("columns"), where=name)
        path = f"{prefix}{text(columns, 'name', where=name)}"
        survey.claim(FileRecord.from_json({**columns, "path": path}, where=name), prefix + name)
    except (LaughstoreError, OSError):
        pass
    return path


def zarr_name(view: ShardView) -> str:
    """Return the second name of a shard: a chunk of its stream's array."""
    stream = view.shard.stream
    return layout.chunk(_array(layout.FEATURES, stream), view.shard.number - stream.first_shard)


def check_units(survey: Survey, index: Index, units: Mapping[str, UnitRecord | None]) -> None:
    """Hold an index against the records of its recordings: checksums, sizes, names.

    Args:
        survey: to be added to.
        index: of a generation.
        units: of that generation, by recording id; None: cannot be read, which has been told.
    """
    columns = f"{layout.SHARDS}/{index.columns.name}"
    block = 0
    for recording in index.recordings:
        first = block
        block += sum(stream.num_blocks for stream in recording.streams)
        path = layout.unit(recording.id)
        if recording.id not in units:
            survey.suspect(
                (path,), Fault(path, "the index has the recording, store.json not", RESTORE)
            )
            continue
        unit = units[recording.id]
        if unit is None:
            continue
        same = np.array_equal(index.block_crc32c[first:block], unit.block_crc32c)
        if unit.block_bytes is not None:
            same = same and np.array_equal(index.block_bytes[first:block], unit.block_bytes)
        if not same:
            what = f"its blocks of {recording.id} are not those of {path}"
            survey.suspect((columns, path), Fault(columns, what, f"{RESTORE}, both files"))
        named = {item.path for item in unit.files}
        missing = [name for name in _files(index, recording) if name not in named]
        if missing:
            survey.suspect((path,), Fault(path, f"does not name {missing[0]}", RESTORE))


def check_arrays(survey: Survey, folder: Folder, index: Index, sound: Set[str]) -> None:
    """Compare the shapes that zarr.json files state with the index.

    Args:
        survey: to be added to.
        folder: of the store.
        index: of a generation.
        sound: files that are what their unit names.
    """
    for recording in index.recordings:
        for stream in recording.streams:
            for root, dim, dtype in (
                (layout.FEATURES, index.dim, "bfloat16"),
                (layout.CODES, CODE_STREAMS, "int16"),
            ):
                path = layout.zarr_json(_array(root, stream))
                if path not in sound:
                    continue
                expected = {
                    "shape": [stream.num_frames, dim],
                    "data_type": dtype,
                    "chunk_grid": {
                        "name": "regular",
                        "configuration": {"chunk_shape": [index.geometry.shard_frames, dim]},
                    },
                }
                try:
                    found = parse_json(read_small(folder, path), where=path)
                except (LaughstoreError, OSError) as error:
                    survey.fault(path, reason(error, path), RESTORE)
                    continue
                wrong = [key for key, value in expected.items() if found.get(key) != value]
                if wrong:
                    survey.fault(path, f"its {wrong[0]} is not that of the index", RESTORE)


def _files(index: Index, recording: Recording) -> list[str]:
    """Every file that the unit of a recording has to name, without second names."""
    names: list[str] = []
    for stream in recording.streams:
        codes = _array(layout.CODES, stream)
        names.append(layout.zarr_json(codes))
        names.append(layout.zarr_json(_array(layout.FEATURES, stream)))
        for number in range(stream.num_shards):
            names.append(layout.shard(stream.split, stream.first_shard + number))
            names.append(layout.chunk(codes, number))
    return names


def _array(root: str, stream: Stream) -> str:
    return layout.array(root, stream.split, stream.recording_id, stream.assignment)
