"""Preloaded rows serve the very batches of the stream, from memory or from a device.

The device of these tests is torch's CPU: `index_select` and copies are the same calls, and only the
page-locked buffers and events of CUDA are left out.
"""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from laughstore.errors import ConfigError, CorruptData
from laughstore.reading import memory
from laughstore.timebase import Span
from tests.stores import write_store
from train import FrameFilter, FrameStream, train
from train.distributed.place import Place
from train.streaming.device import DeviceCopies
from train.streaming.loaded_rows import DeviceRows, HostRows
from train.streaming.preload import Preloading

from .conftest import DIM, Planted, config_for, planted_episodes
from .processes import on_ranks
from .test_resume import assert_same as assert_same_run
from .test_resume import short, weights
from .test_skip import SMALL
from .test_stream import assert_same, flip_a_bit, kept

CPU = torch.device("cpu")
WHERE: dict[str, dict[str, Any]] = {
    "cpu": {"preload": "cpu"},
    "device": {"preload": "gpu", "preload_to": CPU},
}
STREAMS: dict[str, dict[str, Any]] = {
    "windows": {},
    "balance": {"balance": 2.0},
    "global": {"mix": "global"},
    "threads": {"threads": 2},
    "window reader": {"reader": "window", "verify": "always"},
    "sparse": {"frames": FrameFilter(min_context=Span("301f")), "balance": 5.0},
    "pads": {"global_batch": 1200, "lanes": 12, "window_blocks": 1},
}


def stream(shards: Path, **changes) -> FrameStream:
    return FrameStream(shards, "train", **{**SMALL, **changes})


@pytest.fixture(params=WHERE)
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    return WHERE[request.param]


@pytest.mark.parametrize("settings", STREAMS.values(), ids=STREAMS)
def test_batches_are_those_of_the_stream_bit_for_bit(planted_shards, where, settings):
    for rank, world_size in ((0, 1), (1, 3)):
        share = {"rank": rank, "world_size": world_size, **settings}
        with (
            stream(planted_shards, **share) as plain,
            stream(planted_shards, **share | where) as us,
        ):
            assert us.identity == plain.identity
            for epoch in (0, 1):
                plain.set_epoch(epoch)
                us.set_epoch(epoch)
                assert_same(kept(us), kept(plain))


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_ragged_blocks_and_compressed_ones_are_loaded(tmp_path, where, codec):
    """Blocks of a size that no recording is a multiple of."""
    episodes = planted_episodes()
    sizes = {"dim": DIM, "block_frames": 128, "shard_frames": 512}
    write_store(tmp_path / "store", episodes, Planted(episodes), codec=codec, **sizes)
    with stream(tmp_path / "store") as plain, stream(tmp_path / "store", **where) as ours:
        assert_same(kept(ours), kept(plain))


def test_a_state_goes_on_with_and_without(planted_shards, where):
    with stream(planted_shards) as plain:
        plain.set_epoch(2)
        expected = kept(plain)
    with stream(planted_shards, **where) as ours:
        ours.set_epoch(2)
        state: dict[str, Any] = {}
        for batch in itertools.islice(ours, 5):
            state = ours.state_dict(after=batch)
    for world_size, setting in ((1, {}), (2, where), (3, where)):
        parts = []
        for rank in range(world_size):
            with stream(planted_shards, rank=rank, world_size=world_size, **setting) as again:
                again.load_state_dict(json.loads(json.dumps(state)))
                parts.append(kept(again))
        joined = [
            tuple(np.concatenate(arrays) for arrays in zip(*steps, strict=True))
            for steps in zip(*parts, strict=True)
        ]
        assert_same(joined, expected[5:])


