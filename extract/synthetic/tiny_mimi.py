"""A small random Mimi whose codes tell sounds apart: the audio half of the tiny checkpoint.

Frames, rates, streams and names are the released ones; the encoder is two strided convolutions and
one transformer layer. Random filters and moshi's all-zero initial codebooks would give every frame
the same code, so the first filters are windowed tones of random pitch and the codebooks are fitted,
level by level, to the latents of synthetic sound.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from moshi.models import loaders
from moshi.models.compression import MimiModel
from moshi.modules.conv import StreamingConv1d
from moshi.modules.resample import ConvDownsample1d
from moshi.modules.seanet import SEANetEncoder
from moshi.quantization.core_vq import EuclideanCodebook
from moshi.quantization.vq import ResidualVectorQuantizer, SplitResidualVectorQuantizer
from numpy.typing import NDArray
from safetensors.torch import save_file

from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

from ..model import NUM_CODEBOOKS

CONTEXT_STEPS = 40
"""Attention window of the transformers, two steps a frame; the released one has 250."""
CODES_PER_BOOK = 32
"""Entries of a codebook; the released one has 2,048."""

_DIM = 32
_CONFIG: dict[str, Any] = {  # Any: a JSON object
    "sample_rate": SAMPLE_RATE,
    "channels": 1,
    "frame_rate": SAMPLE_RATE / SAMPLES_PER_FRAME,
    # One strided convolution from 24 kHz to 150 Hz, one to 25 Hz: nearly all arithmetic of the
    # released encoder is spent in residual blocks at high rates, which these leave out.
    "seanet": {
        "channels": 1,
        "dimension": _DIM,
        "causal": True,
        "n_filters": 8,
        "n_residual_layers": 0,
        "activation": "ELU",
        "compress": 2,
        "dilation_base": 2,
        "disable_norm_outer_blocks": 0,
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 1,
        "norm": "none",
        "pad_mode": "constant",
        "ratios": [6, 160],
        "true_skip": True,
    },
    "quantizer": {
        "dimension": _DIM,
        "n_q": NUM_CODEBOOKS,
        "bins": CODES_PER_BOOK,
        "input_dimension": _DIM,
        "output_dimension": _DIM,
    },
    "transformer": {
        "d_model": _DIM,
        "num_heads": 2,
        "num_layers": 1,
        "causal": True,
        "layer_scale": 0.3,
        "context": CONTEXT_STEPS,
        "conv_layout": True,
        "max_period": 10000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 64,
        "input_dimension": _DIM,
        "output_dimensions": [_DIM],
    },
}


@torch.inference_mode()
def write_tiny_mimi(folder: Path, rng: np.random.Generator) -> None:
    """Write mimi.safetensors and mimi_config.json into a folder."""
    with torch.random.fork_rng(devices=[]):  # its own initialisation draws from the global one
        mimi = loaders.get_mimi(None, _CONFIG, num_codebooks=NUM_CODEBOOKS)
    for name, parameter in sorted(mimi.named_parameters()):
        if ".layer_scale_" not in name:
            parameter.copy_(random_weight(name, parameter.shape, rng))
    sound = torch.from_numpy(_varied_sound(rng, num_seconds=80))[None, None]
    _tune_encoder(mimi, sound, rng)
    latents = mimi.encode_to_latent(sound, quantize=False)
    assert isinstance(mimi.quantizer, SplitResidualVectorQuantizer)
    for quantizer in (mimi.quantizer.rvq_first, mimi.quantizer.rvq_rest):
        _fit_codebooks(quantizer, latents, rng)
    state = {name: tensor.contiguous() for name, tensor in mimi.state_dict().items()}
    save_file(state, folder / "mimi.safetensors")
    text = json.dumps(_CONFIG, indent=1) + "\n"
    (folder / "mimi_config.json").write_text(text, encoding="utf-8")


def random_weight(
    name: str, shape: torch.Size, rng: np.random.Generator, *, fan_in: int | None = None
) -> torch.Tensor:
    """Return f32[shape]: ones for norms, zeros for biases, else outputs of variance one.

    Args:
        name: of the parameter, in moshi's state dict.
        shape: of the parameter.
        rng: advanced by one number a weight.
        fan_in: inputs summed in an output; by default every axis but the first.
    """
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if name.endswith(".alpha") or ".norm" in name:
        return torch.ones(shape)
    spread = (fan_in or int(np.prod(shape[1:]))) ** -0.5
    return torch.from_numpy(rng.standard_normal(shape, np.float32) * np.float32(spread))


def _tune_encoder(mimi: MimiModel, sound: torch.Tensor, rng: np.random.Generator) -> None:
    """Make the latents a blurred spectrum, where random weights would make them noise.

    The first strided convolution gets windowed tones of random pitch; its activation bends them.
    What follows averages over time: with weights of both signs there, the phase of a tone would
    count more than its loudness. Every convolution is scaled so that its output on `sound`
    (f32[1, 1, N]) has a standard deviation of 2, which is where the activations bend.
    """
    assert isinstance(mimi.encoder, SEANetEncoder)
    convolutions = [m for m in mimi.encoder.model if isinstance(m, StreamingConv1d)]
    pitch, level = (layer.conv.conv.weight for layer in convolutions[1:3])
    pitch.copy_(_pitch_filters(pitch.shape, rng))
    level.copy_(level[:, :, :1] * torch.hann_window(level.shape[2], periodic=False))
    downsample = mimi.downsample
    assert isinstance(downsample, ConvDownsample1d)
    downsample.conv.conv.conv.weight.abs_()
    x = sound
    for layer in mimi.encoder.model:
        if isinstance(layer, StreamingConv1d):
            layer.conv.conv.weight.mul_(2 / layer(x).std())
        x = layer(x)


def _pitch_filters(shape: torch.Size, rng: np.random.Generator) -> torch.Tensor:
    """Return f32[outputs, inputs, taps]: windowed tones, one pitch an output, random phases."""
    num_outputs, num_inputs, num_taps = shape
    steps = (np.arange(num_outputs) + rng.uniform(0, 1, num_outputs)) / num_outputs
    pitch_hz = 80 * (5_000 / 80) ** steps
    phase = rng.uniform(0, 2 * np.pi, (num_outputs, num_inputs, 1))
    gain = rng.standard_normal((num_outputs, num_inputs, 1))
    time_s = np.arange(num_taps) / SAMPLE_RATE
    tones = np.sin(2 * np.pi * pitch_hz[:, None, None] * time_s + phase)
    return torch.from_numpy((gain * np.hanning(num_taps) * tones).astype(np.float32))


def _fit_codebooks(
    quantizer: ResidualVectorQuantizer, latents: torch.Tensor, rng: np.random.Generator
) -> None:
    """Set each level's entries to centres of what the levels before it left of the latents.

    Args:
        quantizer: one half of Mimi's quantiser, semantic or acoustic.
        latents: f32[1, C, T].
        rng: chooses the first centres.
    """
    residual = quantizer.input_proj(latents)[0].T.double().numpy()
    for layer in quantizer.vq.layers:
        centres = _cluster_centres(residual, CODES_PER_BOOK, rng)
        book = layer._codebook
        assert isinstance(book, EuclideanCodebook)
        book.embedding_sum.copy_(torch.from_numpy(centres))
        book.cluster_usage.fill_(1.0)
        book._initialized.fill_(1.0)
        residual = residual - centres[_nearest(residual, centres)]


def _cluster_centres(
    points: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return f64[count, C] centres of points f64[N, C] by ten rounds of k-means."""
    centres = points[rng.choice(len(points), count, replace=False)]
    for _ in range(10):
        nearest = _nearest(points, centres)
        for index in range(count):
            members = points[nearest == index]
            if len(members):
                centres[index] = members.mean(0)
    # Rounded, so that the last bits of the latents do not reach the file.
    return np.round(centres, 3)


