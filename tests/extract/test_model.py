import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from extract.config import BuildConfig
from extract.model import (
    FeatureModel,
    ModelFiles,
    _WithoutInitialisation,
    load_model,
    resolve_model,
)
from extract.settings import find_model, spec_of
from extract.synthetic.tiny_checkpoint import _Shape, _write_lm
from laughstore.buildplan import BuildPlan, begin_plan
from laughstore.errors import ConfigError, CorruptData, NotFound

from .checkpoints import edit_json
from .sounds import extract, one_shot_codes, one_shot_features, sound, talk, worst_frame_error
from .streams import random_codes, streamed_lm

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def checkpoint(nano_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(nano_checkpoint, tmp_path / "model"))


@pytest.fixture
def hub(nano_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a machine without a network that once downloaded the repository small/moshi."""
    cache = tmp_path / "hub"
    repository = cache / "models--small--moshi"
    shutil.copytree(nano_checkpoint, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def load(files: ModelFiles, dtype: torch.dtype = torch.float32) -> FeatureModel:
    return load_model(files, device="cpu", dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_features_are_the_same_bits_as_with_the_whole_model_of_the_stock_loader(
    nano_checkpoint: Path, dtype: torch.dtype
) -> None:
    files = resolve_model(str(nano_checkpoint))
    with _WithoutInitialisation():  # of weights that are then read from the file
        stock = files.checkpoint.get_moshi("cpu", dtype=dtype)
    model = load(files, dtype)
    codes = torch.randint(-1, 32, (2, 17, 20))
    assert torch.equal(model.lm.forward_text(codes)[0], stock.forward_text(codes)[0])
    assert model.lm.delays == stock.delays
    assert model.dim == stock.dim == 64
    assert model.dtype == model.lm.dtype == dtype


def test_depth_transformer_and_text_head_are_not_in_memory(nano_checkpoint: Path) -> None:
    names = set(load(resolve_model(str(nano_checkpoint))).lm.state_dict())
    assert names
    assert all(
        name.startswith(("transformer.", "emb.", "text_emb.", "out_norm.")) for name in names
    )


def test_mimi_is_that_of_the_stock_loader_in_float32(nano_checkpoint: Path) -> None:
    files = resolve_model(str(nano_checkpoint))
    model = load(files, torch.bfloat16)
    assert {parameter.dtype for parameter in model.mimi.parameters()} == {torch.float32}
    wave = sound(0, 20)
    stock = files.checkpoint.get_mimi("cpu")
    expected = stock.encode(torch.from_numpy(wave)[None, None]).numpy()
    assert (one_shot_codes(model, wave) == expected).all()
    assert expected.shape == (1, 8, 20)


def test_a_directory_is_local_and_has_no_revision(nano_checkpoint: Path) -> None:
    files = resolve_model(str(nano_checkpoint))
    assert (files.repo, files.revision) == ("local", None)
    assert files.lm_path == nano_checkpoint / "model.safetensors"
    assert files.mimi_path == nano_checkpoint / "mimi.safetensors"
    assert files.tokenizer_path == nano_checkpoint / "tokenizer.model"
    assert files.config["context"] == 64
    with pytest.raises(ConfigError, match="is a directory and has no revision 'main'"):
        resolve_model(str(nano_checkpoint), "main")


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_cached_repository_loads_without_a_network_and_names_its_commit(
    hub: Path, revision: str | None, nano_checkpoint: Path
) -> None:
    files = resolve_model("small/moshi", revision)
    assert (files.repo, files.revision) == ("small/moshi", COMMIT)
    assert load(files).dim == 64
    assert files.weights_sha256() == resolve_model(str(nano_checkpoint)).weights_sha256()


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("other/moshi", None, "model other/moshi: no such directory, not in the local"),
        ("small/moshi", "v2", "model small/moshi at revision v2: no such directory, not in the"),
        ("no/such/folder", None, "not the name of a Hugging Face repository"),
        ("/no/such/folder", None, "not the name of a Hugging Face repository"),
    ],
)
def test_a_model_that_cannot_be_found_is_one_line_that_says_what_to_do(
    hub: Path, name: str, revision: str | None, message: str
) -> None:
    with pytest.raises(NotFound, match=message) as caught:
        resolve_model(name, revision)
    assert "\n" not in str(caught.value)


def test_a_directory_without_a_file_it_needs_is_not_found(checkpoint: Path) -> None:
    (checkpoint / "mimi.safetensors").unlink()
    with pytest.raises(NotFound, match=r"has no mimi\.safetensors, which its config\.json names"):
        resolve_model(str(checkpoint))
    (checkpoint / "config.json").unlink()
    with pytest.raises(NotFound, match=r"has no config\.json"):
        resolve_model(str(checkpoint))


@pytest.mark.parametrize("text", ["{", "[]"])
@pytest.mark.parametrize("name", ["config.json", "mimi_config.json"])
def test_a_configuration_that_is_no_json_object_is_refused(
    checkpoint: Path, name: str, text: str
) -> None:
    (checkpoint / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        resolve_model(str(checkpoint))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_q": 32}, "reads 32 audio codebooks"),
        ({"fuser": {"sum": ["description"]}}, "needs conditions besides audio and text"),
        ({"conditioners": {"description": {}}}, "needs conditions besides audio and text"),
        ({"lora": True}, "LoRA"),
        ({"quantize": True}, "quantised"),
        ({"demux_second_stream": True}, "two text streams"),
        ({"demux_second_text_stream": True}, "two text streams"),
        ({"context": None}, "no attention window"),
        ({"causal": False}, "is not causal"),
        ({"existing_text_padding_id": 4}, "pads its text with 4 and ends padding with 0"),
        ({"existing_text_end_padding_id": 1}, "pads its text with 3 and ends padding with 1"),
        ({"delays": [0, 1]}, "needs 17 whole numbers of frames, none below 0"),
        ({"delays": [0] + [-1] * 16}, "needs 17 whole numbers of frames, none below 0"),
        ({"delays": [0.5] * 17}, "needs 17 whole numbers of frames, none below 0"),
        ({"context": "64"}, "context is '64'; it must be a number of frames from 1"),
        ({"context": 64.5}, "context is 64.5"),
        ({"context": -3}, "context is -3"),
        ({"context": 10**12}, "context is 1000000000000"),
        ({"condition_provider": {"a": 1}}, "needs conditions besides audio and text"),
        ({"weights_per_step": True}, "other weights for each step"),
        ({"surprise": 1}, "does not describe a Moshi language model: .*surprise"),
        ({"moshi_name": "tokenizer.model"}, "tokenizer.model is not a safetensors file"),
    ],
)
def test_a_model_that_is_no_plain_moshi_is_refused(
    checkpoint: Path, changes: dict[str, Any], message: str
) -> None:
    edit_json(checkpoint / "config.json", changes)
    with pytest.raises(ConfigError, match=message) as caught:
        load(resolve_model(str(checkpoint)))
    assert "\n" not in str(caught.value)


# Three frames for the acoustic codes of one speaker, and a text that comes late.
DELAYS = [1, *([0] + [2] * 7), *([0] + [3] * 7)]


@pytest.fixture(scope="module")
def other_model(nano_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureModel:
    """A model of other sizes and delays than the other tests have."""
    folder = tmp_path_factory.mktemp("models") / "other"
    shutil.copytree(nano_checkpoint, folder)
    shape = _Shape(dim=128, num_heads=4, num_layers=3, hidden=64, kv_repeat=2)
    _write_lm(folder, shape, np.random.default_rng(0))
    edit_json(folder / "config.json", {"delays": DELAYS, "context": 10})
    return load(resolve_model(str(folder)))


def test_width_layers_delays_and_window_are_those_of_the_configuration(
    other_model: FeatureModel,
) -> None:
    assert (other_model.dim, len(other_model.lm.transformer.layers)) == (128, 3)
    assert other_model.lm.delays == DELAYS
    codes = random_codes(other_model, 2, 53)
    expected = one_shot_features(other_model, codes.transpose(1, 2).numpy().astype(np.int16))
    for sizes in ([1], [7], [3, 25, 1]):
        assert worst_frame_error(streamed_lm(other_model, codes, sizes), expected) < 1e-5
    features, fed = extract(other_model, talk("talk", 53), chunk_frames=16)["talk"]
    assert features.shape == (2, 53, 128)
    np.testing.assert_allclose(features, one_shot_features(other_model, fed), rtol=2**-8, atol=5e-5)


@pytest.mark.parametrize("stream", [0, 1, 5, 9, 12])
def test_a_code_reaches_features_after_the_configured_delay(
    other_model: FeatureModel, stream: int
) -> None:
    codes = random_codes(other_model, 1, 12)
    altered = codes.clone()
    altered[0, stream, 4] = (codes[0, stream, 4] + 1) % other_model.lm.card
    before, after = (streamed_lm(other_model, item, [5]) for item in (codes, altered))
    assert np.argmax((after != before).any(axis=2)[0]) == 4 + 1 + DELAYS[stream]


def test_lora_weights_beside_the_model_are_refused(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", {"lora_name": "lora.safetensors"})
    with pytest.raises(ConfigError, match="merge them first"):
        resolve_model(str(checkpoint))


def test_a_mimi_of_other_frames_or_codebooks_is_refused(checkpoint: Path) -> None:
    edit_json(checkpoint / "mimi_config.json", {"frame_rate": 25.0})
    with pytest.raises((ConfigError, CorruptData)):
        load(resolve_model(str(checkpoint)))


def test_a_mimi_with_other_code_numbers_than_the_model_reads_is_refused(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    grown = {
        name: torch.cat([value, value[-1:]]) if name.startswith("emb.") else value
        for name, value in weights.items()
    }
    save_file(grown, checkpoint / "model.safetensors")
    edit_json(checkpoint / "config.json", {"card": 33})
    with pytest.raises(ConfigError, match="has 32 codes a codebook, the language model reads 33"):
        load(resolve_model(str(checkpoint)))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_a_tensor(path: Path) -> None:
    weights = load_file(path)
    name = next(name for name in sorted(weights) if name.startswith(("encoder", "transformer")))
    del weights[name]
    save_file(weights, path)


@pytest.mark.parametrize("damage", [cut, drop_a_tensor])
@pytest.mark.parametrize("name", ["model.safetensors", "mimi.safetensors"])
def test_damaged_weights_are_named_in_one_line(
    checkpoint: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(checkpoint / name)
    with pytest.raises(CorruptData, match=f"{name} cannot be loaded") as caught:
        load(resolve_model(str(checkpoint)))
    assert "\n" not in str(caught.value)


def test_weights_of_another_width_than_the_configuration_says_are_refused(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", {"dim": 128})
    with pytest.raises(CorruptData, match=r"correct config\.json"):
        load(resolve_model(str(checkpoint)))


def test_the_digest_covers_weights_and_configurations_and_no_file_names(checkpoint: Path) -> None:
    def digest() -> str:
        return resolve_model(str(checkpoint)).weights_sha256()

    first = digest()
    (checkpoint / "model.safetensors").rename(checkpoint / "weights.safetensors")
    edit_json(checkpoint / "config.json", {"moshi_name": "weights.safetensors"})
    assert digest() == first
    seen = {first}
    edit_json(checkpoint / "config.json", {"context": 32})
    seen.add(digest())
    edit_json(checkpoint / "mimi_config.json", {"channels": 1, "extra": 1})
    seen.add(digest())
    for name in ("weights.safetensors", "mimi.safetensors"):
        data = bytearray((checkpoint / name).read_bytes())
        data[-1] ^= 1
        (checkpoint / name).write_bytes(data)
        seen.add(digest())
    assert len(seen) == 5


def test_the_digest_covers_what_a_tap_and_a_text_mode_depend_on_and_no_more(
    checkpoint: Path,
) -> None:
    def digests() -> list[str]:
        files = resolve_model(str(checkpoint))
        return [
            files.weights_sha256("mimi"),
            files.weights_sha256("layer:1"),
            files.weights_sha256("out_norm", text=True),
        ]

    def changed_by(name: str) -> list[bool]:
        before = digests()
        data = bytearray((checkpoint / name).read_bytes())
        data[-1] ^= 1
        (checkpoint / name).write_bytes(data)
        return [old != new for old, new in zip(before, digests(), strict=True)]

    assert len(set(digests())) == 3
    assert changed_by("tokenizer.model") == [False, False, True]
    assert changed_by("model.safetensors") == [False, True, True]
    assert changed_by("mimi.safetensors") == [True, True, True]


def test_a_begun_store_keeps_its_commit_when_the_repository_has_a_newer_one(hub, tmp_path):
    config = BuildConfig(tmp_path, tmp_path / "store", model="small/moshi")
    spec = spec_of(config, find_model(config), torch.device("cpu"))
    begin_plan(config.store, BuildPlan(spec, "test", ()))
    newer = "f" * 40
    repository = hub / "models--small--moshi"
    shutil.copytree(repository / "snapshots" / COMMIT, repository / "snapshots" / newer)
    (repository / "refs/main").write_text(newer)

    def revision(config: BuildConfig) -> str | None:
        files = find_model(config)
        assert files is not None
        return files.revision

    assert revision(config) == COMMIT
    assert revision(replace(config, revision=newer)) == newer
    assert revision(replace(config, store=tmp_path / "another")) == newer


def test_weights_that_a_gpu_has_no_room_for_are_not_called_damaged(checkpoint, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("extract.model.safe_open", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        load(resolve_model(str(checkpoint)))
