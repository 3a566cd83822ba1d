"""From tracks to features: recordings stream through slots of one fixed batch, at constant memory.

In: sources, each one or two sides of 24 kHz audio. Out: chunks of features and codes of every
assignment, in order within a source, sources side by side. A recording that fails is reported and
leaves its slots; the others do not notice. The next calls are read (`feeding.py`), the last ones
copied from the device and written (`writer.py`), while the model computes.

A source enters its slot at frame 0 of a call, and every call has the same shape, so its features
are the same bits whatever else is in the batch and whatever was in the slot before. Values of the
model that are not finite end a recording: they are never delivered.

It never writes files and never resamples.
"""

import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import BadRecording
from laughstore.spec import StreamOrder

from .batch import HostFrames, PendingFrames, SlotBatch
from .feeding import Call, FeatureFailure, Feeder, Passage, Source, TrackReader
from .model import FeatureModel

__all__ = [
    "FeatureChunk",
    "FeatureFailure",
    "SlotBatch",
    "Source",
    "TrackReader",
    "extract_features",
]


@dataclass(frozen=True)
class FeatureChunk:
    """Consecutive frames of one source, for each of its A assignments."""

    source: Source
    start_frame: int
    features: NDArray[np.uint16]
    """uint16[A, n, D], the bits of bf16. Assignment a has side a as main. Row t has heard audio
    strictly before t * 80 ms."""
    codes: NDArray[np.int16]
    """i16[A, n, 17] codes of the frames themselves: text, audio of main, audio of other."""


def extract_features(
    model: FeatureModel,
    sources: Iterable[Source | None],
    *,
    slots: int,
    chunk_frames: int,
    assignments: int = 2,
    stream_order: StreamOrder = "main-other",
    restart_frames: int | None = None,
) -> Generator[FeatureChunk | FeatureFailure]:
    """Extract sources, `slots` at a time, and yield their features as they come.

    A slot whose source has ended or failed takes the next one. Arrays of a chunk are the caller's.
    Closing the iterator early closes the tracks that are open.

    Args:
        model: from `load_model`; it serves one extraction at a time.
        sources: taken one by one, by a thread, a few calls before their turn. None: there is none
            now; asked again before the next call, until all slots are free.
        slots: sources side by side.
        chunk_frames: frames of every call, and of every chunk but the last ones.
        assignments: of every slot; 1 when no source has two.
        stream_order: where the text of which side goes.
        restart_frames: frames after which state begins anew inside a recording; None: never.

    Raises:
        ConfigError: `slots` or `chunk_frames` is below 1, or a source opens no or three tracks.
    """
    batch = SlotBatch(
        model,
        slots=slots,
        chunk_frames=chunk_frames,
        assignments=assignments,
        stream_order=stream_order,
    )
    feeder = Feeder(
        sources,
        slots=slots,
        chunk_frames=chunk_frames,
        restart_frames=restart_frames,
        stage=batch.stage,
        threads=max(1, min(2 * slots, os.cpu_count() or 1)),
    )
    failed: set[str] = set()
    last: tuple[tuple[Passage | None, ...], PendingFrames] | None = None
    with batch, feeder:
        for item in feeder:
            if isinstance(item, FeatureFailure):
                if item.source.key not in failed:
                    failed.add(item.source.key)
                    yield item
                continue
            # The device computes this call while the one before is handed on.
            pending = _begin(batch, item)
            if last is not None:
                yield from _deliver(*last, failed, feeder)
            last = item.passages, pending
        if last is not None:
            yield from _deliver(*last, failed, feeder)


def _begin(batch: SlotBatch, call: Call) -> PendingFrames:
    if call.restarts.any():
        batch.restart(call.restarts)
    return batch.step(call.audio, call.text)


def _deliver(
    passages: tuple[Passage | None, ...],
    pending: PendingFrames,
    failed: set[str],
    feeder: Feeder,
) -> Iterator[FeatureChunk | FeatureFailure]:
    frames = pending.wait()
    for slot, passage in enumerate(passages):
        if passage is None or passage.source.key in failed:
            continue
        fault = _fault(passage, frames.finite[slot])
        if fault is None:
            yield _chunk(passage, frames, slot)
        else:
            failed.add(passage.source.key)
            feeder.drop(passage.source.key)
            yield FeatureFailure(passage.source, fault)


def _chunk(passage: Passage, frames: HostFrames, slot: int) -> FeatureChunk:
    assert passage.num_assignments <= frames.features.shape[1], "extracted with fewer assignments"
    kept = slot, slice(passage.num_assignments), slice(passage.num_frames)
    return FeatureChunk(
        passage.source, passage.start_frame, frames.features[kept], frames.codes[kept]
    )


def _fault(passage: Passage, finite: NDArray[np.bool_]) -> BadRecording | None:
    """Return why frames cannot be delivered, of whether each is finite, bool[n]."""
    heard = finite[: passage.num_frames]
    if heard.all():
        return None
    # A NaN shows in frames of its call before it too: masked, it has weight 0 there.
    return BadRecording(
        f"{passage.source.name or passage.source.key}: the model gave values that are not finite at"
        f" frame {passage.start_frame + int(np.argmin(heard))}; the audio is damaged near it,"
        f" before frame {passage.start_frame + finite.size}: export it again, or leave the"
        " recording out"
    )