def test_rows_are_read_once_and_never_from_the_files_again(own_shards, where):
    with stream(own_shards) as plain:
        expected = kept(plain)
    with stream(own_shards, verify="always", **where) as ours:
        assert_same(kept(ours), expected)
        shutil.rmtree(own_shards)
        ours.set_epoch(1)
        assert len(kept(ours)) == ours.num_steps
        ours.set_epoch(0)
        assert_same(kept(ours), expected)
        frame = int(ours.selection.frames[0])
        ours.source.check_finite(np.array([frame, -1]))


@pytest.mark.parametrize("verify", ["never", "first"])
def test_checksums_are_checked_as_rows_are_loaded(own_shards, where, verify):
    name, key = flip_a_bit(own_shards)
    with (
        stream(own_shards, verify=verify, **where) as ours,
        pytest.raises(CorruptData, match=f"{name}, sample {key}: crc32c"),
    ):
        ours.preloading.load(ours.source)


def test_blocks_that_are_left_out_are_not_read(own_shards, where, tmp_path):
    _, key = flip_a_bit(own_shards)
    listed = tmp_path / "bad"
    listed.write_text(f"{key}\n")
    with (
        stream(own_shards, skip_corrupt=listed) as plain,
        stream(own_shards, skip_corrupt=listed, **where) as ours,
    ):
        assert_same(kept(ours), kept(plain))


def test_rows_that_do_not_take_part_are_not_there(planted_shards, where):
    settings = {"frames": FrameFilter(min_context=Span("300f"))}
    with stream(planted_shards, **settings, **where) as ours:
        ours.preloading.load(ours.source)
        index = ours.selection.index
        first = ours.selection.streams[0].first_block * index.block_frames
        foreign = index.streams("validation")[0].first_block * index.block_frames
        out = torch.empty(1, DIM, dtype=torch.int16)
        for frame in (first, foreign, 2**40):
            with pytest.raises(ConfigError, match=f"frame {frame} was not loaded"):
                ours.source.gather(np.array([frame]), out)
    with pytest.raises(ValueError, match="was closed"):
        next(iter(ours))


def test_a_feature_that_is_not_finite_is_named_by_its_frame(tmp_path, where):
    def features(name: str, assignment: int, num_frames: int):
        bits = Planted(planted_episodes())(name, assignment, num_frames)
        if name == "train, part 1":
            bits[200, 3] = 0x7FC0
        return bits

    path = tmp_path / "store"
    write_store(path, planted_episodes(), features, dim=DIM, block_frames=32, shard_frames=256)
    with stream(path, **where) as ours:
        ours.preloading.load(ours.source)
        with pytest.raises(CorruptData, match=r"frame 200 of train-part-1-.* not finite"):
            ours.source.check_finite(ours.selection.frames)


def test_memory_begins_at_a_cache_line(planted_shards):
    with stream(planted_shards) as plain:
        rows = HostRows(plain.selection)
        assert rows._matrix.ctypes.data % 64 == 0
        assert rows._matrix.shape == (plain.selection.num_rows + 1, DIM)


def test_what_has_no_room_is_refused_ahead_and_told_in_numbers(
    planted_shards, where, tmp_path, monkeypatch
):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "none")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    with stream(planted_shards) as plain:
        selection = plain.selection
    needed = (selection.num_rows + 1) * 2 * DIM
    enough_kb = int(needed / 0.9 / 1024) + 1
    settings = (where["preload"], where.get("preload_to"))
    (tmp_path / "meminfo").write_text(f"MemAvailable: {enough_kb} kB\n")
    Preloading(selection, *settings).check_memory(1)
    with pytest.raises(ConfigError) as raised:
        Preloading(selection, *settings).check_memory(2)
    assert (
        f"preload {where['preload']} needs {needed / 1e9:.3g} GB in each of 2 processes for the"
        f" {selection.num_rows:,} rows of split 'train'"
    ) in str(raised.value)
    (tmp_path / "meminfo").write_text(f"MemAvailable: {enough_kb - 2} kB\n")
    with pytest.raises(ConfigError, match="use --preload none"):
        stream(planted_shards, **where)
    assert len(kept(stream(planted_shards))) > 0


