"""Where features are read, and that nothing behind that place is read from the files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from moshi.models import loaders
from safetensors import safe_open
from torch import nn

from extract import model as model_module
from extract.config import MIMI_DIM
from extract.logmel import LOGMEL_CHANNELS
from extract.model import FeatureModel, feature_dim, load_model, resolve_model
from laughstore.errors import ConfigError, CorruptData
from laughstore.spec import tap_layers

from .checkpoints import edit_weights
from .sounds import as_bf16, extract, one_shot_features, talk, worst_frame_error
from .streams import random_codes, streamed_lm

NUM_LAYERS = 2


def load(checkpoint: Path, tap: str = "out_norm") -> FeatureModel:
    files = resolve_model(str(checkpoint))
    return load_model(files, device="cpu", dtype=torch.float32, tap=tap)


def output_of_layer(whole: FeatureModel, layer: int, codes: torch.Tensor) -> np.ndarray:
    """f32[B, T, D] that leaves a layer (from 0) of the whole model in its one-shot forward."""
    seen: list[torch.Tensor] = []

    def see(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        seen.append(output)

    hook = whole.lm.transformer.layers[layer].register_forward_hook(see)
    one_shot_features(whole, codes.transpose(1, 2).numpy().astype(np.int16))
    hook.remove()
    return seen[0].numpy()


@pytest.mark.parametrize("layers", range(1, NUM_LAYERS + 1))
def test_a_layer_s_output_is_what_a_hook_on_the_whole_model_sees(
    model: FeatureModel, short_checkpoint: Path, layers: int
) -> None:
    codes = random_codes(model, 2, 90)
    expected = output_of_layer(model, layers - 1, codes)
    tapped = load(short_checkpoint, f"layer:{layers}")
    assert worst_frame_error(streamed_lm(tapped, codes, [7]), expected) < 1e-5
    assert len(tapped.lm.transformer.layers) == layers

    # No norm behind it: frames differ in size, and the whole model's norm makes its own of them.
    normed = one_shot_features(model, codes.transpose(1, 2).numpy().astype(np.int16))
    if layers == NUM_LAYERS:
        with torch.inference_mode():
            again = model.lm.out_norm(torch.from_numpy(expected)).numpy()
        assert worst_frame_error(again, normed) < 1e-5
    assert worst_frame_error(expected, normed) > 0.1


def test_stored_features_of_a_layer_are_that_layer_s_output(
    model: FeatureModel, short_checkpoint: Path
) -> None:
    features, codes = extract(load(short_checkpoint, "layer:1"), talk("talk", 40))["talk"]
    expected = output_of_layer(model, 0, torch.from_numpy(codes.astype(np.int64)).transpose(1, 2))
    assert (features == as_bf16(expected)).mean() > 0.998
    np.testing.assert_array_equal(codes, extract(model, talk("talk", 40))["talk"][1])


def is_of_features(name: str) -> bool:
    return name.startswith(("transformer.", "emb.", "text_emb.", "out_norm."))


def is_of_first_layer(name: str) -> bool:
    return name.startswith(("transformer.layers.0.", "emb.", "text_emb."))


NEEDED = {"out_norm": is_of_features, "layer:2": is_of_features, "layer:1": is_of_first_layer}
UNNEEDED_PARTS = {
    "out_norm": {"depformer", "text_linear", "linears"},
    "layer:2": {"depformer", "text_linear", "linears", "out_norm"},
    "layer:1": {"depformer", "text_linear", "linears", "out_norm", "transformer"},
}


@pytest.mark.parametrize("tap", NEEDED)
@pytest.mark.parametrize("poison", [lambda tensor: torch.full_like(tensor, torch.nan), None])
def test_other_tensors_may_be_poisoned_or_absent(
    short_checkpoint: Path,
    tmp_path: Path,
    tap: str,
    poison: Callable[[torch.Tensor], torch.Tensor] | None,
) -> None:
    damaged = Path(shutil.copytree(short_checkpoint, tmp_path / "model"))

    def edit(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        needed = NEEDED[tap](name) and not (tap == "layer:2" and name.startswith("out_norm"))
        return tensor if needed else poison(tensor) if poison else None

    _, others = edit_weights(damaged / "model.safetensors", edit)
    assert {name.split(".")[0] for name in others} >= UNNEEDED_PARTS[tap]
    codes = random_codes(load(damaged, tap), 1, 20)
    measured = streamed_lm(load(damaged, tap), codes, [20])
    assert np.isfinite(measured).all()
    np.testing.assert_array_equal(measured, streamed_lm(load(short_checkpoint, tap), codes, [20]))


def test_a_tensor_that_a_tap_needs_must_be_there(short_checkpoint: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(short_checkpoint, tmp_path / "model"))
    edit_weights(
        damaged / "model.safetensors",
        lambda name, tensor: None if name.startswith("transformer.layers.1.") else tensor,
    )
    load(damaged, "layer:1")
    for tap in ("layer:2", "out_norm"):
        with pytest.raises(CorruptData, match=r"model\.safetensors cannot be loaded"):
            load(damaged, tap)


@pytest.mark.parametrize("tap", [*NEEDED, "mimi"])
def test_nothing_but_what_a_tap_needs_is_read_from_the_file(
    short_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tap: str
) -> None:
    read: list[str] = []

    class Watched:
        def __init__(self, *args: object, **options: object) -> None:
            self.file = safe_open(*args, **options)

        def __enter__(self) -> "Watched":
            self.file = self.file.__enter__()
            return self

        def __exit__(self, *exception: object) -> None:
            self.file.__exit__(*exception)

        def keys(self) -> list[str]:
            return self.file.keys()

        def get_tensor(self, name: str) -> torch.Tensor:
            read.append(name)
            return self.file.get_tensor(name)

    monkeypatch.setattr(model_module, "safe_open", Watched)
    loaded = load(short_checkpoint, tap)
    if tap == "mimi":
        assert not read
        assert loaded.lm_or_none is None
        return
    assert read
    assert all(NEEDED[tap](name) for name in read)
    assert not (tap != "out_norm" and any("out_norm" in name for name in read))
    assert all(is_of_features(name) for name in loaded.lm.state_dict())


def test_logmel_needs_no_model_at_all() -> None:
    model = load_model(None, device="cpu", dtype=torch.float32, tap="logmel")
    assert (model.lm_or_none, model.mimi_or_none) == (None, None)
    assert model.dim == feature_dim(None, "logmel") == 2 * LOGMEL_CHANNELS == 1024


def test_what_a_dry_run_counts_with_is_what_the_released_mimi_has() -> None:
    assert 2 * loaders._mimi_config["seanet"]["dimension"] == MIMI_DIM


@pytest.mark.parametrize("tap", ["out_norm", "layer:1", "layer:2", "mimi", "logmel"])
def test_the_channels_that_are_planned_are_those_that_come(
    short_checkpoint: Path, tap: str
) -> None:
    planned = feature_dim(resolve_model(str(short_checkpoint)), tap)
    loaded = load(short_checkpoint, tap)
    assert loaded.dim == planned
    assert extract(loaded, talk("talk", 5), chunk_frames=5)["talk"][0].shape == (2, 5, planned)


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        ("layer:0", "use out_norm, layer:K"),
        ("layer:x", "use out_norm, layer:K"),
        ("layer:", "use out_norm, layer:K"),
        ("layer:-1", "use out_norm, layer:K"),
        ("layer:01", "use out_norm, layer:K"),
        ("layer:1\n", "use out_norm, layer:K"),
        ("nonsense", "use out_norm, layer:K"),
        ("", "use out_norm, layer:K"),
        ("layer:99", "has 2 layers; tap layer:99 is none of them"),
        ("layer:3", "has 2 layers; tap layer:3 is none of them"),
    ],
)
def test_a_tap_that_is_none_is_refused_in_one_line_before_weights_are_read(
    short_checkpoint: Path, tmp_path: Path, tap: str, message: str
) -> None:
    broken = Path(shutil.copytree(short_checkpoint, tmp_path / "model"))
    for name in ("model.safetensors", "mimi.safetensors"):
        (broken / name).write_bytes(b"no weights")
    for attempt in (
        lambda: load(broken, tap),
        lambda: feature_dim(resolve_model(str(broken)), tap),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_layers_of_taps() -> None:
    taps = ["layer:1", "layer:24", "layer:9999", "out_norm", "mimi", "logmel"]
    assert [tap_layers(tap) for tap in taps] == [1, 24, 9999, None, None, None]
