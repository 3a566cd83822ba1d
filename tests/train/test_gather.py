import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import train.streaming.gather
from train.streaming.gather import IS_COMPILED, RowMatrix

ROOT = Path(__file__).parents[2]
COMPILED = [
    pytest.param(True, marks=pytest.mark.skipif(not IS_COMPILED, reason="nothing was compiled")),
    False,
]


def test_rows_are_copied_by_compiled_code_wherever_there_is_a_compiler():
    compiler = (os.environ.get("CC", "").split() or ["cc"])[0]
    if shutil.which(compiler) is None:
        pytest.skip("no C compiler")
    assert IS_COMPILED, "run `uv sync --reinstall-package laughstore`, which compiles it"


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("dim", [1, 3, 32, 64, 2047, 2048, 2049, 4096, 5000, 32768])
@given(
    seed=st.integers(0, 2**32 - 1),
    num_rows=st.sampled_from([0, 1, 2, 5, 255, 256, 257, 700]),
    first_byte=st.sampled_from([0, 16, 62]),
)
@settings(max_examples=10, deadline=None)
def test_rows_are_copied_as_they_are_whatever_their_width_and_number(
    dim, compiled, seed, num_rows, first_byte
):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**16, (37, dim), np.uint16)
    bits.flags.writeable = False
    rows = rng.integers(0, 37, num_rows)
    memory = np.full((num_rows + 1) * dim + 64, 7, np.int16)
    start = (-memory.ctypes.data % 64 + first_byte) // 2  # from the beginning of a cache line
    out = memory[start : start + num_rows * dim].reshape(num_rows, dim)
    RowMatrix(bits, compiled=compiled).gather(rows, out)
    np.testing.assert_array_equal(out.view(np.uint16), bits[rows])
    assert (memory[:start] == 7).all()
    assert (memory[start + num_rows * dim :] == 7).all()


@pytest.mark.parametrize("compiled", COMPILED)
def test_numbers_and_memory_may_lie_in_steps(compiled):
    bits = np.random.default_rng(0).integers(0, 2**16, (37, 64), np.uint16)
    rows = np.arange(74)[::-2] % 37
    out = np.full((37, 128), 7, np.int16)
    matrix = RowMatrix(bits, compiled=compiled)
    matrix.gather(rows, out[:, :64])
    np.testing.assert_array_equal(out[:, :64].view(np.uint16), bits[rows])
    assert (out[:, 64:] == 7).all()


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("dim", [1, 2048, 2049])
@pytest.mark.parametrize("row", [37, 38, 2**40, 2**52, 2**53])
def test_a_row_behind_the_matrix_is_refused(dim, row, compiled):
    rows = np.arange(300) % 37
    rows[280] = row
    matrix = RowMatrix(np.zeros((37, dim), np.uint16), compiled=compiled)
    with pytest.raises(IndexError):
        matrix.gather(rows, np.empty((300, dim), np.int16))


@pytest.mark.parametrize("compiled", COMPILED)
def test_nothing_is_written_when_a_number_is_negative(compiled):
    matrix = RowMatrix(np.zeros((37, 64), np.uint16), compiled=compiled)
    out = np.full((4, 64), 7, np.int16)
    with pytest.raises(IndexError, match=r"rows? -1 .*of a matrix of 37"):
        matrix.gather(np.array([0, 1, -1, 2]), out)
    assert (out == 7).all()


@pytest.mark.parametrize("compiled", COMPILED)
def test_arrays_that_are_none_of_such_rows_are_refused(compiled):
    matrix = RowMatrix(np.zeros((37, 64), np.uint16), compiled=compiled)
    rows, out = np.arange(4), np.full((4, 64), 7, np.int16)
    read_only = out.copy()
    read_only.flags.writeable = False
    wrong: list[tuple[Any, Any]] = [
        (rows, out[:3]),
        (rows, out[:, :63].copy()),
        (rows, out.astype(np.int32)),
        (rows, read_only),
        (rows.reshape(4, 1), out),
        (rows.reshape(2, 2), out[:2]),
        (rows.astype(np.int32), out),
        (rows.astype(float), out),
    ]
    for numbers, into in wrong:
        with pytest.raises(ValueError, match="rows"):
            matrix.gather(numbers, into)
    assert (out == 7).all()


@pytest.mark.parametrize("found", ["nothing", "no library", "an older one"])
def test_without_the_library_numpy_copies(tmp_path, monkeypatch, found):
    library = tmp_path / "librow_copy.so"
    if found == "no library":
        library.write_text("text")
    elif found == "an older one":
        if shutil.which("cc") is None:
            pytest.skip("no C compiler")
        source = tmp_path / "older.c"
        source.write_text("int copy_rows_0(void) { return 0; }\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(train.streaming.gather, "_LIBRARY", library)
    assert train.streaming.gather._load() is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_wheel_holds_the_library_and_one_made_without_a_compiler_does_not(tmp_path):
    copy = tmp_path / "project"
    names = ["laughstore", "extract", "train", "README.md", "LICENSE", "pyproject.toml"]
    copy.mkdir()
    for name in [*names, "hatch_build.py"]:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("*.so"))
        else:
            shutil.copy(source, copy / name)
    made = {}
    for number, compiler in enumerate(("cc", "false", "no-such-compiler", "'cc")):
        out = tmp_path / str(number)
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
            cwd=copy,
            env={**os.environ, "CC": compiler},
            check=True,
        )
        (made[compiler],) = out.glob("*.whl")
        assert (copy / "train/streaming/librow_copy.so").exists() == (compiler == "cc")
    inside = {
        compiler: [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
        for compiler, wheel in made.items()
    }
    library = ["train/streaming/librow_copy.so"]
    assert inside == {"cc": library, "false": [], "no-such-compiler": [], "'cc": []}
    assert "-py3-none-" in made["cc"].name
    assert not made["cc"].name.endswith("-any.whl")
    assert made["false"].name.endswith("-py3-none-any.whl")
