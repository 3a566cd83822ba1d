"""What is printed is out before a command ends, or its exit code says that it is not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def a_full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def a_pipe_that_nobody_reads() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


FULL = (
    "laughstore: the disk is full ([Errno 28] No space left on device: 'standard output'); free"
    " some space and run the same command again\n"
)


@pytest.mark.parametrize("arguments", [["inspect", "STORE", "--json"], ["--version"]])
@pytest.mark.parametrize(("output", "said"), [(a_full_disk, FULL), (a_pipe_that_nobody_reads, "")])
def test_output_that_cannot_be_written_is_one_line_at_most_and_a_failure(
    built: Path, output, arguments, said
):
    words = [str(built) if word == "STORE" else word for word in arguments]
    with output() as descriptor:
        done = _laughstore(words, stdout=descriptor, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize("arguments", [["verify", "--help"], ["--version"]])
def test_output_that_is_not_buffered_fails_alike(arguments):
    with a_full_disk() as descriptor:
        done = _laughstore(arguments, stdout=descriptor, stderr=subprocess.PIPE, unbuffered="1")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "laughstore: the disk is full ([Errno 28] No space left on device"
    )
    assert done.stderr.count("\n") == 1


def test_an_error_that_nobody_reads_keeps_its_exit_code(tmp_path):
    with a_pipe_that_nobody_reads() as descriptor:
        words = ["inspect", str(tmp_path / "no"), "--json"]
        done = _laughstore(words, stdout=subprocess.PIPE, stderr=descriptor)
    assert (done.returncode, done.stdout) == (1, "")


def _laughstore(
    words: list[str], *, stdout: int, stderr: int, unbuffered: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "laughstore", *words]
    return subprocess.run(
        command,
        text=True,
        check=False,
        timeout=60,
        env=environment,
        stdout=stdout,
        stderr=stderr,
    )
