"""Files made to hurt: each is refused in one line or read rightly; the process lives."""

import errno
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Buffer
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile

from extract.audit.sound import _Ear
from extract.json_records import read_json
from extract.layouts.folders import same_file
from extract.sound.fronted_file import FrontedFile
from extract.sound.tracks import AudioFile, AudioTrack, probe_audio
from laughstore.annotation_formats.text import read_bytes
from laughstore.errors import BadRecording

from .sound_writers import cut, id3_tag, mp3_frames, noise, raw_wav, read, write

READER = Path(__file__).with_name("read_hostile.py")
REFUSED = "refused"
FAILING = "/proc/self/mem"
"""A plain file, to who asks, of which the system cannot read the first byte: EIO."""
NUM_FUZZED = 504


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Return the folder of hostile files, and what is to become of each."""
    folder = tmp_path_factory.mktemp("hostile")
    return folder, write_hostile_files(folder)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """Return a folder with damaged files of every common format."""
    return write_damaged_files(tmp_path_factory.mktemp("fuzzed"))


@pytest.fixture(scope="module")
def outcomes(hostile, fuzzed):
    """Return what became of each file when a process of its own read them.

    By folder and name: frames read or the one line that refuses it, and seconds. The process may
    take 512 MiB more than it has once its libraries are loaded.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", READER, hostile[0], fuzzed],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    last = lines[-1]["path"] if lines else None
    assert done.returncode == 0, f"died after {last}: {done.returncode} {done.stderr[-2_000:]}"
    found: dict[str, dict[str, dict]] = {str(hostile[0]): {}, str(fuzzed): {}}
    for line in lines:
        found[str(Path(line["path"]).parent)][Path(line["path"]).name] = line
    return found


def patched(path, at, value):
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)


def write_hostile_files(folder):
    """Return what is to become of each: the number of frames, or a part of the refusal."""
    expected: dict[str, int | str] = {}

    def file(name, outcome):
        expected[name] = outcome
        return folder / name

    for index in range(3):
        write(file(f"good {index}.wav", 13), noise(24_000, seed=index))
    raw_wav(file("rate 0.wav", REFUSED), rate=0)
    raw_wav(file("rate 1.wav", "sample rate 1 Hz"), rate=1)
    raw_wav(file("rate 2 to the 32 less 1.wav", REFUSED), rate=2**32 - 1)
    raw_wav(file("rate just too high.wav", "sample rate 192001 Hz"), rate=192_001)
    raw_wav(file("no channels.wav", REFUSED), channels=0)
    raw_wav(file("9 channels.wav", "9 channels, at most 8"), channels=9)
    raw_wav(file("65535 channels.wav", REFUSED), channels=65_535)
    raw_wav(file("4 GiB claimed.wav", "holds 4000 of the 4294901759 bytes"), claimed=0xFFFE_FFFF)
    raw_wav(file("negative size.wav", "holds 4000 of the 4294770688 bytes"), claimed=-196_608)
    raw_wav(file("header only.wav", "holds no audio"), num_bytes=0)
    cut(raw_wav(file("cut in its header.wav", REFUSED)), 30)
    cut(write(file("cut.wav", "was cut"), noise(24_000)), 20_000)
    file("empty.wav", REFUSED).write_bytes(b"")
    file("text.wav", REFUSED).write_text("This is a list of episodes.\n" * 100)
    file("text.mp3", REFUSED).write_text("This is a list of episodes.\n" * 100)
    file("text.raw", REFUSED).write_text("This is a list of episodes.\n" * 100)
    file("noise.mp3", "no audio found").write_bytes(np.random.default_rng(1).bytes(50_000))
    file("garbage after RIFF.wav", REFUSED).write_bytes(b"RIFF\xff\xff\xff\xffWAVE" + b"\xa5" * 500)
    for what, value in [("nan", np.nan), ("inf", np.inf), ("1e30", 1e30)]:
        samples = noise(24_000)
        samples[20_000] = value
        write(file(f"{what}.wav", "second 0.833"), samples)
    write(file("wav as.flac", 13), noise(24_000), format="WAV")
    write(file("flac as.mp3", 13), noise(24_000), format="FLAC", subtype="PCM_16")
    # Chunks: odd sizes, one in another many times over, sizes beyond all bounds, no end of them.
    odd = b"junk" + struct.pack("<I", 3) + b"xyz\0"
    raw_wav(file("odd chunks.wav", 2), before=odd * 101)
    nested = b""
    for _ in range(500):
        nested = b"LIST" + struct.pack("<I", 4 + len(nested)) + b"INFO" + nested
    raw_wav(file("deep lists.wav", 2), before=nested)
    raw_wav(file("huge list.wav", REFUSED), before=b"LIST" + struct.pack("<I", 2**32 - 1) + b"INFO")
    raw_wav(file("many chunks.wav", 2), before=odd * 2_000)
    # Headers that tell of more than there can be.
    flac = write(
        file("flac of 2 to the 36.flac", "hours, at most 24"), noise(24_000), subtype="PCM_16"
    )
    patched(flac, 21, bytes([flac.read_bytes()[21] | 0x0F]) + b"\xff" * 4)
    flac = write(file("flac of an hour.flac", REFUSED), noise(24_000), subtype="PCM_16")
    patched(flac, 22, struct.pack(">I", 24_000 * 3_600))
    w64 = write(file("w64 of 2 to the 63.w64", REFUSED), noise(24_000), format="W64")
    patched(w64, w64.read_bytes().index(b"data", 40) + 16, b"\xff" * 7 + b"\x7f")
    caf = write(file("caf of 2 to the 63.caf", REFUSED), noise(24_000), format="CAF")
    patched(caf, caf.read_bytes().index(b"data", 8) + 4, b"\x7f" + b"\xff" * 7)
    rf64 = write(file("rf64 of 2 to the 64.rf64", REFUSED), noise(24_000), format="RF64")
    patched(rf64, 28, b"\xff" * 8)
    cut(write(file("cut.ogg", "ends without the page"), noise(48_000), subtype=None), 9_000)
    cut(write(file("cut.aiff", "was cut"), noise(24_000), format="AIFF"), 9_000)
    mp3 = mp3_frames(noise(48_000), 24_000)
    file("cut.mp3", "was cut").write_bytes(b"".join(mp3)[:5_000])
    file("tag without an end.mp3", REFUSED).write_bytes(id3_tag(200)[:6] + b"\x7f" * 4 + b"x" * 90)
    file("many tags.mp3", "no audio found").write_bytes(id3_tag(0) * 50_000)
    file("sync for ever.mp3", REFUSED).write_bytes(b"\xff\xfb" * 2_000_000)
    info = bytearray(mp3[0])
    struct.pack_into(">I", info, info.index(b"Info") + 8, 2**32 - 1)
    file("mp3 of 2 to the 32.mp3", "was cut").write_bytes(bytes(info) + b"".join(mp3[1:]))
    # What is no file at all.
    expected |= {"folder.wav": "it is a folder", "pipe.wav": "it is a pipe or device"}
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    file("device.wav", "it is a pipe or device").symlink_to("/dev/zero")
    file("loop.wav", "no such file").symlink_to(folder / "loop.wav")
    file("nowhere.wav", "no such file").symlink_to(folder / "missing")
    file("link.wav", 13).symlink_to(folder / "good 0.wav")
    return expected


