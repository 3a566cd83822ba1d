"""Whatever is extracted side by side, and whatever fails, a recording's bits are its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from extract.features import FeatureChunk, FeatureFailure, Source, TrackReader, extract_features
from extract.model import FeatureModel
from laughstore.errors import BadRecording
from laughstore.timebase import SAMPLES_PER_FRAME

from .sounds import MemoryTrack, sound

MAX_FRAMES = 25
WAVES = [sound(seed, MAX_FRAMES) for seed in range(6)]
Sides = Literal["two", "one", "mix"]
Fault = Literal["open", "cut", "nan"]


@dataclass(frozen=True)
class Recording:
    """What a source is made of."""

    key: str
    num_frames: int
    sides: Sides
    seed: int
    has_text: bool
    fault: Fault | None
    at_frame: int

    def source(self) -> Source:
        def open_tracks() -> Sequence[TrackReader | None]:
            if self.fault == "open":
                raise BadRecording("no audio")
            waves = [WAVES[(self.seed + side) % 6][:] for side in range(2)]
            at_frame = min(self.at_frame, self.num_frames - 1)
            if self.fault == "nan":
                waves[0] = waves[0].copy()
                waves[0][at_frame * SAMPLES_PER_FRAME + 9] = np.nan
            first = MemoryTrack(waves[0], fails_at=at_frame if self.fault == "cut" else None)
            if self.sides == "mix":
                return [None, first]
            return [first] if self.sides == "one" else [first, MemoryTrack(waves[1])]

        def text() -> NDArray[np.int16]:
            rng = np.random.default_rng(self.seed)
            return rng.integers(3, 100, (2, self.num_frames)).astype(np.int16)

        return Source(
            self.key,
            self.num_frames,
            open_tracks,
            num_assignments=1 if self.sides == "mix" else None,
            text=text if self.has_text else None,
        )


recordings = st.builds(
    Recording,
    key=st.uuids().map(str),
    num_frames=st.integers(1, MAX_FRAMES),
    sides=st.sampled_from(["two", "one", "mix"]),
    seed=st.integers(0, 5),
    has_text=st.booleans(),
    fault=st.none() | st.sampled_from(["open", "cut", "nan"]),
    at_frame=st.integers(0, MAX_FRAMES - 1),
)


@dataclass(frozen=True)
class Schedule:
    """Recordings in order, and how they are extracted."""

    queue: list[Recording]
    pauses: list[int]
    """Places of the queue at which there is nothing for one call."""
    slots: int
    chunk_frames: int
    restart_frames: int | None
    order: Literal["main-other", "legacy"]


def schedules(most: int, *, max_slots: int) -> st.SearchStrategy[Schedule]:
    return st.builds(
        Schedule,
        queue=st.lists(recordings, min_size=1, max_size=most, unique_by=lambda item: item.key),
        pauses=st.lists(st.integers(0, most), max_size=2, unique=True),
        slots=st.integers(1, max_slots),
        chunk_frames=st.integers(2, 9),
        restart_frames=st.none() | st.integers(3, 14),
        order=st.sampled_from(["main-other", "legacy"]),
    )


def bits_of(
    model: FeatureModel, plan: Schedule, queue: list[Recording], pauses: Sequence[int] = ()
) -> tuple[dict[str, list[bytes]], set[str]]:
    """Features and codes of each recording that did not fail, and the keys of those that did."""
    sources: list[Source | None] = []
    for place, item in enumerate(queue):
        if place in pauses and place > 0:
            sources.append(None)
        sources.append(item.source())
    chunks: dict[str, list[FeatureChunk]] = {}
    failed: set[str] = set()
    for item in extract_features(
        model,
        sources,
        slots=plan.slots,
        chunk_frames=plan.chunk_frames,
        stream_order=plan.order,
        restart_frames=plan.restart_frames,
    ):
        assert item.source.key not in failed, "nothing comes after a failure"
        if isinstance(item, FeatureFailure):
            failed.add(item.source.key)
            chunks.pop(item.source.key, None)
        else:
            chunks.setdefault(item.source.key, []).append(item)
    return {
        key: [
            np.concatenate([part.features for part in parts], axis=1).tobytes(),
            np.concatenate([part.codes for part in parts], axis=1).tobytes(),
        ]
        for key, parts in chunks.items()
    }, failed


def check(model: FeatureModel, plan: Schedule) -> None:
    found, failed = bits_of(model, plan, plan.queue, plan.pauses)
    bad = {item.key for item in plan.queue if item.fault is not None}
    # A pause ends the extraction when all slots are free: what comes behind it is not asked for.
    asked = set(found) | failed
    if not plan.pauses:
        assert asked == {item.key for item in plan.queue}
    assert failed == bad & asked
    for item in plan.queue:
        if item.key in found:
            alone, _ = bits_of(model, plan, [item])
            assert found[item.key] == alone[item.key]


@settings(max_examples=30)
@given(plan=schedules(5, max_slots=4))
def test_log_mel_frames_in_any_schedule(logmel: FeatureModel, plan: Schedule) -> None:
    check(logmel, plan)


@settings(max_examples=8)
@given(plan=schedules(3, max_slots=2))
def test_features_in_any_schedule(model: FeatureModel, plan: Schedule) -> None:
    check(model, plan)


@pytest.mark.slow
@settings(max_examples=150)
@given(plan=schedules(6, max_slots=3))
def test_features_in_many_schedules(model: FeatureModel, plan: Schedule) -> None:
    check(model, plan)
