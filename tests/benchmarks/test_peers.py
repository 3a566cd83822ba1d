"""Peers deliver real frames, each once an epoch, whichever of them is installed."""

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.bench_stream import BATCHES, RivalEpochs
from benchmarks.data import ID_CHANNELS, ids_of, make_data
from benchmarks.peers import NOT_INSTALLED, PEERS, OpenPeer, file_blocks, installed, open_peers
from benchmarks.table import tables


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("frames"), 0.03)


def test_blocks_are_those_of_the_store(data):
    blocks = list(file_blocks(data))
    assert len(blocks) == data.index.num_blocks
    assert {len(block) for block in blocks} >= {data.index.block_frames}
    bits = np.concatenate([block[:, :ID_CHANNELS] for block in blocks])
    np.testing.assert_array_equal(ids_of(bits), data.frame_ids)


# Packages that are not ours warn of what they like, and leave files to the garbage collector.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.package)
def test_a_peer_delivers_every_frame_once_and_shuffled(peer, data):
    for module in peer.modules:
        pytest.importorskip(module, reason=f"{peer.name} is not installed")
    opened = OpenPeer(peer, data)
    orders = []
    for batch in BATCHES:
        epochs = RivalEpochs(data, lambda _, batch=batch: opened.epoch(batch))
        for _ in range(2):
            opened.warm()
            epochs.run()
            epochs.check()
            orders.append(epochs.ids())
            opened.forget()
    together = [data.frame_ids, *orders]
    for i, order in enumerate(together):
        assert all(not np.array_equal(order, other) for other in together[:i])


def test_peers_that_are_not_there_are_named_and_left_out(data, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(peers, "_module", missing)
    assert installed() == {peer.name: NOT_INSTALLED for peer in PEERS}
    assert open_peers(data) == []


def test_the_table_names_peers_and_those_that_were_not_there():
    report = {
        "name": "stream",
        "machine": {"cpu": "c", "cores": 2, "memory_gib": 1, "kernel": "k", "virtual": False},
        "versions": dict.fromkeys(("python", "numpy", "torch", "zarr", "webdataset"), "1"),
        "settings": {"frames": 1, "dim": 2, "gb": 4, "quick": False},
        "cache": "warm",
        "repeats": 5,
        "others_busy_cores": 0,
        "results": [],
    }
    assert "Peers" not in tables([report])
    report["settings"] |= {"peers": {"grain": "0.2.18", "litdata": NOT_INSTALLED}}
    assert "Peers: grain 0.2.18, litdata not installed." in tables([report])
