"""Peers deliver real frames, each once an epoch, whichever of them is installed."""

import numpy as np
import pytest
import torch

from benchmarks import peers
from benchmarks.bench_stream import BATCHES
from benchmarks.data import DIM, FRAME_BYTES, ID_CHANNELS, SPLIT, ids_of, make_data
from benchmarks.episode_files import PART, EpisodeFiles, episode_loaders
from benchmarks.epochs import RivalEpochs
from benchmarks.mixed import mixing_of, mixing_setting, mixing_table
from benchmarks.mixing import Mixing
from benchmarks.peers import NOT_INSTALLED, PEERS, OpenPeer, file_blocks, installed, open_peers
from benchmarks.rivals import flat_rows
from benchmarks.table import tables
from benchmarks.tensorstore_blocks import TensorStoreBlocks


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


def test_tensorstore_delivers_every_frame_once_and_shuffled(data):
    pytest.importorskip("tensorstore")
    orders = [data.frame_ids]
    for batch in BATCHES:
        epochs = RivalEpochs(data, TensorStoreBlocks(data, batch).epoch)
        for _ in range(2):
            assert epochs.run() == data.num_frames * FRAME_BYTES
            epochs.check()
            orders.append(epochs.ids())
    for i, order in enumerate(orders):
        assert all(not np.array_equal(order, other) for other in orders[:i])


def test_tensorstore_gives_all_channels_of_small_blocks_that_stay_in_the_pool(data):
    pytest.importorskip("tensorstore")
    rows = flat_rows(data)
    place = {int(number): row for row, number in enumerate(data.frame_ids)}
    for batch in TensorStoreBlocks(data, 512).epoch(0):
        numbers = [place[int(number)] for number in ids_of(batch.numpy())]
        np.testing.assert_array_equal(batch.numpy(), rows[numbers])


@pytest.fixture(scope="module")
def episodes(data):
    return EpisodeFiles(data)


def test_a_file_holds_both_assignments_of_an_episode_as_bfloat16(episodes, data):
    rows, first = flat_rows(data), 0
    assert len(episodes.paths) == len({stream.recording_id for stream in data.index.streams(SPLIT)})
    for path, ids in zip(episodes.paths, episodes.ids, strict=True):
        content = torch.load(path, weights_only=True)
        features = content["transformer_out"]
        assert features.dtype == torch.bfloat16
        assert features.shape == (2, content["metadata"]["num_frames"], DIM)
        bits = features.view(torch.int16).flatten(0, 1).numpy()
        np.testing.assert_array_equal(bits, rows[first : first + len(bits)])
        np.testing.assert_array_equal(ids_of(bits), ids)
        first += len(bits)
    assert first == data.num_frames


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("number", range(3))
def test_episodes_deliver_the_frames_that_they_claim_once_and_shuffled(
    number, batch, episodes, data
):
    name = list(episode_loaders(episodes, batch))[number]
    loader = episode_loaders(episodes, batch)[name]
    epochs = RivalEpochs(data, loader.epoch, loader.claimed)
    part = 1 if "tuned" in name else PART
    delivered = []
    for epoch in range(2):
        loader.before(epoch)
        assert abs(epochs.run() / FRAME_BYTES - data.num_frames / part) < 8
        epochs.check()
        loader.after()
        delivered.append(epochs.ids())
    once, again = delivered
    if part > 1 or batch < data.num_frames:  # a gather has its rows in the order of the files
        assert not np.array_equal(once[: len(again)], again[: len(once)])
        assert (np.diff(once) < 0).any()
    if part > 1:  # another part of the frames each time
        assert not np.array_equal(np.sort(once), np.sort(again))


def test_frames_of_other_episodes_than_claimed_are_found(episodes, data):
    loader = episode_loaders(episodes, 512)[next(iter(episode_loaders(episodes, 512)))]
    epochs = RivalEpochs(data, loader.epoch, lambda number: loader.claimed(number + 1))
    loader.before(0)
    epochs.run()
    with pytest.raises(AssertionError, match="exactly once"):
        epochs.check()


def test_what_batches_mix_is_counted_by_the_ids_that_came(data):
    frames, streams = data.index.block_frames, data.index.streams(SPLIT)
    first, other = streams[0], next(s for s in streams if s.recording_id != streams[0].recording_id)
    start, elsewhere = first.first_block * frames, other.first_block * frames
    batches = [
        np.array([start, start + 1, start + frames, elsewhere]),  # 3 blocks of 2 recordings
        np.array([start, start + 1, start + 2, start + 3]),
        np.array([elsewhere]),  # smaller than the others
    ]
    assert mixing_of(batches, data) == Mixing(2, 1.5, (2 / 4 + 12 / 4) / 2)
    setting = mixing_setting({"batch 4": {"somebody": lambda: batches}}, data)
    assert setting == {"batch 4": {"somebody": {"blocks": 2.0, "recordings": 1.5, "sharing": 1.75}}}
    table = mixing_table({"settings": {"mixing": setting}})
    assert table.endswith("| somebody | 2 | 2 | 1.75 |")
    assert mixing_table({"settings": {}}) == ""


def test_an_episode_at_a_time_mixes_one_recording_and_the_tuned_gather_all(episodes, data):
    mixed = {}
    for name, loader in episode_loaders(episodes, 64).items():
        loader.before(0)
        batches = [ids_of(part.numpy()) for part in loader.epoch(0)]
        loader.after()
        mixed[name.split(",")[0]] = mixing_of(batches, data)
    assert mixed[".pt an episode"].recordings < 1.5  # a batch at the seam has two
    assert mixed[".pt mapped"].recordings == 8


def test_peers_that_are_not_there_are_named_and_left_out(data, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(peers, "_module", missing)
    assert installed() == dict.fromkeys(
        [*(peer.name for peer in PEERS), "TensorStore"], NOT_INSTALLED
    )
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
