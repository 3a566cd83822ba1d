"""`verify` reads every kept generation, and says which of the files that disagree is wrong."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from laughstore import CorruptData
from laughstore.buildplan import RecordingToPlan, begin_plan, make_plan
from laughstore.index_file import read_index
from laughstore.integrity.verify import verify
from laughstore.manifest import FileRecord, read_manifest
from laughstore.sealed import seal, unseal
from laughstore.unitwriter import UnitWriter
from tests.stores import Episode, numbered_codes, random_features

from .whole_store import (
    DIM,
    TAR,
    bad_files,
    copy_store,
    file_of_kind,
    only_fault,
    other_content,
    write_manifest,
    write_whole_store,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests must not change."""
    return write_whole_store(tmp_path_factory.mktemp("verify") / "store")


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A store that the test may damage."""
    return copy_store(sound, tmp_path / "store")


def test_a_generation_that_is_gone_is_no_fault_and_its_files_are_noted(store):
    (store / "generations/000001.json").unlink()
    report = verify(store)
    assert report.faults == ()
    assert report.generations == (3, 2)
    assert "nothing names" in report.notes[0]
    assert "index-000001" in report.notes[0]


def test_a_stale_index_says_what_to_do(store):
    shards = store / "shards"
    (shards / "index.json").write_bytes((shards / "index-000001.json").read_bytes())
    said = only_fault(verify(store), "shards/index.json")
    assert "stale: of generation 1, not 3; copy shards/index-000003.json over it" in said
    said = str(verify(shards).faults[0])
    assert "index.json: stale: of generation 1, index-000003.json stands beside it" in said


def test_columns_of_an_older_generation_are_found(store):
    shards = store / "shards"
    (shards / "index-000003.columns").write_bytes((shards / "index-000001.columns").read_bytes())
    only_fault(verify(store), "shards/index-000003.columns")
    assert "index-000003.columns" in bad_files(verify(shards))
    # Both files of the index, so that they agree with each other: the manifest does not.
    (shards / "index-000003.json").write_bytes((shards / "index-000001.json").read_bytes())
    assert "shards/index-000003.json" in bad_files(verify(store))


def test_an_older_manifest_in_the_place_of_the_newest_is_found(store):
    (store / "store.json").write_bytes((store / "generations/000002.json").read_bytes())
    report = verify(store)
    assert "stale: of generation 3, not 2" in str(report.faults[-1])
    assert any("generations/000003.json never counted" in note for note in report.notes)


def test_an_altered_manifest_is_replaced_by_its_numbered_copy(store):
    (store / "store.json").write_bytes(b"{}")
    os.truncate(store / TAR, 3000)
    report = verify(store)
    assert bad_files(report) >= {"store.json", TAR}
    assert report.generations == (3, 2, 1)
    assert "copy generations/000003.json over it" in str(report.faults[-1])


def test_without_any_manifest_shards_are_checked_by_their_index_and_units(store):
    (store / "store.json").unlink()
    for path in (store / "generations").iterdir():
        path.unlink()
    os.truncate(store / TAR, 3000)
    data = bytearray((store / file_of_kind(store, "codes")).read_bytes())
    data[0] ^= 1
    (store / file_of_kind(store, "codes")).write_bytes(data)
    assert bad_files(verify(store)) >= {"store.json", TAR, file_of_kind(store, "codes")}


def test_an_altered_unit_leaves_its_shards_checked(store):
    unit = file_of_kind(store, "unit")
    os.truncate(store / TAR, 3000)
    with other_content(store / unit, b"{}"):
        assert bad_files(verify(store)) >= {unit, TAR}


def test_a_sealed_unit_that_does_not_fit_the_index_is_found(store):
    """Both files are sound in themselves: their manifest was sealed again around them."""
    unit = file_of_kind(store, "unit")
    content, _ = unseal((store / unit).read_bytes(), where=unit)
    content["block_crc32c"][0] ^= 1
    (store / unit).write_bytes(seal(content))
    _seal_again(store, [unit])
    assert "its blocks of a-ca978112 are not those of" in str(verify(store).faults[0])


def test_an_array_of_another_shape_is_found_even_if_everything_names_it(store):
    name, unit = file_of_kind(store, "array"), file_of_kind(store, "unit")
    content = json.loads((store / name).read_bytes())
    content["shape"][0] += 1
    (store / name).write_bytes(json.dumps(content).encode())
    content, _ = unseal((store / unit).read_bytes(), where=unit)
    for item in content["files"]:
        if item["path"] == name:
            item.update(asdict(FileRecord.of(store, name)))
    (store / unit).write_bytes(seal(content))
    _seal_again(store, [unit])
    assert "its shape is not that of the index" in only_fault(verify(store), name)


@pytest.mark.parametrize("what", ["index_id", "spec"])
def test_a_manifest_of_another_index_is_found(store, what):
    """An older one, sealed again: nothing else repeats what it says of its index."""
    manifest = read_manifest(store, 1)
    other = {
        "index_id": {"index_id": read_manifest(store, 2).index_id},
        "spec": {"spec": replace(manifest.spec, weights_sha256="1" * 64)},
    }
    write_manifest(store, replace(manifest, **other[what]))
    said = only_fault(verify(store), "shards/index-000001.json")
    assert "is not the index of generation 1" in said


def _seal_again(store: Path, names: list[str]) -> None:
    """What an attacker would do who can write manifests: name what now stands there."""
    for number in (1, 2, 3):
        manifest = read_manifest(store, number)
        files = [
            asdict(FileRecord.of(store, item.path) if item.path in names else item)
            for item in manifest.files
        ]
        write_manifest(store, replace(manifest, files_json=files))


@pytest.mark.parametrize("path", ["../canary", "/etc/passwd", "pipe:touch canary", "a/../../b"])
def test_hostile_names_are_refused_and_not_opened(store, path):
    manifest = read_manifest(store)
    content, _ = unseal((store / "store.json").read_bytes(), where="store.json")
    content["files"].append({"path": path, "num_bytes": 1, "sha256": "0" * 64, "also": None})
    (store / "store.json").write_bytes(seal(content))
    report = verify(store)
    assert "which no store may" in str(report.faults[-1])
    assert report.generations[0] == manifest.generation


def test_an_addition_that_goes_on_is_no_fault_but_its_files_are_checked(store):
    manifest, index = read_manifest(store), read_index(store / "shards")
    episodes = [Episode("new", "train", 200), Episode("newer", "train", 200)]
    plan = make_plan(
        manifest.spec,
        "test",
        [
            RecordingToPlan(
                id=f"{episode.name}-12345678",
                name=episode.name,
                split=episode.split,
                group=episode.name,
                num_frames=episode.num_frames,
                assignments=episode.assignments,
                annotations_id="0" * 8,
            )
            for episode in episodes
        ],
        first_shards={"train": 100},
    )
    assert all(shard.number < 100 for shard in index.shards)
    begin_plan(store, plan, 2)
    rows = np.stack([random_features(DIM)("new", number, 200) for number in range(2)])
    with UnitWriter(store, plan, plan.recordings[0], episodes[0].annotations) as writer:
        writer.write(rows, numbered_codes(2, 200))
        writer.finish()
    (store / "shards/train-000102.tar").write_bytes(b"being written")
    report = verify(store)
    assert report.faults == ()
    assert "plans/000002.json has not been finished" in report.notes[0]
    (store / "shards/train-000100.tar").chmod(0o644)
    os.truncate(store / "shards/train-000100.tar", 5000)
    assert bad_files(verify(store)) >= {"shards/train-000100.tar"}
    with other_content(store / "plans/000002.json", b"{}"):
        assert "plans/000002.json" in bad_files(verify(store))


def test_a_commit_that_was_interrupted_is_a_note(store):
    data = (store / "store.json").read_bytes()
    (store / "generations/000004.json").write_bytes(data)
    report = verify(store)
    assert report.faults == ()
    assert "generations/000004.json never counted" in report.notes[0]


def test_a_store_of_a_newer_release_is_refused_by_name(store):
    content, _ = unseal((store / "store.json").read_bytes(), where="store.json")
    (store / "store.json").write_bytes(seal(content | {"version": 2}))
    with pytest.raises(CorruptData, match="version 2 is not readable"):
        verify(store)


def test_a_shard_built_with_other_annotations_has_one_fault(store):
    """As in an export after `annotate`: its plan names annotations that its samples do not."""
    index = read_index(store / "shards")
    changed = {item.id: item.annotations_id for item in index.recordings}
    plan = store / "plans/000001.json"
    content, _ = unseal(plan.read_bytes(), where="plan")
    before = [item["annotations_id"] for item in content["recordings"]]
    for item in content["recordings"]:
        item["annotations_id"] = changed[item["id"]]
    assert before != [item["annotations_id"] for item in content["recordings"]]
    plan.write_bytes(seal(content))
    _seal_again(store, ["plans/000001.json"])
    assert verify(store).faults == ()
    data = bytearray((store / TAR).read_bytes())
    data[5000] ^= 1
    (store / TAR).write_bytes(data)
    assert "crc32c" in only_fault(verify(store), TAR)
