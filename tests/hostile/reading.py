"""Everything that a user does with a store, as one call: what any of it refuses is raised."""

from pathlib import Path
from typing import Any  # of webdataset's pipelines, which have no types

import numpy as np
import pytest
from webdataset.compat import WebDataset

import laughstore.webdataset
from laughstore import LaughstoreError, open_rows, open_shards, open_store
from laughstore.folders import open_folder
from tests.hostile.watching import watched


def read_everything(path: Path) -> None:
    """Open a store and read all of it, in every way there is."""
    store = open_store(path)
    for item in store.manifest.all_files(store.folder):
        open_folder(path).size(item.path)
    for recording in store.recordings:
        store.annotations(recording.id)
        for stream in recording.streams:
            store.frames(recording.id, stream.assignment)
            store.array(recording.id, stream.assignment)[:]
            store.codes(recording.id, stream.assignment)[:]
    index = open_shards(path / "shards")
    assert len(index.all_tables) == len(index.recordings)
    assert len(index.shard_sha256) == index.num_shards
    for split in index.splits:
        with open_rows(index, split) as rows:
            rows.prepare_once(np.arange(index.num_blocks))


def read_samples(path: Path) -> None:
    """Read the shards with stock WebDataset and our decoder."""
    urls = sorted(map(str, (path / "shards").glob("*.tar")))
    pipeline: Any = WebDataset(urls, shardshuffle=False)
    for _ in pipeline.map(laughstore.webdataset.decode):
        pass


def assert_refused(path: Path, match: str, read=read_everything) -> None:
    """Assert that reading ends in one of our errors, on one line, and nothing else happened."""
    with watched(path) as acts, pytest.raises(LaughstoreError, match=match) as caught:
        read(path)
    assert acts == []
    text = str(caught.value)
    assert "\n" not in text, text
    assert len(text) < 1500
