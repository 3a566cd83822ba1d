"""Limits do the work that they claim, and rivals get their memory again."""

import subprocess
import sys

import pytest


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
