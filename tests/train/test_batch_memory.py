"""Memory of batches: used again when nobody holds it, and never before."""

import ctypes

import numpy as np
import pytest
import torch

from train.buffers import RING_BUFFERS, BufferRing

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


def test_a_kept_target_keeps_its_own_step_alone(planted_shards):
    with stream(planted_shards, global_batch=12) as frames:
        batch = next(iter(frames))
    for kept_tensor in (batch.y, batch.weight, batch.frame):
        assert kept_tensor.untyped_storage().nbytes() == kept_tensor.nbytes


def test_page_locked_memory_rests_for_two_batches(monkeypatch):
    # Pinning needs a GPU; what is tested is the order in which buffers come.
    monkeypatch.setattr(BufferRing, "_fresh", lambda self: torch.empty(2, 3, dtype=torch.int16))
    ring = BufferRing((2, 3), pin_memory=True)
    addresses = [ring.next().data_ptr() for _ in range(9)]
    assert len(set(addresses)) == RING_BUFFERS
    assert addresses == addresses[:RING_BUFFERS] * 3
    held = ring.next()
    addresses = [ring.next().data_ptr() for _ in range(9)]
    assert held.data_ptr() not in addresses
