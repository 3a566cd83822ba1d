"""Predictions are the scores of an evaluation, from files and from samples as they come."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from laughstore.cli.main import main
from laughstore.cli.prediction import Predictor
from laughstore.errors import ConfigError
from laughstore.label_spec import LabelSpec
from laughstore.store import open_store
from laughstore.timebase import SAMPLES_PER_FRAME, Span
from train import HeadConfig

from .predicting import SPLIT, evaluated, predicted, scores_of, tracks, trained_on

CHUNK = 16
RESTART = ("--context", "restart:2")
TEMPORAL = HeadConfig("temporal", context=Span("20f"), channels=16)


@pytest.fixture(scope="module")
def run_of_tracks(built: Path, tmp_path_factory) -> Path:
    return trained_on(built, tmp_path_factory.mktemp("runs") / "tracks", head=TEMPORAL)


@pytest.fixture(scope="module")
def run_of_mixes(corpus: Path, tmp_path_factory) -> Path:
    """On log-mel frames of mixes, whose state begins anew every 25 frames, in calls of 16."""
    folder = tmp_path_factory.mktemp("mixes")
    words = ["--tap", "logmel", "--speakers", "mix", *RESTART, "--chunk-frames", str(CHUNK)]
    assert main(["build", str(corpus), "--store", str(folder / "store"), *words, "-q"]) == 0
    label = LabelSpec(whose="any")
    return trained_on(folder / "store", folder / "run", label=label, head=TEMPORAL)


@pytest.mark.parametrize("main_speaker", ["SPEAKER_00", "SPEAKER_01"])
def test_predictions_are_the_scores_of_an_evaluation(
    run_of_tracks, corpus, nano_checkpoint, tmp_path, main_speaker
):
    found = tracks(corpus)
    other = next(name for name in found if name != main_speaker)
    content = predicted(
        tmp_path / "out", "--run", run_of_tracks, "--model", nano_checkpoint,
        "--main", found[main_speaker], "--other", found[other],
    )  # fmt: skip
    streams = evaluated(run_of_tracks)
    (expected,) = (item for item in streams if item.stream.main == main_speaker)
    np.testing.assert_array_equal(expected.row, np.arange(content["num_frames"]))
    np.testing.assert_array_equal(scores_of(content), expected.score)
    assert content["warnings"] == []


def test_a_question_about_anyone_is_answered_by_both_assignments(
    built, corpus, nano_checkpoint, tmp_path
):
    run = trained_on(built, tmp_path / "run", label=LabelSpec(whose="any"), epochs=1)
    one, two = tracks(corpus).values()
    flags = ("--run", run, "--model", nano_checkpoint)
    content = predicted(tmp_path / "out", *flags, "--main", one, "--other", two)
    (expected,) = evaluated(run)
    np.testing.assert_array_equal(scores_of(content), expected.score)
    swapped = predicted(tmp_path / "swapped", *flags, "--main", two, "--other", one)
    assert swapped["frames"] == content["frames"]


def test_words_are_heard_as_in_the_store(corpus, nano_checkpoint, tmp_path):
    store, flags = tmp_path / "store", ["--model", str(nano_checkpoint), "--text", "causal", "-q"]
    assert main(["build", str(corpus), "--store", str(store), *flags]) == 0
    run = trained_on(store, tmp_path / "run", epochs=1)
    streams = evaluated(run)
    (recording,) = (item for item in open_store(store).recordings if item.split == SPLIT)
    words = open_store(store).annotations(recording.id).words
    assert words
    transcript = tmp_path / "words.csv"
    rows = [f"{w.start_us},{w.end_us},{w.text},{w.speaker}" for w in words if w.speaker]
    transcript.write_text("\n".join(["start_us,end_us,text,speaker", *rows]))
    found = tracks(corpus)
    each = {}
    for who in found:
        other = next(name for name in found if name != who)
        content = predicted(
            tmp_path / who, "--run", run, "--model", nano_checkpoint, "--main", found[who],
            "--other", found[other], "--transcript", transcript,
        )  # fmt: skip
        each[who] = scores_of(content)
    for item in streams:
        np.testing.assert_array_equal(each[item.stream.main], item.score)


def test_a_mix_is_heard_as_in_a_store_of_mixes(run_of_mixes, corpus, tmp_path):
    one, two = tracks(corpus).values()
    content = predicted(tmp_path / "sum", "--run", run_of_mixes, "--main", one, "--other", two)
    (expected,) = evaluated(run_of_mixes)
    np.testing.assert_array_equal(scores_of(content), expected.score)
    assert "added up" in content["warnings"][0]
    mix = tmp_path / "mix.wav"
    soundfile.write(mix, mixed(corpus), Predictor.sample_rate, subtype="FLOAT")
    alone = predicted(tmp_path / "alone", mix, "--run", run_of_mixes)
    assert alone["frames"] == content["frames"]
    assert alone["warnings"] == []


def mixed(corpus: Path) -> NDArray[np.float32]:
    """f4[N], the sum of the episode's tracks."""
    one, two = map(sound_of, tracks(corpus).values())
    return one + two


