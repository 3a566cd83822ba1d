"""Small real stores for tests: written by the store's own writers, with features we know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laughstore.annotations import Annotations, Event, Segment, Speaker, write_annotations
from laughstore.buildplan import (
    Assignment,
    BuildPlan,
    PlannedRecording,
    RecordingToPlan,
    begin_plan,
    make_plan,
)
from laughstore.codec import Codec
from laughstore.commit import commit_plan
from laughstore.naming import assignment_name, recording_id
from laughstore.spec import FeatureSpec, Numerics
from laughstore.timebase import FRAME_US
from laughstore.unitwriter import UnitWriter

SPEAKERS = ("SPEAKER_00", "SPEAKER_01")
DEVICE_KIND = "test"

Features = Callable[[str, int, int], NDArray[np.uint16]]
"""(recording name, assignment number, number of frames) -> u2[T, dim], bits of bfloat16."""


@dataclass(frozen=True)
class Episode:
    """A recording of a test store."""

    name: str
    split: str = "train"
    num_frames: int = 300
    events: Sequence[Event] = ()
    speakers: Sequence[str] = field(default=SPEAKERS)
    show: str = ""
    """Its own, if none is named."""

    @property
    def annotations(self) -> Annotations:
        duration_us = self.num_frames * FRAME_US
        return Annotations(
            recording=self.name,
            duration_us=duration_us,
            speakers=tuple(
                Speaker(name, duration_us // (i + 2)) for i, name in enumerate(self.speakers)
            ),
            events=tuple(self.events),
            segments=(Segment(0, duration_us // 2, self.speakers[0]),),
        )

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        if len(self.speakers) == 1:
            only = self.speakers[0]
            return (Assignment(assignment_name(only, None), only, None),)
        a, b = self.speakers[:2]
        return (
            Assignment(assignment_name(a, b), a, b),
            Assignment(assignment_name(b, a), b, a),
        )


def laugh(start_s: float, end_s: float, speaker: str | None = SPEAKERS[0]) -> Event:
    """An annotated laugh."""
    return Event(round(start_s * 1e6), round(end_s * 1e6), "Laughter", "Laughter", speaker)


def bf16_bits(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16 of each value."""
    import ml_dtypes

    return values.astype(ml_dtypes.bfloat16).view(np.uint16)


def random_features(dim: int, seed: int = 0) -> Features:
    """Standard normal frames, different for each recording and assignment."""

    def features(name: str, assignment: int, num_frames: int) -> NDArray[np.uint16]:
        rng = np.random.default_rng([seed, assignment, *name.encode()])
        return bf16_bits(rng.standard_normal((num_frames, dim), np.float32))

    return features


def numbered_codes(num_streams: int, num_frames: int) -> NDArray[np.int16]:
    """i2[A, T, 17], each frame different."""
    frames = np.arange(num_frames, dtype=np.int16)[None, :, None] % 1000
    return frames + np.arange(17, dtype=np.int16) + np.zeros((num_streams, 1, 1), np.int16)


def spec_for(
    dim: int, block_frames: int = 128, shard_frames: int = 4096, codec: Codec = "none"
) -> FeatureSpec:
    """A spec of features that no model made."""
    return FeatureSpec(
        model="local",
        revision=None,
        weights_sha256="0" * 64,
        dim=dim,
        numerics=Numerics(
            slots=1, chunk_frames=64, threads=1, compute_dtype="float32", allow_tf32=False
        ),
        block_frames=block_frames,
        shard_frames=shard_frames,
        codec=codec,
    )


def write_store(
    path: Path,
    episodes: Sequence[Episode],
    features: Features,
    *,
    dim: int = 64,
    block_frames: int = 128,
    shard_frames: int = 4096,
    chunk_frames: int = 100,
    codec: Codec = "none",
) -> Path:
    """Write and commit a store of these episodes; frames arrive `chunk_frames` at a time."""
    plan = plan_for(episodes, spec_for(dim, block_frames, shard_frames, codec))
    begin_plan(path, plan)
    for planned, episode in zip(plan.recordings, episodes, strict=True):
        write_recording(path, plan, planned, episode, features, chunk_frames=chunk_frames)
    commit_plan(path, plan)
    return path


def plan_for(
    episodes: Sequence[Episode],
    spec: FeatureSpec,
    *,
    first_shards: Mapping[str, int] | None = None,
) -> BuildPlan:
    """The plan of a store of these episodes."""
    return make_plan(
        spec,
        DEVICE_KIND,
        [
            RecordingToPlan(
                id=recording_id(episode.name),
                name=episode.name,
                split=episode.split,
                group=episode.show or episode.name,
                num_frames=episode.num_frames,
                assignments=episode.assignments,
                annotations_id=episode.annotations.content_id(),
            )
            for episode in episodes
        ],
        first_shards=first_shards,
    )


def write_recording(
    path: Path,
    plan: BuildPlan,
    planned: PlannedRecording,
    episode: Episode,
    features: Features,
    *,
    chunk_frames: int = 100,
) -> None:
    """Write a planned recording's annotations and its unit."""
    write_annotations(path, episode.annotations, planned.split, planned.id)
    rows = np.stack(
        [
            features(episode.name, number, episode.num_frames)
            for number in range(len(planned.assignments))
        ]
    )
    codes = numbered_codes(len(planned.assignments), episode.num_frames)
    with UnitWriter(path, plan, planned, episode.annotations) as writer:
        for start in range(0, episode.num_frames, chunk_frames):
            part = slice(start, start + chunk_frames)
            writer.write(rows[:, part], codes[:, part])
        writer.finish()
