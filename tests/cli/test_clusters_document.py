"""The batch scripts of docs/clusters.md run as they stand, with a small model and no scheduler."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from laughstore.cli.build import parse_build
from tests.faults.harness import tree
from train.runs.run import Run

DOCUMENT = Path(__file__).parents[2] / "docs/clusters.md"
SCRIPTS = {
    match[1]: match[0]
    for match in re.finditer(
        r"(?<=```bash\n)#!/bin/bash\n# (\w+\.sbatch).*?(?=```)", DOCUMENT.read_text(), re.DOTALL
    )
}

Sbatch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sbatch(corpus: Path, nano_checkpoint: Path, tmp_path: Path) -> Sbatch:
    """Run a script of the document as SLURM would, with commands of its own in front."""
    commands = {
        "laughstore": f'exec {sys.executable} -m laughstore "$@"',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
        # As on each of the nodes.
        "srun": 'for i in $(seq "$SLURM_NNODES"); do "$@" & pids="$pids $!"; done\n'
        "for pid in $pids; do wait $pid || exit $?; done",
        "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "scontrol $*"; fi',
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in commands.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)

    def sbatch(name: str, **variables: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash"],
            input=SCRIPTS[name],
            env=os.environ
            | {
                "PATH": f"{folder}:{os.environ['PATH']}",
                "DATASET": str(corpus),
                "STORE": str(tmp_path / "store"),
                "MODEL": str(nano_checkpoint),
                "SLURM_JOB_ID": "17",
                "SLURM_NNODES": "1",
            }
            | {key: str(value) for key, value in variables.items()},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return sbatch


def whole(store: Path) -> dict[str, str]:
    return {path: sha for path, sha in tree(store).items() if not path.startswith("stats/")}


NAMES = ["array.sbatch", "commit.sbatch", "nodes.sbatch", "train.sbatch"]


@pytest.mark.parametrize("name", NAMES)
def test_a_script_is_bash_and_its_directives_come_first(name):
    text = SCRIPTS[name]
    done = subprocess.run(["bash", "-n"], input=text, text=True, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = text.splitlines()
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert max(directives) < first_command, "sbatch reads no directive behind a command"
    assert list(SCRIPTS) == NAMES


def test_a_task_that_is_told_to_stop_is_queued_again(sbatch, tmp_path):
    (tmp_path / "bin/laughstore").write_text("#!/bin/bash\nexit 143\n")
    done = sbatch("array.sbatch", SLURM_ARRAY_TASK_ID=3)
    assert (done.returncode, done.stdout) == (143, "scontrol requeue 17\n")
    for code in (0, 1, 3):
        (tmp_path / "bin/laughstore").write_text(f"#!/bin/bash\nexit {code}\n")
        done = sbatch("array.sbatch", SLURM_ARRAY_TASK_ID=3)
        assert (done.returncode, done.stdout) == (code, "")


def test_a_task_builds_its_part(sbatch, tmp_path):
    (tmp_path / "bin/laughstore").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    done = sbatch("array.sbatch", SLURM_ARRAY_TASK_ID=3)
    command, *arguments = done.stdout.splitlines()
    assert command == "build"
    config = parse_build(arguments).config
    assert (config.part, config.nproc, config.store) == ("3/8", 1, tmp_path / "store")


@pytest.mark.slow
def test_the_array_job_and_the_job_behind_it_build_the_store(sbatch, built, tmp_path):
    for number in (2, 1):
        assert not (tmp_path / "store/store.json").exists()
        done = sbatch("array.sbatch", PARTS=2, SLURM_ARRAY_TASK_ID=number)
        assert done.returncode == 0, done.stderr
    done = sbatch("commit.sbatch")
    assert done.returncode == 0, done.stderr
    assert whole(tmp_path / "store") == whole(built)


@pytest.mark.slow
def test_two_nodes_of_torchrun_build_the_store(sbatch, built, tmp_path, free_port):
    done = sbatch("nodes.sbatch", SLURM_NNODES=2, SLURM_JOB_NODELIST="n", GPUS=1, PORT=free_port)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("store: ") == 1
    assert whole(tmp_path / "store") == whole(built)


@pytest.mark.slow
def test_two_nodes_of_torchrun_train_one_run_and_again_end_as_it_did(
    sbatch, built, tmp_path, free_port
):
    nodes = {"SLURM_NNODES": 2, "SLURM_JOB_NODELIST": "n", "GPUS": 1, "PORT": free_port}
    for _ in range(2):
        done = sbatch("train.sbatch", **nodes, STORE=built, RUN=tmp_path / "run")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("validation AP") == 1
    assert Run.open(tmp_path / "run").config.shards == built / "shards"


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens at."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_every_command_line_of_the_document_is_understood():
    lines = re.findall(r"`laughstore build (DATASET --store STORE[^`]*)`", DOCUMENT.read_text())
    assert len(lines) >= 3
    for line in lines:
        parse_build(line.replace("--nproc N", "--nproc 4").split())
