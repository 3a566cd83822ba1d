"""The recordings of a generation with their units, and the index that is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import layout
from .annotations import Annotations, read_annotations
from .buildplan import Assignment, PlannedRecording
from .errors import CorruptData
from .folders import LocalFolder
from .geometry import ShardGeometry
from .index import Recording, Stream
from .index_file import encode_index, read_index
from .manifest import Manifest
from .spec import FeatureSpec
from .tables import Vocabulary, recording_tables
from .unit import UnitRecord, read_unit


@dataclass(frozen=True)
class Member:
    """A recording of a generation."""

    planned: PlannedRecording
    unit: UnitRecord


def members(store: Path, manifest: Manifest) -> list[Member]:
    """Return the recordings of a generation with their units, in block order."""
    folder = LocalFolder(store)
    index = read_index(folder.child(layout.SHARDS), Path(manifest.index).name)
    if index.index_id != manifest.index_id:
        raise CorruptData(
            f"{manifest.where} and {manifest.index} do not belong together; restore both"
        )
    found: list[Member] = []
    for item in index.recordings:
        unit = read_unit(store, item.id)
        if unit is None or unit.status != "done":
            raise CorruptData(f"{store / layout.unit(item.id)} is missing; restore it")
        planned = PlannedRecording(
            id=item.id,
            name=item.name,
            split=item.split,
            group=item.group,
            num_frames=item.num_frames,
            annotations_id=item.annotations_id,
            assignments=tuple(Assignment(s.assignment, s.main, s.other) for s in item.streams),
            first_shards=tuple(stream.first_shard for stream in item.streams),
        )
        found.append(Member(planned, unit))
    return found


def encode_members(
    store: Path, generation: int, spec: FeatureSpec, members: Sequence[Member]
) -> tuple[bytes, bytes]:
    """Return the bytes of a generation's index and of its columns.

    Args:
        store: folder of the store; holds the annotations.
        generation: its number.
        spec: of the features.
        members: its recordings, in block order.

    Raises:
        CorruptData: annotations are missing or were altered.
    """
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    notes = [_annotations(store, item.planned) for item in members]
    vocabulary = Vocabulary.of(notes)
    tables = [recording_tables(note, vocabulary) for note in notes]
    recordings: list[Recording] = []
    block = 0
    for item, table in zip([member.planned for member in members], tables, strict=True):
        streams: list[Stream] = []
        for assignment, first_shard in zip(item.assignments, item.first_shards, strict=True):
            stream = Stream(
                recording_id=item.id,
                split=item.split,
                assignment=assignment.name,
                main=assignment.main,
                other=assignment.other,
                num_frames=item.num_frames,
                first_block=block,
                num_blocks=geometry.num_blocks(item.num_frames),
                first_shard=first_shard,
                num_shards=geometry.num_shards(item.num_frames),
            )
            block += stream.num_blocks
            streams.append(stream)
        recordings.append(
            Recording(
                id=item.id,
                name=item.name,
                split=item.split,
                group=item.group,
                duration_us=table.duration_us,
                num_frames=item.num_frames,
                annotations_id=item.annotations_id,
                speakers=table.speakers,
                streams=tuple(streams),
            )
        )
    units = [item.unit for item in members]
    sizes = [unit.block_bytes for unit in units if unit.block_bytes is not None]
    assert len(sizes) in (0, len(units)), "one codec a store"
    return encode_index(
        generation=generation,
        spec=spec,
        recordings=recordings,
        tables=tables,
        vocabulary=vocabulary,
        shard_bytes=[size for unit in units for size in unit.shard_bytes],
        shard_sha256=[digest for unit in units for digest in unit.shard_sha256],
        block_crc32c=[crc for unit in units for crc in unit.block_crc32c],
        block_bytes=[size for unit in sizes for size in unit] if sizes else None,
    )


def _annotations(store: Path, item: PlannedRecording) -> Annotations:
    """Annotations of a recording without its words, which no index holds."""
    return replace(
        read_annotations(LocalFolder(store), item.annotations_id, item.split, item.id), words=None
    )
