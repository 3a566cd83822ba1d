"""The table of features: its form, and whatever of it can be shown by running it."""

import re
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler
from webdataset.compat import WebDataset
from webdataset.shardlists import split_by_node
from webdataset.writer import TarWriter

from benchmarks import peers
from benchmarks.feature_answers import FEATURES
from benchmarks.features import BEGIN, END, SYSTEMS, Cell, Feature, filled, table

TESTS = Path(__file__).parents[1]
NUM_FRAMES = 37
GLOBAL_BATCH = 12

# Packages that are not ours warn of what they like, and leave files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("default")


def module(name):
    """Import one of a peer's modules as the benchmark does, or skip."""
    pytest.importorskip(name.split(".")[0])
    return peers._module(name)


# The table itself


def test_the_readme_has_the_table_that_the_answers_give():
    text = (TESTS.parent / "benchmarks" / "README.md").read_text()
    assert filled(text, FEATURES) == text


def test_every_test_that_is_named_is_there():
    named = {c.tested for f in FEATURES for c in f.cells.values() if c.tested}
    for name in named:
        path, test = name.split("::")
        assert re.search(rf"^def {test}\(", (TESTS / path).read_text(), re.MULTILINE), name


def test_only_what_stands_between_the_markers_changes():
    feature = FEATURES[0]
    text = f"# Title\n{BEGIN}\nold\n{END}\nrest"
    assert filled(text, [feature]) == f"# Title\n{BEGIN}\n{table([feature])}\n{END}\nrest"
    for broken in ("", BEGIN, f"{END}\n{BEGIN}", text + text):
        with pytest.raises(ValueError, match="one line"):
            filled(broken, [feature])


def test_an_answer_without_grounds_or_a_system_without_answer_is_refused():
    with pytest.raises(ValueError, match="either the test or"):
        Cell("yes", "so")
    with pytest.raises(ValueError, match="either the test or"):
        Cell("yes", "so", tested="a", read="b")
    cell = Cell("yes", "so", read="a")
    with pytest.raises(ValueError, match="row: answers of"):
        Feature("row", "What?", dict.fromkeys(SYSTEMS[1:], cell))
    lines = table([Feature("row", "What?", dict.fromkeys(SYSTEMS, cell))]).splitlines()
    assert lines[2].split(" | ") == ["| row", *["**yes**: so"] * 9, "**yes**: so |"]
    assert lines[-1] == f"- **row**: What? {', '.join(SYSTEMS)}: read in a."


# Order, ranks, resume


