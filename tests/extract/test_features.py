import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from moshi.modules.transformer import StreamingMultiheadAttention

from extract.features import (
    FeatureChunk,
    FeatureFailure,
    SlotBatch,
    Source,
    TrackReader,
    extract_features,
)
from extract.model import FeatureModel, load_model, resolve_model
from extract.tiny_checkpoint import CONTEXT_FRAMES
from laughstore.errors import BadRecording, ConfigError
from laughstore.timebase import SAMPLES_PER_FRAME

from .sounds import (
    Extracted,
    MemoryTrack,
    extract,
    least_cosine,
    one_shot_codes,
    one_shot_features,
    relative_error,
    sound,
    source,
    talk,
)

LONG = 5 * CONTEXT_FRAMES + 13
BF16_ROUNDING = 2.0**-8
"""Largest relative error of one number rounded to bf16."""


@pytest.fixture(scope="module")
def model(nano_checkpoint: Path) -> FeatureModel:
    return load_model(resolve_model(str(nano_checkpoint)), device="cpu", dtype=torch.float32)


def assert_equal_bits(measured: Extracted, expected: Extracted) -> None:
    np.testing.assert_array_equal(measured[1], expected[1])
    np.testing.assert_array_equal(measured[0], expected[0])


@pytest.mark.parametrize("chunk_frames", [1, 7, 64])
def test_features_equal_the_one_shot_forward_well_past_the_context_window(
    model: FeatureModel, chunk_frames: int
) -> None:
    waves = sound(0, LONG), sound(1, LONG)
    found = extract(model, source("talk", LONG, *waves), chunk_frames=chunk_frames)
    features, codes = found["talk"]
    assert features.shape == (2, LONG, model.dim)
    expected = one_shot_features(model, codes)
    rounded = torch.from_numpy(expected).to(torch.bfloat16).float().numpy()
    # Streaming is exact to about 1e-6, so nearly all numbers round to the same bf16.
    assert (features == rounded).mean() > 0.998
    assert np.all(np.abs(features - expected) <= BF16_ROUNDING * np.abs(expected) + 5e-5)

    speech = one_shot_codes(model, *waves)
    assert (speech[0] != codes[0, :, 1:9].T).mean() < 2e-3
    assert (speech[1] != codes[0, :, 9:].T).mean() < 2e-3


def test_features_of_a_bf16_model_are_those_of_its_one_shot_forward(nano_checkpoint: Path) -> None:
    files = resolve_model(str(nano_checkpoint))
    model = load_model(files, device="cpu", dtype=torch.bfloat16)
    features, codes = extract(model, talk("talk", LONG))["talk"]
    expected = one_shot_features(model, codes)
    assert least_cosine(features, expected) > 0.999
    assert relative_error(features, expected) < 2e-2


def test_a_row_holds_padding_text_then_main_then_other(model: FeatureModel) -> None:
    codes = extract(model, talk("talk", 20))["talk"][1]
    assert codes.dtype == np.int16
    assert np.all(codes[:, :, 0] == model.lm.text_padding_token_id)
    np.testing.assert_array_equal(codes[0, :, 1:9], codes[1, :, 9:])
    np.testing.assert_array_equal(codes[0, :, 9:], codes[1, :, 1:9])
    assert not np.array_equal(codes[0, :, 1:9], codes[0, :, 9:])


def test_a_lone_speaker_has_one_assignment_beside_silence(model: FeatureModel) -> None:
    wave = sound(3, 40)
    found = extract(
        model,
        source("alone", 40, wave),
        source("beside silence", 40, wave, np.zeros_like(wave)),
    )
    features, codes = found["alone"]
    assert len(features) == len(codes) == 1
    both = found["beside silence"]
    assert_equal_bits((features, codes), (both[0][:1], both[1][:1]))


