"""Which rows of a store take part: filters, and targets of every kind, on a real small store."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from laughstore.annotations import Annotations, Interval, Segment
from laughstore.errors import ConfigError
from laughstore.index import Index
from laughstore.labels import LabelSpec, frame_targets
from laughstore.store import open_shards
from laughstore.timebase import FRAME_US, Span
from laughstore.turns import legacy_rows
from tests.stores import SPEAKERS, Episode, laugh, random_features, write_store
from train import FrameFilter, FrameStream
from train.streaming.selection import Selection, select


@dataclass(frozen=True)
class Talk(Episode):
    """An episode with turns and prediction intervals."""

    turn_frames: tuple[int, ...] | None = None
    with_intervals: bool = True

    @property
    def annotations(self) -> Annotations:
        ends = self.turn_frames
        turns = ends and tuple(
            Segment((end - 5) * FRAME_US, end * FRAME_US, SPEAKERS[i % 2])
            for i, end in enumerate(ends)
        )
        intervals = tuple(
            Interval(event.speaker or "?", event.start_us, event.start_us - 1, event.start_us)
            for event in self.events
        )
        found = intervals if self.with_intervals else None
        return replace(super().annotations, turns=turns, intervals=found)


LAUGHS = [laugh(4, 5), laugh(12, 13, SPEAKERS[1]), laugh(245, 246)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    episodes = [
        Talk("long", num_frames=3200, events=LAUGHS, turn_frames=(30, 2900, 100, 3100)),
        Talk("short", num_frames=300, events=LAUGHS[:2], turn_frames=(100, 120)),
        Talk("bare", "other", 300, LAUGHS[:2], with_intervals=False),
    ]
    path = tmp_path_factory.mktemp("talks") / "store"
    write_store(path, episodes, random_features(8), dim=8, block_frames=32, shard_frames=256)
    return open_shards(path / "shards")


def offered(selection: Selection) -> list[list[int]]:
    """Rows of each stream that the filter lets pass."""
    block_frames = selection.index.block_frames
    rows = selection.eligible | selection.ignored
    found = []
    start = 0
    for stream in selection.streams:
        part = rows[start : start + stream.num_blocks].reshape(-1)
        assert len(part) == stream.num_blocks * block_frames
        found.append(np.flatnonzero(part).tolist())
        start += stream.num_blocks
    return found


@pytest.mark.parametrize(
    "label", ["detection", "shift:4f", "onset:10f", "interval:20f", "regression:30f"]
)
@pytest.mark.parametrize("legacy", [False, True])
def test_the_selection_holds_the_targets_of_every_stream(index, label, legacy):
    if legacy:
        label = label.replace(":20f", "").replace(":30f", "")
    spec = LabelSpec(label, legacy=legacy)
    selection = select(index, "train", spec)
    dtype = np.float32 if spec.kind == "regression" else np.uint8
    assert selection.y.dtype == selection.targets.dtype == dtype
    positives = ignored = 0
    for number, stream in enumerate(selection.streams):
        tables = index.tables(index.recording(stream.recording_id))
        expected = frame_targets(
            spec, tables, main=stream.main, other=stream.other, num_frames=stream.num_frames
        )
        y, eligible = selection.stream_targets(number)
        assert y.tolist() == expected.y.tolist()
        assert eligible.tolist() == (~expected.ignored).tolist()
        positives += int((expected.y > 0).sum())
        ignored += int(expected.ignored.sum())
    assert (selection.counts.positives, selection.counts.ignored) == (positives, ignored)
    assert positives
    assert selection.counts.rows == 2 * (3200 + 300)


def test_targets_of_a_regression_reach_the_batches_and_their_digest_tells_them_apart(index):
    label = LabelSpec("regression:30f")
    with FrameStream(index, "train", label=label, global_batch=64, lanes=4) as stream:
        selection = stream.selection
        target = dict(zip(selection.frames.tolist(), selection.targets.tolist(), strict=True))
        seen = 0
        for batch in stream:
            assert batch.y.dtype.is_floating_point
            for frame, y in zip(batch.frame.tolist(), batch.y.tolist(), strict=True):
                if frame >= 0:
                    assert y == target[frame]
                    seen += 1
        assert seen == selection.num_rows
    further = select(index, "train", LabelSpec("regression:31f"))
    assert further.targets_digest != selection.targets_digest


def test_turn_within_lets_rows_behind_a_change_pass(index):
    limits = FrameFilter(turn_within=Span("20f"), min_context=Span("40f"))
    found = offered(select(index, "train", LabelSpec(), limits))
    long = [*range(40, 51), *range(101, 121), *range(2901, 2921)]
    short = list(range(101, 121))
    assert found == [long, long, short, short]


def test_without_turns_the_diarization_tells_and_one_speaker_alone_never_changes(index):
    with pytest.raises(ConfigError, match=r"none passes the filter \(turn_within 9s\)"):
        select(index, "other", LabelSpec(), FrameFilter(turn_within=Span("9s")))


def test_the_legacy_filter_takes_the_rows_that_the_scripts_took(index):
    selection = select(
        index, "train", LabelSpec("interval", legacy=True), FrameFilter(legacy_filter=True)
    )
    tables = index.tables(selection.index.recordings[0])
    expected = np.flatnonzero(legacy_rows(tables, 3200, where="long")).tolist()
    assert expected == list(range(3000, 3200))
    assert offered(selection) == [expected, expected, [], []]


@pytest.mark.parametrize(
    ("split", "label", "limits", "words"),
    [
        ("other", "interval:5s", {}, r"interval:5s needs prediction intervals.*--label onset:63f"),
        ("train", "detection", {"legacy_filter": True}, r"legacy_filter is for label interval"),
    ],
)
def test_a_label_or_filter_without_its_annotations_is_an_error(index, split, label, limits, words):
    with pytest.raises(ConfigError, match=words) as caught:
        select(index, split, LabelSpec(label), FrameFilter(**limits))
    assert "\n" not in str(caught.value)


def test_a_regression_until_the_end_of_an_interval_names_what_needs_none(index):
    with pytest.raises(ConfigError, match=r"onset:10f, or --until onset$"):
        select(index, "other", LabelSpec("regression:10f", until="interval"))
    select(index, "other", LabelSpec("regression:10f"))


def test_a_filter_has_one_identity_which_reads_back_and_older_ones_do_too():
    assert FrameFilter(min_context=Span("0.8s")).identity() == {
        "min_context_frames": 10,
        "recordings": None,
        "exclude": None,
    }
    for limits in (
        FrameFilter(Span("2f"), "a*", "b*", Span("30f"), True),
        FrameFilter(turn_within=Span("3f")),
        FrameFilter(),
    ):
        assert FrameFilter.from_identity(limits.identity()) == limits
    assert FrameFilter(turn_within=Span("240s"), legacy_filter=True).describe() == (
        "turn_within 240s, legacy_filter"
    )
    with pytest.raises(ConfigError, match=r"turn_within 0s: .* longer than 0"):
        FrameFilter(turn_within=Span("0s"))
