"""`train --nproc` and torchrun: killed wherever, a run ends as if nothing had happened."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from laughstore.cli.launch import MAX_RESTARTS
from tests.cli.test_workers import assert_ended, children
from tests.stores import write_store
from tests.train.conftest import DIM, Planted, planted_episodes
from tests.train.processes import on_ranks
from tests.train.test_resume import weights
from train import TrainConfig, train

REPOSITORY = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
FLAGS = ["--global-batch", "64", "--lanes", "16", "--epochs", "20", "--lr", "0.02"]
FLAGS += ["--patience", "20", "--device", "cpu"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    episodes = planted_episodes()
    path = tmp_path_factory.mktemp("planted") / "store"
    write_store(path, episodes, Planted(episodes), dim=DIM, block_frames=32, shard_frames=256)
    return path / "shards"


@pytest.fixture(scope="module")
def expected(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Weights of two ranks that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    settings = {"global_batch": 64, "lanes": 16, "epochs": 20, "lr": 0.02, "patience": 20}
    config = TrainConfig(shards=shards, out=out, device="cpu", **settings)
    for end in on_ranks(2, lambda place: train(config, place=place)):
        end.result()
    return weights(out)


def words(shards: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--shards", str(shards), "--out", str(out), *FLAGS, *more]


@contextmanager
def running(command: list[str], out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains, once its run has some lines of log and a checkpoint."""
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        wait_for(lambda: num_lines(out) > 20 or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


def num_lines(out: Path) -> int:
    log = out / "metrics.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def wait_for(is_so: Callable[[], bool], seconds: float = 60) -> None:
    until_s = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def laughstore(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "laughstore", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def nproc(shards: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "laughstore", *words(shards, out, "--nproc", "2", *more)]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_changes_no_weight(rank, shards, tmp_path, expected):
    out = tmp_path / "run"
    with running(nproc(shards, out, "--save-every-s", "0.05", "--json"), out) as process:
        os.kill(children(process.pid)[rank], signal.SIGKILL)
        told, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert (
        f"rank {rank} was killed by SIGKILL (out of memory, if you did not send it); all 2" in said
    )
    assert json.loads(told)["epochs"] == 20, "told once, and nothing else on stdout"
    assert weights(out) == expected


@pytest.mark.slow
def test_ranks_end_with_their_parent_and_a_rerun_goes_on(shards, tmp_path, expected):
    out = tmp_path / "run"
    with running(nproc(shards, out), out) as process:
        pids = children(process.pid)
        assert len(pids) == 2
        process.kill()
        assert_ended(pids)
    done = laughstore(*words(shards, out, "--nproc", "2", "--resume"))
    assert done.returncode == 0, done.stderr
    assert weights(out) == expected


@pytest.mark.slow
@pytest.mark.parametrize("to_group", [False, True])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_all_and_the_last_line_is_the_command_that_goes_on(
    number, code, to_group, shards, tmp_path, expected
):
    """Sent to the parent alone, and to all, as a terminal or a scheduler does."""
    out = tmp_path / "run"
    with running(nproc(shards, out), out) as process:
        pids = children(process.pid)
        os.killpg(process.pid, number) if to_group else process.send_signal(number)
        said = process.communicate(timeout=10)[1]
        assert process.returncode == code
        assert_ended(pids)
    assert "Traceback" not in said
    assert "saved in step-" in said
    last = said.splitlines()[-1].strip()
    assert last == f"laughstore {' '.join(words(shards, out, '--nproc', '2', '--resume'))}"
    assert laughstore(*last.split()[1:]).returncode == 0
    assert weights(out) == expected


@pytest.mark.slow
def test_a_rank_that_is_told_to_stop_stops_all(shards, tmp_path):
    out = tmp_path / "run"
    with running(nproc(shards, out), out) as process:
        os.kill(children(process.pid)[1], signal.SIGTERM)
        said = process.communicate(timeout=15)[1]
        assert process.returncode == 143
    assert said.splitlines()[-1].endswith("--resume")


@pytest.mark.slow
def test_a_rank_that_is_killed_again_and_again_ends_the_run(shards, tmp_path):
    out = tmp_path / "run"
    killed: set[int] = set()
    with running(nproc(shards, out), out) as process:
        while len(killed) <= MAX_RESTARTS:
            pids = children(process.pid)
            if len(pids) == 2 and pids[1] not in killed:
                killed.add(pids[1])
                os.kill(pids[1], signal.SIGKILL)
            time.sleep(0.05)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 1
    assert f"and ranks were killed {MAX_RESTARTS} times before" in said.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_starts_killed_ranks_again_and_no_weight_changes(rank, shards, tmp_path, expected):
    """Its store outlives the attempt; the addresses of the dead must not be found in it."""
    out = tmp_path / "run"
    command = [*TORCHRUN, "--max-restarts", "3", "-m", "laughstore"]
    command += words(shards, out, "--save-every-s", "0.05")
    with running(command, out) as process:
        os.kill(children(process.pid)[rank], signal.SIGKILL)
        told, said = process.communicate(timeout=90)
        assert process.returncode == 0, said
    assert told.count("validation AP") == 1
    assert weights(out) == expected


@pytest.mark.slow
@pytest.mark.parametrize("host", [0, 1])
def test_a_rank_killed_on_one_host_has_those_of_all_hosts_begin_again(
    host, shards, tmp_path, expected
):
    """Only the agent of the host where it died counts that as a restart."""
    out = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    command += ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "a-job"]
    command += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    command += ["--max-restarts", "3", "-m", "laughstore"]
    command += words(shards, out, "--save-every-s", "0.05", "--rank-timeout-s", "20")
    other = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    try:
        with running(command, out) as process:
            (rank,) = children((process.pid, other.pid)[host])
            os.kill(rank, signal.SIGKILL)
            said = process.communicate(timeout=90)[1]
            assert process.returncode == 0, said
        said = other.communicate(timeout=30)[1]
        assert other.returncode == 0, said
    finally:
        other.kill()
        other.communicate()
    assert weights(out) == expected


@pytest.mark.slow
def test_torchrun_does_not_go_on_with_a_run_that_it_did_not_begin(shards, tmp_path):
    """Its second attempt finds what the first one has refused."""
    out = tmp_path / "run"
    assert laughstore(*words(shards, out, "--epochs", "1")).returncode == 0
    before = weights(out)
    command = [*TORCHRUN, "--max-restarts", "1", "-m", "laughstore", *words(shards, out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count(b"run exists; choose another --out") == 4
    assert weights(out) == before


@pytest.mark.slow
def test_ranks_end_with_torchrun_and_another_goes_on(shards, tmp_path, expected):
    out = tmp_path / "run"
    command = [*TORCHRUN, "-m", "laughstore", *words(shards, out)]
    with running(command, out) as process:
        pids = children(process.pid)
        assert len(pids) >= 2
        process.kill()
        until_s = time.monotonic() + 5
        assert_ended(pids)
        assert time.monotonic() < until_s
    done = subprocess.run(
        [*command, "--resume"], cwd=REPOSITORY, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert weights(out) == expected


@pytest.mark.slow
def test_torchrun_told_to_stop_saves_and_says_how_to_go_on(shards, tmp_path, expected):
    out = tmp_path / "run"
    with running([*TORCHRUN, "-m", "laughstore", *words(shards, out)], out) as process:
        process.terminate()
        said = process.communicate(timeout=30)[1]
    assert "torchrun ... -m laughstore train --shards" in said
    assert "saved in step-" in said
    assert laughstore(*words(shards, out, "--nproc", "2", "--resume")).returncode == 0
    assert weights(out) == expected


def test_what_all_ranks_refuse_is_told_once(shards, tmp_path):
    (tmp_path / "run").mkdir()
    done = laughstore(*words(shards, tmp_path / "run", "--nproc", "2", "-q"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"laughstore: {tmp_path / 'run'} exists; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--nproc", "0"], "nproc is 0; it must be at least 1"),
        (["--nproc", "3"], "lanes is 16, which 3 ranks cannot share evenly; the nearest"),
        (["--rank-timeout-s", "0"], "rank_timeout_s is 0.0"),
        (["--save-every-s", "-1"], "save_every_s is -1.0"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags, said, run, shards, tmp_path):
    code, out, err = run(*words(shards, tmp_path / "run", *flags))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_inside_torchrun_nproc_is_refused(run, shards, tmp_path, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    code, _, err = run(*words(shards, tmp_path / "run", "--nproc", "2"))
    assert code == 2
    assert "leave --nproc out" in err
    monkeypatch.setattr("laughstore.cli.train.die_with", lambda parent: None)
    code, _, err = run(*words(shards, tmp_path / "run"))
    assert code == 2
    assert "WORLD_SIZE" in err
    assert "unset TORCHELASTIC_RUN_ID" in err


def test_the_parent_loads_no_torch(shards, tmp_path):
    code = (
        "import sys; from laughstore.cli.main import main;"
        f"assert main({words(shards, tmp_path / 'run', '--nproc', '3')!r}) == 2;"
        "assert 'laughstore.cli.launch' in sys.modules; assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
