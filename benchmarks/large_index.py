"""Stores as large as PodcastFillers and fifty times that, without the terabytes of features.

Only what opening a store reads is written: manifest, index, columns; shards only if asked, all of
zeros. The units and annotations that they name do not exist.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import crc32c
import numpy as np
from numpy.typing import NDArray

from laughstore import layout
from laughstore.annotations import Annotations, Segment
from laughstore.buildplan import BuildPlan, PlannedRecording, RecordingToPlan, make_plan
from laughstore.geometry import CRC_BYTES, ShardGeometry
from laughstore.index import Index, Recording, Stream
from laughstore.index_file import encode_index
from laughstore.manifest import FileRecord, Manifest
from laughstore.naming import recording_id
from laughstore.sealed import seal, unseal
from laughstore.spec import FeatureSpec
from laughstore.store import open_store
from laughstore.tables import Vocabulary, recording_tables

from .data import SPEAKERS, SPLIT, annotations, assignments, bench_spec

# PodcastFillers has 199 episodes with audio of their speakers, two assignments each. These lengths
# give 3,200 shards and 102,000 blocks.
_BLOCK_FRAMES = 128
_LENGTHS = [8 * 4096] * 191 + [263 * _BLOCK_FRAMES] * 8
_NUM_EVENTS = 86_000
SEGMENTS_PER_RECORDING = 500
_FAKE_FILE_BYTES = 40_000


@dataclass(frozen=True)
class LargeStore:
    """A store of so many recordings like those of PodcastFillers."""

    num_recordings: int

    @property
    def lengths(self) -> list[int]:
        """Frames of each recording."""
        return [_LENGTHS[i % len(_LENGTHS)] for i in range(self.num_recordings)]

    @property
    def num_blocks(self) -> int:
        """Of both assignments of all recordings."""
        return 2 * sum(self.lengths) // _BLOCK_FRAMES

    @property
    def num_shards(self) -> int:
        """Of both assignments of all recordings."""
        return 2 * sum(-(-length // 4096) for length in self.lengths)

    @property
    def block_frames(self) -> NDArray[np.int64]:
        """i64[blocks]: frames of each block; no recording ends within one."""
        return np.full(self.num_blocks, _BLOCK_FRAMES, np.int64)

    @property
    def num_events(self) -> int:
        """Of all recordings."""
        return sum(_events_of(i) for i in range(self.num_recordings))

    def __str__(self) -> str:
        return (
            f"{self.num_recordings} recordings, {2 * self.num_recordings} streams,"
            f" {self.num_shards} shards, {self.num_blocks} blocks, {self.num_events} events,"
            f" {SEGMENTS_PER_RECORDING} segments and as many turns a recording"
        )

    def found(self, folder: Path, *, shards_of_zeros: bool = False) -> Path:
        """Return where it lies under `folder`, written unless it is there; see `write`."""
        store = folder / f"{'zeros' if shards_of_zeros else 'large'}-{self.num_recordings}"
        if not (store / "finished").exists():
            self.write(store, shards_of_zeros=shards_of_zeros)
            (store / "finished").touch()
        return store

    def write(self, store: Path, *, shards_of_zeros: bool = False) -> None:
        """Write what opening the store reads.

        Args:
            store: a folder, made if need be.
            shards_of_zeros: write shards, too, whose frames are zeros: sparse files that take 4 KiB
                a block on the disk, but as much page cache as others. Their checksums are right,
                so that every reader takes them; their tar headers are missing.
        """
        shards = store / layout.SHARDS
        shards.mkdir(parents=True, exist_ok=True)
        spec = bench_spec()
        geometry = ShardGeometry(spec.dim, spec.block_frames, spec.shard_frames)
        notes = [_notes(i, n) for i, n in enumerate(self.lengths[: len(_LENGTHS)])]
        vocabulary = Vocabulary.of(notes)
        tables = [recording_tables(note, vocabulary) for note in notes]
        plan = self._plan(spec)
        recordings = _recordings(plan.recordings, notes, geometry)
        streams = [stream for recording in recordings for stream in recording.streams]
        shard_bytes = [size for stream in streams for size in _shard_bytes(stream, geometry)]
        crcs = np.random.default_rng(0).integers(0, 2**32, self.num_blocks, np.uint32)
        if shards_of_zeros:
            crcs[:] = crc32c.crc32c(bytes(geometry.data_bytes))
        index, columns = encode_index(
            generation=1,
            spec=spec,
            recordings=recordings,
            tables=[tables[i % len(tables)] for i in range(self.num_recordings)],
            vocabulary=vocabulary,
            shard_bytes=shard_bytes,
            shard_sha256=["0" * 64] * len(shard_bytes),
            block_crc32c=crcs.tolist(),
        )
        (store / layout.FIRST_PLAN).parent.mkdir(exist_ok=True)
        (store / layout.FIRST_PLAN).write_bytes(seal(plan.to_json()))
        (store / layout.CURRENT_INDEX).write_bytes(index)
        (store / layout.index(1)).write_bytes(index)
        (store / layout.columns(1)).write_bytes(columns)
        (store / layout.STORE_JSON).write_bytes(_manifest(spec, recordings, index, columns))
        if shards_of_zeros:
            for shard in open_store(store).index.shards:
                _write_zeros(shards / shard.name, shard.num_blocks, geometry)

    def check(self, index: Index) -> None:
        """Raise unless the index holds what `write` wrote."""
        found = (len(index.recordings), len(index.streams(SPLIT)), len(index.shards))
        expected = (self.num_recordings, 2 * self.num_recordings, self.num_shards)
        if found != expected or index.num_blocks != self.num_blocks:
            raise AssertionError(f"the index holds {found}, {index.num_blocks} blocks")

    def _plan(self, spec: FeatureSpec) -> BuildPlan:
        return make_plan(
            spec,
            "benchmark",
            [
                RecordingToPlan(
                    id=recording_id(f"episode {i}"),
                    name=f"episode {i}",
                    split=SPLIT,
                    group=f"show {i % 30}",
                    num_frames=length,
                    assignments=assignments(),
                    annotations_id=f"{i:08x}",
                )
                for i, length in enumerate(self.lengths)
            ],
        )


PODCAST_FILLERS = LargeStore(len(_LENGTHS))
TEN_THOUSAND = LargeStore(10_000)


def _manifest(
    spec: FeatureSpec, recordings: Sequence[Recording], index: bytes, columns: bytes
) -> bytes:
    paths = [layout.FIRST_PLAN]
    for recording in recordings:
        paths.append(layout.unit(recording.id))
        paths.append(layout.annotations(recording.annotations_id, recording.split, recording.id))
    files = [FileRecord(path, _FAKE_FILE_BYTES, "0" * 64) for path in paths]
    files += [
        FileRecord.of_bytes(layout.index(1), index),
        FileRecord.of_bytes(layout.columns(1), columns),
    ]
    return Manifest(
        generation=1,
        spec=spec,
        index=layout.index(1),
        index_id=unseal(index, where="index")[1],
        num_plans=1,
        quarantined=(),
        files_json=[asdict(item) for item in sorted(files, key=lambda item: item.path)],
    ).to_bytes()


def _recordings(
    planned: Sequence[PlannedRecording], notes: Sequence[Annotations], geometry: ShardGeometry
) -> list[Recording]:
    recordings: list[Recording] = []
    block = 0
    for number, item in enumerate(planned):
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
                duration_us=notes[number % len(notes)].duration_us,
                num_frames=item.num_frames,
                annotations_id=item.annotations_id,
                speakers=SPEAKERS,
                streams=tuple(streams),
            )
        )
    return recordings


def write_holes(store: Path) -> None:
    """Write the shards that the index names, of their size and nothing else: no byte on the disk.

    Their frames are zeros and their checksums are wrong, so blocks must not be verified.
    """
    for shard in open_store(store).index.shards:
        with (store / layout.SHARDS / shard.name).open("wb") as file:
            file.truncate(shard.num_bytes)


def _write_zeros(path: Path, num_blocks: int, geometry: ShardGeometry) -> None:
    crc = crc32c.crc32c(bytes(geometry.data_bytes)).to_bytes(CRC_BYTES, "little")
    with path.open("wb") as file:
        file.truncate(geometry.shard_bytes(num_blocks))
        for block in range(num_blocks):
            file.seek(geometry.data_offset(block) + geometry.data_bytes)
            file.write(crc)


def _shard_bytes(stream: Stream, geometry: ShardGeometry) -> Iterator[int]:
    for shard in range(stream.num_shards):
        yield geometry.shard_bytes(geometry.blocks_in_shard(stream.num_frames, shard))


def _events_of(number: int) -> int:
    even, rest = divmod(_NUM_EVENTS, len(_LENGTHS))
    return even + (number % len(_LENGTHS) < rest)


def _notes(number: int, num_frames: int) -> Annotations:
    note = annotations(f"episode {number}", num_frames, _events_of(number))
    edges = np.linspace(0, note.duration_us, SEGMENTS_PER_RECORDING + 1).astype(np.int64).tolist()
    turns = tuple(
        Segment(start, end, SPEAKERS[i % 2]) for i, (start, end) in enumerate(pairwise(edges))
    )
    return replace(note, segments=turns, turns=turns)
