import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.streaming.gather import RowMatrix


@pytest.mark.parametrize("dim", [1, 3, 64, 2047, 2048, 2049, 4096, 5000])
@given(seed=st.integers(0, 2**32 - 1), num_rows=st.sampled_from([0, 1, 2, 255, 256, 257, 700]))
@settings(max_examples=10, deadline=None)
def test_rows_are_copied_as_they_are_whatever_their_width_and_number(dim, seed, num_rows):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**16, (37, dim), np.uint16)
    bits.flags.writeable = False
    rows = rng.integers(0, 37, num_rows)
    out = np.full((num_rows + 1, dim), 7, np.int16)
    RowMatrix(bits).gather(rows, out[:num_rows])
    np.testing.assert_array_equal(out[:num_rows].view(np.uint16), bits[rows])
    assert (out[num_rows:] == 7).all()


@pytest.mark.parametrize("dim", [1, 2048, 2049])
@pytest.mark.parametrize("row", [37, 38, 2**40])
def test_a_row_behind_the_matrix_is_refused(dim, row):
    rows = np.arange(300) % 37
    rows[280] = row
    with pytest.raises(IndexError):
        RowMatrix(np.zeros((37, dim), np.uint16)).gather(rows, np.empty((300, dim), np.int16))