def test_a_gpu_has_the_rows_of_those_ranks_that_share_it(planted_shards, monkeypatch):
    """Not of all that see one GPU: each rank of a machine may see another."""
    with stream(planted_shards) as plain:
        selection = plain.selection
    needed = (selection.num_rows + 1) * 2 * DIM
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(needed / 0.9) + 1, 2**60))
    ours = Preloading(selection, "gpu", torch.device("cuda:0"))
    ours.check_memory(8, 1)
    with pytest.raises(ConfigError, match=r"in each of 2 processes .* of the memory of cuda:0"):
        ours.check_memory(8, 2)


def test_each_process_of_the_machine_counts(planted_shards, tmp_path):
    config = config_for(planted_shards, tmp_path / "run", preload="cpu")
    with pytest.raises(ConfigError, match="in each of 1000000 processes for the"):
        train(config, place=Place(local_world_size=1_000_000))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_and_a_missing_gpu_are_refused_in_one_line(planted_shards, tmp_path):
    with (
        stream(planted_shards, preload="cpu") as ours,
        pytest.raises(ConfigError, match="num_workers=0"),
    ):
        list(DataLoader(ours, batch_size=None, num_workers=1))
    with pytest.raises(ConfigError, match="preload is 'disk'; use none, cpu or gpu"):
        stream(planted_shards, preload="disk")
    if torch.cuda.is_available():
        return
    for refused in (
        lambda: stream(planted_shards, preload="gpu"),
        lambda: train(config_for(planted_shards, tmp_path / "run", preload="gpu")),
    ):
        with pytest.raises(ConfigError, match="this trains on cpu; use --preload cpu") as raised:
            refused()
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_only_want_of_memory_is_told_as_such(planted_shards):
    """Not a driver that is broken, say, or a device that torch was not built for."""
    with stream(planted_shards) as plain:
        selection = plain.selection
    with pytest.raises(NotImplementedError, match="'XLA' backend"):
        DeviceRows(selection, torch.device("xla"))


def test_what_is_on_the_device_is_not_copied(planted_shards, where):
    copies = DeviceCopies(CPU)
    with stream(planted_shards, **where) as ours:
        for batch in itertools.islice(ours, 5):
            x, y, weight = copies.copy(batch)
            assert x.data_ptr() == batch.x.data_ptr()
            assert (y.data_ptr(), weight.data_ptr()) == (
                batch.y.data_ptr(),
                batch.weight.data_ptr(),
            )


def test_a_run_ends_with_the_same_weights_and_does_not_remember_it(planted_shards, tmp_path):
    plain = train(config_for(planted_shards, tmp_path / "plain", epochs=3))
    reports: list[tuple[str, int, int]] = []

    def stop(report) -> None:
        reports.append((report.phase, report.done, report.total))
        if report.phase == "train" and report.epoch == 1:
            raise KeyboardInterrupt

    config = config_for(planted_shards, tmp_path / "run", epochs=3, preload="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=stop)
    loaded = [(done, total) for phase, done, total in reports if phase == "preload"]
    assert loaded[-1][0] == loaded[-1][1] == max(done for done, _ in loaded) > 0
    assert "preload" not in (tmp_path / "run" / "config.json").read_text()
    again = train(config_for(planted_shards, tmp_path / "run", epochs=3), resume=True)
    assert weights(again.run) == weights(plain.run)


def test_ranks_that_preload_train_what_ranks_do(planted_shards, tmp_path):
    def trained(name: str, **changes) -> Any:
        def work(place: Place) -> object:
            return train(short(planted_shards, tmp_path / name, **changes), place=place)

        first, _ = [end.result() for end in on_ranks(2, work)]
        return first

    assert_same_run(trained("ours", preload="cpu", epochs=2), trained("plain", epochs=2))
