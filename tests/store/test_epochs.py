"""Epochs: windows around onsets, compared with a slow and plain search in Python."""

from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laughstore import ConfigError, CorruptData, Event, NotFound, Span, open_store
from laughstore.bouts import clean_events
from laughstore.index import Stream
from laughstore.store import Store
from tests.stores import SPEAKERS, Episode, laugh, random_features, write_store

DIM = 8
A, B = SPEAKERS
FEATURES = random_features(DIM)


def _event(start_us: int, end_us: int, speaker: str | None, label: str, confidence: float) -> Event:
    return Event(start_us, end_us, label, f"{label} (full)", speaker, confidence)


def _random_events(seed: int, num_frames: int) -> list[Event]:
    """Onsets on and off frame boundaries, overlapping, of everyone and of nobody."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, num_frames * 80_000, 60)
    starts[::3] = starts[::3] // 80_000 * 80_000
    return [
        _event(
            int(start),
            int(start + rng.integers(1, 900_000)),
            [A, B, "THIRD", None][int(rng.integers(0, 4))],
            ["Laughter", "Breath"][int(rng.integers(0, 2))],
            float(rng.choice([0.25, 0.5, 0.7, 1.0])),
        )
        for start in starts
    ]


EPISODES = [
    Episode("a", "train", 700, _random_events(1, 700)),
    Episode("b", "test", 300, _random_events(2, 300)),
    Episode("c", "train", 260, _random_events(3, 260), speakers=(A,)),
    Episode("d", "train", 130),
]


@pytest.fixture(scope="module", params=["none", "zstd"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("epochs") / "store"
    write_store(path, EPISODES, FEATURES, dim=DIM, shard_frames=256, codec=request.param)
    return open_store(path)


def slow_epochs(
    store: Store, before: int, after: int, *, event: str, whose: str, gap_us: int, confidence: float
) -> tuple[list[tuple], list[np.ndarray], int]:
    """What epochs are, said without numpy: (events, windows, number dropped)."""
    found, windows, dropped = [], [], 0
    for episode, recording in zip(EPISODES, store.recordings, strict=True):
        kept, seen = [], set()
        for item in episode.events:
            if item.end_us <= item.start_us or item.start_us >= recording.duration_us:
                continue
            if item in seen:
                continue
            seen.add(item)
            kept.append((item, min(item.end_us, recording.duration_us)))
        for number, stream in enumerate(recording.streams):
            allowed = {
                "main": [stream.main],
                "other": [stream.other],
                "pair": [stream.main, stream.other],
                "any": [A, B, "THIRD", None],
            }[whose]
            if whose in ("other", "pair") and stream.other is None:
                allowed = [who for who in allowed if who is not None]
            chosen = [
                (item, end)
                for item, end in kept
                if event in (item.label, f"full:{item.full_label}")
                and item.speaker in allowed
                and np.float32(item.confidence) >= np.float32(confidence)
            ]
            chosen.sort(key=lambda pair: pair[0].start_us)  # stable: the file's order
            bouts: list[list] = []
            for item, end in chosen:
                if bouts and item.start_us - bouts[-1][1] <= gap_us:
                    bouts[-1][1] = max(bouts[-1][1], end)
                else:
                    bouts.append([item.start_us, end, item.speaker])
            for onset, end, speaker in bouts:
                frame = int(Fraction(onset, 80_000))  # the frame that holds the onset
                if frame - before < 0 or frame + after > episode.num_frames:
                    dropped += 1
                    continue
                found.append((recording.id, stream.assignment, onset, end, speaker, event))
                bits = FEATURES(episode.name, number, episode.num_frames)
                windows.append(bits[frame - before : frame + after])
    return found, windows, dropped


@settings(deadline=None)
@given(data=st.data())
def test_epochs_are_what_a_slow_search_finds(store, data):
    before = data.draw(st.integers(0, 140))
    after = data.draw(st.integers(0 if before else 1, 140))
    event = data.draw(st.sampled_from(["Laughter", "Breath", "full:Laughter (full)"]))
    whose = data.draw(st.sampled_from(["main", "other", "pair", "any"]))
    gap = data.draw(st.sampled_from(["0s", "0.5s", "3s"]))
    confidence = data.draw(st.sampled_from([0.0, 0.5, 0.7]))
    epochs = store.epochs(
        event,
        Span.of_frames(before),
        f"{after}f",
        whose=whose,
        merge_gap=gap,
        min_confidence=confidence,
    )
    events, windows, dropped = slow_epochs(
        store,
        before,
        after,
        event=event,
        whose=whose,
        gap_us=Span(gap).us,
        confidence=confidence,
    )
    assert [tuple(item) for item in epochs.events] == events
    assert epochs.num_dropped == dropped
    assert epochs.shape == (len(windows), before + after, DIM)
    for got, expected in zip(epochs, windows, strict=True):
        np.testing.assert_array_equal(got.view(np.uint16), expected)


def test_the_row_at_time_zero_has_heard_nothing_of_the_event(store):
    """Row t has heard audio strictly before t * 80 ms."""
    epochs = store.epochs("Laughter", "2s", "10f", whose="any")
    assert epochs.times_s[0] == -2.0
    assert epochs.times_s[25] == 0.0
    assert epochs.times_s[-1] == pytest.approx(0.72)
    assert len(epochs.times_s) == epochs.num_frames == 35
    for item in epochs.events:
        zero_us = item.onset_us // 80_000 * 80_000  # now(row) at time 0
        assert zero_us <= item.onset_us < zero_us + 80_000


def test_windows_at_the_very_edges_are_kept_and_one_frame_more_is_dropped(tmp_path):
    # Onsets in frames 5 and 94 of 100.
    events = [laugh(0.4, 0.5), laugh(7.59, 7.7)]
    path = write_store(
        tmp_path / "s", [Episode("a", num_frames=100, events=events)], FEATURES, dim=DIM
    )
    store = open_store(path)
    whole = FEATURES("a", 0, 100)
    epochs = store.epochs("Laughter", "5f", "6f")
    assert epochs.num_dropped == 0
    np.testing.assert_array_equal(epochs[0].view(np.uint16), whole[:11])
    np.testing.assert_array_equal(epochs[1].view(np.uint16), whole[89:])
    assert (
        len(store.epochs("Laughter", "6f", "6f")),
        len(store.epochs("Laughter", "5f", "7f")),
    ) == (1, 1)
    assert store.epochs("Laughter", "6f", "7f").num_dropped == 2


def test_splits_and_recordings_choose(store):
    everything = store.epochs("Laughter", "0f", "1f", whose="any")
    test = store.epochs("Laughter", "0f", "1f", whose="any", split="test")
    train = store.epochs("Laughter", "0f", "1f", whose="any", split="train")
    assert len(test) + len(train) == len(everything)
    assert {item.recording for item in test.events} == {store.recordings[1].id}
    some = store.epochs(
        "Laughter", "0f", "1f", whose="any", recordings=["b", store.recordings[2].id]
    )
    assert {item.recording for item in some.events} == {r.id for r in store.recordings[1:3]}
    for faulty, said in (
        ({"split": "dev"}, "no split 'dev'"),
        ({"recordings": "b"}, "give a list"),
        ({"whose": "mine"}, "must be one of"),
        ({"merge_gap": "-1s"}, "must be 0 or more"),
    ):
        with pytest.raises(ConfigError, match=said):
            store.epochs("Laughter", "1s", "1s", **faulty)
    with pytest.raises(NotFound, match="'z'"):
        store.epochs("Laughter", "1s", "1s", recordings=["z"])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [("0s", "0s", "more than 0"), ("-1s", "2s", "0 or more"), ("2", "1s", "needs a unit")],
)
def test_windows_that_cannot_be_are_refused(store, before, after, said):
    with pytest.raises(ConfigError, match=said):
        store.epochs("Laughter", before, after)


def test_an_unknown_class_lists_those_there_are(store):
    with pytest.raises(ConfigError, match=r"'Sneeze' occurs nowhere.*Breath, Laughter"):
        store.epochs("Sneeze", "1s", "1s")


def test_stack_is_all_epochs_and_refuses_to_take_too_much(store):
    epochs = store.epochs("Laughter", "3f", "2f", whose="pair")
    stacked = epochs.stack()
    assert stacked.dtype == np.dtype(ml_dtypes.bfloat16)
    assert stacked.shape == epochs.shape == (len(epochs), 5, DIM)
    for got, expected in zip(stacked, epochs, strict=True):
        np.testing.assert_array_equal(got.view(np.uint16), expected.view(np.uint16))
    with pytest.raises(ConfigError, match=r"take a part, epochs\[:2\]"):
        epochs.stack(max_bytes=2 * 5 * DIM * 2)
    np.testing.assert_array_equal(epochs[:2].stack(max_bytes=2 * 5 * DIM * 2), stacked[:2])
    assert epochs[2:4].events == epochs.events[2:4]
    np.testing.assert_array_equal(epochs[-1], stacked[-1])
    with pytest.raises(IndexError):
        epochs[len(epochs)]


def test_no_epochs_are_an_empty_array(store):
    epochs = store.epochs("Laughter", "1s", "1s", recordings=["d"])
    assert (len(epochs), epochs.stack().shape, list(epochs)) == (0, (0, 26, DIM), [])


def test_repr_tells_shape_dtype_and_units(store):
    text = repr(store.epochs("Laughter", "2s", "10f"))
    assert "epochs of bfloat16[35, 8] at 12.5 Hz, -2 to 0.72 s around the onset's frame" in text


def test_events_make_a_table(store):
    epochs = store.epochs("Laughter", "0f", "1f")
    assert epochs.events[0]._fields == (
        "recording",
        "assignment",
        "onset_us",
        "end_us",
        "speaker",
        "label",
    )


def test_bouts_are_those_of_labels(store):
    """An epoch with `whose` main begins where the label's bouts begin."""
    from laughstore.labels import LabelSpec, target_bouts

    onsets: dict[Stream, list[int]] = {}
    for item in store.epochs("Laughter", "0f", "1f").events:
        onsets.setdefault(store.stream(item.recording, item.assignment), []).append(item.onset_us)
    for recording in store.recordings:
        tables = store.index.tables(recording)
        assert clean_events(tables)[1].dropped == 0
        for stream in recording.streams:
            bouts = target_bouts(LabelSpec(), tables, main=stream.main, other=stream.other)
            assert onsets.get(stream, []) == bouts.start_us.tolist()


