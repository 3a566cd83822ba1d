"""Models that the tests of the extractor share."""

from pathlib import Path

import pytest
import torch

from extract.model import FeatureModel, load_model, resolve_model

from .checkpoints import variant

SHORT_WINDOW_FRAMES = 16
"""Attention window of the language model; Mimi's is four frames."""


@pytest.fixture(scope="session")
def short_checkpoint(nano_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with windows so short that few frames are many of them."""
    out = tmp_path_factory.mktemp("models") / "short"
    windows = {"transformer.context": SHORT_WINDOW_FRAMES // 2}
    return variant(nano_checkpoint, out, {"context": SHORT_WINDOW_FRAMES}, mimi=windows)


@pytest.fixture(scope="module")
def model(short_checkpoint: Path) -> FeatureModel:
    return load_model(resolve_model(str(short_checkpoint)), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def bf16_model(short_checkpoint: Path) -> FeatureModel:
    return load_model(resolve_model(str(short_checkpoint)), device="cpu", dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def logmel() -> FeatureModel:
    return load_model(None, device="cpu", dtype=torch.float32, tap="logmel")