def sound_of(path: Path) -> NDArray[np.float32]:
    """f4[N] of a file with one channel."""
    return np.asarray(soundfile.read(path, dtype="float32")[0], np.float32)


def pushed(predictor: Predictor, cuts: list[int], *waves: NDArray[np.float32]) -> np.ndarray:
    """Scores of waves pushed in pieces, each told as soon as its frame has begun."""
    edges = [0, *sorted(cuts), waves[0].size]
    parts = []
    for start, stop in pairwise(edges):
        parts.append(predictor.push(*(wave[start:stop] for wave in waves)))
        assert predictor.num_rows == -(-stop // SAMPLES_PER_FRAME)
    assert len(predictor.finish()) == 0
    return np.concatenate(parts)


@settings(max_examples=5)
@given(st.data())
def test_samples_pushed_in_any_pieces_give_the_scores_of_the_file(run_of_mixes, corpus, data):
    wave = mixed(corpus)
    (expected,) = evaluated(run_of_mixes)
    cuts = st.lists(st.integers(0, wave.size) | st.integers(0, 180).map(lambda f: f * 1920))
    with Predictor.open(run_of_mixes, device="cpu") as predictor:
        for _ in range(2):  # finish() begins anew
            found = pushed(predictor, data.draw(cuts), wave)
            np.testing.assert_array_equal(found, expected.score)


def test_so_do_those_of_two_speakers_through_the_model(run_of_tracks, corpus, nano_checkpoint):
    found = tracks(corpus)
    waves = [sound_of(path) for path in found.values()]
    (expected,) = (item for item in evaluated(run_of_tracks) if item.stream.main == "SPEAKER_00")
    with Predictor.open(
        run_of_tracks, model=nano_checkpoint, device="cpu", with_other=True
    ) as predictor:
        cuts = [1, 1_919, 1_920, 1_921, 50_000, 128 * 1_920 - 1, 128 * 1_920, 128 * 1_920 + 1]
        np.testing.assert_array_equal(pushed(predictor, cuts, *waves), expected.score)


def test_a_row_comes_with_the_first_sample_of_its_frame_and_has_heard_nothing_of_it(run_of_mixes):
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, 40 * SAMPLES_PER_FRAME).astype(np.float32)
    with Predictor.open(run_of_mixes, device="cpu") as predictor:
        assert len(predictor.push(wave[:0])) == 0
        each = [predictor.push(wave[t * 1920 : (t + 1) * 1920]) for t in range(40)]
        assert [len(item) for item in each] == [1] * 40
        predictor.finish()
        # One sample of the frame is enough, whatever it is.
        predictor.push(wave[: 30 * 1920])
        early = predictor.push(np.full(1, 0.9, np.float32))
        np.testing.assert_array_equal(early, each[30])


def test_rows_may_be_held_back_and_come_in_the_end(run_of_mixes, corpus):
    wave = mixed(corpus)
    (expected,) = evaluated(run_of_mixes)
    with Predictor.open(run_of_mixes, device="cpu", hop_frames=5) as predictor:
        parts = [predictor.push(part) for part in np.split(wave, range(700, wave.size, 700))]
        # 16 frames of a call, or 9 before state begins anew, come in fives and the rest.
        assert {len(part) for part in parts} == {0, 1, 4, 5}
        last = predictor.finish()
        assert 0 < len(last) < 5
    np.testing.assert_array_equal(np.concatenate([*parts, last]), expected.score)


def test_a_predictor_refuses_what_is_no_sound_and_takes_nothing_of_it(run_of_mixes, corpus):
    wave = mixed(corpus)[: 50 * 1920]
    with Predictor.open(run_of_mixes, device="cpu") as predictor:
        first = predictor.push(wave[:30_000])
        odd_ones: list[Any] = [wave.astype(np.int16), wave[None], np.full(3, np.nan)]
        for odd in (*odd_ones, np.full(3, 2e4)):
            with pytest.raises(ConfigError, match="samples"):
                predictor.push(odd)
        with pytest.raises(ConfigError, match="takes one: push"):
            predictor.push(wave, wave)
        rest = predictor.push(wave[30_000:])
        predictor.finish()
        np.testing.assert_array_equal(np.concatenate([first, rest]), predictor.push(wave))
        with pytest.raises(ConfigError, match="push the sum"):
            Predictor(predictor.opened, with_other=True)
        with pytest.raises(ConfigError, match="hop_frames is 0"):
            Predictor(predictor.opened, hop_frames=0)
