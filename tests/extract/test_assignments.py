"""What is fed to whom: the order of the streams, text, silence and mixes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from extract.features import extract_features
from extract.model import FeatureModel
from laughstore.spec import StreamOrder

from .sounds import extract, one_shot_codes, one_shot_features, sound, source

NUM_FRAMES = 30
ORDERS: list[StreamOrder] = ["main-other", "legacy"]


@pytest.fixture(scope="module")
def waves() -> list[NDArray[np.float32]]:
    return [sound(1, NUM_FRAMES), sound(2, NUM_FRAMES)]


@pytest.fixture(scope="module")
def text() -> NDArray[np.int16]:
    """i16[2, T]: other words for each side, none of them those of the other."""
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(4, 100, NUM_FRAMES), rng.integers(200, 300, NUM_FRAMES)]).astype(
        np.int16
    )


@pytest.fixture(scope="module")
def silence(model: FeatureModel) -> NDArray[np.int64]:
    """i64[T, 8]: what Mimi says of zeros."""
    return one_shot_codes(model, np.zeros(NUM_FRAMES * 1920, np.float32))[0].T


def test_without_text_both_orders_are_the_same_bits_and_the_text_is_padding(
    model: FeatureModel, waves: list[NDArray[np.float32]]
) -> None:
    talk = source("talk", NUM_FRAMES, *waves)
    one, two = (extract(model, talk, stream_order=order)["talk"] for order in ORDERS)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    codes = one[1]
    assert codes.dtype == np.int16
    assert (codes[:, :, 0] == 3).all()
    np.testing.assert_array_equal(codes[0, :, 1:9], codes[1, :, 9:])
    np.testing.assert_array_equal(codes[0, :, 9:], codes[1, :, 1:9])
    assert not np.array_equal(codes[0, :, 1:9], codes[0, :, 9:])


@pytest.mark.parametrize("stream_order", ORDERS)
def test_the_text_in_front_is_of_main_or_in_the_legacy_order_of_other(
    model: FeatureModel,
    waves: list[NDArray[np.float32]],
    text: NDArray[np.int16],
    stream_order: StreamOrder,
) -> None:
    talk = source("talk", NUM_FRAMES, *waves, text=text)
    features, codes = extract(model, talk, chunk_frames=7, stream_order=stream_order)["talk"]
    in_front = text if stream_order == "main-other" else text[::-1]
    np.testing.assert_array_equal(codes[:, :, 0], in_front)
    # The audio columns are main, then other, whatever the order of the text.
    plain = extract(model, source("plain", NUM_FRAMES, *waves), chunk_frames=7)["plain"]
    np.testing.assert_array_equal(codes[:, :, 1:], plain[1][:, :, 1:])
    np.testing.assert_allclose(features, one_shot_features(model, codes), rtol=2**-8, atol=5e-5)
    assert np.any(features[:, 2:] != plain[0][:, 2:])


@pytest.mark.parametrize("stream_order", ORDERS)
def test_a_lone_assignment_has_the_text_that_the_first_of_two_has(
    model: FeatureModel,
    waves: list[NDArray[np.float32]],
    text: NDArray[np.int16],
    stream_order: StreamOrder,
) -> None:
    both = extract(model, source("a", NUM_FRAMES, *waves, text=text), stream_order=stream_order)[
        "a"
    ]
    lone = source("a", NUM_FRAMES, *waves, text=text, num_assignments=1)
    for assignments in (2, 1):
        found = extract(model, lone, assignments=assignments, stream_order=stream_order)["a"]
        np.testing.assert_array_equal(found[1], both[1][:1])
        assert found[0].shape == (1, NUM_FRAMES, model.dim)
        np.testing.assert_allclose(found[0], both[0][:1], rtol=2**-7, atol=1e-4)


def test_text_beside_a_recording_without_it_is_its_own(
    model: FeatureModel, waves: list[NDArray[np.float32]], text: NDArray[np.int16]
) -> None:
    told = source("told", NUM_FRAMES, *waves, text=text)
    untold = source("untold", 2 * NUM_FRAMES, sound(3, 2 * NUM_FRAMES))
    found = extract(model, told, untold, slots=2, chunk_frames=16)
    np.testing.assert_array_equal(found["told"][1][:, :, 0], text)
    assert (found["untold"][1][:, :, 0] == 3).all()
    for item in (told, untold):
        alone = extract(model, item, slots=2, chunk_frames=16)[item.key]
        np.testing.assert_array_equal(found[item.key][0], alone[0])


def test_a_missing_side_is_what_mimi_makes_of_silence_and_never_padded_with_a_code(
    model: FeatureModel, waves: list[NDArray[np.float32]], silence: NDArray[np.int64]
) -> None:
    assert (silence != 0).any()
    assert len(np.unique(silence[1:], axis=0)) < NUM_FRAMES / 2, "silence soon settles"
    for sides in ([waves[0]], [waves[0], None]):
        talk = source("alone", NUM_FRAMES, *sides, num_assignments=1)
        features, codes = extract(model, talk, chunk_frames=7)["alone"]
        assert len(features) == len(codes) == 1
        np.testing.assert_array_equal(codes[0, :, 9:], silence)
        assert (codes[0, :, 1:9] != one_shot_codes(model, waves[0])[0].T).mean() < 0.01


def test_frames_behind_a_short_track_are_silence_too(
    model: FeatureModel, waves: list[NDArray[np.float32]]
) -> None:
    short = waves[1][: 11 * 1920 + 700]
    padded = np.concatenate([short, np.zeros(len(waves[1]) - len(short), np.float32)])
    found, expected = (
        extract(model, source("talk", NUM_FRAMES, waves[0], other), chunk_frames=7)["talk"]
        for other in (short, padded)
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("assignments", [1, 2])
def test_in_a_mix_main_is_silence_and_other_is_everybody(
    model: FeatureModel,
    waves: list[NDArray[np.float32]],
    silence: NDArray[np.int64],
    assignments: int,
) -> None:
    mix = source("mix", NUM_FRAMES, None, waves[0] + waves[1], num_assignments=1)
    features, codes = extract(model, mix, chunk_frames=7, assignments=assignments)["mix"]
    assert features.shape == (1, NUM_FRAMES, model.dim)
    assert (codes[0, :, 0] == 3).all()
    np.testing.assert_array_equal(codes[0, :, 1:9], silence)
    everybody = one_shot_codes(model, waves[0] + waves[1])[0].T
    assert (codes[0, :, 9:] != everybody).mean() < 0.01
    np.testing.assert_allclose(features, one_shot_features(model, codes), rtol=2**-8, atol=5e-5)


def test_two_assignments_of_a_batch_of_one_are_our_own_bug(
    model: FeatureModel, waves: list[NDArray[np.float32]]
) -> None:
    talk = source("talk", NUM_FRAMES, *waves)
    with pytest.raises(AssertionError, match="fewer assignments"):
        list(extract_features(model, [talk], slots=1, chunk_frames=8, assignments=1))
