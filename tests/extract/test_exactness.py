"""Streaming, in calls of any length, is the forward over the whole recording.

Windows are short here (16 frames; Mimi's 4), so that few frames are many windows. The longest calls
are longer than any window. Mimi and the language model are held against their forwards apart: a
latent halfway between two codes may take either, and another code moves all features behind it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from extract.features import SlotBatch
from extract.model import FeatureModel, load_model, resolve_model
from laughstore.timebase import SAMPLES_PER_FRAME

from .conftest import SHORT_WINDOW_FRAMES
from .sounds import (
    as_bf16,
    extract,
    least_cosine,
    one_shot_codes,
    one_shot_features,
    one_shot_latents,
    sound,
    source,
    worst_frame_error,
)
from .streams import random_codes, streamed_latents, streamed_lm

LONGEST = 513
NUM_FRAMES = {1: 61, 7: 100, 64: 205, 500: LONGEST}
"""Frames that are streamed in calls of a length: ragged, and three windows at least."""
CALLS = [[1], [7], [64], [500], [3, 64, 1, 17]]
FLIPPED_CODES = 2e-3
"""Share of codes that may be others than those of the one-shot forward: ties that rounding
breaks."""
BF16_ROUNDING = 2.0**-8
"""Largest relative error of one number rounded to bf16."""

assert all(length > 3 * SHORT_WINDOW_FRAMES for length in NUM_FRAMES.values())


def num_frames_of(sizes: list[int]) -> int:
    return NUM_FRAMES.get(max(sizes), LONGEST)


@dataclass(frozen=True)
class Reference:
    """What the one-shot forwards give for the longest recording; shorter ones are its start."""

    waves: NDArray[np.float32]
    """f32[2, N]."""
    latents: NDArray[np.float32]
    """f32[2, T, C]."""
    mimi_codes: NDArray[np.int64]
    """i64[2, 8, T]."""
    lm_codes: torch.Tensor
    """i64[2, 17, T]: random ones."""
    hidden: dict[torch.dtype, NDArray[np.float32]]
    """f32[2, T, D], of `lm_codes`."""


@pytest.fixture(scope="module")
def reference(model: FeatureModel, bf16_model: FeatureModel) -> Reference:
    waves = np.stack([sound(seed, LONGEST) for seed in (1, 2)])
    codes = random_codes(model, 2, LONGEST)
    frames = codes.transpose(1, 2).numpy().astype(np.int16)
    return Reference(
        waves,
        one_shot_latents(model, *waves),
        one_shot_codes(model, *waves),
        codes,
        {item.dtype: one_shot_features(item, frames) for item in (model, bf16_model)},
    )


@pytest.mark.parametrize("sizes", CALLS, ids=str)
def test_the_language_model_alone_past_many_windows(
    model: FeatureModel, reference: Reference, sizes: list[int]
) -> None:
    num_frames = num_frames_of(sizes)
    measured = streamed_lm(model, reference.lm_codes[:, :, :num_frames], sizes)
    expected = reference.hidden[torch.float32][:, :num_frames]
    assert worst_frame_error(measured, expected) < 1e-5
    assert np.abs(measured - expected).max() < 5e-5


@pytest.mark.parametrize("sizes", CALLS, ids=str)
def test_the_language_model_alone_in_bf16(
    bf16_model: FeatureModel, reference: Reference, sizes: list[int]
) -> None:
    num_frames = num_frames_of(sizes)
    measured = streamed_lm(bf16_model, reference.lm_codes[:, :, :num_frames], sizes)
    expected = reference.hidden[torch.bfloat16][:, :num_frames]
    assert least_cosine(measured, expected) > 0.999
    assert worst_frame_error(measured, expected) < 3e-2


@pytest.mark.parametrize("sizes", CALLS, ids=str)
def test_mimi_alone_past_many_windows(
    model: FeatureModel, reference: Reference, sizes: list[int]
) -> None:
    num_frames = num_frames_of(sizes)
    waves = torch.from_numpy(reference.waves[:, None, : num_frames * SAMPLES_PER_FRAME])
    measured = streamed_latents(model, waves, sizes)
    expected = reference.latents[:, :num_frames].transpose(0, 2, 1)
    assert worst_frame_error(measured.transpose(0, 2, 1), expected.transpose(0, 2, 1)) < 1e-5
    codes = model.mimi.quantizer.encode(torch.from_numpy(measured)).numpy()
    assert (codes != reference.mimi_codes[:, :, :num_frames]).mean() < FLIPPED_CODES


@pytest.mark.parametrize("sizes", [[7], [64]], ids=str)
def test_stock_streaming_is_far_off_so_that_these_comparisons_can_fail(
    model: FeatureModel, reference: Reference, sizes: list[int]
) -> None:
    num_frames = num_frames_of(sizes)
    hidden = streamed_lm(model, reference.lm_codes[:, :, :num_frames], sizes, exact=False)
    assert worst_frame_error(hidden, reference.hidden[torch.float32][:, :num_frames]) > 1e-2
    waves = torch.from_numpy(reference.waves[:, None, : num_frames * SAMPLES_PER_FRAME])
    latents = streamed_latents(model, waves, sizes, exact=False).transpose(0, 2, 1)
    assert worst_frame_error(latents, reference.latents[:, :num_frames]) > 1e-3


@pytest.mark.parametrize("chunk_frames", [1, 7, 64, 500])
def test_features_and_codes_of_recordings_side_by_side(
    model: FeatureModel, reference: Reference, chunk_frames: int
) -> None:
    num_frames = NUM_FRAMES[chunk_frames]
    lengths = {"long": num_frames, "short": num_frames - 9}
    one, two = reference.waves
    found = extract(
        model,
        source("long", lengths["long"], one, two),
        source("short", lengths["short"], two, one),
        slots=2,
        chunk_frames=chunk_frames,
    )
    for key, order in (("long", [0, 1]), ("short", [1, 0])):
        features, codes = found[key]
        assert features.shape == (2, lengths[key], model.dim)
        speech = reference.mimi_codes[order, :, : lengths[key]].transpose(0, 2, 1)
        halves = codes[:, :, 1:9], codes[::-1, :, 9:]
        assert all((half != speech).mean() < FLIPPED_CODES for half in halves)
        expected = one_shot_features(model, codes)
        # Streaming is exact to about 1e-6, so nearly all numbers round to the same bf16.
        assert (features == as_bf16(expected)).mean() > 0.998
        assert np.all(np.abs(features - expected) <= BF16_ROUNDING * np.abs(expected) + 5e-5)


def test_features_of_a_bf16_model(bf16_model: FeatureModel, reference: Reference) -> None:
    num_frames = NUM_FRAMES[64]
    found = extract(bf16_model, source("talk", num_frames, *reference.waves))
    features, codes = found["talk"]
    expected = one_shot_features(bf16_model, codes)
    assert least_cosine(features, expected) > 0.999
    assert worst_frame_error(features, expected) < 3e-2


def batched(model: FeatureModel, calls: NDArray[np.float32]) -> SlotBatch:
    """A batch for calls of audio f32[S, 2, n * 1920]."""
    slots, _, num_samples_audio = calls.shape[-3:]
    return SlotBatch(model, slots=slots, chunk_frames=num_samples_audio // SAMPLES_PER_FRAME)


def steps(batch: SlotBatch, calls: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
    """Features u16[S, A, T, D] and codes of consecutive calls, f32[calls, S, 2, n * 1920]."""
    frames = [batch.step(batch.stage(audio)).wait() for audio in calls]
    return (
        np.concatenate([item.features for item in frames], axis=2),
        np.concatenate([item.codes for item in frames], axis=2),
    )


def calls_of(waves: NDArray[np.float32], chunk_frames: int) -> NDArray[np.float32]:
    """f32[calls, S, 2, n * 1920] of f32[S, 2, N], which has whole calls."""
    slots, sides, num_samples_audio = waves.shape
    length = chunk_frames * SAMPLES_PER_FRAME
    parts = waves.reshape(slots, sides, num_samples_audio // length, length)
    return np.ascontiguousarray(parts.transpose(2, 0, 1, 3))


@pytest.fixture(scope="module")
def calls() -> NDArray[np.float32]:
    """Nine calls of seven frames for two slots: four windows."""
    waves = np.stack([sound(seed, 63) for seed in range(3, 7)]).reshape(2, 2, -1)
    return calls_of(waves, 7)


def test_a_slot_refilled_in_mid_batch_begins_like_a_fresh_one_and_its_neighbour_goes_on(
    model: FeatureModel, calls: NDArray[np.float32]
) -> None:
    refill = np.array([False, True])
    with batched(model, calls) as batch:
        undisturbed, codes = steps(batch, calls)
        batch.restart(np.array([True, True]))
        begun, _ = steps(batch, calls[:3])
        batch.restart(refill)
        rest = calls[3:].copy()
        rest[:, 1] = calls[:6, 1]
        refilled, codes_again = steps(batch, rest)
    np.testing.assert_array_equal(begun, undisturbed[:, :, :21])
    np.testing.assert_array_equal(refilled[0], undisturbed[0, :, 21:])
    np.testing.assert_array_equal(refilled[1], undisturbed[1, :, :42])
    np.testing.assert_array_equal(codes_again[1], codes[1, :, :42])


@pytest.mark.parametrize("tap", ["out_norm", "layer:1", "mimi", "logmel"])
def test_a_saved_state_goes_on_bit_for_bit_in_another_batch_of_another_loaded_model(
    short_checkpoint: Path, calls: NDArray[np.float32], tap: str
) -> None:
    def load() -> FeatureModel:
        files = resolve_model(str(short_checkpoint))
        return load_model(files, device="cpu", dtype=torch.float32, tap=tap)

    model = load()
    with batched(model, calls) as batch:
        steps(batch, calls[:4])
        batch.restart(np.array([True, False]))  # so that the slots are at different frames
        steps(batch, calls[4:6])
        saved = batch.state()
        bits = {name: tensor.numpy().tobytes() for name, tensor in saved.items()}
        went_on = steps(batch, calls[6:])

    for other in (model, load()):
        with batched(other, calls) as batch:
            steps(batch, calls[:2])  # what is there is replaced
            batch.set_state(saved)
            for measured, expected in zip(steps(batch, calls[6:]), went_on, strict=True):
                np.testing.assert_array_equal(measured, expected)
            # A restart reaches what was set.
            batch.restart(np.array([True, True]))
            begun = steps(batch, calls[:2])[0]
            batch.restart(np.array([True, True]))
            batch.set_state(saved)
            for measured, expected in zip(steps(batch, calls[6:]), went_on, strict=True):
                np.testing.assert_array_equal(measured, expected)
        with batched(other, calls) as batch:
            np.testing.assert_array_equal(begun, steps(batch, calls[:2])[0])
    assert {name: tensor.numpy().tobytes() for name, tensor in saved.items()} == bits


def test_a_state_is_what_a_file_of_tensors_can_hold_and_has_no_weights(
    model: FeatureModel, calls: NDArray[np.float32]
) -> None:
    with batched(model, calls) as batch:
        steps(batch, calls[:1])
        state = batch.state()
        again = safetensors.torch.load(safetensors.torch.save(state))
        assert set(again) == set(state)
        expected, _ = steps(batch, calls[1:3])
        batch.set_state(again)
        np.testing.assert_array_equal(steps(batch, calls[1:3])[0], expected)
    weights = {tuple(p.shape) for p in model.lm.parameters() if p.dim() == 2}
    assert not weights & {tuple(value.shape) for value in state.values()}


def test_a_state_of_another_shape_or_tap_is_not_taken(
    model: FeatureModel, logmel: FeatureModel, calls: NDArray[np.float32]
) -> None:
    with batched(model, calls) as batch:
        state = batch.state()
    with batched(model, calls[:, :1]) as batch, pytest.raises(AssertionError, match="shape"):
        batch.set_state(state)
    with batched(logmel, calls) as batch, pytest.raises(AssertionError, match="another tap"):
        batch.set_state(state)


def test_a_full_width_model_streams_exactly_in_both_dtypes(wide_checkpoint: Path) -> None:
    files = resolve_model(str(wide_checkpoint))
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        model = load_model(files, device="cpu", dtype=dtype)
        codes = random_codes(model, 1, 133)
        expected = one_shot_features(model, codes.transpose(1, 2).numpy().astype(np.int16))
        measured = streamed_lm(model, codes, [64])
        assert measured.shape[2] == 4096
        assert worst_frame_error(measured, expected) < bound
        assert least_cosine(measured, expected) > 0.999
