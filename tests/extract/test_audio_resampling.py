import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.functional import resample

from extract.sound.resampling import DenseKernel, Ratio, TapsKernel, kernel_of
from laughstore.timebase import SAMPLES_PER_FRAME, num_samples_24k

from .sound_writers import noise, read_all, write

RATES = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]
ODD_RATES = [8_001, 11_127, 12_345, 23_999, 24_001, 44_056, 44_101, 47_952, 96_001, 191_999]
"""Of little in common with 24 kHz: torchaudio's kernel would hold up to 4.6 billion numbers."""


def by_torchaudio(samples, rate, dtype=torch.float64):
    return resample(torch.from_numpy(samples).to(dtype), rate, 24_000).numpy()


def in_one_piece(samples, rate):
    """The kernel of odd rates over a whole track, zeros around it."""
    kernel = TapsKernel(Ratio.of(rate))
    groups = -(-samples.size // kernel.ratio.old)
    padding = kernel.context, kernel.context + groups * kernel.ratio.old - samples.size
    return kernel.resample(np.pad(samples, padding))[: num_samples_24k(samples.size, rate)]


@pytest.mark.parametrize("rate", RATES)
def test_streamed_resampling_equals_torchaudio_in_one_piece(tmp_path, rate):
    samples = noise(rate * 9 + 1_237, seed=rate)
    out, info = read_all(write(tmp_path / "a.wav", samples, rate))
    whole = by_torchaudio(samples, rate, torch.float32)
    assert info.num_samples_24k == num_samples_24k(samples.size, rate) == whole.size
    np.testing.assert_allclose(out[: whole.size], whole, rtol=0, atol=1e-6)
    assert not out[whole.size :].any()


@pytest.mark.parametrize("rate", ODD_RATES)
def test_streamed_resampling_of_odd_rates_equals_resampling_in_one_piece(tmp_path, rate):
    assert isinstance(kernel_of(rate), TapsKernel)
    samples = noise(rate * 9 + 1_237, seed=rate)
    out, info = read_all(write(tmp_path / "a.wav", samples, rate))
    whole = in_one_piece(samples, rate)
    assert info.num_samples_24k == num_samples_24k(samples.size, rate) == whole.size
    np.testing.assert_allclose(out[: whole.size], whole, rtol=0, atol=1e-6)
    assert not out[whole.size :].any()


@pytest.mark.parametrize("rate", [11_025, 12_345, 44_100, 47_952])
def test_both_kernels_are_the_filter_that_torchaudio_computes_in_double_precision(rate):
    samples = noise(rate + 11, seed=rate)
    np.testing.assert_allclose(
        in_one_piece(samples, rate), by_torchaudio(samples, rate), rtol=0, atol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from(RATES),
    num_samples=st.integers(1, 3_000) | st.integers(31_900, 64_100),
    frames_at_once=st.integers(1, 60),
)
def test_short_and_odd_lengths_resample_exactly(
    tmp_path_factory, rate, num_samples, frames_at_once
):
    samples = noise(num_samples, seed=num_samples)
    path = write(tmp_path_factory.mktemp("odd") / "a.wav", samples, rate)
    out, info = read_all(path, frames_at_once)
    whole = by_torchaudio(samples, rate, torch.float32)
    assert info.num_samples_24k == whole.size
    assert out.size == info.num_frames * SAMPLES_PER_FRAME
    np.testing.assert_allclose(out[: whole.size], whole, rtol=0, atol=1e-6)


@settings(max_examples=12, deadline=None)
@given(
    rate=st.integers(8_000, 192_000).filter(lambda rate: rate != 24_000),
    tenths=st.integers(1, 50),
    more=st.integers(0, 1_000),
)
def test_any_rate_resamples_to_the_length_and_the_sound_of_one_piece(
    tmp_path_factory, rate, tenths, more
):
    samples = noise(rate * tenths // 10 + more, seed=more)
    out, info = read_all(write(tmp_path_factory.mktemp("any") / "a.wav", samples, rate), 11)
    whole = in_one_piece(samples, rate)
    assert info.num_samples_24k == whole.size
    # torchaudio's own kernel, in single precision, is up to 3e-5 off.
    limit = 1e-6 if isinstance(kernel_of(rate), TapsKernel) else 1e-4
    np.testing.assert_allclose(out[: whole.size], whole, rtol=0, atol=limit)


@given(rate=st.integers(8_000, 192_000).filter(lambda rate: rate != 24_000))
def test_a_block_holds_whole_groups_and_more_than_its_context(rate):
    ratio = Ratio.of(rate)
    assert ratio.old * 24_000 == ratio.new * rate
    for kernel in [DenseKernel(ratio)] if ratio.dense_kernel_size <= 1 << 18 else []:
        assert kernel.context % ratio.old == 0
        assert kernel.context >= ratio.reach
        assert 4 * rate >= 2 * kernel.context
    assert 4 * rate % ratio.old == 0
    assert 4 * rate >= 2 * ratio.reach


@pytest.mark.parametrize("rate", [24_000, 44_100, 44_101])
def test_the_sound_does_not_depend_on_how_much_is_read_at_once(tmp_path, rate):
    path = write(tmp_path / "a.wav", noise(rate * 10 + 11), rate)
    one, _ = read_all(path, 1)
    for frames_at_once in (3, 50, 1_000):
        np.testing.assert_array_equal(read_all(path, frames_at_once)[0], one)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, *ODD_RATES])
def test_a_tone_keeps_its_phase_on_the_time_axis_to_the_end(tmp_path, rate):
    """A delay of one sample at 24 kHz would be an error of 0.13 at 500 Hz."""
    duration_s = 5

    def tone(seconds):
        return 0.5 * np.sin(2 * np.pi * 500 * seconds)

    samples = tone(np.arange(duration_s * rate) / rate).astype(np.float32)
    out, info = read_all(write(tmp_path / "a.wav", samples, rate))
    at = np.arange(1_000, info.num_samples_24k - 1_000)
    np.testing.assert_allclose(out[at], tone(at / 24_000), rtol=0, atol=2e-3)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, *ODD_RATES])
def test_an_impulse_stays_where_it_is(tmp_path, rate):
    samples = np.zeros(9 * rate, np.float32)
    # Far from and close to where one block ends.
    positions = [rate // 3, 4 * rate - 1, 4 * rate, 8 * rate + rate // 7]
    samples[positions] = 0.9
    out, info = read_all(write(tmp_path / "a.wav", samples, rate))
    reach = 24_000 * 8 // min(rate, 24_000) + 1
    near = np.zeros(out.size, bool)
    for position in positions:
        exact = position * 24_000 / rate
        around = np.arange(int(exact) - reach, int(exact) + reach + 1)
        near[around] = True
        if position not in (4 * rate - 1, 4 * rate):
            sound = out[around].astype(np.float64)
            assert abs((sound * around).sum() / sound.sum() - exact) < 0.02
    assert np.abs(out[~near]).max() < 1e-6
    assert info.num_samples_24k == 9 * 24_000


@pytest.mark.parametrize("rate", [44_100, 44_101])
def test_what_24_khz_cannot_hold_is_filtered_out(tmp_path, rate):
    samples = np.sin(2 * np.pi * 15_000 * np.arange(3 * rate) / rate).astype(np.float32)
    out, _ = read_all(write(tmp_path / "a.wav", samples, rate))
    assert np.abs(out[1_000:-3_000]).max() < 0.01
