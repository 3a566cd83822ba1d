"""Sources with sound made in memory, and the one-shot forward that streaming is held against."""

from collections.abc import Sequence

import numpy as np
import torch
from moshi.models.lm_utils import _delay_sequence
from numpy.typing import NDArray

from extract.features import FeatureChunk, FeatureFailure, Source, TrackReader, extract_features
from extract.model import FeatureModel
from laughstore.errors import BadRecording
from laughstore.spec import StreamOrder
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME


def sound(seed: int, num_frames: int) -> NDArray[np.float32]:
    """f32[num_frames * 1920] of tones and bursts that change every 0.2 s."""
    rng = np.random.default_rng(seed)
    num_samples_audio = num_frames * SAMPLES_PER_FRAME
    part = np.arange(num_samples_audio) // (SAMPLE_RATE // 5)
    num_parts = int(part.max(initial=0)) + 1
    pitch_hz = np.exp(rng.uniform(np.log(90), np.log(4_000), num_parts))[part]
    loudness = np.exp(rng.uniform(np.log(0.02), np.log(0.5), num_parts))[part]
    hiss = rng.uniform(0, 1, num_parts)[part] ** 2
    tone = np.sin(2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE)
    wave = loudness * ((1 - hiss) * tone + hiss * rng.standard_normal(num_samples_audio))
    return wave.astype(np.float32)


class MemoryTrack:
    """A track over f32[N]; it fails once a read would reach frame `fails_at`."""

    def __init__(self, wave: NDArray[np.float32], *, fails_at: int | None = None) -> None:
        self.wave = wave
        self.fails_at = fails_at
        self.frame = 0
        self.closed = False

    def read(self, wave: NDArray[np.float32]) -> None:
        assert not self.closed
        start, self.frame = self.frame, self.frame + wave.size // SAMPLES_PER_FRAME
        if self.fails_at is not None and self.frame > self.fails_at:
            raise BadRecording("the track is cut")
        part = self.wave[start * SAMPLES_PER_FRAME : self.frame * SAMPLES_PER_FRAME]
        wave[: part.size], wave[part.size :] = part, 0

    def close(self) -> None:
        self.closed = True


def source(
    key: str,
    num_frames: int,
    *waves: NDArray[np.float32] | None,
    text: NDArray[np.int16] | None = None,
    num_assignments: int | None = None,
) -> Source:
    """A recording with one side a wave, None for silence, and the text of both sides i16[2, T]."""

    def open_tracks() -> Sequence[TrackReader | None]:
        return [None if wave is None else MemoryTrack(wave) for wave in waves]

    told = None if text is None else lambda: text
    return Source(key, num_frames, open_tracks, num_assignments=num_assignments, text=told)


def talk(key: str, num_frames: int, seed: int = 0, *, speakers: int = 2) -> Source:
    """A recording of this many frames with different sound in each track."""
    return source(key, num_frames, *(sound(2 * seed + i, num_frames) for i in range(speakers)))


Extracted = tuple[NDArray[np.float32], NDArray[np.int16]]


def extract(
    model: FeatureModel,
    *sources: Source,
    slots: int = 1,
    chunk_frames: int = 64,
    assignments: int = 2,
    stream_order: StreamOrder = "main-other",
    restart_frames: int | None = None,
) -> dict[str, Extracted]:
    """Features f32[A, T, D] and codes i16[A, T, 17] of every source that did not fail, by key."""
    parts: dict[str, list[FeatureChunk]] = {}
    for item in extract_features(
        model,
        sources,
        slots=slots,
        chunk_frames=chunk_frames,
        assignments=assignments,
        stream_order=stream_order,
        restart_frames=restart_frames,
    ):
        if isinstance(item, FeatureFailure):
            parts.pop(item.source.key, None)
            continue
        chunks = parts.setdefault(item.source.key, [])
        assert item.start_frame == sum(chunk.features.shape[1] for chunk in chunks)
        chunks.append(item)
    return {key: _joined(chunks) for key, chunks in parts.items()}


def _joined(chunks: list[FeatureChunk]) -> Extracted:
    bits = np.concatenate([chunk.features for chunk in chunks], axis=1)
    codes = np.concatenate([chunk.codes for chunk in chunks], axis=1)
    assert bits.shape[1] == chunks[0].source.num_frames
    return (bits.astype(np.uint32) << 16).view(np.float32), codes


@torch.inference_mode()
def one_shot_codes(model: FeatureModel, *waves: NDArray[np.float32]) -> NDArray[np.int64]:
    """i64[S, 8, T] of Mimi's forward over whole tracks."""
    return model.mimi.encode(torch.from_numpy(np.stack(waves))[:, None]).numpy()


@torch.inference_mode()
def one_shot_features(model: FeatureModel, codes: NDArray[np.int16]) -> NDArray[np.float32]:
    """f32[A, T, D] of the language model's forward over codes i16[A, T, 17] of whole recordings."""
    frames = torch.from_numpy(codes.astype(np.int64)).transpose(1, 2)
    initial = model.lm._get_initial_token().expand(len(frames), -1, -1)
    delayed = _delay_sequence(model.lm.delays, frames, initial)
    hidden, _ = model.lm.forward_text(torch.cat([initial, delayed], dim=2)[:, :, :-1])
    return hidden.float().numpy()


@torch.inference_mode()
def one_shot_latents(model: FeatureModel, *waves: NDArray[np.float32]) -> NDArray[np.float32]:
    """f32[S, T, C] of Mimi's encoder over whole tracks, not quantised."""
    sound = torch.from_numpy(np.stack(waves))[:, None]
    return model.mimi.encode_to_latent(sound, quantize=False).transpose(1, 2).numpy()


def as_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round to bf16."""
    return torch.from_numpy(values).to(torch.bfloat16).float().numpy()


def worst_frame_error(measured: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """The worst frame's relative error, over arrays [..., D]."""
    off = np.linalg.norm(measured - expected, axis=-1)
    return float((off / np.linalg.norm(expected, axis=-1)).max())


def relative_error(measured: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float(np.linalg.norm(measured - expected) / np.linalg.norm(expected))


def least_cosine(measured: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    """The worst frame's cosine, over arrays [..., D]."""
    product = (measured * expected).sum(-1)
    norms = np.linalg.norm(measured, axis=-1) * np.linalg.norm(expected, axis=-1)
    return float((product / norms).min())
