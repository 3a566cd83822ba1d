"""Stretches of sound that a page plays are where they say they are."""

from io import BytesIO

import numpy as np
import pytest
import soundfile

from extract.sound.excerpts import encode_mp3, read_excerpts
from extract.sound.tracks import AudioTrack

RATE = 24_000


def clicks(num_seconds: int) -> np.ndarray:
    """f32: a burst of 20 ms at every second and a bit; quiet noise between them."""
    rng = np.random.default_rng(0)
    wave = 0.002 * rng.standard_normal(num_seconds * RATE).astype(np.float32)
    for second in range(num_seconds):
        start = second * RATE + 37 * second
        wave[start : start + RATE // 50] += 0.5 * np.sin(np.arange(RATE // 50) * 0.4)
    return wave


def test_excerpts_begin_and_end_where_they_say(tmp_path):
    wave = clicks(20)
    path = tmp_path / "a.wav"
    soundfile.write(path, wave, RATE, subtype="PCM_16")
    spans = [(1_990_000, 4_100_000), (4_100_000, 4_200_000), (15_000_000, 25_000_000)]
    with AudioTrack(path) as track:
        found = read_excerpts(track, spans)
    assert [(item.start_us, item.end_us) for item in found] == [
        (1_920_000, 4_160_000),
        (4_160_000, 4_240_000),
        (14_960_000, 25_040_000),
    ]
    for item in found:
        heard, rate = soundfile.read(BytesIO(item.mp3), dtype="float32")
        assert rate == RATE
        first = item.start_us * RATE // 1_000_000
        meant = np.zeros((item.end_us - item.start_us) * RATE // 1_000_000, np.float32)
        there = wave[first : first + len(meant)]
        meant[: len(there)] = there
        # A decoder may leave the encoder's delay (about 0.05 s) in: less than a frame.
        length = min(len(heard), len(meant))
        assert abs(len(heard) - len(meant)) < 0.15 * RATE
        if length > RATE:
            spectrum = np.fft.rfft(heard[:length], 2 * length)
            spectrum *= np.conj(np.fft.rfft(meant[:length], 2 * length))
            correlation = np.fft.irfft(spectrum)
            lag = int(np.argmax(correlation))
            lag = lag - 2 * length if lag > length else lag
            assert abs(lag) < 0.08 * RATE


def test_sound_that_is_too_loud_is_cut_and_speech_is_small():
    rng = np.random.default_rng(0)
    tone = 3 * np.sin(np.arange(10 * RATE) * 0.05).astype(np.float32)
    heard, _ = soundfile.read(BytesIO(encode_mp3(tone)), dtype="float32")
    assert 0.8 < np.abs(heard).max() < 1.5
    noisy = 0.1 * rng.standard_normal(10 * RATE).astype(np.float32)
    assert len(encode_mp3(noisy)) < 10 * 12_000


def test_no_span_is_no_excerpt(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, clicks(1), RATE, subtype="PCM_16")
    with AudioTrack(path) as track:
        assert read_excerpts(track, []) == []


@pytest.mark.parametrize("span", [(0, 0), (80_000, 80_000)])
def test_an_empty_span_is_no_excerpt(tmp_path, span):
    path = tmp_path / "a.wav"
    soundfile.write(path, clicks(1), RATE, subtype="PCM_16")
    with AudioTrack(path) as track:
        assert read_excerpts(track, [span]) == []
