"""The stores of every released format version open for ever, with the same numbers.

They were written by `python -m tests.golden.make` and are never written again.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webdataset.compat import WebDataset

import laughstore.webdataset
from laughstore import open_rows, open_shards, open_store
from laughstore.codec import CODECS
from laughstore.integrity.verify import verify
from tests.golden.make import DIM, EPISODES, features, write_golden
from tests.store.independent_reader import IndependentStore
from tests.stores import numbered_codes

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = [1]
STORES = [f"format-{version}/{codec}" for version in VERSIONS for codec in CODECS]
SPEC_IDS = {"format-1/none": "3577e9f6249e8287", "format-1/zstd": "81d93bb50f552861"}


@pytest.fixture(params=STORES)
def golden(request: pytest.FixtureRequest) -> Path:
    return GOLDEN / request.param


def test_there_is_one_for_every_codec_and_none_is_large():
    for name in STORES:
        files = [item for item in (GOLDEN / name).rglob("*") if item.is_file()]
        assert 20 < len(files) < 100
        assert sum(item.stat().st_size for item in files) < 300_000
        assert not any(".partial-" in item.name for item in files)


def test_it_opens_with_its_names_and_its_spec(golden):
    store = open_store(golden)
    assert store.manifest.generation == 1
    assert store.index.spec_id == SPEC_IDS[str(golden.relative_to(GOLDEN))]
    assert [recording.name for recording in store.recordings] == [e.name for e in EPISODES]
    assert store.splits == ("train", "test")
    assert [recording.id for recording in store.recordings] == [
        "golden-the-first-episode-1-f8de63bb",
        "golden-2-7fc3c2c1",
        "golden-3-336e4be6",
    ]


def test_every_frame_and_code_is_what_was_written(golden):
    store = open_store(golden)
    for episode in EPISODES:
        for number, assignment in enumerate(episode.assignments):
            expected = features(episode.name, number, episode.num_frames)
            array = store.array(episode.name, assignment.name)
            np.testing.assert_array_equal(np.asarray(array[:]).view(np.uint16), expected)
            frames = store.frames(episode.name, assignment.name)
            np.testing.assert_array_equal(frames.view(np.uint16), expected)
            codes = np.asarray(store.codes(episode.name, assignment.name)[:])
            np.testing.assert_array_equal(codes, numbered_codes(1, episode.num_frames)[0])


def test_every_split_is_one_matrix(golden):
    index = open_shards(golden / "shards")
    for split in index.splits:
        with open_rows(index, split) as rows:
            for stream in index.streams(split):
                name = index.recording(stream.recording_id).name
                number = [s.assignment for s in index.recording(name).streams].index(
                    stream.assignment
                )
                rows.prepare_once(
                    np.arange(stream.first_block, stream.first_block + stream.num_blocks)
                )
                ids = stream.first_block * index.block_frames + np.arange(stream.num_frames)
                np.testing.assert_array_equal(
                    rows.matrix[rows.row_numbers(ids)], features(name, number, stream.num_frames)
                )


def test_annotations_are_what_was_written(golden):
    store = open_store(golden)
    for episode in EPISODES:
        assert store.annotations(episode.name) == episode.annotations
        table = store.index.tables(store.index.recording(episode.name)).events
        assert table.start_us.tolist() == [event.start_us for event in episode.events]


def test_stock_webdataset_reads_it(golden):
    urls = sorted(map(str, (golden / "shards").glob("*.tar")))
    dataset: Any = WebDataset(urls, shardshuffle=False)
    samples = dataset.map(laughstore.webdataset.decode)
    num_frames = sum(len(sample["frames"]) for sample in samples)
    assert num_frames == sum(e.num_frames * len(e.assignments) for e in EPISODES)


def test_a_reader_written_from_the_document_reads_it(golden):
    found = IndependentStore(golden).frames()
    for episode in EPISODES:
        for number, assignment in enumerate(episode.assignments):
            bits = features(episode.name, number, episode.num_frames)
            assert found[episode.name, assignment.name] == bits.astype("<u2").tobytes()


def test_verify_finds_no_fault(golden):
    report = verify(golden, jobs=1)
    assert report.faults == ()
    assert report.num_bytes > 50_000


def test_this_release_still_writes_the_same_bytes(tmp_path):
    """Of the newest version; compressed bytes are the business of the zstd library."""
    write_golden(tmp_path)
    newest = GOLDEN / f"format-{VERSIONS[-1]}"
    here = {item.relative_to(newest) for item in (newest / "none").rglob("*") if item.is_file()}
    there = {
        item.relative_to(tmp_path) for item in (tmp_path / "none").rglob("*") if item.is_file()
    }
    assert there == here
    for name in here:
        assert (tmp_path / name).read_bytes() == (newest / name).read_bytes(), name
    for recording in open_store(tmp_path / "zstd").recordings:
        frames = open_store(tmp_path / "zstd").frames(recording.id)
        assert frames.tobytes() == open_store(newest / "zstd").frames(recording.id).tobytes()


def test_it_is_not_changed_by_reading(golden, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(golden, copy)
    before = {item: item.stat().st_mtime_ns for item in golden.rglob("*")}
    store = open_store(golden)
    store.frames(EPISODES[0].name)
    assert store.index.dim == DIM
    assert {item: item.stat().st_mtime_ns for item in golden.rglob("*")} == before
