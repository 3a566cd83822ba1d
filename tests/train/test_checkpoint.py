from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laughstore.errors import CorruptData, NotFound
from laughstore.files import TEMPORARY_MARK
from train.runs.checkpoint import (
    Checkpoint,
    checkpoint_path,
    load_checkpoint,
    mark_best,
    newest_sound,
    prune,
    save_checkpoint,
)


def some_checkpoint(value: float = 1.0) -> Checkpoint:
    return Checkpoint(
        {"head.first.weight": torch.full((1, 8), value)},
        {"0.exp_avg": torch.arange(8.0)},
        {"step": 3, "stream": {"epoch": 0}},
    )


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    path = save_checkpoint(tmp_path, 3, some_checkpoint())
    loaded = load_checkpoint(path)
    assert loaded.model["head.first.weight"].tolist() == [[1.0] * 8]
    assert loaded.optimiser["0.exp_avg"].tolist() == list(range(8))
    assert loaded.state == {"step": 3, "stream": {"epoch": 0}}
    assert {item.name for item in tmp_path.iterdir()} == {"step-000000003"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("run"), 3, some_checkpoint())


FILES = ["model.safetensors", "optimiser.safetensors", "state.json", "MANIFEST.json"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.sampled_from(FILES), st.integers(0, 10**6), st.integers(0, 7))
def test_any_flipped_bit_is_found(saved, name, position, bit):
    path = saved / name
    good = path.read_bytes()
    bad = bytearray(good)
    bad[position % len(bad)] ^= 1 << bit
    path.write_bytes(bad)
    try:
        with pytest.raises(CorruptData, match=name):
            load_checkpoint(saved)
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("name", FILES[:3])
def test_a_missing_or_cut_file_is_found(tmp_path, name):
    path = save_checkpoint(tmp_path, 3, some_checkpoint())
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[:-1])
    with pytest.raises(CorruptData, match=name):
        load_checkpoint(path)
    (path / name).unlink()
    with pytest.raises(CorruptData, match=f"{name} is missing"):
        load_checkpoint(path)


