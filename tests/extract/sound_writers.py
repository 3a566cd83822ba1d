"""Sound files for tests: good ones, and ones whose headers say what we want them to say."""

import struct
from pathlib import Path

import numpy as np
import soundfile

from extract.sound.tracks import AudioTrack
from laughstore.timebase import SAMPLES_PER_FRAME


def noise(num_samples, *, channels=1, seed=0):
    """f32[num_samples] or f32[num_samples, channels], white."""
    shape = (num_samples, channels) if channels > 1 else num_samples
    return np.random.default_rng(seed).uniform(-0.9, 0.9, shape).astype(np.float32)


def write(path, samples, rate=24_000, **options):
    """Write a sound file, of floats where nothing else is said."""
    options.setdefault("subtype", "FLOAT")
    soundfile.write(path, samples, rate, **options)
    return path


def raw_wav(path, *, rate=24_000, channels=1, num_bytes=4_000, claimed=None, before=b""):
    """Write 16-bit PCM with any header, and chunks before the audio."""
    claimed = num_bytes if claimed is None else claimed
    align = 2 * channels & 0xFFFF
    speed = rate * align & 0xFFFFFFFF
    head = struct.pack("<IHHIIHH", 16, 1, channels, rate, speed, align, 16)
    audio = b"data" + struct.pack("<I", claimed & 0xFFFFFFFF) + b"\1\0" * (num_bytes // 2)
    size = 36 + len(before) + claimed & 0xFFFFFFFF
    path.write_bytes(b"RIFF" + struct.pack("<I", size) + b"WAVEfmt " + head + before + audio)
    return path


def read(track, num_frames):
    """Return the next f32[num_frames * 1920] of a track."""
    wave = np.full(num_frames * SAMPLES_PER_FRAME, np.nan, np.float32)
    track.read(wave)
    return wave


def read_all(file, frames_at_once=7):
    """Return f32[num_frames * 1920] of a whole track, and its header."""
    with AudioTrack(file) as track:
        pieces = [
            read(track, min(frames_at_once, track.info.num_frames - at))
            for at in range(0, track.info.num_frames, frames_at_once)
        ]
        return np.concatenate(pieces), track.info


_KBPS_V1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_V2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)


def mp3_frames(samples, rate, mode="CONSTANT"):
    """Encode f32[N] or f32[N, channels] and return its MPEG frames, the Info frame first."""
    import io

    encoded = io.BytesIO()
    soundfile.write(encoded, samples, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    content, frames, at = encoded.getvalue(), [], 0
    version_1 = content[1] >> 3 & 3 == 3
    while at < len(content):
        kbps = (_KBPS_V1 if version_1 else _KBPS_V2)[(content[at + 2] >> 4) - 1]
        length = (144 if version_1 else 72) * kbps * 1_000 // rate + (content[at + 2] >> 1 & 1)
        frames.append(content[at : at + length])
        at += length
    return frames


def id3_tag(num_bytes):
    """An ID3v2 tag as stands before an MP3, with this many bytes of padding."""
    sizes = bytes(num_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + sizes + bytes(num_bytes)


def cut(path: Path, num_bytes: int) -> Path:
    """Leave the first bytes of a file; a negative number counts from its end."""
    path.write_bytes(path.read_bytes()[:num_bytes])
    return path
