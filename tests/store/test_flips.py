"""Random flipped bits in every file of a store: `verify` finds each, no reader passes one on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laughstore import CorruptData, layout, open_rows, open_store
from laughstore.integrity.verify import verify
from laughstore.store import Store

from .whole_store import copy_store, files_of, write_whole_store

CODECS = ("none", "zstd")


@pytest.fixture(scope="module", params=CODECS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(f"flips-{request.param}") / "store"
    return write_whole_store(path, request.param)


@contextmanager
def flipped(path: Path, position: int, bit: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR)
    try:
        before = os.pread(descriptor, 1, position)
        os.pwrite(descriptor, bytes([before[0] ^ 1 << bit]), position)
        try:
            yield
        finally:
            os.pwrite(descriptor, before, position)
    finally:
        os.close(descriptor)


class Readings:
    """What readers say of a sound store, to be compared with what they say of an altered one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        store = open_store(path)
        self.index = store.index
        self.metadata = read_metadata(path)
        self.frames: dict[tuple[str, str], np.ndarray] = {}
        self.codes: dict[tuple[str, str], np.ndarray] = {}
        self.spans: dict[str, list[tuple[int, int]]] = {}
        for recording in self.index.recordings:
            for stream in recording.streams:
                key = recording.id, stream.assignment
                self.frames[key] = store.frames(*key).view(np.uint16)
                self.codes[key] = np.asarray(store.codes(*key)[:])
        sizes = self.index.block_bytes
        self.shards: dict[str, Any] = {}
        for shard in self.index.shards:
            blocks = slice(shard.first_block, shard.first_block + shard.num_blocks)
            offsets = self.index.geometry.block_offsets(sizes[blocks]).tolist()
            spans = [
                (start, start + size)
                for start, size in zip(offsets, sizes[blocks].tolist(), strict=True)
            ]
            for name in (f"{layout.SHARDS}/{shard.name}", self._zarr_name(shard)):
                self.shards[name], self.spans[name] = shard, spans

    def check(self, file: str, position: int) -> None:
        """Read what a flipped byte belongs to: an error, or exactly what was there before."""
        shard = self.shards.get(file)
        if shard is not None:
            block = self._block_at(file, position)
            self._check_frames(shard, block)
            if self.index.spec.codec == "none":
                self._check_rows(shard, block)
        elif file.startswith((layout.FEATURES, layout.CODES)):
            self._check_arrays(file)
        else:
            try:
                found = read_metadata(self.path)
            except CorruptData:
                return
            assert found == self.metadata, f"{file}, byte {position} is read as it is"

    def _check_frames(self, shard: Any, block: int | None) -> None:
        key = shard.stream.recording_id, shard.stream.assignment
        try:
            found = open_store(self.path).frames(*key).view(np.uint16)
        except CorruptData:
            return
        assert block is None, f"{shard.name}, block {block}: frames() read an altered block"
        assert np.array_equal(found, self.frames[key])

    def _check_rows(self, shard: Any, block: int | None) -> None:
        split = shard.stream.split
        with open_rows(open_store(self.path).index, split) as rows:
            for number in range(shard.num_blocks):
                blocks = np.array([shard.first_block + number])
                if number == block:
                    with pytest.raises(CorruptData, match=shard.name):
                        rows.prepare_once(blocks)
                else:
                    rows.prepare_once(blocks)

    def _check_arrays(self, file: str) -> None:
        parts = file.split("/")
        if len(parts) < 5:  # a group: no array is read through it
            return
        recording, assignment = parts[2:4]
        try:
            store = open_store(self.path)
            if parts[0] == layout.FEATURES:
                found = store.frames(recording, assignment).view(np.uint16)
                expected = self.frames[recording, assignment]
            else:
                found = np.asarray(store.codes(recording, assignment)[:])
                expected = self.codes[recording, assignment]
        except Exception:  # stock Zarr has errors of many kinds; each is loud
            return
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)

    def _block_at(self, file: str, position: int) -> int | None:
        inside = [
            number
            for number, (start, stop) in enumerate(self.spans[file])
            if start <= position < stop
        ]
        return inside[0] if inside else None

    def _zarr_name(self, shard: Any) -> str:
        stream = shard.stream
        parts = stream.split, stream.recording_id, stream.assignment
        array = layout.array(layout.FEATURES, *parts)
        return layout.chunk(array, shard.number - stream.first_shard)


