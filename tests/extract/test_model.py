import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from extract.model import FeatureModel, ModelFiles, load_model, resolve_model
from laughstore.errors import ConfigError, CorruptData, NotFound

from .sounds import one_shot_codes, sound

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


def edit_json(path: Path, **changes: Any) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | changes))


def load(files: ModelFiles, dtype: torch.dtype = torch.float32) -> FeatureModel:
    return load_model(files, device="cpu", dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_features_are_the_same_bits_as_with_the_whole_model_of_the_stock_loader(
    nano_checkpoint: Path, dtype: torch.dtype
) -> None:
    files = resolve_model(str(nano_checkpoint))
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
        ({"context": None}, "no attention window"),
        ({"delays": [0, 1]}, "does not describe a Moshi language model: expected 17 delays"),
        ({"surprise": 1}, "does not describe a Moshi language model: .*surprise"),
        ({"moshi_name": "tokenizer.model"}, "tokenizer.model is not a safetensors file"),
    ],
)
def test_a_model_that_is_no_plain_moshi_is_refused(
    checkpoint: Path, changes: dict[str, Any], message: str
) -> None:
    edit_json(checkpoint / "config.json", **changes)
    with pytest.raises(ConfigError, match=message):
        load(resolve_model(str(checkpoint)))


def test_lora_weights_beside_the_model_are_refused(checkpoint: Path) -> None:
    edit_json(checkpoint / "config.json", lora_name="lora.safetensors")
    with pytest.raises(ConfigError, match="merge them first"):
        resolve_model(str(checkpoint))


def test_a_mimi_of_other_frames_or_codebooks_is_refused(checkpoint: Path) -> None:
    edit_json(checkpoint / "mimi_config.json", frame_rate=25.0)
    with pytest.raises((ConfigError, CorruptData)):
        load(resolve_model(str(checkpoint)))


def test_a_mimi_with_other_code_numbers_than_the_model_reads_is_refused(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    grown = {
        name: torch.cat([value, value[-1:]]) if name.startswith("emb.") else value
        for name, value in weights.items()
    }
    save_file(grown, checkpoint / "model.safetensors")
    edit_json(checkpoint / "config.json", card=33)
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
    edit_json(checkpoint / "config.json", dim=128)
    with pytest.raises(CorruptData, match=r"correct config\.json"):
        load(resolve_model(str(checkpoint)))


def test_the_digest_covers_weights_and_configurations_and_no_file_names(checkpoint: Path) -> None:
    def digest() -> str:
        return resolve_model(str(checkpoint)).weights_sha256()

    first = digest()
    (checkpoint / "model.safetensors").rename(checkpoint / "weights.safetensors")
    edit_json(checkpoint / "config.json", moshi_name="weights.safetensors")
    assert digest() == first
    seen = {first}
    edit_json(checkpoint / "config.json", context=32)
    seen.add(digest())
    edit_json(checkpoint / "mimi_config.json", channels=1, extra=1)
    seen.add(digest())
    for name in ("weights.safetensors", "mimi.safetensors"):
        data = bytearray((checkpoint / name).read_bytes())
        data[-1] ^= 1
        (checkpoint / name).write_bytes(data)
        seen.add(digest())
    assert len(seen) == 5
