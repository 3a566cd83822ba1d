from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from moshi.models.lm_utils import _delay_sequence
from moshi.modules.streaming import StreamingModule
from moshi.modules.transformer import RingKVCache, StreamingTransformer, set_attention_context

from extract.model import FeatureModel
from extract.streaming import (
    DelayedInput,
    attention_window,
    exact_streaming,
    restart_rows,
    streaming_tensors,
)
from laughstore.errors import ConfigError

from .conftest import SHORT_WINDOW_FRAMES
from .sounds import sound
from .streams import pieces


def test_the_attention_window_is_what_it_was_after_streaming_and_after_an_error(
    model: FeatureModel,
) -> None:
    transformer = model.lm.transformer
    with exact_streaming(transformer, transformer, rows=1, steps_per_call=9):
        assert attention_window(transformer) == SHORT_WINDOW_FRAMES
        # Streaming twice at a time is refused by moshi; the window must survive that.
        with pytest.raises(AssertionError, match="already streaming"):
            exact_streaming(transformer, transformer, rows=1, steps_per_call=9).__enter__()
        assert attention_window(transformer) == SHORT_WINDOW_FRAMES
    assert not transformer.is_streaming


def state_by_row(module: StreamingModule) -> dict[str, torch.Tensor]:
    """Copies of all tensors that a module streams with, by name, rows first."""
    found = {}
    for name, state in module.get_streaming_state().items():
        for key, value in vars(state).items():
            if isinstance(value, torch.Tensor):
                found[f"{name}.{key}"] = value.clone()
            elif isinstance(value, RingKVCache):
                found[f"{name}.ring.end_offset"] = value.end_offset.clone()
                found[f"{name}.ring.cache"] = value.cache.transpose(0, 1).clone()
    return found


def test_what_a_module_remembers_is_listed_whole(model: FeatureModel) -> None:
    lm, mimi = model.lm.transformer, model.mimi
    assert mimi.encoder_transformer is not None
    with ExitStack() as stack:
        stack.enter_context(
            exact_streaming(mimi, mimi.encoder_transformer, rows=2, steps_per_call=16)
        )
        stack.enter_context(exact_streaming(lm, lm, rows=2, steps_per_call=8))
        for module in (mimi, lm):
            assert set(streaming_tensors(module)) == set(state_by_row(module))


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
