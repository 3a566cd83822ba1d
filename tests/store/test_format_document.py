"""docs/format.md holds: an independent reader, the worked example, and a test for every rule."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from laughstore import ConfigError, CorruptData, open_shards, open_store
from laughstore.annotations import Annotations
from laughstore.buildplan import read_plan
from laughstore.codec import CODECS
from laughstore.commit import commit_annotations
from laughstore.geometry import ShardGeometry
from laughstore.integrity.verify import verify
from laughstore.naming import assignment_name
from laughstore.unit import read_unit
from tests.hostile.crafting import Crafted, whole_store
from tests.store.independent_reader import (
    Geometry,
    IndependentStore,
    canonical,
    read_shard,
    recording_id,
    tar_header,
    unseal,
)
from tests.stores import Episode, laugh, numbered_codes, random_features, write_store

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "format.md"
DIM = 64
EPISODES = [
    Episode("One frame.", num_frames=1, events=[laugh(0.0, 0.05)]),
    Episode("Zwölf Blöcke, \u201eganz\u201c", num_frames=512, events=[laugh(0, 1), laugh(20, 30)]),
    Episode("ragged", "test", 256 + 37, [laugh(12.0, 13.0, None)], ("Ann",)),
    Episode("nothing annotated", "test", 200),
]


def write_example(path: Path) -> Path:
    """The store of the worked example."""

    def features(name: str, assignment: int, num_frames: int) -> np.ndarray:
        return (0x3F80 + np.arange(DIM, dtype=np.uint16))[None].repeat(num_frames, 0)

    episode = Episode("a", num_frames=1, events=[laugh(0.0, 0.05, "Ann")], speakers=("Ann",))
    return write_store(path, [episode], features, dim=DIM, shard_frames=256)


@pytest.fixture(scope="module", params=CODECS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("format") / "store"
    features = random_features(DIM)
    return write_store(target, EPISODES, features, dim=DIM, shard_frames=256, codec=request.param)


def _dumps() -> dict[str, list[tuple[int, bytes]]]:
    """Hex lines of the worked example by file."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    name = ""
    for line in DOCUMENT.read_text().split("## Worked example")[1].splitlines():
        if line.startswith("### "):
            name = line.split("`")[1]
        match = re.match(r"    ([0-9a-f]{8})  ((?:[0-9a-f]{2} ?)+)(?:  |$)", line)
        if match:
            found.setdefault(name, []).append((int(match[1], 16), bytes.fromhex(match[2])))
    return found


def test_every_rule_is_cited_by_a_test():
    text = DOCUMENT.read_text()
    rules = re.findall(r"^- \*\*\[(F\d+)\]\*\*", text, re.MULTILINE)
    assert rules == [f"F{number}" for number in range(1, len(rules) + 1)]
    assert len(rules) >= 35
    cited: set[str] = set()
    for test in (ROOT / "tests").rglob("*.py"):
        for match in re.findall(r"format: (F\d+(?:, F\d+)*)", test.read_text()):
            cited.update(match.split(", "))
    assert cited == set(rules)


def test_the_hex_of_the_worked_example_is_what_is_written(tmp_path):
    """format: F1, F16, F18, F19, F20, F21, F22"""
    store = write_example(tmp_path / "store")
    dumps = _dumps()
    assert sorted(dumps) == ["shards/index-000001.columns", "shards/train-000000.tar"]
    for name, lines in dumps.items():
        data = (store / name).read_bytes()
        assert len(lines) > 15
        for start, expected in lines:
            assert data[start : start + len(expected)] == expected, f"{name} at {start:#x}"
        heading = re.search(rf"### `{re.escape(name)}`: ([\d,]+) bytes", DOCUMENT.read_text())
        assert heading is not None
        assert len(data) == int(heading[1].replace(",", ""))


