"""Sizes, counts and codes that promise too much, and JSON that readers choke on."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from laughstore import LaughstoreError, open_store
from laughstore.annotations import Annotations
from laughstore.buildplan import read_plan
from laughstore.sealed import canonical_json, parse_json
from laughstore.spec import FeatureSpec
from laughstore.unit import read_unit
from tests.hostile.crafting import (
    EPISODES,
    INDEX,
    Content,
    Crafted,
    dump,
    seal_bytes,
    whole_store,
)
from tests.hostile.reading import assert_refused
from tests.stores import spec_for


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_store(tmp_path_factory.mktemp("hostile") / "store")


@pytest.fixture
def crafted(template: Path, tmp_path: Path) -> Crafted:
    shutil.copytree(template, tmp_path / "store")
    return Crafted(tmp_path / "store")


def _unit_of_a(crafted: Crafted) -> str:
    return next(f"units/{path.name}" for path in (crafted.path / "units").glob("a-*"))


BODIES = {
    "a hundred thousand deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a hundred thousand lists": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "larger than any number": b'{"format":"laughstore","version":1e400}',
    "a million digits": b'{"version":' + b"9" * 1_000_000 + b"}",
    "not a number": b'{"version":NaN}',
    "infinity": b'{"version":-Infinity}',
    "a key twice": b'{"format":"laughstore","version":1,"version":2}',
    "a key twice, deeper": b'{"a":[{"b":1,"b":1}]}',
    "half a character": b'{"format":"\xed\xa0\x80"}',
    "not UTF-8": b'{"format":"\xff\xfe"}',
    "UTF-16": '{"format":"laughstore"}'.encode("utf-16"),
    "a list": b"[1]",
    "cut": b'{"format":"laughst',
    "python": b"{'format': __import__('os').system('touch canary')}",
    "other keys": b'{"__class__":"os.system","__reduce__":["touch canary"]}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_json_that_no_store_writes(crafted, body):
    for name in ("plans/000001.json", _unit_of_a(crafted), INDEX, "store.json"):
        data = seal_bytes(body)
        (crafted.path / name).write_bytes(data)
        if name.startswith("plans"):
            assert_refused(crafted.path, "plans", read=read_plan)
        elif name.startswith("units"):
            identifier = Path(name).stem
            assert_refused(
                crafted.path, "units", read=lambda path, i=identifier: read_unit(path, i)
            )
        else:
            assert_refused(crafted.path, Path(name).name.replace(".", r"\."))


MANIFESTS: dict[str, dict[str, Any]] = {
    "generation 2^60": {"generation": 2**60, "index": f"shards/index-{2**60}.json"},
    "generation 0": {"generation": 0, "index": "shards/index-000000.json"},
    "generation of text": {"generation": "1"},
    "true generation": {"generation": True},
    "plans": {"num_plans": 2**60},
    "files that are none": {"files": {"path": "x"}},
    "files of numbers": {"files": [1]},
    "no quarantine": {"quarantined": None},
    "a quarantine of numbers": {"quarantined": [{"name": 1, "split": 2, "reason": 3}]},
    "a spec that is none": {"spec": "x"},
    "another format": {"format": "laughstore-index"},
    "half a character": {"index_id": "\ud800"},
}


@pytest.mark.parametrize("fields", MANIFESTS.values(), ids=MANIFESTS)
def test_manifests_that_do_not_add_up(crafted, fields):
    content = crafted.json("store.json") | fields
    body = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    (crafted.path / "store.json").write_bytes(seal_bytes(body))
    assert_refused(crafted.path, "store.json")


@pytest.mark.parametrize("digest", ["0" * 63, "Z" * 64, "../" * 21 + "a", 7])
def test_digests_that_are_none(crafted, digest):
    crafted.edit("store.json", lambda content: content["files"][0].update(sha256=digest))
    assert_refused(crafted.path, "SHA-256|not a string")


SPECS: dict[str, dict[str, Any]] = {
    "dim 2^40": {"dim": 2**40},
    "dim of text": {"dim": "64"},
    "true dim": {"dim": True},
    "an odd dim": {"dim": 63},
    "half a frame": {"dim": 64.5},
    "a block of 2^40 frames": {"block_frames": 2**40},
    "a block of 64 MiB and more": {"block_frames": 2**20, "shard_frames": 2**20},
    "no block": {"block_frames": 0},
    "a shard of 2^40 frames": {"shard_frames": 2**40},
    "a negative shard": {"shard_frames": -4096},
    "another codec": {"codec": "pickle"},
    "a codec of lists": {"codec": []},
    "another dtype": {"dtype": "object"},
    "another tap": {"tap": "softmax"},
    "a model of lists": {"model": ["a"]},
    "one field more": {"trust_remote_code": True},
    "numerics of text": {"numerics": "x"},
    "numerics with one field more": {"numerics": {"slots": 1, "eval": "1"}},
}


@pytest.mark.parametrize("fields", SPECS.values(), ids=SPECS)
def test_specs_that_no_release_writes(crafted, fields):
    for name in ("plans/000001.json", INDEX, "store.json"):
        crafted.edit(name, lambda content: content["spec"].update(fields))
        read = read_plan if name.startswith("plans") else open_store
        assert_refused(crafted.path, r"spec|integer|\.json", read=read)
    with pytest.raises(LaughstoreError):
        FeatureSpec.from_json({**spec_for(64).to_json(), **fields}, where="x")


RECORDINGS: dict[str, dict[str, Any]] = {
    "2^60 frames": {"num_frames": 2**60},
    "2^32 frames": {"num_frames": 2**32},
    "one block more": {"num_frames": 385},
    "no frames": {"num_frames": 0},
    "fewer than no frames": {"num_frames": -300},
    "frames of text": {"num_frames": "300"},
    "true frames": {"num_frames": True},
    "no streams": {"streams": []},
    "streams of text": {"streams": "ab"},
    "a duration of 2^60": {"duration_us": 2**60},
    "a negative duration": {"duration_us": -1},
    "speakers of numbers": {"speakers": [1, 2]},
    "fewer speakers than codes": {"speakers": []},
    "no name": {"name": None},
}


@pytest.mark.parametrize("fields", RECORDINGS.values(), ids=RECORDINGS)
def test_recordings_that_do_not_add_up(crafted, fields):
    crafted.edit_index(lambda content: content["recordings"][0].update(fields))
    assert_refused(crafted.path, r"index-000001|store\.json|shards")


def test_recordings_streams_and_shards_that_occur_twice(crafted):
    original = crafted.json(INDEX)

    def twice(content: Content) -> None:
        content["recordings"][1]["id"] = content["recordings"][0]["id"]

    crafted.edit_index(twice)
    assert_refused(crafted.path, "occurs twice")
    crafted.put_sealed(INDEX, dump(original))

    def same_stream(content: Content) -> None:
        streams = content["recordings"][0]["streams"]
        streams[1]["assignment"] = streams[0]["assignment"]

    crafted.edit_index(same_stream)
    assert_refused(crafted.path, "one twice")
    crafted.put_sealed(INDEX, dump(original))

    def same_shard(content: Content) -> None:
        content["recordings"][1]["streams"][0]["first_shard"] = 1

    crafted.edit_index(same_shard)
    assert_refused(crafted.path, "share shard 1")


def _first(content: Content, **fields: object) -> None:
    content["columns"]["arrays"]["block_crc32c"].update(fields)


COLUMN_CHANGES: dict[str, Callable[[Content], object]] = {
    "a negative offset": lambda c: _first(c, offset=-8),
    "an offset behind the end": lambda c: _first(c, offset=2**40),
    "an offset of 2^64": lambda c: _first(c, offset=2**64),
    "an odd offset": lambda c: _first(c, offset=1),
    "overlapping": lambda c: _first(c, offset=0),
    "a count of 2^60": lambda c: _first(c, count=2**60),
    "a negative count": lambda c: _first(c, count=-1),
    "a count less": lambda c: _first(c, count=1),
    "objects": lambda c: _first(c, dtype="|O"),
    "a dtype with fields": lambda c: _first(c, dtype="i4,(9999999)f8"),
    "another dtype": lambda c: _first(c, dtype="<i4"),
    "another checksum": lambda c: _first(c, crc32c="00000000"),
    "a checksum of text": lambda c: _first(c, crc32c="x" * 8),
    "missing": lambda c: c["columns"]["arrays"].pop("block_crc32c"),
    "a file of 2^60 bytes": lambda c: c["columns"].update(num_bytes=2**60),
    "one byte more": lambda c: c["columns"].update(num_bytes=c["columns"]["num_bytes"] + 1),
    "a list": lambda c: c["columns"].update(arrays=[]),
    "another number of rows": lambda c: c.update(rows_per_block=1),
    "another spec id": lambda c: c.update(spec_id="0" * 16),
    "no vocabulary": lambda c: c.pop("vocabulary"),
    "a shorter vocabulary": lambda c: c["vocabulary"].update(labels=[]),
    "labels of numbers": lambda c: c["vocabulary"].update(labels=[1]),
}


@pytest.mark.parametrize("change", COLUMN_CHANGES.values(), ids=COLUMN_CHANGES)
def test_directories_of_columns_that_lie(crafted, change):
    crafted.edit_index(change)
    assert_refused(crafted.path, "index-000001|columns|shards")


VALUES = {
    "an event of no class": ("events.label", [99]),
    "a negative class": ("events.full_label", [-1]),
    "nobody's event": ("events.speaker", [5]),
    "less than unknown": ("events.speaker", [-2]),
    "a time of 2^62": ("events.start_us", [2**62]),
    "a time of -2^63": ("events.end_us", [-(2**63)]),
    "no confidence": ("events.confidence", [float("nan")]),
    "infinite confidence": ("events.confidence", [float("inf")]),
    "lengths beyond the table": ("events.lengths", [2**62, 2**62]),
    "negative lengths": ("events.lengths", [-5, 7]),
    "no events at all": ("events.lengths", [-1, 2]),
    "a segment of nobody": ("segments.speaker", [9]),
    "a shard of 2^60 bytes": ("shard_bytes", [2**60]),
    "a negative shard": ("shard_bytes", [-1]),
    "another block": ("block_crc32c", [1]),
}


@pytest.mark.parametrize(("name", "values"), VALUES.values(), ids=VALUES)
def test_columns_whose_values_lie(crafted, name, values):
    crafted.put_column(name, values)
    assert_refused(crafted.path, "index|shards|units")


PLANS: dict[str, dict[str, Any]] = {
    "2^60 frames": {"num_frames": 2**60},
    "frames of text": {"num_frames": "1"},
    "first shards of text": {"first_shards": ["0", "1"]},
    "negative shards": {"first_shards": [-1, 1]},
    "a shard too few": {"first_shards": [0]},
    "assignments of text": {"assignments": "ab"},
    "assignments with more": {"assignments": [{"name": "a--b"}]},
    "no name": {"name": 7},
}


@pytest.mark.parametrize("fields", PLANS.values(), ids=PLANS)
def test_plans_that_do_not_add_up(crafted, fields):
    crafted.edit("plans/000001.json", lambda content: content["recordings"][0].update(fields))
    assert_refused(crafted.path, "plans/000001", read=read_plan)


def test_a_plan_with_a_recording_twice(crafted):
    crafted.edit("plans/000001.json", lambda c: c["recordings"].append(c["recordings"][0]))
    assert_refused(crafted.path, "occurs twice", read=read_plan)


UNITS: dict[str, dict[str, Any]] = {
    "another status": {"status": "exec"},
    "sizes of text": {"shard_bytes": ["1"]},
    "sizes of 2^60": {"shard_bytes": [2**60]},
    "true sums": {"block_crc32c": [True]},
    "files that are none": {"files": "x"},
    "a file of 2^60 bytes": {"files": [{"path": "a", "num_bytes": 2**60, "sha256": "0" * 64}]},
}


@pytest.mark.parametrize("fields", UNITS.values(), ids=UNITS)
def test_units_that_do_not_add_up(crafted, fields):
    unit = _unit_of_a(crafted)
    crafted.edit(unit, lambda content: content.update(fields))
    assert_refused(crafted.path, "units/a-")


ANNOTATIONS: dict[str, Callable[[Content], object]] = {
    "events of text": lambda c: c.update(events="x"),
    "an event of text": lambda c: c.update(events=["x"]),
    "a time of text": lambda c: c["events"][0].update(start_us="0"),
    "a time of 2^60": lambda c: c["events"][0].update(start_us=2**60),
    "half a microsecond": lambda c: c["events"][0].update(end_us=0.5),
    "a true time": lambda c: c["events"][0].update(end_us=True),
    "a class of numbers": lambda c: c["events"][0].update(label=1),
    "a speaker of lists": lambda c: c["events"][0].update(speaker=["a"]),
    "a confidence of 1e300": lambda c: c["events"][0].update(confidence=1e300),
    "one field more": lambda c: c["events"][0].update(code="import os"),
    "one field less": lambda c: c["events"][0].pop("confidence"),
    "one key more": lambda c: c.update(code="import os"),
    "one key less": lambda c: c.pop("turns"),
    "a negative duration": lambda c: c.update(duration_us=-1),
    "words of numbers": lambda c: c.update(words=[1]),
}


@pytest.mark.parametrize("change", ANNOTATIONS.values(), ids=ANNOTATIONS)
def test_annotations_that_no_release_writes(crafted, change):
    """Under the name of their own content, so that only their content is wrong."""
    index = crafted.json(INDEX)
    item = index["recordings"][0]
    old = f"annotations/{item['annotations_id']}/train/{item['id']}.json"
    content = json.loads((crafted.path / old).read_bytes())
    change(content)
    data = canonical_json(content)
    new_id = hashlib.sha256(data).hexdigest()[:8]
    crafted.put(f"annotations/{new_id}/train/{item['id']}.json", data + b"\n")
    crafted.edit_index(lambda c: c["recordings"][0].update(annotations_id=new_id))
    assert_refused(crafted.path, f"annotations/{new_id}")


def test_annotations_as_they_are_written_are_read():
    content = EPISODES[0].annotations.to_json()
    there = parse_json(canonical_json(content), where="x")
    assert Annotations.from_json(there) == EPISODES[0].annotations


ARRAYS: dict[str, Callable[[Content], object]] = {
    "2^50 frames": lambda c: c.update(shape=[2**50, 64]),
    "fewer frames": lambda c: c.update(shape=[1, 64]),
    "another dim": lambda c: c.update(shape=[300, 2**40]),
    "three axes": lambda c: c.update(shape=[300, 64, 1]),
    "another dtype": lambda c: c.update(data_type="float64"),
    "a dtype of 2^40 bytes": lambda c: c.update(
        data_type={"name": "null_terminated_bytes", "configuration": {"length_bytes": 2**40}}
    ),
    "another fill value": lambda c: c.update(fill_value=0.0),
    "one chunk of everything": lambda c: c["chunk_grid"]["configuration"].update(
        chunk_shape=[2**50, 64]
    ),
    "another grid": lambda c: c["chunk_grid"].update(name="rectilinear"),
    "no codecs": lambda c: c.update(codecs=[]),
    "no checksums": lambda c: c.update(codecs=[{"name": "bytes"}]),
    "an unknown codec": lambda c: c["codecs"].append({"name": "https://example.com/run"}),
    "a codec that unpickles": lambda c: c["codecs"].append({"name": "numcodecs.pickle"}),
    "zstd behind": lambda c: c["codecs"].append({"name": "zstd", "configuration": {"level": 1}}),
    "transformers": lambda c: c.update(storage_transformers=[{"name": "x"}]),
    "a group": lambda c: c.update(node_type="group"),
    "version 2 with a pickle filter": lambda c: c.update(zarr_format=2, filters=[{"id": "pickle"}]),
    "other names of chunks": lambda c: c["chunk_key_encoding"].update(name="v2"),
    "an extension that must be understood": lambda c: c.update(extension={"must_understand": True}),
}


@pytest.mark.parametrize("change", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("root", ["features.zarr", "codes.zarr"])
def test_arrays_that_do_not_fit_the_index(crafted, root, change):
    array = next((crafted.path / root / "train").glob("a-*/*--*"))
    name = str((array / "zarr.json").relative_to(crafted.path))
    content = crafted.json(name)
    change(content)
    crafted.put(name, dump(content))
    assert_refused(crafted.path, r"zarr\.json: .* (the index says|restore)")


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_metadata_of_arrays_that_is_no_json(crafted, body):
    for array in (crafted.path / "features.zarr/train").glob("a-*/*--*"):
        (array / "zarr.json").write_bytes(body)
    assert_refused(crafted.path, r"zarr\.json", read=lambda path: open_store(path).array("a"))


@pytest.mark.slow
def test_bombs_stay_small_and_quick(tmp_path):
    """One process that may not grow by more than 256 MiB meets them all, one after the other."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.hostile.limited", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("refused") >= 12, result.stdout
