"""Limits do the work that they claim, and rivals get their memory again."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.compiled_gather import compiled_gather
from benchmarks.data import DIM
from train.streaming.buffers import aligned_empty


def test_compiled_code_copies_the_rows_that_it_is_asked_for():
    rows = np.random.default_rng(0).integers(-(2**15), 2**15, (300, DIM), np.int16)
    gather = compiled_gather(rows)
    if gather is None:
        pytest.skip("no C compiler, or a processor without AVX2")
    numbers = np.random.default_rng(1).permutation(300)[:137]
    out = aligned_empty((140, DIM))
    out[:] = 7
    gather(numbers, out)
    assert np.array_equal(out[:137], rows[numbers])
    assert (out[137:] == 7).all()
    with pytest.raises(AssertionError, match="bytes"):
        gather(numbers[::2], out)
    with pytest.raises(AssertionError, match="8 bytes"):
        gather(np.asarray(numbers, "<i4"), out)
    with pytest.raises(AssertionError, match="8 bytes"):
        gather(numbers, out.reshape(280, DIM // 2))
    elsewhere = aligned_empty((141, DIM)).reshape(-1)[8 : 8 + 140 * DIM].reshape(140, DIM)
    with pytest.raises(AssertionError, match="aligned"):
        gather(numbers, elsewhere)
    with pytest.raises(AssertionError, match="elsewhere"):
        compiled_gather(rows[:, ::2])


@pytest.mark.parametrize("body", ["exit 1", 'echo no library > "$5"'])
def test_a_compiler_that_makes_nothing_leaves_the_loop_out(tmp_path, monkeypatch, body):
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\ncd {tmp_path}\n{body}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiled_gather(np.zeros((4, DIM), np.int16)) is None


def test_freed_memory_is_used_again_without_a_page_fault():
    code = """
import resource
import numpy as np
from benchmarks.freed_memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(40 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
as_by_default = faults()
keeps = keep_freed_memory()
faults()
print(as_by_default, faults() if keeps else -1)
"""
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    as_by_default, kept = map(int, found.stdout.split())
    if kept < 0:
        pytest.skip("this C library has no such setting")
    assert as_by_default > 10 * (kept + 1)
