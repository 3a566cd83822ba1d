import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.functional import resample

from extract.audio import AudioTrack, _Ratio, probe_audio
from laughstore.errors import BadRecording
from laughstore.timebase import SAMPLES_PER_FRAME, num_frames, num_samples_24k

RATES = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]


def noise(num_samples, *, channels=1, seed=0):
    shape = (num_samples, channels) if channels > 1 else num_samples
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape).astype(np.float32)


def write(path, samples, rate=24_000, **options):
    options.setdefault("subtype", "FLOAT")
    soundfile.write(path, samples, rate, **options)
    return path


def raw_wav(path, *, rate=24_000, channels=1, num_bytes=4_000, claimed=None):
    """Write 16-bit PCM whose header says what we want it to say."""
    claimed = num_bytes if claimed is None else claimed
    align = 2 * channels & 0xFFFF
    speed = rate * align & 0xFFFFFFFF
    head = struct.pack("<IHHIIHH", 16, 1, channels, rate, speed, align, 16)
    body = b"WAVEfmt " + head + b"data" + struct.pack("<I", claimed) + b"\1\0" * (num_bytes // 2)
    path.write_bytes(b"RIFF" + struct.pack("<I", 36 + claimed & 0xFFFFFFFF) + body)
    return path


def read_all(path, frames_at_once=7):
    with AudioTrack(path) as track:
        pieces = [
            track.read(min(frames_at_once, track.info.num_frames - at))
            for at in range(0, track.info.num_frames, frames_at_once)
        ]
        return np.concatenate(pieces), track.info


def test_the_header_is_reported_with_lengths_at_24_khz(tmp_path):
    info = probe_audio(write(tmp_path / "a.wav", noise(44_101, channels=2), 44_100))
    assert (info.num_samples, info.sample_rate, info.channels) == (44_101, 44_100, 2)
    assert info.num_samples_24k == num_samples_24k(44_101, 44_100) == 24_001
    assert info.num_frames == num_frames(24_001) == 13


def test_a_24_khz_track_comes_out_as_it_is_with_zeros_for_ever_after(tmp_path):
    samples = noise(10 * SAMPLES_PER_FRAME + 1)
    with AudioTrack(write(tmp_path / "a.wav", samples)) as track:
        out = np.concatenate([track.read(4), track.read(0), track.read(8), track.read(1_000)])
    assert out.dtype == np.float32
    assert out.size == 1_012 * SAMPLES_PER_FRAME
    np.testing.assert_array_equal(out[: samples.size], samples)
    assert not out[samples.size :].any()


@pytest.mark.parametrize("rate", RATES)
def test_streamed_resampling_equals_resampling_in_one_piece(tmp_path, rate):
    samples = noise(rate * 9 + 1_237, seed=rate)
    out, info = read_all(write(tmp_path / "a.wav", samples, rate))
    whole = resample(torch.from_numpy(samples), rate, 24_000).numpy()
    assert info.num_samples_24k == num_samples_24k(samples.size, rate) == whole.size
    np.testing.assert_allclose(out[: whole.size], whole, rtol=0, atol=1e-6)
    assert not out[whole.size :].any()


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
    whole = resample(torch.from_numpy(samples), rate, 24_000).numpy()
    assert info.num_samples_24k == whole.size
    assert out.size == info.num_frames * SAMPLES_PER_FRAME
    np.testing.assert_allclose(out[: whole.size], whole, rtol=0, atol=1e-6)


@given(rate=st.integers(8_000, 192_000).filter(lambda rate: rate != 24_000))
def test_a_block_holds_whole_groups_and_more_than_its_context(rate):
    ratio = _Ratio.of(rate)
    assert ratio.old * 24_000 == ratio.new * rate
    assert ratio.context % ratio.old == 0
    assert ratio.context >= ratio.reach
    if ratio.kernel_size <= 1 << 22:
        assert 4 * rate >= 2 * ratio.context


@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_the_sound_does_not_depend_on_how_much_is_read_at_once(tmp_path, rate):
    path = write(tmp_path / "a.wav", noise(rate * 10 + 11), rate)
    one, _ = read_all(path, 1)
    for frames_at_once in (3, 50, 1_000):
        np.testing.assert_array_equal(read_all(path, frames_at_once)[0], one)


def test_channels_are_averaged(tmp_path):
    samples = noise(5_000, channels=3)
    out, _ = read_all(write(tmp_path / "a.wav", samples))
    np.testing.assert_allclose(out[:5_000], samples.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "aiff"])
def test_other_sound_formats_are_read(tmp_path, suffix):
    tone = np.sin(np.arange(48_000) / 20).astype(np.float32) / 2
    path = write(tmp_path / f"a.{suffix}", tone, subtype=None)
    out, _ = read_all(path)
    np.testing.assert_allclose(out[2_000:46_000], tone[2_000:46_000], atol=0.05)


def test_a_wav_file_under_another_suffix_is_read_by_its_content(tmp_path):
    path = write(tmp_path / "a.wav", noise(2_000)).rename(tmp_path / "a.flac")
    assert probe_audio(path).num_samples == 2_000


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"rate": 0}, "not readable as sound"),
        ({"rate": 1}, "sample rate 1 Hz is outside 8000..192000"),
        ({"rate": 7_999}, "sample rate 7999 Hz"),
        ({"rate": 192_001}, "sample rate 192001 Hz"),
        ({"rate": 2**32 - 1}, "not readable as sound"),
        ({"channels": 0}, "not readable as sound"),
        ({"channels": 9}, "9 channels, at most 8"),
        ({"channels": 65_535}, "not readable as sound"),
        ({"num_bytes": 0}, "holds no audio"),
        ({"claimed": 100_000}, "holds 4000 of the 100000 bytes"),
        ({"rate": 44_101}, "too little in common with 24000 Hz"),
    ],
)
def test_a_header_that_no_recording_has_is_refused_before_decoding(tmp_path, header, said):
    path = raw_wav(tmp_path / "a.wav", **header)
    with pytest.raises(BadRecording, match=said) as caught:
        probe_audio(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadRecording, match=said):
        AudioTrack(path)


