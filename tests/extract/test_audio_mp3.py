"""MP3s whose length libsndfile tells wrongly, or that decoders would read only partly."""

import struct

import numpy as np
import pytest
import soundfile

from extract.sound.mp3 import scan_mp3
from extract.sound.tracks import AudioTrack, probe_audio
from laughstore.errors import BadRecording
from laughstore.timebase import num_samples_24k

from .sound_writers import id3_tag, mp3_frames, noise, read, read_all

MODES = ["CONSTANT", "VARIABLE"]
DECODER_DELAY = 529
"""Samples by which an MP3 decoder is late; mpg123 leaves them away where it can."""


def loud_and_quiet(rate, *, seconds=5, channels=2, seed=0):
    """Sound whose bit rate varies: the first seconds are nearly silent."""
    samples = noise(rate * seconds + 1_237, channels=channels, seed=seed)
    samples[: rate * 2] *= 1e-4
    return samples


def put(path, *pieces):
    path.write_bytes(b"".join(pieces))
    return path


def frames_of(rate, mode, **options):
    samples = loud_and_quiet(rate, **options)
    return samples, mp3_frames(samples, rate, mode)


def decode_all(path):
    """Read a track to its planned end and return the samples at its own rate."""
    info = probe_audio(path)
    with AudioTrack(path) as track:
        out = read(track, info.num_frames)
        assert track._num_decoded == info.num_samples
        assert not read(track, 3).any()
    assert info.num_samples_24k == num_samples_24k(info.num_samples, info.sample_rate)
    return out, info


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_whole_mp3_has_the_length_that_was_encoded(tmp_path, rate, channels, mode):
    samples, frames = frames_of(rate, mode, channels=channels, seconds=4)
    for tag in (b"", id3_tag(70_000)):
        _, info = decode_all(put(tmp_path / "a.mp3", tag, *frames, b"TAG", bytes(125)))
        assert info.num_samples == len(samples)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rate", [24_000, 44_100])
