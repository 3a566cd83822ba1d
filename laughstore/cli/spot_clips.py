"""The sound of spots: each as a clip, and all clips one after the other.

A recording's sound is streamed once, from its beginning to its last spot, by the readers that the
features were made with: what is heard is what the model heard, mono at 24 kHz.
"""

import io
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from wave import Wave_write

import numpy as np
import soundfile
from numpy.typing import NDArray

from extract.roles import Side, choose_roles
from extract.sound.tracks import AudioFile, probe_audio

from ..errors import BadRecording, ConfigError
from ..files import named_in_errors, write_atomic
from ..index import Index
from ..progress import Progress
from ..spots import Clip, Spot
from ..spots.folder import CLIPS_FOLDER, SILENCE_US, SOUND_FILE
from ..timebase import FRAME_US, SAMPLE_RATE, SAMPLES_PER_FRAME, ceil_frame, floor_frame

if TYPE_CHECKING:
    from extract.datasets import Dataset, DatasetRecording
    from extract.features import TrackReader

_FRAMES_A_READ: Final = 250
_MAX_REEL_FRAMES: Final = 20 * 3600 * 25 // 2
"""20 hours: a WAV file holds no more than 4 GB."""
_FULL_SCALE: Final = 32_768


@dataclass(frozen=True)
class _Cut:
    """The frames [first, stop) of a recording that are a spot's clip."""

    spot: Spot
    first: int
    stop: int


def write_clips(
    folder: Path,
    spots: Sequence[Spot],
    dataset: "Dataset",
    index: Index,
    context_frames: int,
    *,
    progress: Progress,
) -> tuple[tuple[Spot, ...], Mapping[str, str]]:
    """Write a clip of each spot, and `spots.wav`.

    Args:
        folder: to write into.
        spots: the highest score first.
        dataset: whose sound it is.
        index: that the spots are of.
        context_frames: heard before and behind each spot.
        progress: told of the audio that is read.

    Returns:
        The spots, with their clips where there is sound, and why there is none, by recording.

    Raises:
        ConfigError: there would be more than 20 hours of clips.
    """
    by_id = {item.id: item for item in dataset.recordings}
    cuts = [_cut(spot, index, context_frames) for spot in spots]
    num_frames = sum(cut.stop - cut.first for cut in cuts)
    if num_frames > _MAX_REEL_FRAMES:
        raise ConfigError("more than 20 hours of clips; lower --count, or shorten --context")
    groups: dict[tuple[str, str | None], list[_Cut]] = {}
    for cut in cuts:
        groups.setdefault((cut.spot.recording_id, cut.spot.speaker), []).append(cut)
    written: dict[int, Path] = {}
    silent: dict[str, str] = {}
    (folder / CLIPS_FOLDER).mkdir()
    to_read = sum(max(cut.stop for cut in group) for group in groups.values())
    progress.begin("clips", to_read, "frame")
    try:
        for (recording_id, _), group in groups.items():
            recording = by_id.get(recording_id)
            try:
                for cut, wave in _read(group, recording, dataset, index, progress):
                    name = f"{cut.spot.rank:04d}-{recording_id}.wav"
                    written[cut.spot.rank] = Path(CLIPS_FOLDER, name)
                    write_atomic(folder / written[cut.spot.rank], _wav(wave))
            except BadRecording as error:
                silent.setdefault(group[0].spot.recording, str(error))
    finally:
        progress.end()
    return _write_reel(folder, cuts, written), silent


def _cut(spot: Spot, index: Index, context_frames: int) -> _Cut:
    num_frames = index.recording(spot.recording_id).num_frames
    first = floor_frame(spot.start_us) - context_frames
    stop = ceil_frame(spot.end_us) + context_frames
    return _Cut(spot, max(first, 0), min(stop, num_frames))


def _read(
    cuts: Sequence[_Cut],
    recording: "DatasetRecording | None",
    dataset: "Dataset",
    index: Index,
    progress: Progress,
) -> Iterator[tuple[_Cut, NDArray[np.int16]]]:
    """Yield the sound of clips that are heard in one track, in order of time.

    Raises:
        BadRecording: there is no such sound, or it cannot be read as far as the next clip.
    """
    num_read = 0
    try:
        spot = cuts[0].spot
        if recording is None:
            raise BadRecording(f"not in {dataset.path}; add it there, or give another --audio")
        recording.refuse_fault()
        _check_length(recording, index.recording(spot.recording_id).num_frames)
        track = _side(recording, spot).open()
        assert track is not None, "it is not the silent side"
        try:
            for num_frames, found in _clips(track, cuts):
                progress.advance(num_frames)
                num_read += num_frames
                yield from found
        finally:
            track.close()
    finally:
        progress.advance(max(cut.stop for cut in cuts) - num_read)


