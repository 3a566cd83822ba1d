"""docs/extending.md, applied: a copy of the packages with its changes trains and evaluates."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = (REPOSITORY / "docs/extending.md").read_text()


def apply(change: str, folder: Path) -> None:
    """Apply one change: the lines that are there already stand in the file once, one after another.

    A file that is not there is made of the new lines.
    """
    header, *lines = change.splitlines()
    path = folder / header.removeprefix("--- ")
    assert all(line[:1] in (" ", "+", "") for line in lines), change
    new = "".join(f"{line[1:]}\n" for line in lines)
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    if not path.exists():
        assert not old
        path.write_text(new)
        return
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name} does not have, once:\n{old}"
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extended")
    for package in ("laughstore", "extract", "train"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, folder / package, ignore=ignore)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    changes = re.findall(r"^```diff\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert len(changes) == 7
    for change in changes:
        apply(change, folder)
    return folder


def test_the_document_s_code_is_as_clean_as_ours(extended: Path) -> None:
    for action in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *action, "--no-cache", "train"],
            cwd=extended,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_document_s_commands_train_and_evaluate(
    extended: Path, either_way: Path, tmp_path: Path
) -> None:
    written = re.findall(r"^laughstore (.*)$", DOCUMENT, re.MULTILINE)
    commands = [shlex.split(line.replace("STORE/shards", str(either_way))) for line in written]
    assert [command[0] for command in commands] == ["train", "evaluate"]
    quick = "--epochs 8 --lr 0.01 --global-batch 512 --lanes 16"
    commands[0] += shlex.split(quick)
    commands[1] += ["--timelines", "0"]
    # Beside another loss the argument is refused; a help names it.
    commands += [
        ["train", "--shards", "S", "--out", "R", "--smoothing", "0.2"],
        ["train", "--help"],
    ]
    script = (
        "import json, sys\n"
        "from laughstore.cli.main import main\n"
        "codes = []\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        codes.append(main(command))\n"
        "    except SystemExit as error:\n"
        "        codes.append(error.code)\n"
        "print(codes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(extended), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["[0, 0, 2, 0]"], done.stdout + done.stderr
    assert "smoothing is 0.2: loss bce has none; drop it, or use --loss smooth_bce" in done.stderr
    for flag in ("--smoothing", "smooth_bce", "squares", "val_brier"):
        assert flag in done.stdout
    found = json.loads((tmp_path / "RUN/evaluation/validation/metrics.json").read_text())
    assert 0 < found["metrics"]["brier"] < 0.25
    assert found["metrics"]["lift"] > 3  # which no linear head reaches here
    assert found["scores"] == "order"
    lines = [json.loads(line) for line in (tmp_path / "RUN/metrics.jsonl").read_text().splitlines()]
    scores = [line["brier"] for line in lines if line["kind"] == "validation"]
    assert min(scores) == pytest.approx(found["metrics"]["brier"])
    content = json.loads((tmp_path / "RUN/config.json").read_text())["config"]
    assert (content["smoothing"], content["head"], content["hidden"]) == (0.05, "squares", 32)
    assert "Brier 0." in done.stdout
