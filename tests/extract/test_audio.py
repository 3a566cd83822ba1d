from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from extract.sound.tracks import AudioFile, AudioTrack, MixedTrack, probe_audio
from laughstore.errors import BadRecording, ConfigError
from laughstore.timebase import SAMPLES_PER_FRAME, num_frames, num_samples_24k

from .sound_writers import noise, read, read_all, write
from .sounds import MemoryTrack


def test_the_header_is_reported_with_lengths_at_24_khz(tmp_path):
    info = probe_audio(write(tmp_path / "a.wav", noise(44_101, channels=2), 44_100))
    assert (info.num_samples, info.sample_rate, info.channels) == (44_101, 44_100, 2)
    assert info.num_samples_24k == num_samples_24k(44_101, 44_100) == 24_001
    assert info.num_frames == num_frames(24_001) == 13


def test_a_24_khz_track_comes_out_as_it_is_with_zeros_for_ever_after(tmp_path):
    samples = noise(10 * SAMPLES_PER_FRAME + 1)
    with AudioTrack(write(tmp_path / "a.wav", samples)) as track:
        out = np.concatenate([read(track, 4), read(track, 0), read(track, 8), read(track, 1_000)])
    assert out.dtype == np.float32
    assert out.size == 1_012 * SAMPLES_PER_FRAME
    np.testing.assert_array_equal(out[: samples.size], samples)
    assert not out[samples.size :].any()


def test_channels_are_averaged(tmp_path):
    samples = noise(5_000, channels=3)
    path = write(tmp_path / "a.wav", samples)
    for file in (path, AudioFile(path)):
        out, _ = read_all(file)
        np.testing.assert_allclose(out[:5_000], samples.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("rate", [24_000, 48_000])
@pytest.mark.parametrize("channel", [0, 2])
def test_one_channel_is_read_as_if_it_were_a_file_of_its_own(tmp_path, channel, rate):
    samples = noise(5 * rate, channels=3)
    path = write(tmp_path / "all.wav", samples, rate)
    alone = write(tmp_path / "one.wav", samples[:, channel], rate)
    np.testing.assert_array_equal(read_all(AudioFile(path, channel))[0], read_all(alone)[0])


def test_a_channel_that_is_not_there_is_a_bad_recording(tmp_path):
    path = write(tmp_path / "a.wav", noise(5_000, channels=2))
    assert probe_audio(AudioFile(path, 1)).channels == 2
    for look in (probe_audio, AudioTrack):
        with pytest.raises(BadRecording, match=r"a\.wav: has no channel 2, its 2 are counted"):
            look(AudioFile(path, 2))
    with pytest.raises(ConfigError, match="channel is -1"):
        AudioFile(path, -1)


def test_only_the_channel_that_is_used_must_be_sound(tmp_path):
    samples = noise(24_000, channels=2)
    samples[12_000, 1] = np.nan
    path = write(tmp_path / "a.wav", samples)
    np.testing.assert_array_equal(read_all(AudioFile(path, 0))[0][:24_000], samples[:, 0])
    with pytest.raises(BadRecording, match=r"a\.wav, channel 1: holds NaN .* second 0\.500"):
        read_all(AudioFile(path, 1))


def test_a_mix_is_the_sum_of_its_tracks_the_longest_to_its_end(tmp_path):
    short, long = noise(3_000, seed=1), noise(9_000, seed=2)
    with (
        AudioTrack(write(tmp_path / "a.wav", short)) as first,
        AudioTrack(write(tmp_path / "b.wav", long)) as second,
    ):
        mix = MixedTrack([first, second])
        out = np.concatenate([read(mix, 1), read(mix, 0), read(mix, 6)])
        mix.close()
        mix.close()
        for track in (first, second):
            assert track._sound.closed
    expected = np.zeros(7 * SAMPLES_PER_FRAME, np.float32)
    expected[:3_000] += short
    expected[:9_000] += long
    np.testing.assert_array_equal(out, expected)


def test_a_mix_ends_with_the_fault_of_one_of_its_tracks():
    good = MemoryTrack(noise(8 * SAMPLES_PER_FRAME))
    bad = MemoryTrack(noise(8 * SAMPLES_PER_FRAME), fails_at=4)
    mix = MixedTrack([good, bad])
    read(mix, 4)
    with pytest.raises(BadRecording, match="the track is cut"):
        read(mix, 4)
    mix.close()
    assert good.closed
    assert bad.closed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_reported_with_their_second(tmp_path, value):
    samples = noise(24_000 * 9)
    samples[24_000 * 5 + 240] = value
    with AudioTrack(write(tmp_path / "a.wav", samples)) as track:
        np.testing.assert_array_equal(read(track, 50), samples[: 50 * SAMPLES_PER_FRAME])
        with pytest.raises(BadRecording, match=r"a\.wav: holds NaN .* from second 5\.010 on"):
            read(track, 50)


def test_nan_in_one_of_several_channels_is_reported(tmp_path):
    samples = noise(24_000, channels=2)
    samples[12_000, 1] = np.nan
    with (
        AudioTrack(write(tmp_path / "a.wav", samples)) as track,
        pytest.raises(BadRecording, match=r"holds NaN .* from second 0\.500 on"),
    ):
        read(track, 1)


@pytest.mark.parametrize(
    ("value", "said"), [(1e20, r"1e\+20"), (-32_768, r"-3\.28e\+04"), (1_001, r"1e\+03")]
)
def test_numbers_far_above_full_scale_are_reported_with_value_and_second(tmp_path, value, said):
    samples = noise(24_000 * 9)
    samples[24_000 * 5 + 240] = value
    with AudioTrack(write(tmp_path / "a.wav", samples)) as track:
        np.testing.assert_array_equal(read(track, 50), samples[: 50 * SAMPLES_PER_FRAME])
        with pytest.raises(
            BadRecording, match=rf"a\.wav: holds {said}, where full scale is 1, from second 5\.010"
        ):
            read(track, 50)


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


def test_closing_twice_is_harmless(tmp_path):
    track = AudioTrack(write(tmp_path / "a.wav", noise(100)))
    track.close()
    track.close()


def test_a_track_of_one_sample_is_one_frame(tmp_path):
    out, info = read_all(write(tmp_path / "a.wav", np.array([0.5], np.float32)))
    assert info.num_frames == 1
    assert out[0] == 0.5
    assert not out[1:].any()


@pytest.mark.parametrize("rate", [44_100, 44_101])
def test_memory_does_not_grow_with_the_length_of_the_track(tmp_path, rate):
    with AudioTrack(write(tmp_path / "a.wav", noise(rate * 40), rate)) as track:
        sizes = set()
        while read(track, 50).any():
            sizes.add(track._window.nbytes)
            assert track._ready.size <= 4 * 24_000
        assert sizes == {track._window.nbytes}


def test_tracks_read_in_threads_are_the_same_bits(tmp_path):
    files = []
    for index, rate in enumerate([24_000, 16_000, 44_100, 44_101] * 2):
        path = tmp_path / f"{index}.{('wav', 'mp3')[rate == 44_100 and index > 3]}"
        samples = noise(rate * 5 + index, channels=1 + index % 2, seed=index)
        files.append(write(path, samples, rate, subtype=None))
    one_by_one = [read_all(file)[0] for file in files]
    with ThreadPoolExecutor(4) as threads:
        for together in (threads.map(read_all, files) for _ in range(2)):
            for (out, _), alone in zip(together, one_by_one, strict=True):
                np.testing.assert_array_equal(out, alone)
