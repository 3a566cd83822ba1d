"""Row t knows of audio and text strictly before t * 80 ms, and of nothing later."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extract.model import FeatureModel, load_model, resolve_model
from laughstore.timebase import SAMPLES_PER_FRAME

from .sounds import extract, sound, source
from .streams import random_codes, streamed_lm

NUM_FRAMES = 26
CHANGED = 15
TAPS = ["out_norm", "layer:1", "mimi", "logmel"]


def features_of(
    model: FeatureModel,
    *waves: NDArray[np.float32],
    text: NDArray[np.int16] | None = None,
    restart_frames: int | None = None,
) -> NDArray[np.float32]:
    """f32[2, T, D]."""
    talk = source("talk", NUM_FRAMES, *waves, text=text)
    return extract(model, talk, chunk_frames=7, restart_frames=restart_frames)["talk"][0]


@pytest.mark.parametrize("restart_frames", [None, 9], ids=["carry", "restart"])
@pytest.mark.parametrize("tap", TAPS)
def test_what_is_heard_at_frame_t_changes_no_row_up_to_t(
    short_checkpoint: Path, tap: str, restart_frames: int | None
) -> None:
    files = resolve_model(str(short_checkpoint))
    model = load_model(files, device="cpu", dtype=torch.float32, tap=tap)
    waves = [sound(4, NUM_FRAMES), sound(5, NUM_FRAMES)]
    before = features_of(model, *waves, restart_frames=restart_frames)
    start, stop = CHANGED * SAMPLES_PER_FRAME, (CHANGED + 1) * SAMPLES_PER_FRAME
    for side in (0, 1):
        for first in (start, stop - 1):
            altered = [wave.copy() for wave in waves]
            altered[side][first:] += np.float32(0.4)
            after = features_of(model, *altered, restart_frames=restart_frames)
            np.testing.assert_array_equal(after[:, : CHANGED + 1], before[:, : CHANGED + 1])
            assert all(np.any(a != b) for a, b in zip(after, before, strict=True))
        if tap in ("mimi", "logmel"):  # what is heard is told in the very next row
            altered = [wave.copy() for wave in waves]
            altered[side][start:] += np.float32(0.4)
            after = features_of(model, *altered, restart_frames=restart_frames)
            assert np.all((after != before).any(axis=2)[:, CHANGED + 1])
        if restart_frames is not None:  # behind a restart nothing is known of what was before it
            altered = [wave.copy() for wave in waves]
            altered[side][start:stop] += np.float32(0.4)
            after = features_of(model, *altered, restart_frames=restart_frames)
            assert np.any(after[:, :18] != before[:, :18])
            np.testing.assert_array_equal(after[:, 18:], before[:, 18:])


def test_a_word_at_frame_t_changes_rows_from_t_plus_1_on_and_only_of_whom_it_is_fed_to(
    model: FeatureModel,
) -> None:
    waves = [sound(4, NUM_FRAMES), sound(5, NUM_FRAMES)]
    text = np.full((2, NUM_FRAMES), 3, np.int16)
    before = features_of(model, *waves, text=text)
    np.testing.assert_array_equal(before, features_of(model, *waves))
    for side in (0, 1):
        altered = text.copy()
        altered[side, CHANGED] = 77
        after = features_of(model, *waves, text=altered)
        changed = (after != before).any(axis=2)
        assert np.argmax(changed[side]) == CHANGED + 1
        assert not changed[1 - side].any()


@pytest.mark.parametrize("stream", [0, 1, 2, 8, 9, 10, 16])
def test_a_code_at_frame_t_first_changes_the_row_that_its_delay_says(
    model: FeatureModel, stream: int
) -> None:
    codes = random_codes(model, 1, NUM_FRAMES)
    altered = codes.clone()
    altered[0, stream, CHANGED] = (codes[0, stream, CHANGED] + 1) % model.lm.card
    before, after = (streamed_lm(model, item, [7]) for item in (codes, altered))
    changed = (after != before).any(axis=2)[0]
    acoustic = stream not in (0, 1, 9)
    assert model.lm.delays[stream] == acoustic
    assert np.argmax(changed) == CHANGED + 1 + acoustic
