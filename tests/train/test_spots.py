"""Spots: the highest scores where nothing is annotated, against a slow reference."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from laughstore.errors import ConfigError
from laughstore.labels import LabelSpec, frame_targets
from laughstore.store import open_shards, open_store
from laughstore.timebase import FRAME_US, Span
from tests.train.conftest import config_for
from train import LossConfig, SpotSearch, find_spots, train
from train.runs.run import Run
from train.runs.trained import load_trained

QUICK = {"epochs": 2, "lr": 0.02}
ALL = {"count": 10_000, "min_distance": Span("0s")}


@cache
def scores_of(run, where, recording_id, assignment):
    """f4[T] of every row of a stream, by the store's own rows and one product."""
    model = load_trained(Run.open(run), "best").model
    x = open_store(where).frames(recording_id, assignment)
    with torch.inference_mode():
        return model.score(torch.from_numpy(np.asarray(x, np.float32)).bfloat16()).numpy()


def distance_us(start_us, end_us, event):
    """How far a stretch is from an event; below 0 if they share time."""
    return max(event.start_us - end_us, start_us - event.end_us)


def slow_segments(run, label, threshold, min_distance_us):
    """(recording, speaker, start, end, score) of every spot, row by row."""
    store_path = Path(Run.open(run).config.shards).parent
    store, found = open_store(store_path), set()
    index = store.index
    for recording in index.recordings:
        if recording.split == "test":
            continue
        for stream in recording.streams:
            speaker = stream.main if label.whose == "main" else stream.other
            score = scores_of(run, store_path, recording.id, stream.assignment)
            events = [
                event
                for event in store.annotations(recording.id).events
                if event.label == "Laughter" and event.speaker == speaker
            ]
            targets = frame_targets(
                label,
                index.tables(recording),
                main=stream.main,
                other=stream.other,
                num_frames=stream.num_frames,
            )
            segments = []
            for t in np.flatnonzero(score >= threshold).tolist():
                near = segments and t - segments[-1][-1] - 1 <= label.merge_gap.us // FRAME_US
                if near:
                    segments[-1].append(t)
                else:
                    segments.append([t])
            for rows in segments:
                first, last = rows[0], rows[-1]
                start, end = first * FRAME_US, (last + 1) * FRAME_US
                end = min(end, recording.duration_us)
                if targets.ignored[first : last + 1].any():
                    continue
                if any(distance_us(start, end, event) < min_distance_us for event in events):
                    continue
                found.add((recording.id, speaker, start, end, float(score[rows].max())))
    return found


def as_set(found):
    return {
        (spot.recording_id, spot.speaker, spot.start_us, spot.end_us, spot.score)
        for spot in found.spots
    }


@pytest.mark.parametrize("distance", ["0s", "0.5s", "1.2s"])
def test_spots_are_the_segments_that_no_annotated_laugh_is_near(trained, distance):
    config, _, _ = trained
    search = SpotSearch(count=10_000, min_distance=Span(distance), threshold=0.02)
    found = find_spots(config.out, search)
    expected = slow_segments(config.out, config.label, 0.02, search.min_distance.us)
    assert {item[:4] for item in as_set(found)} == {item[:4] for item in expected}
    assert len(expected) > 3
    scores = [spot.score for spot in found.spots]
    assert scores == sorted(scores, reverse=True)
    assert [spot.rank for spot in found.spots] == list(range(1, len(scores) + 1))
    by_place = {item[:4]: item[4] for item in expected}
    for spot in found.spots:
        place = (spot.recording_id, spot.speaker, spot.start_us, spot.end_us)
        assert spot.score == pytest.approx(by_place[place], rel=1e-3)
        assert spot.asked == (spot.speaker,)


def test_the_first_spots_of_a_recording_are_kept_and_ranks_are_whole(trained):
    config, _, _ = trained
    everything = find_spots(config.out, SpotSearch(threshold=0.02, **ALL))
    few = find_spots(config.out, SpotSearch(threshold=0.02, per_recording=1, **ALL))
    first = {}
    for spot in everything.spots:
        first.setdefault(spot.recording_id, spot)
    expected = [(spot.recording_id, spot.start_us, spot.score) for spot in first.values()]
    assert [(item.recording_id, item.start_us, item.score) for item in few.spots] == expected
    assert [item.rank for item in few.spots] == list(range(1, len(expected) + 1))
    assert few.num_reaching == everything.num_reaching
    three = find_spots(config.out, SpotSearch(threshold=0.02, count=3, min_distance=Span("0s")))
    assert three.spots == everything.spots[:3]


