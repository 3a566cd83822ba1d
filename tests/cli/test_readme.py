"""Every command in the README and the guide is run, in its order, as it is written there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from laughstore.cli.main import main
from tests.store.servers import S3Server

from .documents import cache_model, fenced, indented_lines

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
GUIDE = (REPOSITORY / "docs/guide.md").read_text()
TWO_COMMANDS = [
    "python3 -m pip install uv && uv run laughstore demo",
    "python3 -m pip install uv && uv run pytest",
]


def _commands(document: str) -> list[str]:
    """Indented lines of a document that call laughstore."""
    return [line for line in indented_lines(document) if line.startswith("laughstore ")]


@pytest.fixture(scope="module")
def workplace(
    corpus: Path, nano_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """DATASET, AUDIO, and a Hugging Face cache in which the default model is a small one."""
    from extract.config import DEFAULT_MODEL

    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(corpus, folder / "DATASET")
    (episode,) = (corpus / "audio" / "episode_wav_dial" / "test").iterdir()
    shutil.copytree(episode, folder / "AUDIO")
    cache_model(folder / "hf", DEFAULT_MODEL, nano_checkpoint)
    return folder


@pytest.mark.slow
def test_every_command_of_the_guide_runs_in_its_order(workplace: Path, s3_server: S3Server) -> None:
    commands = _commands(GUIDE)
    assert len(commands) >= 30
    environment = os.environ | s3_server.environment()
    environment |= {
        "HF_HOME": str(workplace / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    for written in commands:
        command = written.replace("s3://BUCKET/", f"s3://{s3_server.bucket}/readme/")
        done = subprocess.run(
            [sys.executable, "-m", "laughstore", *shlex.split(command)[1:]],
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    _run_python_blocks(workplace)


def _run_python_blocks(workplace: Path) -> None:
    blocks = [*fenced(README, "python"), *fenced(GUIDE, "python")]
    assert len(blocks) >= 3
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=workplace,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"


def test_the_readme_s_commands_are_those_of_the_guide_in_its_order():
    """So they are run with it."""
    commands = _commands(README)
    assert len(commands) >= 10
    rest = iter(_commands(GUIDE))
    missing = [command for command in commands if command not in rest]
    assert not missing


@pytest.mark.slow
def test_demo_beats_the_base_rate_clearly_on_held_out_episodes(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    metrics = report["metrics"]
    assert report["split"] == "test"
    # Measured: lift 11.9 and AUROC .92 at seed 0. Well below that something is broken.
    assert metrics["lift"] > 3
    assert metrics["auroc"] > 0.75
    assert len(report["recordings"]) == 3
    assert all(item["lift"] > 1.5 for item in report["recordings"])
    for plot in report["plots"]:
        assert Path(plot).read_bytes().startswith(b"\x89PNG")
    assert "5/5" in printed.err
    assert main(["inspect", str(out / "store")]) == 0
    shown = capsys.readouterr().out
    assert "bfloat16[4096]" in shown


def test_the_readme_begins_with_the_two_commands():
    for command in TWO_COMMANDS:
        assert f"\n    {command}\n" in README


def test_ci_runs_the_readme_test_command():
    script = (REPOSITORY / ".ci/run").read_text()
    assert TWO_COMMANDS[1] in script
    assert "README.md" in script


def test_files_that_documents_link_to_exist():
    for document in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_constraints_are_what_is_installed():
    pins = [
        Requirement(line)
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    assert len(here) > 50
    differing = [f"{pin}, installed {version(pin.name)}" for pin in here if not _fits(pin)]
    assert not differing


def _fits(pin: Requirement) -> bool:
    return pin.specifier.contains(version(pin.name), prereleases=True)