def test_a_length_of_more_than_a_day_is_refused(tmp_path):
    path = raw_wav(tmp_path / "a.wav", rate=8_000, num_bytes=0, claimed=0xFFFF_FFF0)
    with path.open("r+b") as file:
        file.truncate(2 * 8_000 * 3600 * 25)  # sparse: takes no room on the disk
    with pytest.raises(BadRecording, match="25 hours"):
        probe_audio(path)


def test_a_wav_written_to_a_pipe_reaches_to_the_end_of_the_file(tmp_path):
    path = raw_wav(tmp_path / "a.wav", claimed=0xFFFF_FFFF)
    assert probe_audio(path).num_samples == 2_000


@pytest.mark.parametrize("content", [b"", b"RIFF", b"hello world" * 50])
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.raw", "a.txt", "a"])
def test_what_is_no_sound_is_a_bad_recording(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadRecording, match=r"not readable as sound|sample rate|holds no audio"):
        probe_audio(path)


def test_a_missing_file_and_a_folder_are_bad_recordings(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(BadRecording, match="no such file"):
            AudioTrack(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_reported_with_their_second(tmp_path, value):
    samples = noise(24_000 * 9)
    samples[24_000 * 5 + 240] = value
    with AudioTrack(write(tmp_path / "a.wav", samples)) as track:
        np.testing.assert_array_equal(track.read(50), samples[: 50 * SAMPLES_PER_FRAME])
        with pytest.raises(BadRecording, match=r"a\.wav: holds NaN .* from second 5\.010 on"):
            track.read(50)


def test_nan_in_one_of_several_channels_is_reported(tmp_path):
    samples = noise(24_000, channels=2)
    samples[12_000, 1] = np.nan
    with (
        AudioTrack(write(tmp_path / "a.wav", samples)) as track,
        pytest.raises(BadRecording, match=r"holds NaN .* from second 0\.500 on"),
    ):
        track.read(1)


@pytest.mark.parametrize(
    ("value", "said"), [(1e20, r"1e\+20"), (-32_768, r"-3\.28e\+04"), (1_001, r"1e\+03")]
)
def test_numbers_far_above_full_scale_are_reported_with_value_and_second(tmp_path, value, said):
    samples = noise(24_000 * 9)
    samples[24_000 * 5 + 240] = value
    with AudioTrack(write(tmp_path / "a.wav", samples)) as track:
        np.testing.assert_array_equal(track.read(50), samples[: 50 * SAMPLES_PER_FRAME])
        with pytest.raises(
            BadRecording, match=rf"a\.wav: holds {said}, where full scale is 1, from second 5\.010"
        ):
            track.read(50)


@pytest.mark.parametrize("value", [1.5, -30, 1e3])
def test_numbers_somewhat_above_full_scale_are_read_as_they_are(tmp_path, value):
    samples = noise(SAMPLES_PER_FRAME)
    samples[100] = value
    out, _ = read_all(write(tmp_path / "a.wav", samples))
    np.testing.assert_array_equal(out, samples)


def test_channels_far_above_full_scale_are_refused_also_where_their_average_is_small(tmp_path):
    samples = noise(24_000, channels=2)
    samples[2_400] = 1e20, -1e20
    with pytest.raises(BadRecording, match=r"holds 1e\+20.* from second 0\.100 on"):
        read_all(write(tmp_path / "a.wav", samples))


def test_whole_numbers_marked_as_floats_are_no_sound(tmp_path):
    samples = (noise(24_000) * 2**31).astype(np.int32).view(np.float32)
    finite = np.where(np.isfinite(samples), samples, 0)
    with pytest.raises(BadRecording, match=r"where full scale is 1, from second 0\.000 on"):
        read_all(write(tmp_path / "a.wav", finite))


def test_a_cut_flac_is_reported_when_decoding_reaches_the_cut(tmp_path):
    path = write(tmp_path / "a.flac", noise(24_000 * 12), subtype="PCM_16")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadRecording, match=r"from second \d"):
        read_all(path)


def test_a_cut_mp3_ends_before_its_header_says(tmp_path):
    path = write(tmp_path / "a.mp3", noise(24_000 * 12), subtype=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadRecording, match=r"ends, before its header says, from second \d"):
        read_all(path)


def test_closing_twice_is_harmless(tmp_path):
    track = AudioTrack(write(tmp_path / "a.wav", noise(100)))
    track.close()
    track.close()


def test_a_track_of_one_sample_is_one_frame(tmp_path):
    out, info = read_all(write(tmp_path / "a.wav", np.array([0.5], np.float32)))
    assert info.num_frames == 1
    assert out[0] == 0.5
    assert not out[1:].any()


def test_memory_does_not_grow_with_the_length_of_the_track(tmp_path):
    with AudioTrack(write(tmp_path / "a.wav", noise(44_100 * 40), 44_100)) as track:
        sizes = set()
        while track.read(50).any():
            sizes.add(track._window.nbytes)
            assert track._ready.size <= 4 * 24_000
        assert sizes == {track._window.nbytes}


def test_paths_may_hold_any_letters(tmp_path):
    path = write(tmp_path / 'Ép 1, "live". Part B..wav', noise(2_000))
    assert probe_audio(Path(path)).num_frames == 2
