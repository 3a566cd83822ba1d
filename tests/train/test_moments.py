import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from laughstore import layout
from laughstore.base64_arrays import encode_array
from laughstore.commit import commit_annotations
from laughstore.errors import CorruptData
from laughstore.evolution.gc import collect_garbage
from laughstore.index import Stream
from laughstore.index_file import read_index
from laughstore.reading.rows import open_rows
from laughstore.sealed import seal, unseal
from tests.stores import Episode, bf16_bits, random_features, write_store
from train import FrameFilter, train
from train.kept_moments import KeptMoments, stream_key
from train.moments import Moments, Standardiser, merged
from train.runs.checkpoint import checkpoint_path, load_checkpoint
from train.statistics import moments_of, stream_moments
from train.streaming.source import FrameSource

from .conftest import DIM, Planted, config_for, planted_episodes
from .test_stream import flip_a_bit


def true_rows(shards: Path, *, exclude: str = "") -> np.ndarray:
    """f8[T, D] of all frames of the train split, but of recordings that begin so."""
    index = read_index(shards)
    with open_rows(index, "train") as rows:
        parts = []
        for stream in index.streams("train"):
            if exclude and stream.recording_id.startswith(exclude):
                continue
            blocks = stream.first_block + np.arange(stream.num_blocks)
            rows.prepare(blocks, verify=True)
            frames = stream.first_block * index.block_frames + np.arange(stream.num_frames)
            bits = rows.matrix[rows.row_numbers(frames)].astype(np.uint32) << 16
            parts.append(bits.view(np.float32).astype(np.float64))
    return np.concatenate(parts)


def test_the_standardiser_of_a_split_is_that_of_numpy_in_float64(own_shards):
    index = read_index(own_shards)
    with FrameSource(index, "train") as source:
        total = merged(stream_moments(index, index.streams("train"), source), DIM)
    rows = true_rows(own_shards)
    assert total.n == len(rows)
    live = rows.std(axis=0) > 0
    assert live.sum() == DIM - 1
    assert total.mean == pytest.approx(rows.mean(axis=0), rel=1e-7)
    assert total.m2[live] == pytest.approx(rows.var(axis=0)[live] * len(rows), rel=1e-5)
    standardiser = Standardiser.of(total)
    assert standardiser.inverse_std[live] == pytest.approx(1 / rows.std(axis=0)[live], rel=1e-5)
    assert standardiser.inverse_std[~live].tolist() == [0]


def test_a_run_is_standardised_over_exactly_the_recordings_it_trains_on(own_shards, tmp_path):
    first = "train-part-1-"
    for name, exclude in (("all", ""), ("some", first)):
        limits = FrameFilter(exclude=f"{exclude}*" if exclude else None)
        config = config_for(own_shards, tmp_path / name, epochs=1, filter=limits)
        path = checkpoint_path(train(config).run / "checkpoints", "last")
        model = load_checkpoint(path).model
        rows = true_rows(own_shards, exclude=exclude)
        live = rows.std(axis=0) > 0
        assert model["mean"].numpy() == pytest.approx(rows.mean(axis=0), rel=1e-5)
        inverse_std = model["inverse_std"].numpy()[live]
        assert inverse_std == pytest.approx(1 / rows.std(axis=0)[live], rel=1e-5)
    assert 0 < len(rows) < len(true_rows(own_shards))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 1000))