def steps_of(ranks, batch):
    """Return the frames of each step, of all ranks together."""
    share = batch // len(ranks)
    num_steps = max(-(-len(rank) // share) for rank in ranks)
    return [
        sorted(chain(*(rank[step * share : (step + 1) * share] for rank in ranks)))
        for step in range(num_steps)
    ]


def webdataset_ranks(folder, monkeypatch, world_size, **changes):
    urls = [str(folder / f"{shard}.tar") for shard in range(5)]
    for shard, url in enumerate(urls):
        with TarWriter(url) as writer:
            for number in range(shard, NUM_FRAMES, len(urls)):
                writer.write({"__key__": f"{number:03d}", "frame.cls": number})
    options = {"shardshuffle": len(urls), "nodesplitter": split_by_node, "seed": 0} | changes
    ranks = []
    for rank in range(world_size):
        with monkeypatch.context() as patch:
            patch.setenv("RANK", str(rank))
            patch.setenv("WORLD_SIZE", str(world_size))
            dataset: Any = WebDataset(urls, empty_check=False, **options).shuffle(8, seed=0)
            ranks.append(
                [sample["frame.cls"] for sample in islice(dataset.decode(), 2 * NUM_FRAMES)]
            )
    return ranks


def litdata_folder(folder):
    path = folder / "litdata"
    if not path.exists():
        writer = module("litdata.streaming.writer").BinaryWriter(str(path), chunk_size=5)
        for number in range(NUM_FRAMES):
            writer[number] = number
        writer.done()
        writer.merge()
    return path


def litdata_ranks(folder, monkeypatch, world_size, *, state=None, num=None):
    """Return the frames of each rank, and the state of the first."""
    path, ranks, states = litdata_folder(folder), [], []
    share = GLOBAL_BATCH // world_size
    for rank in range(world_size):
        with monkeypatch.context() as patch:
            patch.setenv("GLOBAL_RANK", str(rank))
            patch.setenv("WORLD_SIZE", str(world_size))
            dataset = module("litdata").StreamingDataset(str(path), shuffle=True, seed=42)
            dataset.set_batch_size(share)
            if state is not None:
                dataset.load_state_dict(state)
            ranks.append(list(islice(dataset, num)))
            states.append(dataset.state_dict(len(ranks[-1]), 0, share))
    return ranks, states[0]


def mosaic_ranks(world_size, *, seen=0):
    """Return the frames of each rank, -1 where there is none."""
    partition = module("streaming.base.partition").get_partitions(
        "relaxed", NUM_FRAMES, 1, 1, world_size, 1, GLOBAL_BATCH // world_size, seen, 1
    )
    return [[i for i in rank.reshape(-1).tolist() if i >= 0] for rank in partition[0]]


def test_orders_of_webdataset_and_litdata_are_of_one_number_of_ranks(tmp_path, monkeypatch):
    one, again, two = (webdataset_ranks(tmp_path, monkeypatch, world) for world in (1, 1, 2))
    assert one == again
    assert steps_of(one, GLOBAL_BATCH) != steps_of(two, GLOBAL_BATCH)
    pytest.importorskip("litdata")
    one, again, two = (litdata_ranks(tmp_path, monkeypatch, world)[0] for world in (1, 1, 2))
    assert one == again
    assert steps_of(one, GLOBAL_BATCH)[0] != steps_of(two, GLOBAL_BATCH)[0]


def test_ranks_of_webdataset_share_shards_and_end_at_different_steps(tmp_path, monkeypatch):
    ranks = webdataset_ranks(tmp_path, monkeypatch, 2)
    assert sorted(chain(*ranks)) == list(range(NUM_FRAMES))
    assert [len(rank) for rank in ranks] == [22, 15]
    options = {"shardshuffle": False, "resampled": True}
    ranks = webdataset_ranks(tmp_path, monkeypatch, 2, **options)
    assert [len(rank) for rank in ranks] == [2 * NUM_FRAMES] * 2  # as many as anybody takes
    assert len(set(ranks[0])) < len(ranks[0])


def test_webdataset_has_no_state():
    assert not hasattr(WebDataset, "state_dict")
    assert not hasattr(WebDataset, "load_state_dict")


def test_steps_of_mosaic_are_the_same_on_any_number_of_ranks():
    one = steps_of(mosaic_ranks(1), GLOBAL_BATCH)
    assert sorted(chain(*one)) == list(range(NUM_FRAMES))
    for world_size in (2, 3, 4):
        ranks = mosaic_ranks(world_size)
        assert len({len(rank) for rank in ranks}) == 1
        found = steps_of(ranks, GLOBAL_BATCH)
        assert found[:-1] == one[:-1]
        repeated = len(list(chain(*ranks))) - NUM_FRAMES
        assert repeated == -NUM_FRAMES % world_size > 0
        assert set(chain(*ranks)) == set(range(NUM_FRAMES))


def test_mosaic_goes_on_with_the_frames_that_are_left():
    first = list(chain(*(rank[: GLOBAL_BATCH // 2] for rank in mosaic_ranks(2))))
    for world_size in (1, 3, 4):
        rest = set(chain(*mosaic_ranks(world_size, seen=len(first))))
        assert rest == set(range(NUM_FRAMES)) - set(first)


def test_ranks_of_litdata_are_even_because_frames_are_dropped(tmp_path, monkeypatch):
    pytest.importorskip("litdata")
    for world_size in (2, 3):
        ranks, _ = litdata_ranks(tmp_path, monkeypatch, world_size)
        delivered = list(chain(*ranks))
        assert len({len(rank) for rank in ranks}) == 1
        assert len(set(delivered)) == len(delivered) == NUM_FRAMES - NUM_FRAMES % world_size


def test_litdata_goes_on_with_the_frames_that_are_left(tmp_path, monkeypatch):
    pytest.importorskip("litdata")
    ranks, state = litdata_ranks(tmp_path, monkeypatch, 2, num=GLOBAL_BATCH // 2)
    first = list(chain(*ranks))
    rest = list(chain(*litdata_ranks(tmp_path, monkeypatch, 3, state=state)[0]))
    assert len(first) == len(set(first)) == GLOBAL_BATCH
    assert not set(first) & set(rest)
    assert len(rest) == len(set(rest)) == 24  # of 25 that are left
    with pytest.raises(ValueError, match="drop_last"):  # one rank drops nothing, two do
        litdata_ranks(tmp_path, monkeypatch, 1, state=state)


def test_slices_of_grain_are_exact_and_uneven():
    shuffled = module("grain").MapDataset.range(NUM_FRAMES).seed(3).shuffle()
    one = steps_of([list(shuffled[::1])], GLOBAL_BATCH)
    for world_size in (2, 3, 4):
        ranks = [list(shuffled[rank::world_size]) for rank in range(world_size)]
        assert steps_of(ranks, GLOBAL_BATCH)[:-1] == one[:-1]
        assert sorted(chain(*ranks)) == list(range(NUM_FRAMES))
        assert len({len(rank) for rank in ranks}) == 2


def test_grain_goes_on_with_the_frames_that_are_left():
    grain = module("grain")
    elastic, sharding = module("grain.experimental"), module("grain.sharding")
    frames = grain.MapDataset.range(NUM_FRAMES).seed(3).shuffle()

    def iterator(rank, world_size):
        options = sharding.ShardOptions(shard_index=rank, shard_count=world_size)
        read = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        found = elastic.ElasticIterator(frames, GLOBAL_BATCH, options, read_options=read)
        return iter(found)

    ranks = [iterator(rank, 2) for rank in range(2)]
    first = [number for rank in ranks for number in next(rank).tolist()]
    state = ranks[0].get_state()
    for world_size in (1, 3, 4):
        rest = []
        for rank in range(world_size):
            left = iterator(rank, world_size)
            left.set_state(state)
            rest += [part.tolist() for part in left]
        assert {len(part) for part in rest} == {GLOBAL_BATCH // world_size}
        numbers = list(chain(*rest))
        assert not set(first) & set(numbers)
        assert len(numbers) == len(set(numbers)) == 24  # of 25 that are left
    with pytest.raises(ValueError, match="filter"):
        elastic.ElasticIterator(frames.filter(bool), GLOBAL_BATCH, sharding.ShardOptions(0, 1))


def test_splits_of_datasets_are_exact_and_uneven():
    datasets, distributed = module("datasets"), module("datasets.distributed")
    whole = datasets.Dataset.from_dict({"frame": list(range(NUM_FRAMES))}).shuffle(seed=0)
    for world_size in (2, 3):
        ranks = [
            distributed.split_dataset_by_node(whole, rank, world_size)["frame"][:]
            for rank in range(world_size)
        ]
        assert sorted(chain(*ranks)) == list(range(NUM_FRAMES))
        assert len({len(rank) for rank in ranks}) == 2


def test_a_state_of_datasets_is_of_one_number_of_ranks():
    datasets, distributed = module("datasets"), module("datasets.distributed")
    frames = datasets.Dataset.from_dict({"frame": list(range(NUM_FRAMES))})
    frames = frames.to_iterable_dataset(num_shards=6)

    def resumed(before, after):
        first, rest, state = [], [], None
        for rank in range(before):
            part = distributed.split_dataset_by_node(frames, rank, before)
            first += [sample["frame"] for sample in islice(part, 6)]
            state = state or part.state_dict()
        for rank in range(after):
            part = distributed.split_dataset_by_node(frames, rank, after)
            part.load_state_dict(state)
            rest += [sample["frame"] for sample in part]
        return sorted(first + rest)

    assert resumed(1, 1) == list(range(NUM_FRAMES))
    assert resumed(2, 1) != list(range(NUM_FRAMES))
    assert resumed(2, 3) != list(range(NUM_FRAMES))


def test_torchs_sampler_has_one_order_and_pads_it_by_repeats():
    def ranks(world_size, **options):
        frames: Any = range(NUM_FRAMES)
        return [
            list(DistributedSampler(frames, world_size, rank, seed=5, **options))
            for rank in range(world_size)
        ]

    one = steps_of(ranks(1), GLOBAL_BATCH)
    for world_size in (2, 3, 4):
        found = ranks(world_size)
        assert steps_of(found, GLOBAL_BATCH)[:-1] == one[:-1]
        assert set(chain(*found)) == set(range(NUM_FRAMES))
        assert len(list(chain(*found))) == NUM_FRAMES + -NUM_FRAMES % world_size
        dropping = list(chain(*ranks(world_size, drop_last=True)))
        assert len(dropping) == len(set(dropping)) == NUM_FRAMES - NUM_FRAMES % world_size


def test_torchs_loader_has_no_state():
    assert not hasattr(DataLoader, "state_dict")


def test_ranks_that_permute_by_themselves_miss_episodes():
    # The rule of the scripts: each rank draws an order of all episodes with a seed of its own,
    # and takes every fourth of them.
    lengths = np.random.default_rng(0).integers(20_000, 60_000, 160)
    ranks = [
        torch.randperm(160, generator=torch.Generator().manual_seed(7 + rank))[rank::4].numpy()
        for rank in range(4)
    ]
    seen = np.concatenate(ranks)
    assert len(seen) == 160
    assert len(np.unique(seen)) < 0.75 * 160
    assert len({int(lengths[rank].sum()) for rank in ranks}) == 4
