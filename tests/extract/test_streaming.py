from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from moshi.models.lm_utils import _delay_sequence
from moshi.modules.streaming import StreamingModule
from moshi.modules.transformer import RingKVCache, StreamingTransformer, set_attention_context

from extract.model import FeatureModel, load_model, resolve_model
from extract.streaming import DelayedInput, attention_window, exact_streaming, restart_rows
from extract.tiny_checkpoint import CONTEXT_FRAMES
from extract.tiny_mimi import CONTEXT_STEPS
from laughstore.errors import ConfigError
from laughstore.timebase import SAMPLES_PER_FRAME

from .sounds import least_cosine, one_shot_features, relative_error, sound

NUM_FRAMES = 5 * CONTEXT_FRAMES + 13
CALLS = [[1], [7], [64], [3, 64, 1, 17]]


@pytest.fixture(scope="module")
def model(nano_checkpoint: Path) -> FeatureModel:
    return load_model(resolve_model(str(nano_checkpoint)), device="cpu", dtype=torch.float32)


def random_codes(model: FeatureModel, rows: int, num_frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, model.lm.card, (rows, 17, num_frames), generator=generator)
    codes[:, 0] = torch.randint(-1, 400, (rows, num_frames), generator=generator)
    return codes


def pieces(total: int, sizes: Sequence[int]) -> Iterator[slice]:
    start = 0
    for size in cycle(sizes):
        if start >= total:
            return
        yield slice(start, min(start + size, total))
        start += size


@torch.inference_mode()
def streamed_lm(
    model: FeatureModel, codes: torch.Tensor, sizes: Sequence[int], *, exact: bool = True
) -> np.ndarray:
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
) -> np.ndarray:
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


def frames_first(codes: torch.Tensor) -> np.ndarray:
    return codes.transpose(1, 2).to(torch.int16).numpy()


@pytest.mark.parametrize("sizes", CALLS, ids=str)
def test_language_model_streaming_equals_the_one_shot_forward_past_five_windows(
    model: FeatureModel, sizes: list[int]
) -> None:
    codes = random_codes(model, 2, NUM_FRAMES)
    expected = one_shot_features(model, frames_first(codes))
    measured = streamed_lm(model, codes, sizes)
    assert np.abs(measured - expected).max() < 5e-5
    assert relative_error(measured, expected) < 1e-5


@pytest.mark.parametrize("sizes", [[7], [64], [65]], ids=str)
def test_stock_streaming_differs_past_the_window_so_the_comparison_can_fail(
    model: FeatureModel, sizes: list[int]
) -> None:
    codes = random_codes(model, 2, NUM_FRAMES)
    expected = one_shot_features(model, frames_first(codes))
    measured = streamed_lm(model, codes, sizes, exact=False)
    assert relative_error(measured, expected) > 1e-2


@pytest.mark.parametrize("sizes", [[1], [64]], ids=str)
def test_bf16_streaming_is_as_close_to_one_shot_as_bf16_rounding_allows(
    nano_checkpoint: Path, sizes: list[int]
) -> None:
    files = resolve_model(str(nano_checkpoint))
    model = load_model(files, device="cpu", dtype=torch.bfloat16)
    codes = random_codes(model, 2, NUM_FRAMES)
    expected = one_shot_features(model, frames_first(codes))
    measured = streamed_lm(model, codes, sizes)
    assert least_cosine(measured, expected) > 0.999
    assert relative_error(measured, expected) < 2e-2


def test_a_full_width_model_streams_exactly_in_both_dtypes(wide_checkpoint: Path) -> None:
    files = resolve_model(str(wide_checkpoint))
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        model = load_model(files, device="cpu", dtype=dtype)
        codes = random_codes(model, 1, 3 * CONTEXT_FRAMES)
        expected = one_shot_features(model, frames_first(codes))
        measured = streamed_lm(model, codes, [64])
        assert measured.shape[2] == 4096
        assert relative_error(measured, expected) < bound
        assert least_cosine(measured, expected) > 0.999


@pytest.mark.parametrize("sizes", CALLS, ids=str)
def test_mimi_streaming_equals_its_one_shot_forward_past_its_own_window(
    model: FeatureModel, sizes: list[int]
) -> None:
    num_frames = 5 * CONTEXT_STEPS // 2 + 13
    waves = torch.from_numpy(np.stack([sound(1, num_frames), sound(2, num_frames)]))[:, None]
    expected = model.mimi.encode_to_latent(waves, quantize=False).numpy()
    measured = streamed_latents(model, waves, sizes)
    assert relative_error(measured, expected) < 1e-5
    # A latent at equal distance of two codes may take either.
    codes = model.mimi.quantizer.encode(torch.from_numpy(measured))
    assert (codes != model.mimi.encode(waves)).float().mean() < 2e-3