def test_moments_of_parts_merge_to_those_of_the_whole(lengths, seed):
    rng = np.random.default_rng(seed)
    parts = [
        torch.from_numpy(rng.standard_normal((n, 3)) * [1, 50, 0.01] + [0, 400, 3]).bfloat16()
        for n in lengths
    ]
    total = merged((Moments.of(part) for part in parts), 3)
    whole = torch.cat(parts).double().numpy()
    assert total.n == len(whole)
    scale = whole.std(axis=0) + abs(whole.mean(axis=0))
    assert (abs(total.mean - whole.mean(axis=0)) <= 1e-6 * scale).all()
    expected = whole.var(axis=0) * len(whole)
    assert total.m2 == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_channels_that_hardly_move_are_dropped():
    constant = Standardiser.of(Moments.of(torch.full((5, 2), 3.0).bfloat16()))
    assert constant.inverse_std.tolist() == [0, 0]
    assert constant.mean.tolist() == [3, 3]
    # Spreads of 1, 1, 2e-3, 5e-4, 0 and one whose inverse float32 cannot hold.
    spread = np.array([1, 1, 2e-3, 5e-4, 0, 1e-42])
    some = Standardiser.of(Moments(10, np.zeros(6), 10 * spread**2))
    assert some.inverse_std.tolist() == pytest.approx([1, 1, 500, 2000, 0, 0])
    many = Standardiser.of(Moments(10, np.zeros(8), 10 * np.append(spread, [1, 1]) ** 2))
    assert many.inverse_std.tolist() == pytest.approx([1, 1, 500, 0, 0, 0, 1, 1])


