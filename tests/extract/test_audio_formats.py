import struct

import numpy as np
import pytest

from extract.sound.tracks import AudioTrack, probe_audio
from laughstore.errors import BadRecording

from .sound_writers import cut, noise, raw_wav, read, read_all, write

FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "FLOAT"),
    ("RF64", "PCM_24"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("AU", "PCM_16"),
    ("NIST", "PCM_16"),
    ("SVX", "PCM_16"),
    ("VOC", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def tone(num_samples, rate=24_000):
    return np.sin(np.arange(num_samples) * 2 * np.pi * 300 / rate).astype(np.float32) / 2


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_every_format_is_read_under_any_name_and_cut_it_is_refused(tmp_path, kind, subtype):
    path = tmp_path / "track of one.wav"
    samples = tone(24_000 * 5)
    write(path, samples, format=kind, subtype=subtype)
    assert probe_audio(path).num_samples in range(samples.size, samples.size + 1_000)
    out, _ = read_all(path)
    np.testing.assert_allclose(out[2_000:118_000], samples[2_000:118_000], atol=0.06)
    size = path.stat().st_size
    for num_bytes in (size - 300, size * 2 // 3, size // 2):
        with pytest.raises(BadRecording, match=r"\.wav: (holds|ends|not readable)") as caught:
            probe_audio(cut(path, num_bytes))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("num_chunks", [1, 300])
def test_a_cut_is_noticed_behind_any_number_of_other_chunks(tmp_path, num_chunks):
    note = b"LIST" + struct.pack("<I", 45) + b"INFOICMT" + struct.pack("<I", 33) + b"x" * 34
    path = raw_wav(tmp_path / "a.wav", before=note * num_chunks)
    assert probe_audio(path).num_samples == 2_000
    raw_wav(path, before=note * num_chunks, claimed=100_000)
    with pytest.raises(BadRecording, match="holds 4000 of the 100000 bytes of audio"):
        probe_audio(path)


@pytest.mark.parametrize(
    "claimed", [0x7FFF_F000, 0x7FFF_FFFF - 36, 0x8000_0000, 0xFFFF_FFD8, 0xFFFF_FFFF]
)
def test_a_wav_written_to_a_pipe_reaches_to_the_end_of_the_file(tmp_path, claimed):
    assert probe_audio(raw_wav(tmp_path / "a.wav", claimed=claimed)).num_samples == 2_000


def test_a_cut_wav_of_more_than_2_gb_is_noticed(tmp_path):
    path = raw_wav(tmp_path / "a.wav", rate=192_000, claimed=3_000_000_000)
    with path.open("r+b") as file:
        file.truncate(2_900_000_000)  # sparse: takes no room on the disk
    with pytest.raises(BadRecording, match="holds 2899999956 of the 3000000000 bytes"):
        probe_audio(path)
    with path.open("r+b") as file:
        file.truncate(3_000_000_044)
    assert probe_audio(path).num_samples == 1_500_000_000


def test_a_wav_with_more_audio_than_32_bits_can_tell_of_is_refused(tmp_path):
    path = raw_wav(tmp_path / "a.wav", rate=192_000, claimed=5_000_000_000 % 2**32)
    with path.open("r+b") as file:
        file.truncate(5_000_000_044)
    with pytest.raises(BadRecording, match=r"holds more audio \(5000000000 bytes\) than"):
        probe_audio(path)


def test_a_length_of_more_than_a_day_is_refused(tmp_path):
    path = raw_wav(tmp_path / "a.wav", rate=8_000, num_bytes=0, claimed=0xFFFF_FFF0)
    with path.open("r+b") as file:
        file.truncate(2 * 8_000 * 3600 * 25)
    with pytest.raises(BadRecording, match="25 hours"):
        probe_audio(path)


def test_a_flac_without_a_length_is_refused_with_what_to_do(tmp_path):
    path = write(tmp_path / "a.flac", noise(24_000), subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(BadRecording, match="does not tell its length, as when it was written to"):
        probe_audio(path)


def test_a_flac_damaged_in_the_middle_is_reported_when_decoding_gets_there(tmp_path):
    path = write(tmp_path / "a.flac", noise(24_000 * 20), subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :][:5_000] = b""
    content[len(content) // 2 : len(content) // 2 + 5_000] = bytes(5_000)
    path.write_bytes(content)
    assert probe_audio(path).num_samples == 24_000 * 20
    with pytest.raises(BadRecording, match=r"a\.flac: (is damaged|ends, before).*second \d"):
        read_all(path)


def test_ogg_streams_one_after_the_other_are_refused_and_tags_behind_are_not(tmp_path):
    first = write(tmp_path / "a.ogg", noise(24_000), subtype=None).read_bytes()
    second = write(tmp_path / "b.ogg", noise(24_000, seed=1), subtype=None).read_bytes()
    (tmp_path / "c.ogg").write_bytes(first + second)
    with pytest.raises(BadRecording, match="holds several streams one after the other"):
        probe_audio(tmp_path / "c.ogg")
    (tmp_path / "d.ogg").write_bytes(first + b"TAG" + bytes(125))
    assert probe_audio(tmp_path / "d.ogg").num_samples == 24_000


def test_a_file_that_shrinks_after_it_was_opened_is_a_bad_recording(tmp_path):
    path = write(tmp_path / "a.wav", noise(24_000 * 30))
    with AudioTrack(path) as track:
        read(track, 10)
        cut(path, 24_000 * 4 * 10)
        with pytest.raises(BadRecording, match="ends, before its header says"):
            read(track, 400)
