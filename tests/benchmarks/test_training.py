"""What the benchmark of training times is done, and its limit is that of the same numbers."""

import pytest
import torch

from benchmarks.data import DIM, make_data
from benchmarks.training import BareProducts, opened


def test_an_epoch_of_the_stream_that_lacks_rows_is_noticed(tmp_path):
    store = make_data(tmp_path / "data", 0.004).store
    with opened(store, tmp_path / "run", "cpu") as training:
        assert training.stream_epoch() == training.num_rows > 0
        training.check_rows()
        assert training.train_epoch() == training.num_rows
        training.check_rows()
        training.stream.load_state_dict(training.stream.state_dict() | {"epoch": 2, "step": 1})
        assert training.stream_epoch() < training.num_rows
        with pytest.raises(AssertionError, match=f"an epoch had 0 of {training.num_rows} rows"):
            training.check_rows()


def test_the_limit_of_a_step_makes_both_products_of_every_row():
    batches = [torch.randn(600, DIM).bfloat16() for _ in range(2)]
    bare = BareProducts(batches)
    assert bare.run(3) == 1800
    rows, weight = batches[0].double(), bare.weight.double()
    expected = (rows @ weight.t()).t() @ rows
    assert (bare.by_weight - expected).norm() <= 1e-5 * expected.norm()
