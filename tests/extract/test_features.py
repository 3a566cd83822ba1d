import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
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
from laughstore.errors import BadRecording, ConfigError
from laughstore.timebase import SAMPLES_PER_FRAME

from .sounds import Extracted, MemoryTrack, extract, sound, source, talk


def assert_equal_bits(measured: Extracted, expected: Extracted) -> None:
    np.testing.assert_array_equal(measured[1], expected[1])
    np.testing.assert_array_equal(measured[0], expected[0])


@pytest.mark.parametrize("chunk_frames", [7, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_features_are_the_same_bits_alone_and_among_others(
    model: FeatureModel, bf16_model: FeatureModel, chunk_frames: int, dtype: torch.dtype
) -> None:
    used = model if dtype == torch.float32 else bf16_model
    talks = [talk(str(seed), length, seed) for seed, length in enumerate([40, 9, 65, 32, 1, 20])]
    together = extract(used, *talks, slots=3, chunk_frames=chunk_frames)
    assert set(together) == {item.key for item in talks}
    for item in talks:
        alone = extract(used, item, slots=3, chunk_frames=chunk_frames)
        assert_equal_bits(together[item.key], alone[item.key])


def test_full_width_features_are_the_same_bits_alone_and_among_others(
    wide_checkpoint: Path,
) -> None:
    files = resolve_model(str(wide_checkpoint))
    model = load_model(files, device="cpu", dtype=torch.float32)
    talks = [talk(str(seed), length, seed) for seed, length in enumerate([20, 9, 5])]
    together = extract(model, *talks, slots=2, chunk_frames=16)
    for item in talks:
        alone = extract(model, item, slots=2, chunk_frames=16)
        assert_equal_bits(together[item.key], alone[item.key])


def damaged(value: float, *, frame: int = 30, speaker: int = 0) -> Source:
    """A recording of 40 frames in which one sample of one speaker has this value."""
    waves = [sound(1, 40), sound(2, 40)]
    waves[speaker][frame * SAMPLES_PER_FRAME + 100] = value
    return source("damaged", 40, *waves)


@pytest.fixture(scope="module")
def alone(model: FeatureModel) -> dict[int, dict[str, Extracted]]:
    """Two recordings, each extracted alone, by the number of slots."""
    talks = [talk("beside", 60, 7), talk("after", 30, 8)]
    return {
        slots: {
            key: value
            for item in talks
            for key, value in extract(model, item, slots=slots, chunk_frames=16).items()
        }
        for slots in (1, 2)
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -3e38, 1e20])
@pytest.mark.parametrize("speaker", [0, 1])
def test_a_damaged_recording_changes_no_bit_of_those_beside_it_and_after_it(
    model: FeatureModel,
    alone: dict[int, dict[str, Extracted]],
    value: float,
    speaker: int,
) -> None:
    bad = damaged(value, frame=20, speaker=speaker)
    beside, after = talk("beside", 60, 7), talk("after", 30, 8)
    for slots, queue in ((1, [bad, after]), (2, [beside, bad, after])):
        found = extract(model, *queue, slots=slots, chunk_frames=16)
        assert set(found) == {item.key for item in queue} - {"damaged"}
        for key, bits in found.items():
            assert_equal_bits(bits, alone[slots][key])


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


def test_a_recording_that_the_model_fails_on_is_closed_and_not_read_to_its_end(
    model: FeatureModel,
) -> None:
    wave = np.full(160 * SAMPLES_PER_FRAME, np.nan, np.float32)
    tracks = [MemoryTrack(wave), MemoryTrack(sound(1, 160))]
    items = list(
        extract_features(model, [Source("a", 160, lambda: tracks)], slots=1, chunk_frames=8)
    )
    assert [type(item) for item in items] == [FeatureFailure]
    assert all(track.closed for track in tracks)
    assert all(track.frame < 80 for track in tracks)


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
        batch.step(batch.stage(audio))
        before = [ring.clone() for ring in rings()]
        batch.restart(np.array([False, True]))
        assert len(before) >= 2
        for ring, full in zip(rings(), before, strict=True):
            assert full[:, 2:].any()
            assert not ring[:, 2:].any()
            assert torch.equal(ring[:, :2], full[:, :2])


def test_features_that_are_not_finite_are_not_delivered_though_the_audio_is_sound(
    short_checkpoint: Path,
) -> None:
    model = load_model(resolve_model(str(short_checkpoint)), device="cpu", dtype=torch.float32)
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

    good = [talk("long", 90, 1), talk("short", 40, 2), talk("late", 30, 3)]
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
    # Its second chunk was computed while the third was read.
    assert [c.start_frame for c in delivered if c.source.key == "cut"] == [0]
    together = extract(model, *queue, slots=2, chunk_frames=16)
    assert set(together) == {"long", "short", "late"}
    for item in good:
        expected = extract(model, item, slots=2, chunk_frames=16)
        assert_equal_bits(together[item.key], expected[item.key])


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


def test_nothing_is_open_when_whoever_takes_the_chunks_fails(model: FeatureModel) -> None:
    threads = set(threading.enumerate())
    track = MemoryTrack(sound(1, 50))

    def take_one() -> None:
        source = Source("a", 50, lambda: [track])
        with closing(extract_features(model, [source], slots=1, chunk_frames=8)) as stream:  # type: ignore[type-var]
            for _ in stream:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take_one()
    assert track.closed
    assert not model.mimi.is_streaming
    assert set(threading.enumerate()) <= threads


def test_a_source_that_opens_three_tracks_ends_all_and_the_model_stays_usable(
    model: FeatureModel,
) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(ConfigError, match="crowd has 3 tracks"):
        extract(model, talk("a", 40), talk("crowd", 4, speakers=3), slots=2, chunk_frames=8)
    assert set(threading.enumerate()) <= threads
    assert set(extract(model, talk("b", 5))) == {"b"}


def test_no_chunk_of_a_recording_comes_after_its_failure_whichever_part_fails(
    model: FeatureModel,
) -> None:
    """Two pairs of one recording side by side; the sound of one is cut, of the other damaged."""
    cut = MemoryTrack(sound(1, 40), fails_at=30)
    pairs = [
        Source("talk", 40, lambda: [cut, None], num_assignments=2),
        replace(damaged(np.nan, frame=10), key="talk", first_assignment=2),
        replace(talk("talk", 40), first_assignment=4),
    ]
    items = list(extract_features(model, [*pairs, talk("good", 9)], slots=2, chunk_frames=8))
    about = [(item.source.key, type(item)) for item in items]
    failure = about.index(("talk", FeatureFailure))
    assert about[failure + 1 :] == [("good", FeatureChunk)] * 2
    assert about.count(("talk", FeatureFailure)) == 1
    assert cut.closed


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
    with pytest.raises(ConfigError, match="chunk_frames 0"):
        SlotBatch(model, slots=1, chunk_frames=0)
