"""Memory of batches: used again when nobody holds it, and never before."""

import ctypes

import numpy as np
import pytest
import torch

from train.streaming.buffers import RING_BUFFERS, BufferRing, aligned_empty

from .test_stream import assert_same, kept, stream


def test_memory_of_dropped_batches_is_used_again_and_of_kept_ones_never(planted_shards):
    with stream(planted_shards) as frames, stream(planted_shards, copy=True) as fresh:
        expected = kept(fresh)
        # The loop still holds a batch when it asks for the next one, unless it drops it.
        addresses = [batch.x.data_ptr() for batch in frames]
        assert len(set(addresses)) == 2
        dropped = set()
        for batch in frames:
            dropped.add(batch.x.data_ptr())
            del batch
        assert len(dropped) == 1
        assert_same(kept(list(frames)), expected)
        # A view keeps the memory as well as the batch does.
        views = [batch.x[5:7] for batch in frames]
        for view, (_, x, _, _) in zip(views, expected, strict=True):
            assert np.array_equal(view.view(torch.int16).numpy(), x[5:7])
        assert len({batch.x.data_ptr() for batch in frames}) == 2


@pytest.mark.parametrize(
    "hold",
    [
        lambda x: x.view(torch.int16).numpy(),
        lambda x: memoryview(x.view(torch.int16).numpy()),
        lambda x: x.view(torch.int16).__dlpack__(),
        lambda x: x.untyped_storage(),
        lambda x: x.detach().requires_grad_(),
        lambda x: x.T.unbind(),
    ],
)
def test_whatever_holds_the_memory_of_a_batch_keeps_it(planted_shards, hold):
    with stream(planted_shards) as frames:
        held, addresses, expected = [], [], []
        for batch in frames:
            held.append(hold(batch.x))
            addresses.append(batch.x.data_ptr())
            expected.append(bytes(memoryview(batch.x.view(torch.int16).numpy())))
            del batch
        assert len(set(addresses)) == len(frames)
        for address, content in zip(addresses, expected, strict=True):
            assert ctypes.string_at(address, len(content)) == content


def test_a_target_that_is_saved_or_sent_takes_no_other_step_along(planted_shards):
    with stream(planted_shards) as frames:
        kept = next(iter(frames))
    for target in (kept.y, kept.weight, kept.frame):
        assert target.untyped_storage().nbytes() == target.nbytes


def test_targets_changed_in_place_are_those_of_their_step_alone(planted_shards):
    with stream(planted_shards) as frames:
        expected = kept(frames)
        weights = torch.ones(96, requires_grad=True)
        first, second, third, *rest = list(frames)
        loss = (weights.sigmoid() * first.y).sum()  # keeps these targets for its gradient
        second.y.mul_(0.5)
        second.weight.zero_()
        second.frame.fill_(-7)
        third.y.mul_(weights)
        loss.backward()
        assert_same(kept([first, *rest]), [expected[0], *expected[3:]])
        assert_same(kept(frames), expected)


def test_batches_begin_at_cache_lines(planted_shards):
    with stream(planted_shards) as frames:
        assert all(batch.x.data_ptr() % 64 == 0 for batch in list(frames))


@pytest.mark.parametrize("num_ahead", [0, 2])
def test_page_locked_memory_rests_for_two_batches_and_those_made_ahead(monkeypatch, num_ahead):
    # Pinning needs a GPU; what is tested is the order in which buffers come.
    monkeypatch.setattr(BufferRing, "_fresh", lambda self: torch.empty(2, 3, dtype=torch.int16))
    ring = BufferRing((2, 3), pin_memory=True, num_ahead=num_ahead)
    size = RING_BUFFERS + 2 * num_ahead
    addresses = [ring.next().data_ptr() for _ in range(3 * size)]
    assert len(set(addresses)) == size
    assert addresses == addresses[:size] * 3
    held = ring.next()
    addresses = [ring.next().data_ptr() for _ in range(3 * size)]
    assert held.data_ptr() not in addresses


@pytest.mark.parametrize("shape", [(1, 1), (7, 64), (256, 4096), (4096, 4096)])
def test_memory_of_rows_begins_at_a_cache_line_and_at_a_huge_page_where_it_fills_one(shape):
    rows = aligned_empty(shape)
    assert rows.shape == shape
    assert rows.dtype == np.int16
    assert rows.flags.c_contiguous
    address = rows.ctypes.data
    assert address % 64 == 0
    assert rows.nbytes < 2 << 20 or address % (2 << 20) == 0
    rows[:] = 7  # all of it is ours