def read_metadata(path: Path) -> list[object]:
    """Everything that readers take from a store besides arrays, of every generation."""
    return [item for generation in (1, 2, 3) for item in _metadata(open_store(path, generation))]


def _metadata(store: Store) -> list[object]:
    index = store.index
    tables = [
        {name: getattr(part, name).tolist() for name in part.__dataclass_fields__}
        for item in index.all_tables
        for part in (item.events, item.segments)
    ]
    return [
        store.manifest.spec,
        store.manifest.quarantined,
        index.recordings,
        index.vocabulary,
        index.shards,
        index.shard_sha256,
        index.block_crc32c.tolist(),
        index.block_bytes.tolist(),
        tables,
        [store.annotations(recording.id) for recording in index.recordings],
    ]


def check_flips(path: Path, num_flips: int, seed: int) -> None:
    assert verify(path).faults == ()
    readings, files = Readings(path), files_of(path)
    rng = np.random.default_rng(seed)
    silent: list[str] = []
    for _ in range(num_flips):
        file = files[int(rng.integers(len(files)))]
        position = int(rng.integers((path / file).stat().st_size))
        bit = int(rng.integers(8))
        with flipped(path / file, position, bit):
            report = verify(path)
            named = {name for fault in report.faults for name in (fault.path, fault.also)}
            if file not in named:
                silent.append(f"{file}, byte {position}, bit {bit}: {report.faults}")
            readings.check(file, position)
            _check_place(report, readings, file, position)
    assert not silent
    assert verify(path).faults == ()


def _check_place(report, readings: Readings, file: str, position: int) -> None:
    """A fault in a shard names the byte and the sample that the byte belongs to."""
    shard = readings.shards.get(file)
    if shard is None:
        return
    assert len(report.faults) == 1
    fault = report.faults[0]
    assert fault.start is not None
    assert fault.start <= position < fault.stop
    block = readings._block_at(file, position)
    first = shard.first_block - shard.stream.first_block
    key = f"{shard.stream.recording_id}/{shard.stream.assignment}"
    if block is not None:
        assert fault.sample == f"{key}/{first + block:06d}"
        assert report.bad_blocks == (fault.sample,)
    else:
        assert report.bad_blocks == ()
        assert fault.stop - fault.start == 1


def test_no_random_flip_is_silent(whole):
    check_flips(whole, 40, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_of_a_thousand_random_flips_over_all_files_none_is_silent(whole, part):
    check_flips(whole, 200, seed=2 + part)


@pytest.mark.slow
def test_a_flip_anywhere_in_a_shard_is_found_where_it_is(whole):
    readings = Readings(whole)
    file = f"{layout.SHARDS}/test-000000.tar"
    for position in range(0, (whole / file).stat().st_size, 97):
        with flipped(whole / file, position, position % 8):
            _check_place(verify(whole), readings, file, position)


def test_a_flip_in_a_shard_without_its_store_is_found(whole, tmp_path):
    """Annotations of the build are not at hand: events in a sample's JSON have no second copy."""
    shards = copy_store(whole / layout.SHARDS, tmp_path / "shards")
    name = "test-000000.tar"
    geometry = open_store(whole).index.geometry
    for position in range(0, geometry.data_offset(0), 67):
        with flipped(shards / name, position, position % 8):
            report = verify(shards)
        assert [fault.path for fault in report.faults] == [name]
        assert report.bad_blocks == ()