def test_damage_is_an_error_of_the_epochs_it_hits(tmp_path):
    events = [laugh(2, 2.5), laugh(20, 20.5)]
    path: Path = write_store(
        tmp_path / "s", [Episode("a", num_frames=384, events=events)], FEATURES, dim=DIM
    )
    store = open_store(path)
    shard = path / "shards" / "train-000000.tar"
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[store.index.geometry.data_offset(1) + 9] ^= 2
    shard.write_bytes(data)
    epochs = store.epochs("Laughter", "1s", "1s")
    assert epochs[0].shape == (26, DIM)
    with pytest.raises(CorruptData, match="crc32c"):
        epochs[1]


def test_times_without_a_unit_are_refused_with_both_forms(store):
    for before, after, name in ((1.0, 1.0, "before"), ("1s", 25, "after")):
        with pytest.raises(ConfigError, match=f"{name} is .*'1s' for seconds, '25f' for frames"):
            store.epochs("Laughter", before, after)
    with pytest.raises(ConfigError, match=r"merge_gap is 0\.5; give it with its unit"):
        store.epochs("Laughter", "1s", "1s", merge_gap=0.5)


def test_lists_and_masks_choose_epochs(store):
    epochs = store.epochs("Laughter", "3f", "2f")
    events = epochs.events
    assert epochs[[2, 0, -1]].events == (events[2], events[0], events[-1])
    assert epochs[np.array([1, 1], np.uint8)].events == (events[1], events[1])
    assert epochs[[]].events == ()
    mask = np.array([event.recording == events[-1].recording for event in events])
    assert not mask.all()
    kept = tuple(event for event, keep in zip(events, mask, strict=True) if keep)
    assert epochs[mask].events == kept
    assert epochs[mask.tolist()].events == epochs[mask].events
    assert epochs[mask].num_dropped == epochs.num_dropped
    np.testing.assert_array_equal(epochs[np.int64(1)], epochs[1])
    with pytest.raises(IndexError):
        epochs[[len(events)]]
    for wrong in (mask[:-1], [0.5], [[0]], "0"):
        with pytest.raises(ConfigError, match=r"list of numbers or a mask bool\["):
            epochs[wrong]