def test_a_folder_without_a_manifest_is_no_checkpoint(tmp_path):
    with pytest.raises(NotFound, match="no finished checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / "step-000000009").mkdir()
    with pytest.raises(NotFound, match="no finished checkpoint"):
        checkpoint_path(tmp_path, "last")


def test_best_and_the_last_three_are_kept(tmp_path):
    steps = (10, 20, 30, 40, 50)
    paths = {step: save_checkpoint(tmp_path, step, some_checkpoint(step)) for step in steps}
    with pytest.raises(NotFound, match="--checkpoint last"):
        checkpoint_path(tmp_path, "best")
    mark_best(tmp_path, paths[10], {"average_precision": 0.5})
    assert checkpoint_path(tmp_path, "best") == paths[10]
    assert checkpoint_path(tmp_path, "last") == paths[50]
    (tmp_path / "best.json").write_text("damaged, which is for readers to find")
    prune(tmp_path, best=paths[10].name)
    assert [step for step in steps if paths[step].exists()] == [10, 30, 40, 50]
    assert load_checkpoint(paths[10]).model["head.first.weight"][0, 0] == 10


def test_nothing_is_deleted_while_the_last_one_is_damaged(tmp_path):
    paths = [save_checkpoint(tmp_path, step, some_checkpoint(step)) for step in range(1, 6)]
    (paths[-1] / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptData, match="step-000000005"):
        prune(tmp_path, best=None)
    assert all(path.exists() for path in paths)


def test_steps_of_more_than_nine_digits_are_later_than_those_of_nine(tmp_path):
    paths = [save_checkpoint(tmp_path, 10**9 + step, some_checkpoint()) for step in (-1, 0, 20)]
    assert [path.name for path in paths[:2]] == ["step-999999999", "step-1000000000"]
    assert checkpoint_path(tmp_path, "last") == paths[-1]
    found = newest_sound(tmp_path)
    assert found is not None
    assert found[0] == paths[-1]
    mark_best(tmp_path, paths[1], {})
    assert checkpoint_path(tmp_path, "best") == paths[1]


def test_a_step_saved_again_gets_another_name(tmp_path):
    path = save_checkpoint(tmp_path, 5, some_checkpoint(1.0))
    assert load_checkpoint(path).model["head.first.weight"][0, 0] == 1.0
    validated = replace(some_checkpoint(1.0), state={"step": 5, "validated": True})
    again = save_checkpoint(tmp_path, 5, validated)
    assert again.name == "step-000000005.1"
    assert load_checkpoint(again).state == {"step": 5, "validated": True}
    assert checkpoint_path(tmp_path, "last") == again
    (again / "state.json").write_text("{}")
    assert save_checkpoint(tmp_path, 5, validated).name == "step-000000005.2"
    assert load_checkpoint(path).state == some_checkpoint().state
    assert checkpoint_path(tmp_path, "last").name == "step-000000005.2"
    later = [save_checkpoint(tmp_path, 5, some_checkpoint_at(i)) for i in range(9)]
    assert checkpoint_path(tmp_path, "last") == later[-1], "by number, not by letter"


def some_checkpoint_at(place: int) -> Checkpoint:
    return replace(some_checkpoint(), state={"place": place})


@pytest.mark.parametrize("name", [*FILES, ""])
def test_the_newest_sound_one_wins_and_those_that_are_broken_are_kept_and_named(
    name, tmp_path, caplog
):
    good, *bad = [save_checkpoint(tmp_path, step, some_checkpoint(step)) for step in (1, 2, 3)]
    before = []
    for path in bad:
        if name == "MANIFEST.json" or not name:  # missing, all of it or its seal
            for file in [path / name] if name else list(path.iterdir()):
                file.unlink()
        else:
            data = bytearray((path / name).read_bytes())
            data[len(data) // 2] ^= 8
            (path / name).write_bytes(data)
        before.append({file.name: file.read_bytes() for file in path.iterdir()})
    (tmp_path / f"step-000000004{TEMPORARY_MARK}0a1b").mkdir()
    found = newest_sound(tmp_path)
    assert found is not None
    assert (found[0], found[1].model["head.first.weight"][0, 0]) == (good, 1)
    aside = [path.with_name(path.name + ".broken") for path in bad]
    assert [{f.name: f.read_bytes() for f in path.iterdir()} for path in aside] == before
    assert [path.name in caplog.text for path in aside] == [True, True]
    assert {path.name for path in tmp_path.iterdir()} == {good.name, *(p.name for p in aside)}
    # The steps made again take the names, and break no less.
    assert save_checkpoint(tmp_path, 3, some_checkpoint(7)) == bad[1]
    (bad[1] / "state.json").unlink()
    assert newest_sound(tmp_path) is not None
    assert (tmp_path / "step-000000003.broken.broken").exists()


def unreadable(path: Path) -> None:
    """As a disk that cannot give back a file: reading this one ends with EIO."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [unreadable, a_folder])
def test_a_file_that_cannot_be_read_is_passed_over_like_a_broken_one(
    damage, name, tmp_path, caplog
):
    good, bad = [save_checkpoint(tmp_path, step, some_checkpoint(step)) for step in (1, 2)]
    damage(bad / name)
    with pytest.raises(CorruptData, match=rf"{name} cannot be read \((Input|Is a)"):
        load_checkpoint(bad)
    found = newest_sound(tmp_path)
    assert found is not None
    assert found[0] == good
    assert f"kept as {bad.name}.broken: {bad}/{name} cannot be read" in caplog.text


def test_an_error_that_says_nothing_of_the_bytes_is_no_damage(tmp_path):
    path = save_checkpoint(tmp_path, 1, some_checkpoint())
    (path / "state.json").unlink()
    (path / "state.json").symlink_to("state.json")  # ELOOP: the file may be fine elsewhere
    with pytest.raises(OSError, match="symbolic links"):
        load_checkpoint(path)


def test_without_any_sound_checkpoint_there_is_none(tmp_path):
    assert newest_sound(tmp_path / "nowhere") is None
    path = save_checkpoint(tmp_path, 3, some_checkpoint())
    (path / "state.json").unlink()
    assert newest_sound(tmp_path) is None


def test_a_name_outside_the_folder_is_never_followed(tmp_path):
    mark_best(tmp_path, Path("/etc/step-000000001"), {})
    assert checkpoint_path(tmp_path, "best") == tmp_path / "step-000000001"
    mark_best(tmp_path, Path("passwd"), {})
    with pytest.raises(CorruptData, match="no name of a checkpoint"):
        checkpoint_path(tmp_path, "best")