def _nearest(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    distances = (centres**2).sum(1) - 2 * points @ centres.T
    return distances.argmin(1)


def _varied_sound(rng: np.random.Generator, num_seconds: int) -> NDArray[np.float32]:
    """Return f32[N] at 24 kHz: silence, tones, noise bursts and voiced sounds in short turns."""
    segments: list[NDArray[np.float64]] = []
    for _ in range(num_seconds * 5 // 2):
        time_s = np.arange(SAMPLE_RATE * 2 // 5) / SAMPLE_RATE
        pitch_hz = rng.uniform(90, 400)
        kind = rng.integers(6)
        if kind == 0:
            wave = np.zeros_like(time_s)
        elif kind == 1:
            wave = np.sin(2 * np.pi * np.exp(rng.uniform(np.log(80), np.log(6_000))) * time_s)
        elif kind == 2:
            wave = rng.standard_normal(len(time_s)) * 0.5
        else:
            wave = _voiced(time_s, pitch_hz, rng)
        if kind == 3:  # pulses, four to six a second, as in laughter
            wave = wave * (np.sin(2 * np.pi * rng.uniform(4, 6) * time_s) > 0)
        segments.append(wave * np.exp(rng.uniform(np.log(0.02), np.log(0.6))))
    return np.concatenate(segments).astype(np.float32)


def _voiced(
    time_s: NDArray[np.float64], pitch_hz: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return f64[N]: harmonics of a gliding pitch under two resonances, peak about one."""
    glide = np.cumsum(pitch_hz * (1 + rng.uniform(-0.2, 0.2) * time_s)) / SAMPLE_RATE
    formants_hz = np.array([rng.uniform(300, 900), rng.uniform(1_000, 2_600)])
    harmonics = np.arange(1, 20)
    offsets = (harmonics[:, None] * pitch_hz - formants_hz) / 250
    gains = 0.05 + np.exp(-(offsets**2)).sum(1)
    wave = (gains[:, None] * np.sin(2 * np.pi * harmonics[:, None] * glide)).sum(0)
    return wave / np.abs(wave).max()