@pytest.mark.parametrize("tag", [0, 70_000])
def test_without_an_info_frame_the_frames_are_counted_and_all_of_them_read(
    tmp_path, rate, mode, tag
):
    samples, (_, *frames) = frames_of(rate, mode)
    path = put(tmp_path / "a.mp3", id3_tag(tag) if tag else b"", *frames)
    out, info = decode_all(path)
    in_frames = len(frames) * (1_152 if rate == 44_100 else 576)
    assert info.num_samples == in_frames - DECODER_DELAY
    assert in_frames >= len(samples)
    if mode == "VARIABLE":
        assert soundfile.info(path).frames != in_frames  # what there would be without all this
    # Its loud end is there, and at its place: later by what the encoder put in front, 576 at most.
    loud = np.abs(out.reshape(-1, 240)).max(axis=1) > 0.1
    assert abs(np.argmax(loud) * 240 - 2 * 24_000) <= 2_400
    assert abs((loud.size - np.argmax(loud[::-1])) * 240 - len(samples) * 24_000 // rate) <= 2_400


def test_the_sound_without_an_info_frame_is_the_sound_with_it(tmp_path):
    _, (info_frame, *frames) = frames_of(24_000, "VARIABLE", channels=1)
    with_info, _ = decode_all(put(tmp_path / "a.mp3", info_frame, *frames))
    without, _ = decode_all(put(tmp_path / "b.mp3", *frames))
    shift = 576  # the encoder's own delay, which only the info frame tells of
    size = with_info.size - 4_000
    np.testing.assert_allclose(without[shift : shift + size], with_info[:size], atol=1e-4)


@pytest.mark.parametrize("first", [0, 1], ids=["with an info frame", "without"])
def test_an_mp3_is_decoded_without_a_seam_between_what_is_read_at_once(tmp_path, first):
    """Stock soundfile seeks after every read, and a tone's frames borrow bits from earlier ones."""
    tone = np.sin(np.arange(24_000 * 13) * (2 * np.pi * 300 / 24_000)).astype(np.float32) / 2
    path = put(tmp_path / "a.mp3", *mp3_frames(tone, 24_000, "VARIABLE")[first:])
    out, info = read_all(path, 13)
    shift = first * 576
    np.testing.assert_allclose(
        out[shift + 2_000 : 310_000], tone[2_000 : 310_000 - shift], atol=0.06
    )
    if not first:
        whole, _ = soundfile.read(path, dtype="float32")
        np.testing.assert_allclose(out[: info.num_samples], whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_joined_mp3s_are_read_to_their_common_end(tmp_path, mode):
    one, first = frames_of(44_100, mode)
    two, second = frames_of(44_100, mode, seed=3)
    path = put(tmp_path / "a.mp3", id3_tag(900), *first, id3_tag(2_000), *second)
    assert soundfile.info(path).frames == len(one)
    _, info = decode_all(path)
    assert info.num_samples >= len(one) + len(two)
    assert info.num_samples == (len(first) - 1 + len(second)) * 1_152 - DECODER_DELAY


@pytest.mark.parametrize("mode", MODES)
def test_a_cut_mp3_is_refused_where_its_first_frame_tells(tmp_path, mode):
    _, frames = frames_of(44_100, mode)
    content = b"".join(frames)
    for num_bytes in (len(content) // 2, len(content) - 1):
        with pytest.raises(BadRecording, match=r"holds \d+ of the \d+ MPEG frames.* was cut"):
            probe_audio(put(tmp_path / "a.mp3", content[:num_bytes]))
    with pytest.raises(BadRecording, match="was cut"):
        probe_audio(put(tmp_path / "a.mp3", *frames[:100], *frames[120:]))
    # Without it nothing tells: what is there is read.
    _, info = decode_all(put(tmp_path / "a.mp3", content[len(frames[0]) : len(content) // 2]))
    assert info.num_frames > 20


def test_an_info_frame_that_counts_itself_is_believed(tmp_path):
    samples, frames = frames_of(44_100, "CONSTANT")
    info_frame = bytearray(frames[0])
    at = info_frame.index(b"Info")
    (count,) = struct.unpack_from(">I", info_frame, at + 8)
    assert count == len(frames) - 1
    struct.pack_into(">I", info_frame, at + 8, count + 1)
    _, info = decode_all(put(tmp_path / "a.mp3", info_frame, *frames[1:]))
    assert info.num_samples in range(len(samples), len(samples) + 2 * 1_152)


@pytest.mark.parametrize("off_by", [0, 5])
def test_the_first_frame_of_another_encoder_is_no_sound(tmp_path, off_by):
    _, frames = frames_of(44_100, "VARIABLE")
    content = frames[1:]
    header = max(content, key=len)
    num_bytes = sum(map(len, frames))
    told = struct.pack(
        ">4sHHHIIHHHH", b"VBRI", 1, 0, 75, num_bytes, len(content) - off_by, *[0] * 4
    )
    first = (header[:4] + bytes(32) + told).ljust(len(header), b"\0")
    mp3 = scan_mp3(put(tmp_path / "a.mp3", first, *content))
    assert mp3 is not None
    assert (mp3.num_mpeg_frames, mp3.claimed) == (len(content), len(content) - off_by)
    _, info = decode_all(tmp_path / "a.mp3")
    assert abs(info.num_samples - len(content) * 1_152) <= DECODER_DELAY


@pytest.mark.parametrize("first", [0, 1], ids=["with an info frame", "without"])
@pytest.mark.parametrize("junk", [b"\0" * 5_000, noise(5_000).tobytes()], ids=["zeros", "noise"])
def test_other_bytes_in_the_middle_are_refused(tmp_path, first, junk):
    _, frames = frames_of(44_100, "CONSTANT")
    path = put(tmp_path / "a.mp3", *frames[first:150], junk, *frames[150:])
    said = rf"a\.mp3: is damaged.* from byte {sum(map(len, frames[first:150]))} on"
    with pytest.raises(BadRecording, match=said):
        probe_audio(path)


def test_pieces_of_several_sample_rates_are_refused_and_junk_behind_the_end_is_not(tmp_path):
    samples, frames = frames_of(44_100, "CONSTANT")
    _, others = frames_of(48_000, "CONSTANT")
    with pytest.raises(BadRecording, match="or changes its sample rate, from byte"):
        probe_audio(put(tmp_path / "a.mp3", *frames, *others))
    _, info = decode_all(put(tmp_path / "a.mp3", *frames, noise(5_000).tobytes()))
    assert info.num_samples == len(samples)


def test_an_mp3_under_another_suffix_is_read_by_its_content(tmp_path):
    samples, frames = frames_of(44_100, "VARIABLE")
    out, info = read_all(put(tmp_path / "a.wav", *frames))
    assert info.num_samples == len(samples)
    assert out.any()


def test_an_hour_is_counted_in_a_fraction_of_a_second_and_constant_memory(tmp_path):
    _, (_, *frames) = frames_of(44_100, "CONSTANT")
    with (tmp_path / "a.mp3").open("wb") as file:
        for _ in range(100):
            file.writelines(frames)
    mp3 = scan_mp3(tmp_path / "a.mp3")
    assert mp3 is not None
    assert mp3.num_mpeg_frames == 100 * len(frames)
