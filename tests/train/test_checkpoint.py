from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from laughstore.errors import CorruptData, NotFound
from train.checkpoint import (
    Checkpoint,
    checkpoint_path,
    load_checkpoint,
    mark_best,
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


def test_best_and_last_are_found_and_the_others_pruned(tmp_path):
    paths = {step: save_checkpoint(tmp_path, step, some_checkpoint(step)) for step in (10, 20, 30)}
    with pytest.raises(NotFound, match="--checkpoint last"):
        checkpoint_path(tmp_path, "best")
    mark_best(tmp_path, paths[10], {"average_precision": 0.5})
    assert checkpoint_path(tmp_path, "best") == paths[10]
    assert checkpoint_path(tmp_path, "last") == paths[30]
    prune(tmp_path)
    assert not paths[20].exists()
    assert load_checkpoint(paths[10]).model["head.first.weight"][0, 0] == 10


def test_saving_a_step_again_keeps_what_is_sound_and_replaces_another_state_or_damage(tmp_path):
    path = save_checkpoint(tmp_path, 5, some_checkpoint(1.0))
    save_checkpoint(tmp_path, 5, some_checkpoint(2.0))
    assert load_checkpoint(path).model["head.first.weight"][0, 0] == 1.0
    validated = replace(some_checkpoint(1.0), state={"step": 5, "validated": True})
    save_checkpoint(tmp_path, 5, validated)
    assert load_checkpoint(path).state == {"step": 5, "validated": True}
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    (path / "state.json").write_text("{}")
    save_checkpoint(tmp_path, 5, some_checkpoint(2.0))
    assert load_checkpoint(path).model["head.first.weight"][0, 0] == 2.0


def test_a_name_outside_the_folder_is_never_followed(tmp_path):
    mark_best(tmp_path, Path("/etc/step-000000001"), {})
    assert checkpoint_path(tmp_path, "best") == tmp_path / "step-000000001"
    mark_best(tmp_path, Path("passwd"), {})
    with pytest.raises(CorruptData, match="no name of a checkpoint"):
        checkpoint_path(tmp_path, "best")