def test_what_is_heard_at_frame_t_changes_no_row_up_to_t(model: FeatureModel) -> None:
    num_frames, changed = 60, 30
    wave, other = sound(4, num_frames), sound(5, num_frames)
    before = extract(model, source("talk", num_frames, wave, other), chunk_frames=7)["talk"][0]
    for first_sample in (changed * SAMPLES_PER_FRAME, (changed + 1) * SAMPLES_PER_FRAME - 1):
        altered = wave.copy()
        altered[first_sample:] += np.float32(0.4)
        after = extract(model, source("talk", num_frames, altered, other), chunk_frames=7)["talk"]
        np.testing.assert_array_equal(after[0][:, : changed + 1], before[:, : changed + 1])
        assert np.any(after[0][0, changed + 1 :] != before[0, changed + 1 :])
        assert np.any(after[0][1, changed + 1 :] != before[1, changed + 1 :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("chunk_frames", [7, 64])
def test_features_are_the_same_bits_alone_and_among_others(
    nano_checkpoint: Path, chunk_frames: int, dtype: torch.dtype
) -> None:
    files = resolve_model(str(nano_checkpoint))
    model = load_model(files, device="cpu", dtype=dtype)
    lengths = [70, 9, 131, 64, 1, 100, 30]
    talks = [talk(str(seed), length, seed) for seed, length in enumerate(lengths)]
    together = extract(model, *talks, slots=3, chunk_frames=chunk_frames)
    assert set(together) == {item.key for item in talks}
    for item in talks:
        alone = extract(model, item, slots=3, chunk_frames=chunk_frames)
        assert_equal_bits(together[item.key], alone[item.key])


def test_full_width_features_are_the_same_bits_alone_and_among_others(
    wide_checkpoint: Path,
) -> None:
    files = resolve_model(str(wide_checkpoint))
    model = load_model(files, device="cpu", dtype=torch.float32)
    talks = [talk(str(seed), length, seed) for seed, length in enumerate([70, 9, 20])]
    together = extract(model, *talks, slots=2)
    for item in talks:
        assert_equal_bits(together[item.key], extract(model, item, slots=2)[item.key])


def test_recordings_one_after_the_other_in_a_slot_equal_each_alone(model: FeatureModel) -> None:
    first, second = talk("first", 90, 1), talk("second", 75, 2)
    found = extract(model, first, second, slots=1, chunk_frames=32)
    for item in (first, second):
        assert_equal_bits(found[item.key], extract(model, item, chunk_frames=32)[item.key])


def damaged(value: float, *, frame: int = 30, speaker: int = 0) -> Source:
    """A recording of 40 frames in which one sample of one speaker has this value."""
    waves = [sound(1, 40), sound(2, 40)]
    waves[speaker][frame * SAMPLES_PER_FRAME + 100] = value
    return source("damaged", 40, *waves)


@pytest.mark.parametrize("value", [np.nan, np.inf, -3e38, 1e20])
@pytest.mark.parametrize("speaker", [0, 1])
def test_a_damaged_recording_changes_no_bit_of_those_beside_it_and_after_it(
    model: FeatureModel, value: float, speaker: int
) -> None:
    bad = damaged(value, speaker=speaker)
    beside, after = talk("beside", 120, 7), talk("after", 60, 8)
    for slots, queue in ((1, [bad, after]), (2, [bad, beside, after]), (2, [beside, bad, after])):
        found = extract(model, *queue, slots=slots, chunk_frames=16)
        assert set(found) == {item.key for item in queue} - {"damaged"}
        for item in queue:
            if item is not bad:
                alone = extract(model, item, slots=slots, chunk_frames=16)
                assert_equal_bits(found[item.key], alone[item.key])


# Mimi's latents of 3.2e19 are finite; the distances by which it chooses codes are not.
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e20, 3.2e19])
def test_values_of_the_model_that_are_not_finite_fail_their_recording(
    model: FeatureModel, value: float
) -> None:
    bad = damaged(value)
    tracks = [MemoryTrack(sound(3, 20))]
    good = Source("good", 20, lambda: tracks)
    items = list(extract_features(model, [bad, good], slots=1, chunk_frames=16))
    assert [(item.source.key, type(item)) for item in items] == [
        ("damaged", FeatureChunk),
        ("damaged", FeatureFailure),
        ("good", FeatureChunk),
        ("good", FeatureChunk),
    ]
    failure = items[1]
    assert isinstance(failure, FeatureFailure)
    said = r"damaged: the model gave values that are not finite at frame (\d+); .* before frame 32"
    message = re.match(said, str(failure.error))
    assert message is not None
    assert 16 <= int(message[1]) <= 31
    assert tracks[0].closed


def test_the_tracks_of_a_recording_that_the_model_fails_on_are_closed(model: FeatureModel) -> None:
    wave = np.full(40 * SAMPLES_PER_FRAME, np.nan, np.float32)
    tracks = [MemoryTrack(wave), MemoryTrack(sound(1, 40))]
    items = list(
        extract_features(model, [Source("a", 40, lambda: tracks)], slots=1, chunk_frames=8)
    )
    assert [type(item) for item in items] == [FeatureFailure]
    assert all(track.closed for track in tracks)


def test_a_restart_empties_the_memory_of_both_networks(model: FeatureModel) -> None:
    def rings() -> list[torch.Tensor]:
        return [
            part._streaming_state.kv_cache.cache
            for network in (model.mimi.encoder_transformer, model.lm.transformer)
            for part in (network.modules() if network else ())
            if isinstance(part, StreamingMultiheadAttention)
            and part._streaming_state
            and part._streaming_state.kv_cache
        ]

    audio = np.stack([sound(seed, 8) for seed in range(4)]).reshape(2, 2, -1)
    with SlotBatch(model, slots=2, chunk_frames=8) as batch:
        batch.step(audio)
        before = [ring.clone() for ring in rings()]
        batch.restart(np.array([False, True]))
        assert len(before) >= 2
        for ring, full in zip(rings(), before, strict=True):
            assert full[:, 2:].any()
            assert not ring[:, 2:].any()
            assert torch.equal(ring[:, :2], full[:, :2])