@pytest.mark.slow
def test_hostile_files_are_refused_in_one_line_or_read_and_the_process_lives(hostile, outcomes):
    folder, expected = hostile
    assert len(expected) > 40
    assert outcomes[str(folder)].keys() == expected.keys()
    for name, outcome in expected.items():
        found = outcomes[str(folder)][name]
        if isinstance(outcome, int):
            assert found.get("frames") == outcome, found
        else:
            assert found.get("refused"), found
            assert found["refused"].startswith(str(folder / name) + ":")
            assert "\n" not in found["refused"]
            assert len(found["refused"]) < len(str(folder)) + 200
            if outcome != REFUSED:
                assert outcome in found["refused"]
        assert found["seconds"] < 5, found


@pytest.mark.parametrize("read_it", [probe_audio, AudioTrack, read_json, read_bytes])
@pytest.mark.parametrize("name", ["a.wav", "a.mp3"])
def test_a_disk_that_fails_is_no_fault_of_a_recording(tmp_path, name, read_it):
    (tmp_path / name).symlink_to(FAILING)
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_it(tmp_path / name)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / name))


@pytest.mark.parametrize("fails", [False, True])
def test_a_track_that_ends_early_is_bad_unless_its_disk_fails(tmp_path, fails):
    sound = write(tmp_path / "sound.wav", noise(20 * 24_000))
    name = tmp_path / "track.wav"
    name.symlink_to(sound)
    with AudioTrack(name) as track:
        read(track, 10)
        os.truncate(sound, 10 * 24_000 * 4)
        if fails:
            name.unlink()
            name.symlink_to(FAILING)
        with pytest.raises(OSError if fails else BadRecording) as caught:
            read(track, 250)
    assert ("Input/output error" if fails else "ends, before its header says") in str(caught.value)


def failing_from_now_on(path):
    """Let reads of the only descriptor of a file fail; the file itself can be read again."""
    opened = Path("/proc/self/fd").iterdir()
    (number,) = (int(link.name) for link in opened if os.path.realpath(link) == str(path))
    failing = os.open(FAILING, os.O_RDONLY)
    os.dup2(failing, number)
    os.close(failing)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "mp3 without an info frame"])
def test_a_disk_that_failed_for_a_moment_is_no_fault_of_a_track(tmp_path, suffix, capfd):
    path = tmp_path / f"track.{suffix[:4].strip()}"
    soundfile.write(path, noise(20 * 24_000), 24_000)
    if "without" in suffix:  # read through Python, which counts its frames
        path.write_bytes(b"".join(mp3_frames(noise(20 * 24_000), 24_000)[1:]))
    with AudioTrack(path) as track:
        read(track, 10)
        failing_from_now_on(path)
        with pytest.raises(OSError, match="Input/output error") as caught:
            read(track, 230)
    assert caught.value.filename == str(path)
    assert capfd.readouterr().err == ""


