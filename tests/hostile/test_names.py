"""Paths, ids and links that lead out of the store, or start a program."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from laughstore import CorruptData, LaughstoreError, open_store
from laughstore.buildplan import read_plan
from laughstore.commit import commit_annotations, restore_names
from laughstore.evolution.gc import collect_garbage
from laughstore.manifest import read_manifest
from laughstore.unit import read_unit, remove_unit_files
from tests.hostile.crafting import EPISODES, INDEX, Content, Crafted, whole_store
from tests.hostile.reading import assert_refused, read_everything
from tests.hostile.watching import watched


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_store(tmp_path_factory.mktemp("hostile") / "store")


@pytest.fixture
def crafted(template: Path, tmp_path: Path) -> Crafted:
    shutil.copytree(template, tmp_path / "store", symlinks=True)
    return Crafted(tmp_path / "store")


def _unit_of_a(crafted: Crafted) -> str:
    return next(f"units/{path.name}" for path in (crafted.path / "units").glob("a-*"))


def test_a_store_as_it_should_be_is_read_whole(crafted):
    with watched(crafted.path) as acts:
        read_everything(crafted.path)
    assert acts == []


def test_a_store_sealed_again_without_a_change_is_read_whole(crafted):
    crafted.edit_index(lambda content: None)
    crafted.edit(_unit_of_a(crafted), lambda content: None)
    crafted.put_columns((crafted.path / "shards/index-000001.columns").read_bytes())
    read_everything(crafted.path)


PATHS = {
    "absolute": "/etc/passwd",
    "climbs": "../canary",
    "climbs inside": "shards/../../canary",
    "hidden climb": "shards/..",
    "a shell command": "pipe:touch canary",
    "a file url": "file:///etc/passwd",
    "an s3 url": "s3://bucket/key",
    "a windows drive": "C:/canary",
    "backslashes": "shards\\..\\..\\canary",
    "nul": "shards/train-000000.tar\0.png",
    "a new line": "shards/train\n000000.tar",
    "right to left": "shards/\u202erat.000000",
    "wide solidus": "shards\uff0ftrain.tar",
    "wide dots": "\uff0e\uff0e/canary",
    "decomposed": "shards/e\u0301.tar",
    "home": "~/canary",
    "a variable": "$HOME/canary",
    "a substitution": "shards/$(touch canary).tar",
    "braces": "shards/{000000..999999}.tar",
    "a query": "shards/train.tar?x=1",
    "a fragment": "shards/train.tar#x",
    "percent": "%2e%2e/canary",
    "an option": "-rf",
    "twice": "shards//train-000000.tar",
    "here": "./shards/train-000000.tar",
    "a folder": "shards/",
    "empty": "",
    "long": "a" * 5000,
    "deep": "/".join(["a"] * 40),
    "a number": 7,
    "a list": ["shards"],
}


@pytest.mark.parametrize("field", ["path", "also"])
@pytest.mark.parametrize("where", ["store.json", "units"])
def test_paths_that_no_store_may_name(crafted, where, field):
    name = "store.json" if where == "store.json" else _unit_of_a(crafted)
    for path in PATHS.values():
        crafted.edit(name, lambda content, path=path: content["files"][-1].update({field: path}))
        assert_refused(crafted.path, "do not trust|must not be opened")
        with watched(crafted.path) as acts, pytest.raises(CorruptData):
            restore_names(crafted.path, read_manifest(crafted.path))
        assert acts == []


def test_an_index_elsewhere(crafted):
    for path in PATHS.values():
        crafted.edit("store.json", lambda content, path=path: content.update(index=path))
        assert_refused(crafted.path, "do not trust|not a string")


def test_columns_elsewhere(crafted):
    for path in PATHS.values():
        crafted.edit_index(lambda content, path=path: content["columns"].update(name=path))
        assert_refused(crafted.path, "do not trust|not a string")


def test_an_index_of_another_folder_of_the_store(crafted):
    shutil.copy(crafted.path / INDEX, crafted.path / "units" / "index-000001.json")
    crafted.edit("store.json", lambda content: content.update(index="units/index-000001.json"))
    assert_refused(crafted.path, "names the index")


IDS = {
    "climbs": "../../canary",
    "absolute": "/etc",
    "dots": "..",
    "a dot": "a.b",
    "a slash": "a/b",
    "a backslash": "a\\b",
    "a scheme": "pipe:touch",
    "nul": "a\0",
    "a new line": "a\n",
    "right to left": "\u202ea",
    "another alphabet": "\u0430",  # Cyrillic, looks like an a
    "an option": "-rf",
    "hidden": ".ssh",
    "empty": "",
    "long": "a" * 200,
    "a number": 1,
    "nothing": None,
}


def _set_id(content: Content, value: object) -> None:
    content["recordings"][0]["id"] = value


def _set_split(content: Content, value: object) -> None:
    content["recordings"][0]["split"] = value


def _set_annotations(content: Content, value: object) -> None:
    content["recordings"][0]["annotations_id"] = value


def _set_assignment(content: Content, value: object) -> None:
    item = content["recordings"][0]
    if "streams" in item:
        item["streams"][0]["assignment"] = value
    else:
        item["assignments"][0]["name"] = value


@pytest.mark.parametrize("change", [_set_id, _set_split, _set_annotations, _set_assignment])
def test_ids_that_would_lead_elsewhere(crafted, change):
    for value in IDS.values():
        crafted.edit("plans/000001.json", lambda content, value=value: change(content, value))
        assert_refused(crafted.path, "must not stand in a path", read=read_plan)
        crafted.edit_index(lambda content, value=value: change(content, value))
        assert_refused(crafted.path, "must not stand in a path")


def test_a_unit_that_calls_itself_something_else(crafted):
    unit = _unit_of_a(crafted)
    for value in IDS.values():
        crafted.edit(unit, lambda content, value=value: content.update(id=value))
        assert_refused(
            crafted.path,
            "must not stand in a path",
            read=lambda path: read_unit(path, Path(unit).stem),
        )


def test_a_unit_of_another_recording(crafted):
    unit = Path(_unit_of_a(crafted))
    other = next((crafted.path / "units").glob("b-*")).stem
    crafted.edit(str(unit), lambda content: content.update(id=other))
    with pytest.raises(CorruptData, match="is the record of"):
        read_unit(crafted.path, unit.stem)


LINKED = [
    "store.json",
    "shards/index-000001.json",
    "shards/index-000001.columns",
    "shards/train-000000.tar",
    "units/{a}.json",
    "annotations/{notes}/train/{a}.json",
    "features.zarr/train/{a}/{assignment}/zarr.json",
    "codes.zarr/train/{a}/{assignment}/zarr.json",
    "codes.zarr/train/{a}/{assignment}/c/0/0",
    "shards",
    "units",
    "annotations",
    "codes.zarr",
    "codes.zarr/train/{a}/{assignment}/c",
]
FILES = [item for item in LINKED if item.endswith(("json", "columns", "tar", "c/0/0"))]


def _named(crafted: Crafted, pattern: str) -> Path:
    index = crafted.json(INDEX)
    item = next(item for item in index["recordings"] if item["id"].startswith("a-"))
    return crafted.path / pattern.format(
        a=item["id"],
        notes=item["annotations_id"],
        assignment=item["streams"][0]["assignment"],
    )


@pytest.mark.parametrize("pattern", LINKED)
def test_links_out_of_the_store_are_not_followed(crafted, tmp_path, pattern):
    """The very same bytes stand behind the link: nothing but the link is wrong."""
    path = _named(crafted, pattern)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert_refused(crafted.path, "symbolic link")


@pytest.mark.parametrize("pattern", FILES)
def test_links_to_a_device_without_end_are_not_read(crafted, pattern):
    path = _named(crafted, pattern)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert_refused(crafted.path, "symbolic link")


@pytest.mark.parametrize("pattern", FILES)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(crafted, pattern):
    path = _named(crafted, pattern)
    path.unlink()
    os.mkfifo(path)
    assert_refused(crafted.path, "pipe|bytes")


@pytest.mark.parametrize("pattern", FILES)
def test_a_folder_in_the_place_of_a_file_is_refused(crafted, pattern):
    path = _named(crafted, pattern)
    path.unlink()
    path.mkdir()
    assert_refused(crafted.path, "folder|bytes|is missing")


@pytest.mark.parametrize("root", ["features.zarr", "codes.zarr"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nothing_behind_a_link_is_deleted_with_a_unit(crafted, tmp_path, root, depth):
    """A half-built store that somebody sent: its next build cleans up what failed."""
    (crafted.path / "store.json").unlink()
    plan = read_plan(crafted.path)
    recording = plan.recordings[0]
    parts = Path(root, recording.split, recording.id).parts
    outside = tmp_path / "home"
    outside.joinpath(*parts[depth:]).mkdir(parents=True)
    canary = outside.joinpath(*parts[depth:], "canary")
    canary.write_text("alive")
    link = crafted.path.joinpath(*parts[:depth])
    shutil.rmtree(link)
    link.symlink_to(outside)
    with pytest.raises(CorruptData, match="symbolic link"):
        remove_unit_files(crafted.path, plan, recording)
    assert canary.read_text() == "alive"
    assert read_unit(crafted.path, recording.id) is not None, "nothing was deleted"


def test_no_shard_behind_a_link_is_deleted_with_a_unit(crafted, tmp_path):
    (crafted.path / "store.json").unlink()
    (crafted.path / "shards").rename(tmp_path / "shards")
    (crafted.path / "shards").symlink_to(tmp_path / "shards")
    before = sorted(path.name for path in (tmp_path / "shards").iterdir())
    plan = read_plan(crafted.path)
    with pytest.raises(CorruptData, match="symbolic link"):
        remove_unit_files(crafted.path, plan, plan.recordings[0])
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == before


def test_garbage_behind_links_is_left_alone(crafted, tmp_path):
    outside = tmp_path / "home"
    outside.mkdir()
    canaries = [outside / "canary.tar", outside / "zarr.json"]
    for canary in canaries:
        canary.write_text("alive")
    (crafted.path / "shards" / "more").symlink_to(outside)
    (crafted.path / "features.zarr/train/gone").symlink_to(outside)
    (crafted.path / "units").joinpath("b.json.partial-00").symlink_to(canaries[0])
    with suppress(LaughstoreError):
        collect_garbage(crafted.path)
    assert [canary.read_text() for canary in canaries] == ["alive", "alive"]
    assert open_store(crafted.path).frames("a").shape == (300, 64)


def test_original_names_may_hold_anything_and_never_reach_a_path(crafted):
    name = "../../etc/passwd\n\x1b[2J pipe:touch canary"
    crafted.edit_index(lambda content: content["recordings"][0].update(name=name))
    with watched(crafted.path) as acts:
        store = open_store(crafted.path)
        assert store.frames(name).shape == (300, 64)
        assert store.array(name).shape == (300, 64)
        with pytest.raises(Exception, match="no recording") as caught:
            store.frames(name + "x")
    assert acts == []
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_the_manifest_of_another_store_is_refused(crafted, tmp_path):
    other = Crafted(whole_store(tmp_path / "other"))
    other.edit_index(lambda content: content["recordings"][0].update(group="another"))
    shutil.copy(other.path / "store.json", crafted.path / "store.json")
    assert_refused(crafted.path, "do not belong together")


def test_a_generation_under_another_number_is_refused(crafted):
    recording = open_store(crafted.path).recordings[0].id
    commit_annotations(crafted.path, {recording: EPISODES[1].annotations})
    assert open_store(crafted.path, generation=1).manifest.generation == 1
    shutil.copy(crafted.path / "store.json", crafted.path / "generations/000001.json")
    with pytest.raises(CorruptData, match="is generation 2"):
        open_store(crafted.path, generation=1)


def test_the_shards_of_another_store_are_refused(crafted, tmp_path):
    other = whole_store(tmp_path / "other")
    shard = sorted((other / "shards").glob("*.tar"))[1]
    target = crafted.path / "shards" / "train-000000.tar"
    target.unlink()
    shutil.copy(shard, target)
    assert_refused(crafted.path, "bytes")
    about = json.loads((crafted.path / INDEX).read_bytes())
    assert about["recordings"][0]["streams"][0]["first_shard"] == 0
