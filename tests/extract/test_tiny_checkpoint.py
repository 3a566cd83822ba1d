from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from extract.model import FeatureModel, _WithoutInitialisation, load_model, resolve_model
from extract.synthetic.tiny_checkpoint import Size, write_tiny_checkpoint
from laughstore.errors import ConfigError
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

from .sounds import extract, one_shot_codes, sound, source

FILES = {
    "config.json",
    "model.safetensors",
    "mimi.safetensors",
    "mimi_config.json",
    "tokenizer.model",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def model(nano_checkpoint: Path) -> FeatureModel:
    return load_model(resolve_model(str(nano_checkpoint)), device="cpu", dtype=torch.float32)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights(
    nano_checkpoint: Path, tmp_path: Path
) -> None:
    first = contents(nano_checkpoint)
    assert set(first) == FILES
    torch.manual_seed(1)  # the global generator plays no part ...
    state = torch.get_rng_state()
    again = tmp_path / "again"
    again.mkdir()  # an empty directory is filled
    assert contents(write_tiny_checkpoint(again, size="nano")) == first
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    assert torch.equal(torch.get_rng_state(), state)  # ... and is not advanced
    other = contents(write_tiny_checkpoint(tmp_path / "other", size="nano", seed=1))
    changed = {name for name in FILES if other[name] != first[name]}
    assert changed == {"model.safetensors", "mimi.safetensors"}


@pytest.mark.parametrize(("size", "dim"), [("nano", 64), ("narrow", 512), ("wide", 4096)])
def test_every_size_loads_through_the_stock_loaders(
    size: Size, dim: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if size == "narrow":
        out = write_tiny_checkpoint(tmp_path / "new" / "model", size=size)
    else:  # as other tests have it
        out = request.getfixturevalue(f"{size}_checkpoint")
    checkpoint = resolve_model(str(out)).checkpoint
    with _WithoutInitialisation():  # of weights that are then read from the file
        lm = checkpoint.get_moshi("cpu")
    assert (lm.dim, lm.n_q, lm.dep_q) == (dim, 16, 8)
    assert lm.delays == [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    mimi = checkpoint.get_mimi("cpu")
    assert (mimi.sample_rate, mimi.frame_rate, mimi.num_codebooks) == (24_000, 12.5, 8)
    text = checkpoint.get_text_tokenizer()
    assert (text.unk_id(), text.bos_id(), text.eos_id(), text.pad_id()) == (0, 1, 2, 3)
    assert text.get_piece_size() == lm.text_card
    assert text.decode(text.encode("so funny\n¿qué?")) == "so funny\n¿qué?"


def test_weights_have_the_names_of_released_files(nano_checkpoint: Path) -> None:
    with safe_open(nano_checkpoint / "model.safetensors", framework="pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    assert shapes["transformer.layers.0.self_attn.in_proj_weight"] == [3 * 64, 64]
    assert shapes["transformer.layers.0.self_attn.out_proj.weight"] == [64, 64]
    assert shapes["depformer.layers.0.self_attn.in_proj_weight"] == [8 * 3 * 16, 16]
    assert not any("_projs" in name for name in shapes)


def test_a_directory_in_use_a_file_and_wrong_values_are_refused(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("keep")
    for out in (used, used / "mine.txt"):
        with pytest.raises(ConfigError, match="is not an empty directory"):
            write_tiny_checkpoint(out, size="nano")
    with pytest.raises(ConfigError, match="size 'huge' is not one of: nano, narrow, wide"):
        write_tiny_checkpoint(tmp_path / "new", size="huge")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="seed is -1"):
        write_tiny_checkpoint(tmp_path / "new", size="nano", seed=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["used"]
    assert contents(used) == {"mine.txt": b"keep"}


def test_sound_uses_most_entries_of_every_codebook(model: FeatureModel) -> None:
    (codes,) = one_shot_codes(model, sound(11, 1_000))
    for book in codes:
        share = np.bincount(book, minlength=32) / len(book)
        assert (share > 0).sum() >= 24
        assert share.max() < 0.5


def pulses(seed: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A voice-like hum with bursts of 5-Hz pulses; (f32[N], bool[T] frames of the bursts)."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_frames * SAMPLES_PER_FRAME) / SAMPLE_RATE
    part = (time_s // 1.6).astype(int)
    laughing = rng.random(part.max() + 1) < 0.3
    pitch_hz = rng.uniform(100, 200, part.max() + 1)[part] * (1 + laughing[part])
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    hum = sum(np.sin(k * phase) / k for k in range(1, 8))
    hiss = rng.standard_normal(len(time_s))
    gate = np.sin(2 * np.pi * 5 * time_s) > 0
    wave = np.where(laughing[part], gate * (hum + 0.5 * hiss), hum) * 0.1
    return wave.astype(np.float32), laughing[part[::SAMPLES_PER_FRAME]]


@pytest.mark.slow
def test_a_linear_head_on_the_features_detects_a_kind_of_sound(model: FeatureModel) -> None:
    def rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
        wave, laughing = pulses(seed, 1_500)
        return extract(model, source("a", 1_500, wave))["a"][0][0], laughing

    train, test = rows(0), rows(1)
    head = LogisticRegression(max_iter=1_000).fit(*train)
    assert roc_auc_score(test[1], head.decision_function(test[0])) > 0.85
