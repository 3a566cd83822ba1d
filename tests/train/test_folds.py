"""Folds by group: a partition that test takes no part in, and runs that are trained on one."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore.buildplan import begin_plan
from laughstore.cli.main import main
from laughstore.commit import commit_plan
from laughstore.errors import ConfigError, CorruptData
from laughstore.index import Recording
from laughstore.labels import LabelSpec
from laughstore.reading.rows import open_rows
from laughstore.store import open_shards
from tests.stores import plan_for, spec_for, write_recording
from tests.train.conftest import DIM, Planted, config_for, planted_episodes
from train import evaluate, train
from train.runs.folds import Fold, choose_fold, deal, with_fold
from train.runs.run import Run
from train.streaming.selection import select


def recording(number: int, split: str, group: str, num_frames: int) -> Recording:
    return Recording(
        id=f"r{number}",
        name=f"recording {number}",
        split=split,
        group=group,
        duration_us=num_frames * 80_000,
        num_frames=num_frames,
        annotations_id="",
        speakers=(),
        streams=(),
    )


some_recordings = st.lists(
    st.tuples(
        st.sampled_from(["train", "validation", "test"]),
        st.integers(0, 12).map("show {}".format),
        st.integers(1, 100_000),
    ),
    max_size=40,
).map(lambda items: [recording(i, *item) for i, item in enumerate(items)])


@given(some_recordings, st.integers(2, 6), st.integers(0, 3), st.randoms())
@settings(max_examples=150, deadline=None)
def test_folds_are_a_partition_of_the_groups_outside_test(recordings, folds, seed, shuffler):
    ours = [item for item in recordings if item.split in ("train", "validation")]
    groups = {item.group for item in ours}
    if len(groups) < folds:
        with pytest.raises(ConfigError, match="use fewer folds"):
            deal(recordings, folds, seed=seed)
        return
    dealt = deal(recordings, folds, seed=seed)
    assert len(dealt) == folds
    assert Counter(group for fold in dealt for group in fold) == Counter(groups)
    assert all(dealt)
    # The same for recordings in any order, and whatever test holds.
    shuffled = list(ours)
    shuffler.shuffle(shuffled)
    assert deal(shuffled, folds, seed=seed) == dealt
    # No two folds differ by more than the longest group.
    frames = Counter[str]()
    for item in ours:
        frames[item.group] += item.num_frames
    weights = [sum(frames[group] for group in fold) for fold in dealt]
    assert max(weights) - min(weights) <= max(frames.values())


def test_another_seed_deals_other_folds():
    recordings = [recording(i, "train", f"show {i}", 100) for i in range(40)]
    dealt = {deal(recordings, 4, seed=seed) for seed in range(5)}
    assert len(dealt) == 5


def test_the_order_of_groups_is_written_down():
    """Folds of a finished study must not move with a release."""
    recordings = [recording(i, "train", f"show {i}", 100 + i) for i in range(6)]
    assert [sorted(fold) for fold in deal(recordings, 3, seed=0)] == [
        ["show 3", "show 5"],
        ["show 2", "show 4"],
        ["show 0", "show 1"],
    ]


@pytest.mark.parametrize(
    ("folds", "fold", "said"),
    [(1, 0, "at least 2"), (3, 3, "0 to 2"), (3, -1, "0 to 2"), (3, None, "belong together")],
)
def test_numbers_that_cannot_be_are_refused(folds, fold, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        config_for(tmp_path, tmp_path / "out", folds=folds, fold=fold)


def shared_store(path: Path) -> Path:
    """A store in which the show "1" has recordings in train and in test."""
    episodes = planted_episodes()
    held_out = replace(episodes[1], name="held out", split="test")
    plan = plan_for((*episodes, held_out), spec_for(DIM, 32, 256))
    groups = {item.id: str(i % 6) for i, item in enumerate(plan.recordings)}
    groups[plan.recordings[-1].id] = "1"
    plan = replace(
        plan,
        recordings=tuple(replace(item, group=groups[item.id]) for item in plan.recordings),
    )
    begin_plan(path, plan)
    features = Planted((*episodes, held_out))
    for planned, episode in zip(plan.recordings, (*episodes, held_out), strict=True):
        write_recording(path, plan, planned, episode, features, chunk_frames=100)
    commit_plan(path, plan)
    return path / "shards"


@pytest.mark.slow
def test_a_group_of_the_folds_that_is_also_in_test_is_told(tmp_path, caplog):
    shards = shared_store(tmp_path / "store")
    index = open_shards(shards)
    sides = [choose_fold(index, 3, number, seed=0) for number in range(3)]
    assert sum("1 group ('1') of the folds: split 'test'" in text for text in caplog.messages) == 3
    number = next(i for i, fold in enumerate(sides) if "1" in fold.train)
    config = config_for(shards, tmp_path / "run", folds=3, fold=number, epochs=1)
    train(config)
    caplog.clear()
    found = evaluate(config.out, split="test", timelines=0, device="cpu")
    assert found.groups_trained_on == ("1",)
    assert found.to_json()["groups_trained_on"] == ["1"]
    assert "1 group ('1') of split 'test' were trained on" in caplog.text
    caplog.clear()
    assert evaluate(config.out, timelines=0, device="cpu").groups_trained_on == ()
    assert not caplog.messages


@pytest.mark.slow
def test_a_group_of_two_splits_is_told_without_folds_too(tmp_path, caplog):
    shards = shared_store(tmp_path / "store")
    config = config_for(shards, tmp_path / "run", epochs=1)
    train(config)
    assert evaluate(config.out, split="test", timelines=0, device="cpu").groups_trained_on == ("1",)
    assert evaluate(config.out, split="train", timelines=0, device="cpu").groups_trained_on == ()


def test_labels_counts_the_sides_of_a_fold(planted_shards, capsys):
    index = open_shards(planted_shards)
    command = ["labels", str(planted_shards), "--json"]
    fold = choose_fold(index, 3, 1, seed=4)
    assert main([*command, "--folds", "3", "--fold", "1", "--seed", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fold"] == {"folds": 3, "fold": 1, "seed": 4}
    for line in found["splits"]:
        counts = select(with_fold(index, fold), line["split"], LabelSpec()).counts
        assert (line["rows"], line["positives"]) == (counts.rows, counts.positives)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["fold"] is None
    for wrong in (
        ["--folds", "3"],
        ["--fold", "0"],
        ["--folds", "3", "--fold", "3"],
        ["--folds", "99", "--fold", "0"],
        ["--seed", "1"],
    ):
        assert main([*command, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_fold_is_read_back_or_refused():
    fold = Fold(frozenset({"b", "a"}), frozenset({"c"}))
    assert Fold.from_json(json.loads(json.dumps(fold.to_json())), where="x") == fold
    for wrong in (None, [], {}, {"train": ["a"]}, {"train": [1], "validation": []}):
        with pytest.raises(CorruptData, match="x: no lists"):
            Fold.from_json(wrong, where="x")


@pytest.mark.parametrize("reader", ["map", "window"])
def test_rows_of_a_side_are_those_of_its_recordings_in_the_store(planted_shards, reader):
    index = open_shards(planted_shards)
    own = {item.id: item.split for item in index.recordings}
    folds = 3
    held_out: Counter[str] = Counter()
    for number in range(folds):
        fold = choose_fold(index, folds, number, seed=0)
        folded = with_fold(index, fold)
        now = {item.id: item.split for item in folded.recordings}
        assert {key for key, split in now.items() if split == "validation"} == {
            item.id for item in index.recordings if item.group in fold.validation
        }
        held_out.update(key for key, split in now.items() if split == "validation")
        for split in ("train", "validation"):
            selection = select(folded, split, LabelSpec())
            ids = {stream.recording_id for stream in selection.streams}
            assert ids == {key for key, where in now.items() if where == split}
            with open_rows(folded, split, reader) as rows:
                for stream in selection.streams:
                    name = stream.recording_id, stream.assignment
                    blocks = rows.blocks_of(*name)
                    rows.prepare(blocks, verify=True)
                    ours = rows.matrix[rows.rows_of(*name)].copy()
                    rows.release(blocks)
                    with open_rows(index, own[stream.recording_id], reader) as before:
                        before.prepare(blocks, verify=True)
                        theirs = before.matrix[before.rows_of(*name)]
                        np.testing.assert_array_equal(ours, theirs)
    assert held_out == Counter(list(own))


def test_a_run_on_a_fold_is_evaluated_on_its_validation(planted_shards, tmp_path, capsys):
    config = config_for(planted_shards, tmp_path / "run", folds=3, fold=1, epochs=2)
    result = train(config)
    opened = Run.open(result.run)
    index = open_shards(planted_shards)
    fold = choose_fold(index, 3, 1, seed=config.seed)
    assert opened.fold == fold
    assert (opened.config.folds, opened.config.fold) == (3, 1)
    found = evaluate(result.run, timelines=0)
    assert {item.name for item in found.recordings} == fold.validation  # a recording is a group
    assert found.metrics.average_precision == pytest.approx(result.best.average_precision)
    trained_on = evaluate(result.run, split="train", timelines=0)
    assert {item.name for item in trained_on.recordings} == fold.train
    assert main(["evaluate", str(result.run), "--timelines", "0", "-q"]) == 0
    assert "groups of fold 1 of 3 are validation" in capsys.readouterr().out
    # The groups are the run's, whatever would be dealt now.
    assert opened.about["fold"] == fold.to_json()


def test_the_command_line_takes_folds(planted_shards: Path, tmp_path, capsys):
    words = ["--global-batch", "512", "--lanes", "16", "--epochs", "1", "--device", "cpu", "-q"]
    command = ["train", "--shards", str(planted_shards), "--out", str(tmp_path / "run")]
    assert main([*command, *words, "--folds", "2", "--fold", "0"]) == 0
    assert Run.open(tmp_path / "run").fold is not None
    capsys.readouterr()
    command[-1] = str(tmp_path / "other")
    for wrong in (
        ["--folds", "2"],
        ["--folds", "2", "--fold", "2"],
        ["--folds", "99", "--fold", "0"],
    ):
        assert main([*command, *words, *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_inspect_tells_what_rows_a_run_was_trained_on(planted_shards, tmp_path, capsys):
    config = config_for(planted_shards, tmp_path / "run", folds=3, fold=1, balance=5.0, epochs=1)
    train(config)
    assert main(["inspect", str(config.out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("; all frames")
    assert "fold 1 of 3 is validation" in lines
    assert "balance: 5 negatives for each positive row of train" in lines
