"""What features are compared with: Mimi's latents, and log-mel frames of the sound itself.

Row t of a control is made of the 80 ms before t * 80 ms. Moshi's own row t has been told the
semantic codes up to frame t - 1, which are made of the very same audio, and acoustic codes up to
frame t - 2. So a control knows no more than the sound that ends where Moshi's does.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extract.features import FeatureFailure, extract_features
from extract.logmel import NUM_BANDS, SILENT_LEVEL, LogMel
from extract.model import FeatureModel, load_model, resolve_model
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

from .sounds import Extracted, as_bf16, extract, one_shot_latents, sound, source, talk

NUM_FRAMES = 45


@pytest.fixture(scope="module")
def mimi(short_checkpoint: Path) -> FeatureModel:
    files = resolve_model(str(short_checkpoint))
    return load_model(files, device="cpu", dtype=torch.float32, tap="mimi")


@pytest.fixture(scope="module", params=["mimi", "logmel"])
def control(
    request: pytest.FixtureRequest, mimi: FeatureModel, logmel: FeatureModel
) -> FeatureModel:
    return mimi if request.param == "mimi" else logmel


def delayed(sides: NDArray[np.float32], before: float) -> NDArray[np.float32]:
    """f32[2, T, 2 C], main half then other half and a frame late, of the sides f32[2, T, C]."""
    late = np.concatenate([np.full_like(sides[:, :1], before), sides[:, :-1]], axis=1)
    return as_bf16(np.concatenate([late, late[::-1]], axis=2))


@pytest.mark.parametrize("chunk_frames", [1, 7, 500])
def test_mimi_rows_are_the_one_shot_latents_of_the_frame_before_main_then_other(
    mimi: FeatureModel, model: FeatureModel, chunk_frames: int
) -> None:
    waves = sound(1, NUM_FRAMES), sound(2, NUM_FRAMES)
    talk = source("talk", NUM_FRAMES, *waves)
    features, codes = extract(mimi, talk, chunk_frames=chunk_frames)["talk"]
    expected = delayed(one_shot_latents(mimi, *waves), 0)
    assert features.shape == expected.shape == (2, NUM_FRAMES, mimi.dim)
    assert (features == expected).mean() > 0.998
    np.testing.assert_allclose(features, expected, rtol=2**-7, atol=1e-4)
    # Beside them stand the codes that the language model would have been given.
    as_fed = extract(model, talk, chunk_frames=chunk_frames)["talk"][1]
    np.testing.assert_array_equal(codes, as_fed)


def logmel_by_hand(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """f64[T, 512]: per frame eight spectra of 64 bands, each of 40 ms that end 10 ms apart."""
    padded = np.concatenate([np.zeros(720), wave.astype(np.float64)])
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(960) / 960)
    num_spectra = len(wave) // 240
    segments = np.stack([padded[240 * i : 240 * i + 960] for i in range(num_spectra)])
    power = np.abs(np.fft.rfft(segments * hann)) ** 2 / hann.sum() ** 2
    # Triangles between 64 + 2 points at equal steps of the mel scale, from 40 Hz to 12 kHz.
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (40, 12_000))
    corners_hz = 700 * (10 ** (np.linspace(low, high, 66) / 2595) - 1)
    bins_hz = np.arange(481) * SAMPLE_RATE / 960
    left, centre, right = corners_hz[:-2, None], corners_hz[1:-1, None], corners_hz[2:, None]
    rising, falling = (bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre)
    bands = power @ np.maximum(0, np.minimum(rising, falling)).T
    return np.log(np.maximum(bands, 1e-10)).reshape(-1, 512)


@pytest.mark.parametrize("chunk_frames", [1, 7, 500])
def test_logmel_rows_are_those_of_the_definition(logmel: FeatureModel, chunk_frames: int) -> None:
    waves = sound(1, NUM_FRAMES), sound(2, NUM_FRAMES)
    talk = source("talk", NUM_FRAMES, *waves)
    features, codes = extract(logmel, talk, chunk_frames=chunk_frames)["talk"]
    by_hand = np.stack([logmel_by_hand(wave) for wave in waves]).astype(np.float32)
    expected = delayed(by_hand, np.log(1e-10))
    assert features.shape == expected.shape == (2, NUM_FRAMES, 1024)
    np.testing.assert_allclose(features, expected, rtol=2**-7, atol=1e-2)
    assert (features == expected).mean() > 0.99
    assert (codes == -1).all(), "there are no codes"


def test_a_tone_is_in_the_band_of_its_pitch_and_at_its_level() -> None:
    time_s = np.arange(4 * SAMPLES_PER_FRAME) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * 1_000 * time_s).astype(np.float32)
    spectra = LogMel(1, torch.device("cpu"))(torch.from_numpy(tone)[None])[0, 2].view(8, NUM_BANDS)
    # 1 kHz is 1,000 mel; 64 bands lie between 60.3 and 3,266 mel, 49.3 mel apart.
    assert set(spectra.argmax(1).tolist()) == {18}
    assert spectra.max().item() == pytest.approx(np.log(1 / 4), abs=0.7)


def test_row_0_has_heard_nothing(mimi: FeatureModel, logmel: FeatureModel) -> None:
    for model, level in ((mimi, 0), (logmel, as_bf16(np.array([SILENT_LEVEL], np.float32))[0])):
        loud = extract(model, talk("talk", 12), chunk_frames=8, restart_frames=5)["talk"][0]
        for row in (0, 5, 10):
            assert (loud[:, row] == level).all()
            assert not (loud[:, row + 1] == level).any()
    silent = extract(logmel, source("hush", 12, np.zeros(12 * 1920, np.float32)))["hush"][0]
    assert (silent == level).all(), "as it would after silence"


def test_each_row_ends_where_its_time_does(control: FeatureModel) -> None:
    """A click in frame 20 shows in row 21 first; a control one frame later would miss it there."""
    wave = np.zeros(30 * SAMPLES_PER_FRAME, np.float32)
    silent = extract(control, source("a", 30, wave, wave), chunk_frames=7)["a"][0]
    wave[20 * SAMPLES_PER_FRAME + 400] = 0.9
    click = extract(control, source("a", 30, wave, wave), chunk_frames=7)["a"][0]
    changed = (click != silent).any(axis=2)
    assert changed.argmax(axis=1).tolist() == [21, 21]


def assert_equal_bits(measured: Extracted, expected: Extracted) -> None:
    np.testing.assert_array_equal(measured[0], expected[0])
    np.testing.assert_array_equal(measured[1], expected[1])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e25])
def test_damaged_audio_fails_its_recording_alone_and_leaves_nothing_behind(
    control: FeatureModel, value: float
) -> None:
    beside, after = talk("beside", 40, 3), talk("after", 20, 4)
    for side in (0, 1):
        waves = [sound(1, 30), sound(2, 30)]
        waves[side][17 * SAMPLES_PER_FRAME + 5] = value
        queue = [beside, source("damaged", 30, *waves), after]
        items = list(extract_features(control, queue, slots=2, chunk_frames=8))
        failures = [item for item in items if isinstance(item, FeatureFailure)]
        assert [item.source.key for item in failures] == ["damaged"]
        assert "at frame 17;" in str(failures[0].error) or control.mimi_or_none
        found = extract(control, *queue, slots=2, chunk_frames=8)
        for item in (beside, after):
            alone = extract(control, item, slots=2, chunk_frames=8)[item.key]
            assert_equal_bits(found[item.key], alone)


def test_a_slot_refilled_equals_a_fresh_one(control: FeatureModel) -> None:
    # Whole calls: silence behind the last frame would hide what is left.
    first, second = talk("first", 12, 5), talk("second", 12, 6)
    found = extract(control, first, second, chunk_frames=4)
    assert_equal_bits(found["second"], extract(control, second, chunk_frames=4)["second"])


def test_one_speaker_is_main_beside_silence(control: FeatureModel) -> None:
    wave, half = sound(1, 10), control.dim // 2
    alone = extract(control, source("a", 10, wave), chunk_frames=4)["a"]
    both = extract(control, source("a", 10, wave, np.zeros_like(wave)), chunk_frames=4)["a"]
    assert_equal_bits(alone, (both[0][:1], both[1][:1]))
    swapped = extract(control, source("a", 10, None, wave), chunk_frames=4)["a"][0]
    np.testing.assert_array_equal(swapped[0, :, half:], alone[0][0, :, :half])
    fewer = extract(control, source("a", 10, wave), chunk_frames=4, assignments=1)["a"]
    assert_equal_bits(fewer, alone)
