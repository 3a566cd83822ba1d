"""`laughstore train --probe`: many heads in one pass, from the command line."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_train_ranks import nproc, running, shards  # noqa: F401 (fixture)
from tests.cli.test_workers import children
from tests.train.test_probes import best_tensors
from train.runs.looks import record_look
from train.runs.run import Run as TrainingRun

FLAGS = ["--epochs", "2", "--lr", "0.01", "--global-batch", "64", "--device", "cpu"]
PROBES = ["--probe", "detection", "--probe", "onset:0.8s", "--probe", "regression:2s"]


def test_probes_are_told_as_a_table_and_each_can_be_evaluated(
    built: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "run"
    code, told, said = run("train", "--shards", built, "--out", out, *PROBES, "--seeds", 2, *FLAGS)
    assert code == 0, said
    _, header, *lines = told.splitlines()
    assert header.split() == ["probe", "best", "epoch", "AP", "base", "rate", "lift", "RMSE"]
    labels = ("detection", "onset-0.8s", "regression-2s")
    names = [f"{label}-seed{seed}" for label in labels for seed in (0, 1)]
    assert [line.split()[0] for line in lines[:6]] == names
    assert all(line.split()[2:4] == ["of", "2"] for line in lines[:6])
    assert [len(line.split()) for line in lines[:6]] == [8, 8, 8, 8, 9, 9]
    assert lines[6] == f"run: {out}"
    evaluated = lines[7].removeprefix("next: laughstore ").split()
    assert evaluated[0] == "evaluate"
    assert Path(evaluated[1]).parent == out / "probes"
    assert "regression:2s (25 rows) of Laughter" in said
    assert "epoch 1: 6 of 6 probes better than before (" in said
    code, told, said = run(*evaluated, "--timelines", 0)
    assert code == 0, said
    code, told, _ = run("inspect", out)
    assert code == 0
    assert "6 probes; all frames" in told
    assert "looks at" not in told
    assert "onset-0.8s-seed1: onset:0.8s (10 rows) of Laughter" in told
    for name in names[:2]:
        record_look(
            TrainingRun.open(out / "probes" / name), "test", checkpoint=Path("step-000000002"),
            checkpoint_sha256="c", index_id="i", annotations_sha256="a",
        )  # fmt: skip
    assert "looks at test: 2, the last of step-000000002" in run("inspect", out)[1]
    code, told, _ = run("inspect", evaluated[1])
    assert code == 0
    assert f"a probe of {out}" in told
    code, _, said = run("evaluate", out)
    assert (code, said.count("\n")) == (2, 1)
    assert "holds 6 probes" in said


def test_probes_as_json_and_the_same_again_after_the_end(
    built: Path, tmp_path: Path, run: Run
) -> None:
    words = ["train", "--shards", built, "--out", tmp_path / "run", *PROBES[:4], *FLAGS, "--json"]
    code, told, said = run(*words)
    assert code == 0, said
    found = json.loads(told)
    assert [item["name"] for item in found["probes"]] == ["detection-seed0", "onset-0.8s-seed0"]
    for item in found["probes"]:
        config = TrainingRun.open(Path(item["run"])).config
        assert config.label.identity() == item["label"]
        assert item["validation"]["average_precision"] > 0
    code, told, _ = run(*words, "--resume")
    assert code == 0
    assert json.loads(told)["probes"] == found["probes"]
    code, _, said = run(*words, "--probe", "onset:1.6s", "--resume")
    assert code == 2
    assert "probe was ['detection', 'onset:0.8s'] and is" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--probe", "detection", "--balance", "3"], "balance is 3.0, which is for one label"),
        (["--probe", "noon:1f"], "the kinds of labels are detection"),
        (["--probe", "onset:1f,colour=red"], "no setting of a label"),
        (["--seeds", "3"], "it is for probes; use --probe LABEL"),
        (["--probe", "onset:1f", "--label", "onset:2f"], "give it as another --probe"),
    ],
)
def test_what_probes_cannot_do_is_one_line(
    flags: list[str], said: str, tmp_path: Path, run: Run
) -> None:
    code, out, err = run("train", "--shards", "x", "--out", tmp_path / "run", *flags)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_probes_of_ranks_of_which_one_is_killed_are_those_that_nobody_disturbed(
    shards: Path,  # noqa: F811
    tmp_path: Path,
    run: Run,
) -> None:
    flags = ["--probe", "detection", "--probe", "onset:0.8s", "--save-every-s", "0.05", "--json"]
    with running(nproc(shards, tmp_path / "whole", *flags), tmp_path / "whole") as process:
        expected, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    with running(nproc(shards, tmp_path / "run", *flags), tmp_path / "run") as process:
        os.kill(children(process.pid)[1], signal.SIGKILL)
        told, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert "rank 1 was killed by SIGKILL" in said
    probes, others = (json.loads(text)["probes"] for text in (told, expected))
    for ours, theirs in zip(probes, others, strict=True):
        assert {**ours, "run": ""} == {**theirs, "run": ""}
        for name, value in best_tensors(Path(theirs["run"])).items():
            assert (best_tensors(Path(ours["run"]))[name] == value).all()