def test_an_independent_reader_reads_every_frame(path):
    """format: F2, F3, F6, F7, F9, F11, F17, F22, F23, F24, F28, F29, F30, F31, F32"""
    store = IndependentStore(path)
    found = store.frames()
    features = random_features(DIM)
    assert len(found) == 7
    for episode in EPISODES:
        for number, assignment in enumerate(episode.assignments):
            bits = features(episode.name, number, episode.num_frames)
            assert found[episode.name, assignment.name] == bits.astype("<u2").tobytes()
    # F29: blocks are numbered through the index, in the order in which they were met above.
    ours = open_shards(path)
    block = 0
    for recording in store.index["recordings"]:
        for stream in recording["streams"]:
            known = ours.stream(recording["id"], stream["assignment"])
            assert known.first_block == block
            block += -(-recording["num_frames"] // 128)
    assert block == ours.num_blocks


def test_an_independent_reader_reads_codes_and_annotations(path):
    """format: F26, F33, F37"""
    store = IndependentStore(path)
    names = store.index["vocabulary"]
    tables = store.table(
        "events", ["start_us", "end_us", "label", "full_label", "speaker", "confidence"]
    )
    for recording, episode, table in zip(store.index["recordings"], EPISODES, tables, strict=True):
        for stream in recording["streams"]:
            codes = store.codes(recording, stream["assignment"])
            assert codes == [
                tuple(row) for row in numbered_codes(1, episode.num_frames)[0].tolist()
            ]
        notes = store.annotations(recording)
        assert Annotations.from_json(notes) == episode.annotations
        assert notes["recording"] == episode.name
        assert table is not None
        speakers = [*recording["speakers"], None]  # -1: unknown
        assert [
            {
                "start_us": row[0],
                "end_us": row[1],
                "label": names["labels"][int(row[2])],
                "full_label": names["full_labels"][int(row[3])],
                "speaker": speakers[int(row[4])],
                "confidence": row[5],
            }
            for row in table
        ] == notes["events"]
    assert store.table("turns", ["start_us", "end_us", "speaker"]) == [None] * 4
    fields = ["speaker", "event_start_us", "turn_start_us", "end_us"]
    assert store.table("intervals", fields) == [None] * 4
    assert all(store.table("segments", ["start_us", "end_us", "speaker"]))


def test_every_file_there_is_has_its_place_in_the_document(path):
    """format: F1, F6, F38"""
    store = IndependentStore(path)
    there = {str(item.relative_to(path)) for item in path.rglob("*") if item.is_file()}
    unnamed = there - set(store.files)
    assert unnamed - {".lock"} == {"store.json", "generations/000001.json", "shards/index.json"}
    patterns = (
        r"plans/\d{6}\.json|units/[a-z0-9-]+\.json|annotations/[0-9a-f]{8}/\w+/[a-z0-9-]+\.json"
        r"|(features|codes)\.zarr/([\w-]+/){0,3}zarr\.json"
        r"|(features|codes)\.zarr/([\w-]+/){3}c/\d+/0|shards/\w+-\d{6}\.tar"
        r"|shards/index-\d{6}\.(json|columns)"
    )
    for name in store.files:
        assert re.fullmatch(patterns, name), name


def test_writing_it_again_gives_the_same_bytes(path, tmp_path):
    """format: F38"""
    codec = IndependentStore(path).spec["codec"]
    again = write_store(
        tmp_path / "again",
        EPISODES,
        random_features(DIM),
        dim=DIM,
        shard_frames=256,
        codec=codec,
        chunk_frames=77,
    )
    files = {str(item.relative_to(path)): item for item in path.rglob("*") if item.is_file()}
    for name, item in files.items():
        assert (again / name).read_bytes() == item.read_bytes(), name


def test_names_follow_from_original_names(path):
    """format: F12, F13, F14"""
    store = IndependentStore(path)
    for recording, episode in zip(store.index["recordings"], EPISODES, strict=True):
        assert recording["id"] == recording_id(episode.name)
        assert len(f"{recording['id']}/{'a' * 12}--{'b' * 12}/000000.bf16.zst") <= 100
    streams = store.index["recordings"][2]["streams"]
    assert [item["assignment"] for item in streams] == ["ann--silence"]
    left, right = assignment_name("speaker number 1", "speaker number 2").split("--")
    assert left != right
    assert re.fullmatch(r"speaker-[0-9a-f]{4}", left)


@pytest.mark.parametrize(
    ("dim", "block_frames", "shard_frames"),
    [
        (63, 128, 256),
        (0, 128, 256),
        (65_538, 128, 256),
        (64, 3, 256),
        (64, 128, 200),
        (65_536, 1024, 1024),
        (64, 128, 2**21),
    ],
)
def test_sizes_outside_the_limits_are_refused(dim, block_frames, shard_frames):
    """format: F15"""
    with pytest.raises(ConfigError):
        ShardGeometry(dim, block_frames, shard_frames)


@pytest.mark.parametrize("dim", [2, 4, 64, 66, 512, 1000, 1024, 2048, 4096])
def test_the_rows_of_headers_are_those_of_the_document(dim):
    """format: F15, F18"""
    frames = 256
    spec = {"dim": dim, "block_frames": frames, "shard_frames": frames, "codec": "none"}
    geometry = ShardGeometry(dim, frames, frames)
    assert geometry.header_rows == Geometry(spec).header_rows
    assert geometry.json_bytes == Geometry(spec).json_bytes >= 512


def test_metadata_of_arrays_is_as_written_down(path):
    """format: F25, F26, F27"""
    store = IndependentStore(path)
    checked = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    inner = checked if store.spec["codec"] == "none" else [*checked, zstd]
    sharding = {"chunk_shape": [128, DIM], "codecs": inner, "index_codecs": checked}
    feature_codecs = [
        {"name": "sharding_indexed", "configuration": {**sharding, "index_location": "end"}}
    ]
    for recording in store.index["recordings"]:
        for stream in recording["streams"]:
            name = f"{recording['split']}/{recording['id']}/{stream['assignment']}/zarr.json"
            for root, width, dtype, fill, axes, codecs in (
                ("features.zarr", DIM, "bfloat16", "NaN", ["frame", "channel"], feature_codecs),
                ("codes.zarr", 17, "int16", -1, ["frame", "stream"], checked),
            ):
                found = json.loads(store.read(f"{root}/{name}"))
                found.pop("attributes")
                assert found == {
                    "zarr_format": 3,
                    "node_type": "array",
                    "shape": [recording["num_frames"], width],
                    "data_type": dtype,
                    "fill_value": fill,
                    "dimension_names": axes,
                    "chunk_grid": {
                        "name": "regular",
                        "configuration": {"chunk_shape": [256, width]},
                    },
                    "chunk_key_encoding": {
                        "name": "default",
                        "configuration": {"separator": "/"},
                    },
                    "codecs": codecs,
                    "storage_transformers": [],
                }
    for node in ("", "/train", f"/train/{recording_id('One frame.')}"):
        for root in ("features.zarr", "codes.zarr"):
            group = json.loads(store.read(f"{root}{node}/zarr.json"))
            assert group == {"zarr_format": 3, "node_type": "group", "attributes": {}}


def test_plans_and_units_are_as_written_down(path):
    """format: F35, F36"""
    store = IndependentStore(path)
    plan, _ = store.sealed("plans/000001.json", "laughstore-plan")
    assert plan["spec"] == store.spec
    assert set(plan) == {"format", "version", "spec", "device_kind", "recordings", "skipped"}
    next_shard: dict[str, int] = {}
    crcs: list[int] = []
    sizes: list[int] = []
    encoded: list[int] = []
    for planned, recording in zip(plan["recordings"], store.index["recordings"], strict=True):
        split = planned["split"]
        num_shards = -(-planned["num_frames"] // 256)
        for assignment, first in zip(planned["assignments"], planned["first_shards"], strict=True):
            assert set(assignment) == {"name", "main", "other"}
            assert first == next_shard.get(split, 0)
            next_shard[split] = first + num_shards
        assert planned["first_shards"] == [item["first_shard"] for item in recording["streams"]]
        unit, _ = store.sealed(f"units/{planned['id']}.json", "laughstore-unit")
        assert unit["status"] == "done"
        assert unit["reason"] is None
        crcs.extend(unit["block_crc32c"])
        sizes.extend(unit["shard_bytes"])
        encoded.extend(unit["block_bytes"] or [])
    assert crcs == list(store.columns["block_crc32c"])
    assert sizes == list(store.columns["shard_bytes"])
    assert encoded == list(store.columns.get("block_bytes", ()))


VERSIONED = {
    "store.json": "laughstore",
    "shards/index-000001.json": "laughstore-index",
    "plans/000001.json": "laughstore-plan",
    "units/{id}.json": "laughstore-unit",
}


def _open(store: Path, name: str) -> object:
    if name.startswith("plans"):
        return read_plan(store)
    if name.startswith("units"):
        return read_unit(store, Path(name).stem)
    return open_store(store)


@pytest.mark.parametrize("name", VERSIONED)
@pytest.mark.parametrize("change", [{"version": 2}, {"version": "1"}, {"format": "zarr"}])
def test_other_formats_and_newer_versions_are_refused_by_name(tmp_path, name, change):
    """format: F3"""
    crafted = Crafted(whole_store(tmp_path / "store"))
    kind, name = VERSIONED[name], name.format(id=recording_id("a"))
    crafted.edit(name, lambda content: content.update(change))
    text = f"{change.get('format', kind)} version {change.get('version', 1)} is not readable"
    with pytest.raises(CorruptData, match=rf"{text}.*reads {kind} version 1"):
        _open(crafted.path, name)


def test_annotations_of_a_newer_version_are_refused_by_name():
    """format: F3"""
    content = {**EPISODES[0].annotations.to_json(), "version": 2}
    with pytest.raises(CorruptData, match=r"laughstore-annotations' version 2 is not readable"):
        Annotations.from_json(content)


def test_shards_of_a_newer_format_are_told_from_ours(tmp_path):
    """format: F16"""
    store = write_example(tmp_path / "store")
    data = bytearray((store / "shards/train-000000.tar").read_bytes())
    data[15:16] = b"2"
    data[148:154] = b"%06o" % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    assert tar_header(bytes(data[:512])) == ("__laughstore__/2", 0)
    with pytest.raises(AssertionError):
        read_shard(bytes(data), IndependentStore(store).geometry)
    (store / "shards/train-000000.tar").chmod(0o644)
    (store / "shards/train-000000.tar").write_bytes(data)  # and its Zarr name: one file
    assert [fault.path for fault in verify(store, jobs=1).faults] == ["shards/train-000000.tar"]


def test_arrays_are_served_from_shards_where_their_zarr_names_are_missing(path, tmp_path):
    """format: F40"""
    shutil.copytree(path, tmp_path / "store")
    for chunk in (tmp_path / "store/features.zarr").rglob("c"):
        shutil.rmtree(chunk)
    store = open_store(tmp_path / "store")
    for episode in EPISODES:
        expected = random_features(DIM)(episode.name, 0, episode.num_frames)
        found = np.asarray(store.array(episode.name)[:]).view(np.uint16)
        np.testing.assert_array_equal(found, expected)


def test_a_broken_seal_is_refused_everywhere(tmp_path):
    """format: F2, F5, F9"""
    store = whole_store(tmp_path / "store")
    for name in ("store.json", "shards/index-000001.json", "plans/000001.json"):
        original = (store / name).read_bytes()
        value, _ = unseal(original)
        for data in (
            original[:-1],
            original + b"\n",
            original.replace(b"1", b"2", 1),
            canonical(value) + b"\n",
            json.dumps(json.loads(original)).encode(),
        ):
            (store / name).write_bytes(data)
            with pytest.raises(CorruptData, match="seal"):
                _open(store, name)
        (store / name).write_bytes(original)
    open_store(store)


def test_a_generation_keeps_its_files_and_its_manifest(tmp_path):
    """format: F8, F10, F34, F37"""
    store = whole_store(tmp_path / "store")
    before = {item: item.read_bytes() for item in store.rglob("*") if item.is_file()}
    changed = {recording_id("a"): EPISODES[1].annotations}
    commit_annotations(store, changed)
    replaced = {item.name for item, data in before.items() if item.read_bytes() != data}
    assert replaced == {"store.json", "index.json"}
    newest = IndependentStore(store)
    assert newest.manifest["generation"] == 2
    assert newest.frames()
    assert open_store(store, generation=1).manifest.generation == 1
    (store / "shards/train-000000.tar.partial-0123").write_bytes(b"junk")
    (store / "stats").mkdir()
    (store / "stats/junk.json").write_bytes(b"junk")
    (store / "shards/index.json").write_bytes(b"junk")
    assert open_store(store).annotations(recording_id("a")) == EPISODES[1].annotations
    shutil.rmtree(store / "stats")


def test_the_rules_of_reading_have_their_tests_elsewhere():
    """Paths and links: tests/hostile/test_names.py. Order of writing: tests/faults.

    format: F4, F5, F8, F39
    """
    assert (ROOT / "tests/hostile/test_names.py").is_file()
    assert (ROOT / "tests/faults").is_dir()


def test_the_document_is_about_the_version_that_is_written(path):
    first = DOCUMENT.read_text().splitlines()[0]
    manifest: dict[str, Any] = IndependentStore(path).manifest
    assert first.endswith(f"version {manifest['version']}")
