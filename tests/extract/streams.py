"""The two networks streamed on their own, in calls of any lengths."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle

import numpy as np
import torch
from numpy.typing import NDArray

from extract.model import FeatureModel
from extract.streaming import DelayedInput, exact_streaming
from laughstore.timebase import SAMPLES_PER_FRAME


def random_codes(model: FeatureModel, rows: int, num_frames: int, seed: int = 0) -> torch.Tensor:
    """i64[B, 17, T]."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, model.lm.card, (rows, 17, num_frames), generator=generator)
    codes[:, 0] = torch.randint(-1, 400, (rows, num_frames), generator=generator)
    return codes


def pieces(total: int, sizes: Sequence[int]) -> Iterator[slice]:
    """Consecutive slices of 0 to `total`, of these sizes over and over; the last may be short."""
    start = 0
    for size in cycle(sizes):
        if start >= total:
            return
        yield slice(start, min(start + size, total))
        start += size


@torch.inference_mode()
def streamed_lm(
    model: FeatureModel, codes: torch.Tensor, sizes: Sequence[int], *, exact: bool = True
) -> NDArray[np.float32]:
    """f32[B, T, D] of codes i64[B, 17, T]; `exact` False is moshi's own streaming."""
    rows = len(codes)
    transformer = model.lm.transformer
    delayed = DelayedInput(model.lm._get_initial_token(), model.lm.delays, rows)
    with ExitStack() as stack:
        stack.enter_context(
            exact_streaming(transformer, transformer, rows=rows, steps_per_call=max(sizes))
            if exact
            else transformer.streaming(rows)
        )
        parts = [
            model.lm.forward_text(delayed(codes[:, :, piece]))[0]
            for piece in pieces(codes.shape[2], sizes)
        ]
    return torch.cat(parts, dim=1).float().numpy()


@torch.inference_mode()
def streamed_latents(
    model: FeatureModel, waves: torch.Tensor, sizes: Sequence[int], *, exact: bool = True
) -> NDArray[np.float32]:
    """f32[B, C, T] of waves f32[B, 1, T * 1920]; `exact` False is moshi's own streaming."""
    mimi = model.mimi
    assert mimi.encoder_transformer is not None
    steps = 2 * max(sizes)
    with ExitStack() as stack:
        stack.enter_context(
            exact_streaming(mimi, mimi.encoder_transformer, rows=len(waves), steps_per_call=steps)
            if exact
            else mimi.streaming(len(waves))
        )
        samples = [size * SAMPLES_PER_FRAME for size in sizes]
        parts = [
            mimi.encode_to_latent(waves[:, :, piece], quantize=False)
            for piece in pieces(waves.shape[2], samples)
        ]
    return torch.cat(parts, dim=2).numpy()