def test_reviewed_spots_do_not_come_again_and_are_counted(trained):
    config, _, _ = trained
    search = SpotSearch(threshold=0.02, **ALL)
    before = find_spots(config.out, search)
    reviewed = before.spots[::2]
    after = find_spots(config.out, search, reviewed=reviewed)
    assert as_set(after) == as_set(before) - {
        (spot.recording_id, spot.speaker, spot.start_us, spot.end_us, spot.score)
        for spot in reviewed
    }
    assert after.num_reviewed == len(reviewed)


@pytest.mark.parametrize(
    ("split", "splits"), [("train", ("train",)), ("all", ("train", "validation"))]
)
def test_only_the_splits_that_are_asked_for_are_searched(trained, split, splits):
    config, _, _ = trained
    found = find_spots(config.out, SpotSearch(split=split, threshold=0.02))
    assert found.splits == splits
    assert {spot.split for spot in found.spots} == set(splits)


@pytest.mark.parametrize("label", ["onset:0.8s", "onset:10f,guard"])
def test_spots_of_onset_labels_are_windows_that_no_laugh_touches(planted_shards, tmp_path, label):
    name, _, guard = label.partition(",")
    spec = LabelSpec(name, guard=Span("3f" if guard else "0f"))
    config = config_for(planted_shards, tmp_path / "run", label=spec, **QUICK)
    train(config)
    index = open_shards(planted_shards)
    first = index.recordings[0]
    path, assignment = planted_shards.parent, first.streams[0].assignment
    threshold = float(np.median(scores_of(config.out, path, first.id, assignment)))
    found = find_spots(config.out, SpotSearch(threshold=threshold, **ALL))
    span, gap = spec.rules.span, spec.rules.guard
    assert len(found.spots) > 10
    for spot in found.spots:
        recording = index.recording(spot.recording_id)
        stream = next(item for item in recording.streams if item.assignment == spot.assignment)
        score = scores_of(config.out, path, recording.id, stream.assignment)
        t = spot.start_us // FRAME_US - gap - 1  # the row whose window it is
        assert score[t] == pytest.approx(spot.score, rel=1e-3)
        assert score[t] >= threshold - 1e-6
        end = min((t + span + 1) * FRAME_US, recording.duration_us)
        assert (spot.start_us, spot.end_us) == ((t + gap + 1) * FRAME_US, end)
        bouts = found.annotated(spot)
        inside = (bouts.start_us < spot.end_us) & (bouts.end_us > spot.start_us)
        assert not inside.any()
        targets = frame_targets(
            spec,
            index.tables(recording),
            main=stream.main,
            other=stream.other,
            num_frames=stream.num_frames,
        )
        assert not targets.ignored[t]
        assert targets.y[t] == 0
    for one in found.spots:
        for other in found.spots:
            assert one == other or not one.overlaps(other)


def test_a_pair_is_asked_once_and_nobody_is_named(planted_shards, tmp_path):
    config = config_for(planted_shards, tmp_path / "run", label=LabelSpec(whose="pair"), **QUICK)
    train(config)
    first = open_shards(planted_shards).recordings[0]
    scores = scores_of(config.out, planted_shards.parent, first.id, first.streams[0].assignment)
    found = find_spots(config.out, SpotSearch(threshold=float(np.quantile(scores, 0.8)), **ALL))
    assert found.spots
    assert {spot.speaker for spot in found.spots} == {None}
    assert {spot.asked for spot in found.spots} == {("SPEAKER_00", "SPEAKER_01")}
    places = [(spot.recording_id, spot.start_us) for spot in found.spots]
    assert len(set(places)) == len(places)


def test_labels_of_numbers_are_refused(planted_shards, tmp_path):
    label, loss = LabelSpec("regression:10s"), LossConfig("mse")
    config = config_for(planted_shards, tmp_path / "run", label=label, loss=loss, **QUICK)
    train(config)
    with pytest.raises(
        ConfigError, match="was trained for regression:125f: its scores are numbers"
    ):
        find_spots(config.out)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 0}, "count is 0"),
        ({"count": 10_001}, "1 to 10,000"),
        ({"per_recording": 0}, "per_recording is 0"),
        ({"min_distance": Span("-1s")}, "min_distance -1s"),
        ({"threshold": float("nan")}, "finite"),
        ({"split": "train,,test"}, "names of splits with commas"),
    ],
)
def test_values_that_cannot_work_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        SpotSearch(**changes)


def test_a_split_that_is_not_there_is_named(trained):
    config, _, _ = trained
    with pytest.raises(ConfigError, match="no split 'test'; it has train, validation"):
        find_spots(config.out, SpotSearch(split="train,test"))
