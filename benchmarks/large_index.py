"""The index of a store as large as PodcastFillers, without its 107 GB of features."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from laughstore import layout
from laughstore.annotations import Annotations, Segment
from laughstore.buildplan import PlannedRecording
from laughstore.geometry import ShardGeometry
from laughstore.index import Index, Recording, Stream, encode_index
from laughstore.layout import INDEX_NAME
from laughstore.tables import Vocabulary, recording_tables

from .data import SPEAKERS, SPLIT, annotations, bench_spec, plan_of

# PodcastFillers has 199 episodes with audio of their speakers, two assignments each. These lengths
# give 3,200 shards and 102,000 blocks.
_LENGTHS = [8 * 4096] * 191 + [263 * 128] * 8
_NUM_EVENTS = 86_000
_SEGMENTS_PER_RECORDING = 500
LARGE_INDEX = (
    "199 recordings, 398 streams, 3200 shards, 102000 blocks, 86000 events,"
    f" {_SEGMENTS_PER_RECORDING} segments and as many turns a recording"
)


def write_large_index(folder: Path) -> None:
    """Write the index into `folder`; the shards that it names do not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = bench_spec()
    geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
    even, rest = divmod(_NUM_EVENTS, len(_LENGTHS))
    notes = [_notes(i, n, even + (i < rest)) for i, n in enumerate(_LENGTHS)]
    vocabulary = Vocabulary.of(notes)
    recordings = _recordings(plan_of(_LENGTHS, notes, spec).recordings, notes, geometry)
    streams = [stream for recording in recordings for stream in recording.streams]
    num_blocks = sum(stream.num_blocks for stream in streams)
    shard_bytes = [size for stream in streams for size in _shard_bytes(stream, geometry)]
    data, columns = encode_index(
        generation=1,
        spec=spec,
        recordings=recordings,
        tables=[recording_tables(note, vocabulary) for note in notes],
        vocabulary=vocabulary,
        shard_bytes=shard_bytes,
        shard_sha256=["0" * 64] * len(shard_bytes),
        block_crc32c=np.random.default_rng(0).integers(0, 2**32, num_blocks, np.uint32).tolist(),
    )
    (folder / INDEX_NAME).write_bytes(data)
    (folder / PurePosixPath(layout.columns(1)).name).write_bytes(columns)


def check_large_index(index: Index) -> None:
    """Raise unless the index holds what `write_large_index` wrote."""
    found = (
        len(index.recordings),
        len(index.streams(SPLIT)),
        len(index.shards),
        index.num_blocks,
        sum(len(tables.events) for tables in index.all_tables),
    )
    if found != (199, 398, 3_200, 102_000, _NUM_EVENTS):
        raise AssertionError(f"the index holds {found}")


def _recordings(
    planned: Sequence[PlannedRecording], notes: Sequence[Annotations], geometry: ShardGeometry
) -> list[Recording]:
    recordings: list[Recording] = []
    block = 0
    for item, note in zip(planned, notes, strict=True):
        streams: list[Stream] = []
        for assignment, first_shard in zip(item.assignments, item.first_shards, strict=True):
            stream = Stream(
                recording_id=item.id,
                split=SPLIT,
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
                split=SPLIT,
                group=item.group,
                duration_us=note.duration_us,
                num_frames=item.num_frames,
                annotations_id=item.annotations_id,
                speakers=SPEAKERS,
                streams=tuple(streams),
            )
        )
    return recordings


def _shard_bytes(stream: Stream, geometry: ShardGeometry) -> Iterator[int]:
    for shard in range(stream.num_shards):
        yield geometry.shard_bytes(geometry.blocks_in_shard(stream.num_frames, shard))


def _notes(number: int, num_frames: int, num_events: int) -> Annotations:
    note = annotations(f"Show {number % 30}, episode {number}.", num_frames, num_events)
    edges = np.linspace(0, note.duration_us, _SEGMENTS_PER_RECORDING + 1).astype(np.int64).tolist()
    turns = tuple(
        Segment(start, end, SPEAKERS[i % 2]) for i, (start, end) in enumerate(pairwise(edges))
    )
    return replace(note, segments=turns, turns=turns)