def test_a_channel_constant_in_training_does_no_harm_where_it_moves(trained, tmp_path):
    _, reference, _ = trained
    episodes = planted_episodes()
    planted = Planted(episodes)

    def features(name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
        bits = planted(name, assignment, num_frames)
        if name.startswith("validation"):
            noise = np.random.default_rng(assignment).standard_normal(num_frames)
            bits[:, 7] = bf16_bits(0.25 + noise)
        return bits

    write_store(tmp_path / "store", episodes, features, dim=DIM, block_frames=32, shard_frames=256)
    result = train(config_for(tmp_path / "store" / "shards", tmp_path / "run"))
    assert result.best == reference.best


def test_moments_are_kept_beside_the_store_and_not_computed_twice(own_shards):
    index = read_index(own_shards)
    streams = index.streams("train")
    calls: list[tuple[int, int]] = []
    with FrameSource(index, "train") as source:
        first = stream_moments(
            index, streams[:3], source, progress=lambda *done: calls.append(done)
        )
        assert calls == [(1, 3), (2, 3), (3, 3)]
        stream_moments(index, streams, source, progress=lambda *done: calls.append(done))
        assert calls[3:] == [(i + 1, len(streams) - 3) for i in range(len(streams) - 3)]
        del calls[:]
        again = stream_moments(
            index, streams[:3], source, progress=lambda *done: calls.append(done)
        )
    assert not calls
    for mine, theirs in zip(first, again, strict=True):
        assert mine.n == theirs.n
        assert np.array_equal(mine.mean, theirs.mean)
        assert np.array_equal(mine.m2, theirs.m2)
    names = {path.name for path in (own_shards.parent / "stats").iterdir()}
    assert names == {f"{stream.recording_id}.json" for stream in streams}


def stats_path(shards: Path, stream: Stream) -> Path:
    return shards.parent / layout.stats(stream.recording_id)


def assert_equal(some: list[Moments], others: list[Moments]) -> None:
    """Bit for bit."""
    assert len(some) == len(others)
    for mine, theirs in zip(some, others, strict=True):
        assert mine.n == theirs.n
        assert mine.mean.tobytes() == theirs.mean.tobytes()
        assert mine.m2.tobytes() == theirs.m2.tobytes()


def test_damaged_moments_are_computed_again_and_the_log_says_so(own_shards, caplog):
    index = read_index(own_shards)
    streams = index.streams("validation")
    with FrameSource(index, "validation") as source:
        first = stream_moments(index, streams, source)
        path = stats_path(own_shards, streams[0])
        sound = path.read_bytes()
        path.write_bytes(sound.replace(b'"n":6', b'"n":7'))
        again = stream_moments(index, streams, source)
    assert f"computed again: {path}" in caplog.text
    assert_equal(first, again)
    assert path.read_bytes() == sound


def test_moments_of_other_frames_under_the_same_names_are_not_used(own_shards, caplog):
    """A store that was built again in the same place, and kept the folder of statistics."""
    index = read_index(own_shards)
    with FrameSource(index, "train") as source:
        first = stream_moments(index, index.streams("train"), source)
    episodes = planted_episodes()
    other = own_shards.parents[1] / "other"
    features = Planted(episodes, strength=1.0)
    write_store(other, episodes, features, dim=DIM, block_frames=32, shard_frames=256)
    shutil.copytree(own_shards.parent / "stats", other / "stats")
    index = read_index(other / "shards")
    with FrameSource(index, "train") as source:
        again = stream_moments(index, index.streams("train"), source)
        true = [moments_of(stream, source) for stream in index.streams("train")]
    assert caplog.text.count("of other features") == 5
    assert_equal(again, true)
    assert not np.array_equal(again[0].mean, first[0].mean)


def test_moments_are_used_in_every_generation_that_has_the_frames(own_shards, caplog):
    index = read_index(own_shards)
    with FrameSource(index, "train") as source:
        first = stream_moments(index, index.streams("train"), source)
    recording = index.recording("train, part 0")
    changed = replace(planted_episodes()[0].annotations, events=())
    commit_annotations(own_shards.parent, {recording.id: changed})
    newer = read_index(own_shards)
    assert newer.index_id != index.index_id
    calls: list[int] = []
    with FrameSource(newer, "train") as source:
        again = stream_moments(
            newer, newer.streams("train"), source, progress=lambda done, _: calls.append(done)
        )
    assert not calls
    assert_equal(first, again)
    collect_garbage(own_shards.parent)
    assert len(KeptMoments(newer).read(newer.streams("train"))) == len(first)


def test_moments_do_not_depend_on_the_number_of_threads(tmp_path):
    """Of 38 channels among 7 threads, some are summed one by one and some side by side."""
    episodes = [Episode("one", num_frames=1000)]
    write_store(tmp_path / "s", episodes, random_features(38), dim=38, shard_frames=512)
    index = read_index(tmp_path / "s" / "shards")
    found = []
    before = torch.get_num_threads()
    with FrameSource(index, "train") as source:
        for threads in (1, 7):
            torch.set_num_threads(threads)
            try:
                found.append(moments_of(index.streams("train")[0], source))
                assert torch.get_num_threads() == threads
            finally:
                torch.set_num_threads(before)
    assert_equal(found[:1], found[1:])


def test_a_store_that_cannot_be_written_is_no_obstacle(own_shards, caplog):
    caplog.set_level("INFO")
    (own_shards.parent / "stats").write_text("in the way")
    index = read_index(own_shards)
    with FrameSource(index, "train") as source:
        assert len(stream_moments(index, index.streams("train")[:1], source)) == 1
    assert "statistics are not kept" in caplog.text


def test_nothing_is_written_through_a_link_out_of_the_store(own_shards, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "outside").mkdir()
    (own_shards.parent / "stats").symlink_to(tmp_path / "outside")
    index = read_index(own_shards)
    with FrameSource(index, "train") as source:
        assert len(stream_moments(index, index.streams("train")[:1], source)) == 1
    assert "statistics are not kept" in caplog.text
    assert not list((tmp_path / "outside").iterdir())


def test_nothing_is_written_around_a_shards_folder_that_stands_alone(own_shards, tmp_path):
    alone = shutil.copytree(own_shards, tmp_path / "elsewhere" / "shards")
    index = read_index(alone)
    with FrameSource(index, "train") as source:
        assert len(stream_moments(index, index.streams("train")[:1], source)) == 1
    assert [path.name for path in alone.parent.iterdir()] == ["shards"]


def kept_streams(shards: Path) -> set[str]:
    """Streams whose moments are kept."""
    found = set()
    for path in (shards.parent / "stats").glob("*.json"):
        content, _ = unseal(path.read_bytes(), where="stats")
        found |= {f"{content['recording']}/{name}" for name in content["streams"]}
    return found


def test_moments_are_never_made_of_damaged_frames_whatever_verify_says(own_shards):
    name, key = flip_a_bit(own_shards)
    index = read_index(own_shards)
    streams = index.streams("train")
    with (
        FrameSource(index, "train", verify="never") as source,
        pytest.raises(CorruptData, match=f"{name}, sample {key}: crc32c"),
    ):
        stream_moments(index, streams, source)
    # What was sound is kept, and nothing else.
    assert kept_streams(own_shards)
    assert key.rpartition("/")[0] not in kept_streams(own_shards)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"frame 200 of odd-[^/]+/speaker-00--speaker-01 holds a value that is not finite"),
        (
            -np.inf,
            r"frame 200 of odd-[^/]+/speaker-00--speaker-01 holds a value that is not finite",
        ),
        (2e38, r"odd-[^/]+/speaker-00--speaker-01: rows 0 to 255 hold values too large"),
    ],
)
def test_features_without_finite_moments_are_refused_by_name(tmp_path, value, message):
    def features(name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
        x = np.random.default_rng(assignment).standard_normal((num_frames, 16))
        if name == "odd":
            x[200, 3] = value
        return bf16_bits(x.astype(np.float32))

    episodes = [Episode("even"), Episode("odd")]
    write_store(tmp_path / "store", episodes, features, dim=16, block_frames=32, shard_frames=256)
    index = read_index(tmp_path / "store" / "shards")
    with FrameSource(index, "train") as source, pytest.raises(CorruptData, match=message):
        stream_moments(index, index.streams("train"), source)
    assert {key.partition("-")[0] for key in kept_streams(tmp_path / "store" / "shards")} == {
        "even"
    }


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("mean", np.inf),
        ("m2", np.inf),
        ("m2", -1.0),
        ("mean", "\u00c4AAA"),
        ("n", 5),
        ("version", 99),
        ("recording", "another"),
        ("spec_id", "another"),
    ],
)
def test_kept_moments_that_cannot_be_are_computed_again(own_shards, caplog, change, value):
    index = read_index(own_shards)
    streams = index.streams("validation")
    with FrameSource(index, "validation") as source:
        first = stream_moments(index, streams, source)
        path = stats_path(own_shards, streams[0])
        content, _ = unseal(path.read_bytes(), where="stats")
        item = content["streams"][streams[0].assignment]
        if isinstance(value, float):
            values = np.arange(DIM, dtype=np.float64)
            values[5] = value
            value = encode_array(values, "<f8")
        (item if change in item else content)[change] = value
        path.write_bytes(seal(content))
        again = stream_moments(index, streams, source)
    assert "computed again" in caplog.text
    assert_equal(first, again)


def test_moments_are_kept_during_a_pass_and_when_it_is_cut_short(own_shards):
    index = read_index(own_shards)
    found: list[int] = []

    def stop_after_three(done: int, total: int) -> None:
        found.append(len(kept_streams(own_shards)))
        if done == 3:
            raise KeyboardInterrupt

    with FrameSource(index, "train") as source, pytest.raises(KeyboardInterrupt):
        stream_moments(index, index.streams("train"), source, progress=stop_after_three)
    # A recording, of two streams, as a whole.
    assert found == [0, 0, 2]
    assert len(kept_streams(own_shards)) == 3


def test_a_file_of_a_recording_keeps_what_another_process_has_put_there(own_shards):
    index = read_index(own_shards)
    streams = index.streams("train")
    with FrameSource(index, "train") as source:
        one, two = (moments_of(stream, source) for stream in streams[:2])
    assert KeptMoments(index).write({stream_key(streams[0]): one})
    assert KeptMoments(index).write({stream_key(streams[1]): two})
    kept = KeptMoments(index).read(streams)
    assert_equal([kept[stream_key(stream)] for stream in streams[:2]], [one, two])
