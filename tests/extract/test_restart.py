"""`restart:S`: every segment is extracted as if it were a recording of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extract.features import Source
from extract.model import FeatureModel, load_model, resolve_model
from laughstore.timebase import SAMPLES_PER_FRAME

from .sounds import Extracted, as_bf16, extract, one_shot_codes, one_shot_features, sound, source


def recording(num_frames: int) -> tuple[list[NDArray[np.float32]], NDArray[np.int16]]:
    """Sound and text of both sides."""
    text = np.random.default_rng(0).integers(3, 300, (2, num_frames)).astype(np.int16)
    return [sound(1, num_frames), sound(2, num_frames)], text


def part(
    waves: list[NDArray[np.float32]], text: NDArray[np.int16] | None, start: int, stop: int
) -> Source:
    samples = slice(start * SAMPLES_PER_FRAME, stop * SAMPLES_PER_FRAME)
    words = None if text is None else text[:, start:stop]
    return source("part", stop - start, *(wave[samples] for wave in waves), text=words)


# Shorter than a call; of several calls, the last of them short; whole calls; longer than the whole.
@pytest.mark.parametrize("restart_frames", [3, 17, 16, 70])
def test_segments_are_the_bits_of_recordings_of_their_own(
    model: FeatureModel, restart_frames: int
) -> None:
    num_frames, chunk_frames = 41, 8
    waves, text = recording(num_frames)
    whole = source("whole", num_frames, *waves, text=text)
    features, codes = extract(
        model, whole, chunk_frames=chunk_frames, restart_frames=restart_frames
    )["whole"]
    for start in range(0, num_frames, restart_frames):
        stop = min(start + restart_frames, num_frames)
        own = part(waves, text, start, stop)
        alone = extract(model, own, chunk_frames=chunk_frames)["part"]
        np.testing.assert_array_equal(codes[:, start:stop], alone[1])
        np.testing.assert_array_equal(features[:, start:stop], alone[0])
    np.testing.assert_array_equal(codes[:, :, 0], text)


def test_segments_equal_their_one_shot_forward(model: FeatureModel) -> None:
    num_frames, restart_frames = 125, 50
    waves, text = recording(num_frames)
    whole = source("whole", num_frames, *waves, text=text)
    features, codes = extract(model, whole, chunk_frames=16, restart_frames=restart_frames)["whole"]
    for start in range(0, num_frames, restart_frames):
        stop = min(start + restart_frames, num_frames)
        samples = slice(start * SAMPLES_PER_FRAME, stop * SAMPLES_PER_FRAME)
        speech = one_shot_codes(model, *(wave[samples] for wave in waves))
        assert (speech[0] != codes[0, start:stop, 1:9].T).mean() < 2e-3
        assert (speech[1] != codes[0, start:stop, 9:].T).mean() < 2e-3
        expected = one_shot_features(model, codes[:, start:stop])
        assert (features[:, start:stop] == as_bf16(expected)).mean() > 0.998
    # The first row of every segment is the state after the one initial column.
    for start in range(0, num_frames, restart_frames):
        np.testing.assert_array_equal(features[:, start], features[:, 0])


@pytest.mark.parametrize("tap", ["mimi", "logmel", "layer:1"])
def test_segments_of_other_taps_are_the_bits_of_recordings_of_their_own(
    short_checkpoint: Path, tap: str
) -> None:
    files = resolve_model(str(short_checkpoint))
    model = load_model(files, device="cpu", dtype=torch.float32, tap=tap)
    waves, _ = recording(12)
    found = extract(model, part(waves, None, 0, 12), chunk_frames=4, restart_frames=5)["part"]
    for start, stop in ((0, 5), (5, 10), (10, 12)):
        alone = extract(model, part(waves, None, start, stop), chunk_frames=4)["part"]
        np.testing.assert_array_equal(found[0][:, start:stop], alone[0])


def test_recordings_side_by_side_restart_each_at_its_own_time(model: FeatureModel) -> None:
    def found(*sources: Source) -> dict[str, Extracted]:
        return extract(model, *sources, slots=2, chunk_frames=8, restart_frames=11)

    talks = [source(str(n), n, sound(n, n), sound(n + 1, n)) for n in (30, 9, 25)]
    together = found(*talks)
    for talk in talks:
        alone = found(talk)[talk.key]
        np.testing.assert_array_equal(together[talk.key][0], alone[0])
        np.testing.assert_array_equal(together[talk.key][1], alone[1])