def test_features_that_are_not_finite_are_not_delivered_though_the_audio_is_sound(
    nano_checkpoint: Path,
) -> None:
    model = load_model(resolve_model(str(nano_checkpoint)), device="cpu", dtype=torch.float32)
    model.lm.text_emb.weight[model.lm.text_padding_token_id, 5] = torch.inf
    assert extract(model, talk("talk", 20), chunk_frames=8) == {}


def test_a_track_that_fails_frees_its_slot_and_leaves_the_others_bit_equal(
    model: FeatureModel,
) -> None:
    opened: list[MemoryTrack] = []

    def open_cut() -> Sequence[TrackReader]:
        opened.extend([MemoryTrack(sound(8, 200)), MemoryTrack(sound(9, 200), fails_at=40)])
        return opened[-2:]

    def open_nothing() -> Sequence[TrackReader]:
        raise BadRecording("no audio")

    good = [talk("long", 120, 1), talk("short", 40, 2), talk("late", 50, 3)]
    bad = [Source("cut", 200, open_cut), Source("missing", 10, open_nothing)]
    queue = [good[0], bad[0], bad[1], good[1], good[2]]
    items = list(extract_features(model, queue, slots=2, chunk_frames=16))
    failures = [item for item in items if isinstance(item, FeatureFailure)]
    assert [(item.source.key, str(item.error)) for item in failures] == [
        ("cut", "the track is cut"),
        ("missing", "no audio"),
    ]
    assert all(track.closed for track in opened)
    delivered = [item for item in items if isinstance(item, FeatureChunk)]
    assert max(c.start_frame for c in delivered if c.source.key == "cut") == 16
    together = extract(model, *queue, slots=2, chunk_frames=16)
    assert set(together) == {"long", "short", "late"}
    for item in good:
        alone = extract(model, item, slots=2, chunk_frames=16)
        assert_equal_bits(together[item.key], alone[item.key])


def test_tracks_are_opened_when_a_slot_is_free_and_closed_when_the_recording_ends(
    model: FeatureModel,
) -> None:
    opened: list[MemoryTrack] = []

    def open_one() -> Sequence[TrackReader]:
        assert sum(not track.closed for track in opened) < 2
        opened.append(MemoryTrack(sound(1, 20)))
        return opened[-1:]

    sources = [Source(str(number), 20, open_one) for number in range(5)]
    keys = {item.source.key for item in extract_features(model, sources, slots=2, chunk_frames=8)}
    assert keys == {"0", "1", "2", "3", "4"}
    assert len(opened) == 5
    assert all(track.closed for track in opened)


def test_stopping_early_closes_tracks_and_leaves_the_model_usable(model: FeatureModel) -> None:
    track = MemoryTrack(sound(1, 50))
    stream = extract_features(model, [Source("a", 50, lambda: [track])], slots=1, chunk_frames=8)
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert track.closed
    assert not model.lm.transformer.is_streaming
    assert not model.mimi.is_streaming
    assert extract(model, talk("b", 5))["b"][0].shape == (2, 5, model.dim)


def test_audio_beyond_the_frames_asked_for_is_not_delivered(model: FeatureModel) -> None:
    wave = sound(1, 80)
    long = extract(model, source("a", 80, wave), chunk_frames=32)["a"]
    short = extract(model, source("a", 33, wave), chunk_frames=32)["a"]
    assert_equal_bits(short, (long[0][:, :33], long[1][:, :33]))


def test_no_source_gives_nothing(model: FeatureModel) -> None:
    assert list(extract_features(model, [], slots=2, chunk_frames=8)) == []


def test_a_source_that_comes_late_enters_a_free_slot_and_gives_the_same_bits(
    model: FeatureModel,
) -> None:
    early, late = talk("early", 60), talk("late", 30)

    def sources() -> Iterator[Source | None]:
        yield early
        yield from [None] * 3
        yield late
        while True:
            yield None

    def bits_of_late(sources: Iterable[Source | None]) -> tuple[list[str], list[bytes]]:
        chunks = list(extract_features(model, sources, slots=2, chunk_frames=8))
        assert all(isinstance(item, FeatureChunk) for item in chunks)
        keys = [item.source.key for item in chunks]
        bits = [
            item.features.tobytes()
            for item in chunks
            if isinstance(item, FeatureChunk) and item.source is late
        ]
        return keys, bits

    keys, together = bits_of_late(sources())
    assert keys.count("early") == 8
    assert keys.count("late") == 4
    assert keys.index("late") >= 3
    assert together == bits_of_late([late])[1]


def test_wrong_requests_are_config_errors(model: FeatureModel) -> None:
    with pytest.raises(ConfigError, match="must have at least 1"):
        talk("empty", 0)
    with pytest.raises(ConfigError, match="slots is 0"):
        SlotBatch(model, slots=0, chunk_frames=8)
    with pytest.raises(ConfigError, match="has 3 tracks"):
        extract(model, talk("crowd", 4, speakers=3))