def test_ctrl_c_amid_reads_through_python_is_no_end_of_a_track(tmp_path, monkeypatch, capfd):
    """A callback of libsndfile would lose what is raised in it."""
    path = tmp_path / "track.mp3"
    path.write_bytes(b"".join(mp3_frames(noise(20 * 24_000), 24_000)[1:]))
    readinto, pressed = FrontedFile.readinto, []

    def press(self: FrontedFile, buffer: Buffer) -> int:
        if pressed == [False]:
            pressed[0] = True
            signal.raise_signal(signal.SIGINT)
        return readinto(self, buffer)

    monkeypatch.setattr(FrontedFile, "readinto", press)
    before = signal.getsignal(signal.SIGINT)
    with AudioTrack(path) as track:
        pressed.append(False)
        with pytest.raises(KeyboardInterrupt):
            read(track, 230)
    assert pressed == [True]
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().err == ""


def test_a_disk_that_fails_is_no_damage_to_who_listens_for_laughs(tmp_path):
    path = tmp_path / "track.wav"
    soundfile.write(path, noise(20 * 24_000), 24_000)
    with ExitStack() as stack:
        ear = _Ear(AudioFile(path), stack)
        assert ear.samples(0, 1_000_000).size == 24_000
        failing_from_now_on(path)
        with pytest.raises(OSError, match="Input/output error") as caught:
            ear.samples(10_000_000, 20_000_000)
    assert caught.value.filename == str(path)


@pytest.mark.parametrize("name", ["EKEYEXPIRED", "ESHUTDOWN", "ECONNABORTED", "EUCLEAN"])
def test_a_server_or_ticket_that_is_gone_is_no_fault_of_a_recording(tmp_path, monkeypatch, name):
    """What Kerberos on NFS, Lustre, SMB and a file system that needs a check answer."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    path = write(tmp_path / "a.wav", noise(24_000))
    (tmp_path / "a.json").write_text("{}")
    monkeypatch.setattr(Path, "open", refuse)
    for read_it, suffix in [(probe_audio, "wav"), (read_bytes, "json")]:
        with pytest.raises(OSError, match=os.strerror(getattr(errno, name))) as caught:
            read_it(path.with_suffix(f".{suffix}"))
        assert caught.value.filename == str(path.with_suffix(f".{suffix}"))


def test_two_copies_of_which_one_cannot_be_read_are_both_named(tmp_path):
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for path in paths:
        path.symlink_to(FAILING)
    with pytest.raises(OSError, match="Input/output error") as caught:
        same_file(paths)
    assert caught.value.filename == f"{paths[0]} or {paths[1]}"


def test_names_that_cannot_be_are_bad_recordings(tmp_path):
    from extract.sound.tracks import AudioTrack, probe_audio
    from laughstore.errors import BadRecording

    for name in ("none.wav", "x" * 5_000, "zero\0byte.wav", "good.wav/below"):
        (tmp_path / "good.wav").write_bytes(b"")
        for look in (probe_audio, AudioTrack):
            with pytest.raises(BadRecording, match="no such file"):
                look(tmp_path / name)


def test_names_may_hold_any_letters(tmp_path):
    from extract.sound.tracks import probe_audio

    path = write(tmp_path / 'Ép 1, "live". Part B..wav', noise(2_000))
    assert probe_audio(path).num_frames == 2


FUZZED = [
    ("WAV", "PCM_16"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "FLOAT"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("AU", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def damaged(content, rng):
    """Change a few bytes, most of them near the beginning, and cut some of the files."""
    content = bytearray(content)
    reach = min(len(content), int(rng.choice([64, 256, 4_096, len(content)])))
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(reach))
        match rng.integers(4):
            case 0:
                content[at] ^= 1 << int(rng.integers(8))
            case 1:
                content[at] = int(rng.choice([0, 1, 127, 128, 255]))
            case 2:
                content[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80"])
            case _:
                content[at : at + int(rng.integers(9))] = rng.bytes(int(rng.integers(9)))
    if rng.random() < 0.3:
        del content[int(rng.integers(len(content))) :]
    return content


def write_damaged_files(folder):
    contents = []
    for kind, subtype in FUZZED:
        whole = folder / "whole"
        soundfile.write(whole, noise(6_000, channels=2), 24_000, format=kind, subtype=subtype)
        contents.append(whole.read_bytes())
        whole.unlink()
    rng = np.random.default_rng(20)
    for index in range(NUM_FUZZED):
        content = damaged(contents[index % len(contents)], rng)
        (folder / f"{index:03}").write_bytes(content)
    return folder


@pytest.mark.slow
def test_damaged_files_are_refused_or_read_and_nothing_else_happens(fuzzed, outcomes):
    found = outcomes[str(fuzzed)].values()
    assert len(found) == NUM_FUZZED
    refused = [outcome["refused"] for outcome in found if "refused" in outcome]
    assert 100 < len(refused) < 450
    assert not any("\n" in line for line in refused)
    assert max(outcome["seconds"] for outcome in found) < 5