@pytest.mark.parametrize("sizes", [[1], [7], [64]], ids=str)
def test_stock_mimi_streaming_differs_even_with_one_frame_a_call(
    model: FeatureModel, sizes: list[int]
) -> None:
    num_frames = 5 * CONTEXT_STEPS // 2 + 13
    waves = torch.from_numpy(sound(1, num_frames))[None, None]
    expected = model.mimi.encode_to_latent(waves, quantize=False).numpy()
    measured = streamed_latents(model, waves, sizes, exact=False)
    assert relative_error(measured, expected) > 1e-4


def test_the_attention_window_is_what_it_was_after_streaming_and_after_an_error(
    model: FeatureModel,
) -> None:
    transformer = model.lm.transformer
    with exact_streaming(transformer, transformer, rows=1, steps_per_call=9):
        assert attention_window(transformer) == CONTEXT_FRAMES
        # Streaming twice at a time is refused by moshi; the window must survive that.
        with pytest.raises(AssertionError, match="already streaming"):
            exact_streaming(transformer, transformer, rows=1, steps_per_call=9).__enter__()
        assert attention_window(transformer) == CONTEXT_FRAMES
    assert not transformer.is_streaming


def state_by_row(module: StreamingModule) -> dict[str, torch.Tensor]:
    """Copies of all tensors that a module streams with, by name, rows first."""
    found = {}
    for name, state in module.get_streaming_state().items():
        for key, value in vars(state).items():
            if isinstance(value, torch.Tensor):
                found[f"{name}.{key}"] = value.clone()
            elif isinstance(value, RingKVCache):
                found[f"{name}.end_offset"] = value.end_offset.clone()
                found[f"{name}.cache"] = value.cache.transpose(0, 1).clone()
    return found


@torch.inference_mode()
def test_a_restarted_row_holds_nothing_of_its_past_and_the_others_all_of_theirs(
    model: FeatureModel,
) -> None:
    lm, mimi = model.lm.transformer, model.mimi
    assert mimi.encoder_transformer is not None
    waves = torch.from_numpy(np.stack([sound(1, 8), sound(2, 8)]))[:, None]
    waves[1, :, 1_000] = torch.nan
    hidden = torch.randn(2, 8, model.dim, generator=torch.Generator().manual_seed(0))
    hidden[1, 3] = torch.inf
    with ExitStack() as stack:
        stack.enter_context(
            exact_streaming(mimi, mimi.encoder_transformer, rows=2, steps_per_call=16)
        )
        stack.enter_context(exact_streaming(lm, lm, rows=2, steps_per_call=8))
        fresh = [state_by_row(module) for module in (mimi, lm)]
        mimi.encode(waves)
        lm(hidden)
        for module, at_first in zip((mimi, lm), fresh, strict=True):
            before = state_by_row(module)
            assert any(not value[1].isfinite().all() for value in before.values())
            restart_rows(module, torch.tensor([False, True]))
            after = state_by_row(module)
            assert set(after) == set(at_first)
            for name, value in after.items():
                assert len(value) == 2, name
                assert torch.equal(value[1], at_first[name][1]), name
                assert torch.equal(value[0], before[name][0]), name


def test_a_transformer_without_one_window_is_refused() -> None:
    def transformer(context: int | None) -> StreamingTransformer:
        return StreamingTransformer(8, 2, 2, causal=True, context=context, dim_feedforward=8)

    mixed = transformer(16)
    set_attention_context(mixed.layers[0], 8)
    for module in (transformer(None), mixed):
        with pytest.raises(ConfigError, match="no single attention window"):
            attention_window(module)


def delayed_whole(
    initial: torch.Tensor, delays: Sequence[int], codes: torch.Tensor
) -> torch.Tensor:
    first = initial.expand(len(codes), -1, -1)
    return torch.cat([first, _delay_sequence(list(delays), codes, first)], dim=2)[:, :, :-1]


@given(
    delays=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    rows=st.integers(1, 3),
)
def test_delayed_chunks_joined_are_the_delayed_recording(
    delays: list[int], sizes: list[int], rows: int
) -> None:
    total = max(12, sum(sizes))
    codes = torch.arange(rows * len(delays) * total).view(rows, len(delays), total)
    initial = -100 - torch.arange(len(delays)).view(1, -1, 1)
    delayed = DelayedInput(initial, delays, rows)
    joined = torch.cat([delayed(codes[:, :, piece]) for piece in pieces(total, sizes)], dim=2)
    assert torch.equal(joined, delayed_whole(initial, delays, codes))


@given(delays=st.lists(st.integers(0, 3), min_size=1, max_size=5), before=st.integers(1, 7))
def test_a_reset_row_starts_at_its_first_frame_and_others_go_on(
    delays: list[int], before: int
) -> None:
    codes = torch.arange(2 * len(delays) * 12).view(2, len(delays), 12)
    initial = -100 - torch.arange(len(delays)).view(1, -1, 1)
    delayed = DelayedInput(initial, delays, 2)
    delayed(codes[:, :, :before])
    delayed.reset(torch.tensor([False, True]))
    after = delayed(codes[:, :, before:])
    assert torch.equal(after[:1], delayed_whole(initial, delays, codes[:1])[:, :, before:])
    assert torch.equal(after[1:], delayed_whole(initial, delays, codes[1:, :, before:]))
