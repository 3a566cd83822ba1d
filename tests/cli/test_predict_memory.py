"""Memory does not grow with what is predicted, but for four bytes a frame."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from laughstore.cli.main import main
from tests.extract.test_memory import BUILD_AND_TELL, SHORT_S, write_wav

from .predicting import trained_on

BYTES_A_FRAME = 150
"""While files are written: scores, where they stand, and segments; far below features (2 kB)."""


def peak_kb(folder: Path, run: Path, seconds: int) -> int:
    """Return the peak resident memory of `laughstore predict`, in a process of its own."""
    folder.mkdir()
    for name in ("main", "other"):
        write_wav(folder / f"{name}.wav", seconds)
    command = [sys.executable, "-c", BUILD_AND_TELL, "predict", "--run", str(run), "--frames"]
    command += ["--main", str(folder / "main.wav"), "--other", str(folder / "other.wav")]
    done = subprocess.run(
        [*command, "--out", str(folder / "out"), "--device", "cpu"],
        # Every large array is mapped by itself, so that the peak is of what is in use.
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(256 << 10)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    word, code, peak = done.stdout.splitlines()[-1].split()
    assert (word, code) == ("peak", "0"), done.stdout
    return int(peak)


@pytest.mark.slow
def test_three_hours_take_as_much_memory_as_ten_minutes(corpus, tmp_path):
    store = tmp_path / "store"
    assert main(["build", str(corpus), "--store", str(store), "--tap", "logmel", "-q"]) == 0
    run = trained_on(store, tmp_path / "run", epochs=1)
    short = peak_kb(tmp_path / "short", run, SHORT_S)
    long = peak_kb(tmp_path / "long", run, 3 * 3600)
    frames = (3 * 3600 - SHORT_S) * 12.5
    assert long <= 1.05 * short + BYTES_A_FRAME * frames / 1024
