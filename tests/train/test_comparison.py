"""Runs beside each other: differences over the same draws, and when there is none."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from laughstore.annotations import Annotations, Segment
from laughstore.errors import ConfigError, NotFound
from laughstore.evolution.annotate import Revised
from laughstore.index import Index
from laughstore.index_file import read_index
from laughstore.labels import LabelSpec
from laughstore.other_annotations import with_annotations
from laughstore.timebase import Span
from tests.stores import SPEAKERS, write_store
from train import FrameFilter, HeadConfig, TrainConfig, compare, evaluate, train, train_probes
from train.comparison.paired import two_sided_p
from train.comparison.settings import seed_groups
from train.runs.checkpoint import checkpoint_path, load_checkpoint, mark_best, save_checkpoint
from train.runs.run import Run
from train.runs.trained import load_trained
from train.scoring.score import StreamScores, score_streams
from train.streaming.selection import select
from train.streaming.source import FrameSource

from .conftest import DIM, Planted, config_for, planted_episodes

DRAWS = 60


@pytest.fixture(scope="module")
def runs(planted_shards, tmp_path_factory) -> dict[str, Path]:
    """Runs of one store that differ in this and that."""
    folder = tmp_path_factory.mktemp("compared")
    changes = {
        "good": {"epochs": 4},
        "weak": {"epochs": 1, "lr": 0.0003, "seed": 1},
        "temporal": {
            "epochs": 1,
            "head": HeadConfig("temporal", channels=4, context=Span("4f")),
            "global_batch": 256,
        },
        "onset": {"epochs": 1, "label": LabelSpec("onset:0.8s")},
        "late": {"epochs": 1, "filter": FrameFilter(min_context=Span("9f"))},
        "number": {"epochs": 1, "label": LabelSpec("regression:2s")},
        "fold0": {"epochs": 1, "folds": 2, "fold": 0},
        "fold1": {"epochs": 1, "folds": 2, "fold": 1},
    }
    for name, change in changes.items():
        train(config_for(planted_shards, folder / name, **change))
    return {name: folder / name for name in changes}


def scores_of(run: Path, split: str) -> list[StreamScores]:
    opened = Run.open(run)
    index = read_index(Path(opened.config.shards))
    selection = select(index, split, opened.config.label, opened.config.filter)
    with FrameSource(index, split) as source:
        model = load_trained(opened, "best").model
        return score_streams(model, selection, source, opened.config.label, ignored_too=True)


@pytest.mark.parametrize(
    ("metric", "measure"),
    [
        ("average_precision", lambda y, s, _: average_precision_score(y, s)),
        ("auroc", lambda y, s, _: roc_auc_score(y, s)),
        ("f1", lambda y, s, t: 2 * np.sum(y & (s >= t)) / (np.sum(s >= t) + np.sum(y))),
    ],
)
def test_differences_are_those_of_rows_drawn_together(runs, metric, measure):
    found = compare(
        [runs["weak"], runs["good"]], split="train", metric=metric, bootstrap=DRAWS, device="cpu"
    )
    each = {name: scores_of(runs[name], "train") for name in ("weak", "good")}
    thresholds = {name: load_trained(Run.open(runs[name]), "best").threshold for name in each}

    def value(name: str, times: dict[str, int]) -> float:
        drawn = [item for item in each[name] for _ in range(times[item.stream.recording_id])]
        y = np.concatenate([item.y[item.eligible] for item in drawn]) > 0
        score = np.concatenate([item.score[item.eligible] for item in drawn])
        return float(measure(y, score, np.float32(thresholds[name])))

    recordings = sorted({item.stream.recording_id for item in each["weak"]})
    assert len(recordings) == 5
    once = dict.fromkeys(recordings, 1)
    difference = found.differences["good"][metric]
    assert difference.value == pytest.approx(value("good", once) - value("weak", once))
    rng = np.random.Generator(np.random.Philox(0))
    slow = []
    for _ in range(DRAWS):
        drawn = rng.integers(5, size=5)
        times = {name: int(np.sum(drawn == place)) for place, name in enumerate(recordings)}
        slow.append(value("good", times) - value("weak", times))
    low, high = np.percentile(slow, [2.5, 97.5])
    interval = difference.interval
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))
    assert (interval.unit, interval.num_units, interval.draws) == ("recording", 5, DRAWS)
    assert interval.is_rough
    rarer = min(sum(np.array(slow) <= 0), sum(np.array(slow) >= 0))
    assert difference.p == pytest.approx(min(1, 2 * (1 + rarer) / (1 + DRAWS)))


def test_each_run_is_what_its_own_evaluation_says(runs, tmp_path):
    names = ("good", "temporal", "late", "number")
    found = compare([runs[name] for name in names], metric="ap", bootstrap=DRAWS, device="cpu")
    assert [run.name for run in found.runs] == list(names)
    for run in found.runs:
        own = evaluate(
            runs[run.name],
            device="cpu",
            timelines=0,
            null=0,
            bootstrap=DRAWS,
            out=tmp_path / run.name,
        )
        assert run.metrics == own.metrics, "to the last bit"
        assert run.intervals == own.intervals
        assert run.num_streams == own.num_streams
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["baseline"] == "good"
    assert list(content["differences"]) == list(names[1:])
    assert content["runs"][3]["label"] == LabelSpec("regression:2s").identity()


def test_a_run_against_itself_differs_by_nothing_and_swapped_runs_the_other_way(runs, tmp_path):
    copy = shutil.copytree(runs["good"], tmp_path / "copy")
    paths = [runs["good"], copy, runs["weak"]]
    found = compare(paths, split="train", bootstrap=DRAWS, device="cpu")
    same = found.differences["copy"]
    assert set(same) == {"average_precision", "auroc", "f1"}
    for difference in same.values():
        assert difference.interval is not None
        assert (difference.value, difference.p) == (0.0, 1.0)
        assert (difference.interval.low, difference.interval.high) == (0.0, 0.0)
    swapped = compare(paths, split="train", bootstrap=DRAWS, device="cpu", baseline=paths[2])
    assert swapped.baseline == "weak"
    for metric, ours in found.differences["weak"].items():
        theirs = swapped.differences["good"][metric]
        assert ours.interval is not None
        assert theirs.interval is not None
        assert (ours.value or 0) < 0
        assert theirs.value == -(ours.value or 0)
        assert theirs.p == ours.p
        assert theirs.interval.low == pytest.approx(-(ours.interval.high or 0))
        assert theirs.interval.high == pytest.approx(-(ours.interval.low or 0))


def test_only_a_run_that_is_surely_better_than_all_others_is_the_best(runs, tmp_path):
    two = compare([runs["weak"], runs["good"]], split="train", bootstrap=DRAWS, device="cpu")
    assert [run.is_best for run in two.runs] == [False, True]
    copy = shutil.copytree(runs["good"], tmp_path / "copy")
    three = compare(
        [runs["weak"], runs["good"], copy], split="train", bootstrap=DRAWS, device="cpu"
    )
    assert not any(run.is_best for run in three.runs), "two are the same"
    without = compare([runs["weak"], runs["good"]], split="train", bootstrap=0, device="cpu")
    assert not any(run.is_best for run in without.runs), "nothing is known of how sure it is"
    difference = without.differences["good"]["average_precision"]
    assert difference.value == two.differences["good"]["average_precision"].value
    assert (difference.interval, difference.p, difference.reason) == (None, None, None)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("onset", "another label: onset:10f, not detection"),
        ("late", "another filter: min_context 9f, not all frames"),
        ("number", "another label: regression:25f, not detection"),
        ("fold0", "another side of folds: fold 0 of 2, not no folds"),
    ],
)
def test_runs_that_were_asked_something_else_have_no_difference_and_the_reason(runs, other, said):
    found = compare([runs["good"], runs[other]], bootstrap=DRAWS, device="cpu")
    assert [run.asked for run in found.runs] == [0, 1]
    assert not any(run.is_best for run in found.runs)
    for difference in found.differences[other].values():
        assert (difference.value, difference.interval, difference.p) == (None, None, None)
        assert difference.reason == said
    assert found.runs[1].intervals["average_precision"].unit in ("recording", "group")


def test_recordings_that_changed_their_show_are_not_drawn_together(runs):
    found = compare([runs["good"], runs["weak"]], bootstrap=0, device="cpu")
    ours, theirs = (run.question for run in found.runs)
    assert ours.why_other(theirs) is None
    moved = dict.fromkeys(theirs.groups, "one show")
    first, second = sorted(moved)
    other = replace(theirs, groups=moved)
    assert ours.why_other(other) == f"other groups (shows) of {first}, {second}"
    other = replace(theirs, rows_sha256="0" * 64, skipped=(f"{first}/a--b/000001",))
    assert ours.why_other(other) == "other blocks are left out as corrupt"
    # What is left out counts only where it makes the rows others.
    assert ours.why_other(replace(other, rows_sha256=ours.rows_sha256)) is None


def test_folds_have_other_shows_and_are_not_compared(runs):
    found = compare([runs["fold0"], runs["fold1"]], bootstrap=DRAWS, device="cpu")
    assert found.differences["fold1"]["auroc"].reason == (
        "another side of folds: fold 1 of 2, not fold 0 of 2"
    )
    ours, theirs = (set(run.question.groups) for run in found.runs)
    assert not ours & theirs


@pytest.mark.slow
def test_features_of_another_store_are_compared_where_the_rows_are_the_same(runs, tmp_path):
    episodes = planted_episodes()
    store = write_store(
        tmp_path / "store", episodes[::-1], Planted(episodes, strength=0.5), dim=DIM,
        block_frames=16, shard_frames=256,
    )  # fmt: skip
    train(config_for(store / "shards", tmp_path / "faint", epochs=4))
    found = compare(
        [runs["good"], tmp_path / "faint"], split="train", bootstrap=DRAWS, device="cpu"
    )
    difference = found.differences["faint"]["average_precision"]
    assert difference.reason is None
    assert (difference.value or 0) < 0
    assert difference.excludes_zero
    assert found.settings["features.block_frames"] == (32, 16)
    assert set(found.settings) == {"shards", "features.block_frames", "index_id"}
    moved = (replace(episodes[0], events=episodes[0].events[1:]), *episodes[1:])
    store = write_store(
        tmp_path / "moved", moved, Planted(episodes), dim=DIM, block_frames=32, shard_frames=256
    )
    train(config_for(store / "shards", tmp_path / "other", epochs=1))
    found = compare(
        [runs["good"], tmp_path / "other"], split="train", bootstrap=DRAWS, device="cpu"
    )
    assert found.differences["other"]["f1"].reason == (
        "other annotations: the same label counts other rows, or has other targets"
    )
    fewer = write_store(
        tmp_path / "fewer", episodes[1:], Planted(episodes), dim=DIM, block_frames=32,
        shard_frames=256,
    )  # fmt: skip
    train(config_for(fewer / "shards", tmp_path / "few", epochs=1))
    found = compare([runs["good"], tmp_path / "few"], split="train", bootstrap=DRAWS, device="cpu")
    assert found.differences["few"]["f1"].reason == "other recordings: 1 only in the other"


def probes(shards: Path, out: Path, **changes) -> TrainConfig:
    small = {"epochs": 1, "global_batch": 96, "lanes": 8, "lr": 0.01}
    labels = ("detection", "onset:0.8s")
    return config_for(shards, out, probe=labels, seeds=3, **{**small, **changes})


def test_probes_of_a_run_are_compared_and_seeds_of_one_put_together(planted_shards, runs, tmp_path):
    train_probes(probes(planted_shards, tmp_path / "many"))
    found = compare([tmp_path / "many", runs["good"]], split="train", bootstrap=DRAWS, device="cpu")
    names = [f"{label}-seed{seed}" for label in ("detection", "onset-0.8s") for seed in (0, 1, 2)]
    assert [run.name for run in found.runs] == [*names, "good"]
    assert [run.asked for run in found.runs] == [0, 0, 0, 1, 1, 1, 0]
    assert [group.names for group in found.seeds] == [tuple(names[:3]), tuple(names[3:])]
    first, second = found.seeds
    values = np.array([run.metrics.average_precision for run in found.runs[:3]], np.float64)
    assert first.mean == pytest.approx(np.mean(values))
    assert first.spread == pytest.approx(np.std(values, ddof=1))
    assert first.interval is not None
    assert (first.interval.low or 1) < (first.mean or 0) < (first.interval.high or 0)
    assert first.difference is None, "it is where the baseline is"
    assert second.difference is not None
    assert second.difference.reason == "another label: onset:10f, not detection"
    other = compare(
        [tmp_path / "many", runs["good"]], split="train", bootstrap=DRAWS, device="cpu",
        baseline=runs["good"],
    )  # fmt: skip
    mean = other.seeds[0].difference
    assert mean is not None
    each = [other.differences[name]["average_precision"].value for name in names[:3]]
    assert mean.value == pytest.approx(np.mean(np.array(each, np.float64)))


def test_seeds_are_put_together_only_where_nothing_else_differs():
    base = {"seed": 0, "lr": 0.1, "probe_of": None}
    settings = [base, base | {"seed": 1}, base | {"seed": 2, "lr": 0.2}, base]
    assert seed_groups(settings) == [[0, 1, 3]]
    assert seed_groups([base, base]) == []


def test_seeds_that_dealt_other_folds_are_not_put_together(runs, planted_shards, tmp_path):
    train(config_for(planted_shards, tmp_path / "dealt", epochs=1, folds=2, fold=0, seed=1))
    found = compare([runs["fold0"], tmp_path / "dealt"], bootstrap=DRAWS, device="cpu")
    ours, theirs = (set(run.question.groups) for run in found.runs)
    assert ours != theirs
    assert found.seeds == ()


def test_a_filter_asks_about_the_turns_of_each_run_s_own_annotations(planted_shards, tmp_path):
    def with_turns(index: Index, path: Path) -> Index:
        def revise(name: str, old: Annotations) -> Revised:
            ends = range(int(path.read_text()), old.duration_us, 3_000_000)
            return Revised(replace(old, turns=tuple(Segment(0, end, SPEAKERS[0]) for end in ends)))

        return with_annotations(index, [item.name for item in index.recordings], revise, where="")

    paths = []
    for name, first_us in (("early", "1000000"), ("later", "2000000")):
        (tmp_path / f"{name}.txt").write_text(first_us)
        config = config_for(
            planted_shards, tmp_path / name, epochs=1, annotations=tmp_path / f"{name}.txt",
            filter=FrameFilter(turn_within=Span("10f")),
        )  # fmt: skip
        train(config, annotate=with_turns)
        paths.append(config.out)
    found = compare(paths, bootstrap=0, device="cpu", annotate=with_turns)
    for run in found.runs:
        own = evaluate(
            run.path, device="cpu", timelines=0, null=0, bootstrap=0, annotate=with_turns
        )
        assert run.metrics == own.metrics, "to the last bit"
    reason = found.differences["later"]["f1"].reason
    assert reason == "other annotations: the same label counts other rows, or has other targets"


def test_numbers_are_compared_by_their_errors_and_ranks(runs, planted_shards, tmp_path):
    train(config_for(planted_shards, tmp_path / "long", epochs=4, label=LabelSpec("regression:2s")))
    paths = [runs["number"], tmp_path / "long"]
    found = compare(paths, split="train", bootstrap=DRAWS, device="cpu")
    assert (found.metric, found.better) == ("rmse", "lower")
    assert set(found.differences["long"]) == {
        "rmse", "mae", "spearman", "wait_mae_s", "average_precision", "auroc"
    }  # fmt: skip
    assert (found.differences["long"]["rmse"].value or 0) < 0
    assert found.differences["long"]["wait_mae_s"].interval is not None
    not_drawn = found.differences["long"]["spearman"].interval
    assert not_drawn is not None
    assert not_drawn.reason == "no draws are made of this metric"
    found = compare(paths, split="train", bootstrap=DRAWS, device="cpu", metric="spearman")
    interval = found.differences["long"]["spearman"].interval
    assert interval is not None
    assert interval.low is not None
    # One kind among others: what says nothing about it is null with the reason.
    found = compare([*paths, runs["good"]], bootstrap=0, device="cpu", metric="rmse")
    assert found.differences["good"]["rmse"].reason is not None


def test_p_counts_zero_on_both_sides_and_is_never_nothing():
    assert two_sided_p(np.array([1.0] * 99)) == pytest.approx(0.02)
    assert two_sided_p(np.zeros(9)) == 1.0
    assert two_sided_p(np.array([-1.0, 1, 1, np.nan, 1, 1, 1, 1, 1, 0])) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("given", "changes", "error", "said"),
    [
        (["good"], {}, ConfigError, "one run is nothing to compare"),
        ([], {}, ConfigError, "one run is nothing to compare (none)"),
        (["good", "good"], {}, ConfigError, "is given twice"),
        (["good", "nowhere"], {}, NotFound, "holds no config.json"),
        (["good", "weak"], {"split": "tests"}, ConfigError, "tests"),
        (
            ["good", "weak"],
            {"metric": "rmse"},
            ConfigError,
            "it must be auto, ap, average_precision",
        ),
        (["good", "weak"], {"metric": "lift"}, ConfigError, "metric is 'lift'"),
        (["good", "weak"], {"baseline": Path("onset")}, ConfigError, "is none of the runs (good,"),
        (["good", "weak"], {"bootstrap": -1}, ConfigError, "bootstrap is -1"),
        (["good", "weak"], {"checkpoint": "first"}, ConfigError, "use best or last"),
        (["good", "weak"], {"shards": Path("nowhere")}, NotFound, "nowhere"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs, tmp_path, given, changes, error, said):
    paths = [runs.get(name, tmp_path / name) for name in given]
    with pytest.raises(error, match=None) as raised:
        compare(paths, device="cpu", **changes)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_probes_that_are_not_written_yet_are_named(planted_shards, tmp_path):
    train_probes(probes(planted_shards, tmp_path / "many"))
    shutil.rmtree(tmp_path / "many" / "probes" / "detection-seed1")
    with pytest.raises(NotFound, match=r"1 of its 6 probes yet \(detection-seed1\)"):
        compare([tmp_path / "many"], device="cpu")


def test_a_run_whose_scores_are_no_numbers_is_named(runs, tmp_path):
    copy = shutil.copytree(runs["weak"], tmp_path / "broken") / "checkpoints"
    found = load_checkpoint(checkpoint_path(copy, "best"))
    for name, tensor in found.model.items():
        if name.startswith("head."):
            tensor.fill_(float("nan"))
    mark_best(copy, save_checkpoint(copy, 10_000, found), {})
    with pytest.raises(ConfigError, match="the scores of broken are not finite"):
        compare([runs["good"], copy.parent], device="cpu")