def _side(recording: "DatasetRecording", spot: Spot) -> Side:
    """Return whose sound is heard: that of the speaker asked for, or of all."""
    if spot.speaker is not None and spot.speaker in recording.tracks:
        return Side(spot.speaker, (recording.tracks[spot.speaker],))
    return choose_roles(recording, "mix").pairs[0].sides[1]


def _check_length(recording: "DatasetRecording", num_frames: int) -> None:
    """Refuse another recording of the same name: its clips would be of other moments."""
    files: list[AudioFile] = [*recording.tracks.values()]
    files += [recording.mix] if recording.mix is not None else []
    lengths = []
    for file in files:
        lengths.append(probe_audio(file).num_frames)
        if lengths[-1] == num_frames:
            return
    there = f"the longest has {max(lengths)}" if lengths else "there is none"
    raise BadRecording(
        f"none of its files has the {num_frames} frames that the store has of it ({there}); give"
        " the data set that the store was built from"
    )


def _clips(
    track: "TrackReader", cuts: Sequence[_Cut]
) -> Iterator[tuple[int, list[tuple[_Cut, NDArray[np.int16]]]]]:
    """Yield (frames read, clips that are whole with them), until all are."""
    coming = deque(sorted(cuts, key=lambda cut: cut.first))
    last = max(cut.stop for cut in cuts)
    open_cuts: list[tuple[_Cut, NDArray[np.int16]]] = []
    buffer = np.zeros(_FRAMES_A_READ * SAMPLES_PER_FRAME, np.float32)
    for start in range(0, last, _FRAMES_A_READ):
        stop = min(start + _FRAMES_A_READ, last)
        wave = buffer[: (stop - start) * SAMPLES_PER_FRAME]
        track.read(wave)
        while coming and coming[0].first < stop:
            cut = coming.popleft()
            num_samples = (cut.stop - cut.first) * SAMPLES_PER_FRAME
            open_cuts.append((cut, np.zeros(num_samples, np.int16)))
        for cut, clip in open_cuts:
            a, b = max(start, cut.first), min(stop, cut.stop)
            to = slice((a - cut.first) * SAMPLES_PER_FRAME, (b - cut.first) * SAMPLES_PER_FRAME)
            heard = wave[(a - start) * SAMPLES_PER_FRAME : (b - start) * SAMPLES_PER_FRAME]
            # A file of 16 bits at 24 kHz comes out as the numbers that it holds.
            scaled = np.rint(heard * _FULL_SCALE)
            clip[to] = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
        yield stop - start, [item for item in open_cuts if item[0].stop <= stop]
        open_cuts = [item for item in open_cuts if item[0].stop > stop]


def _wav(samples: NDArray[np.int16]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _write_reel(
    folder: Path, cuts: Sequence[_Cut], written: Mapping[int, Path]
) -> tuple[Spot, ...]:
    """Write all clips one after the other, and return the spots with where they are in it."""
    spots: list[Spot] = []
    reel_us = 0
    silence = np.zeros(SILENCE_US * SAMPLE_RATE // 1_000_000, np.int16)
    path = folder / SOUND_FILE
    if not written:
        return tuple(cut.spot for cut in cuts)
    # Not by libsndfile, which does not say why it could not write.
    with named_in_errors(path), path.open("wb") as sound:
        with Wave_write(sound) as reel:
            reel.setparams((1, silence.itemsize, SAMPLE_RATE, 0, "NONE", ""))
            for cut in cuts:
                file = written.get(cut.spot.rank)
                if file is None:
                    spots.append(cut.spot)
                    continue
                reel.writeframesraw(silence.tobytes())
                reel.writeframesraw(soundfile.read(folder / file, dtype="int16")[0].tobytes())
                reel_us += SILENCE_US
                length_us = (cut.stop - cut.first) * FRAME_US
                clip = Clip(file.as_posix(), cut.first * FRAME_US, reel_us, length_us)
                spots.append(replace(cut.spot, clip=clip))
                reel_us += length_us
            reel.writeframesraw(silence.tobytes())
        sound.flush()
        os.fsync(sound.fileno())
    return tuple(spots)
