"""Score the rows of a split in the order of time, and lay scores out stream by stream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from laughstore.index import Stream
from laughstore.labels import LabelSpec

from .metrics import FrameMetrics, frame_metrics
from .model import ScoreModel
from .readahead import ReadAhead
from .selection import Selection
from .source import FrameSource

_BATCH_BLOCKS = 32
"""Blocks in a batch: 4,096 frames of the default block."""


@dataclass(frozen=True, eq=False)
class StreamScores:
    """Scored rows of one stream, n of its T, in the order of time."""

    stream: Stream
    """Where roles do not matter (pair, any): the first of the recording, for all of them."""
    title: str
    """Whose events, for people."""
    row: NDArray[np.int64]
    """i64[n]: t, frames from the start of the recording."""
    probability: NDArray[np.float32]
    """f4[n]."""
    y: NDArray[np.uint8]
    """u1[n]."""
    eligible: NDArray[np.bool_]
    """bool[n]: the row counts; others are ignored."""


@torch.inference_mode()
def score_rows(
    model: ScoreModel,
    selection: Selection,
    source: FrameSource,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Return the model's probability of every row that takes part.

    Args:
        model: on the device that does the work.
        selection: N rows of the split that `source` reads.
        source: reads their frames.
        progress: called with (rows done, N).

    Returns:
        f4[N], in the order of `selection.frames`.

    Raises:
        CorruptData: a block was altered or cut.
    """
    device = model.mean.device
    used = np.flatnonzero(selection.block_counts)  # blocks without rows are not read
    batch = np.arange(len(used)) // _BATCH_BLOCKS
    last_blocks = np.append(np.arange(_BATCH_BLOCKS, len(used), _BATCH_BLOCKS), len(used)) - 1
    ends = np.cumsum(selection.block_counts[used])[last_blocks]
    bounds = np.concatenate([np.zeros(1, np.int64), ends])
    frames, blocks = selection.frames, selection.blocks[used]
    probability = np.empty(len(frames), np.float32)
    bits = torch.empty(int(np.diff(bounds).max()), source.dim, dtype=torch.int16)
    with ReadAhead(source.prepare, batch, blocks, max_ahead=2 * _BATCH_BLOCKS) as ahead:
        for number, (start, stop) in enumerate(pairwise(bounds.tolist())):
            ahead.wait(number)
            rows = bits[: stop - start]
            source.gather(frames[start:stop], rows)
            x = rows.view(torch.bfloat16).to(device)
            probability[start:stop] = model.probability(x).cpu().numpy()
            if progress is not None:
                progress(stop, len(frames))
    return probability


def score_streams(
    model: ScoreModel,
    selection: Selection,
    source: FrameSource,
    label: LabelSpec,
    *,
    ignored_too: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[StreamScores]:
    """Return scores stream by stream.

    A question about the pair, or about anyone, has one answer a recording: the mean of what its
    assignments say.

    Args:
        model: on the device that does the work.
        selection: rows of the split that `source` reads.
        source: reads their frames.
        label: that the selection was made with.
        ignored_too: score rows that the label ignores, too.
        progress: called with (rows done, rows).

    Raises:
        CorruptData: a block was altered or cut.
    """
    scored = selection
    if ignored_too:
        scored = replace(selection, eligible=selection.eligible | selection.ignored)
    probability = score_rows(model, scored, source, progress=progress)
    streams = []
    for number, (start, stop) in enumerate(pairwise(scored.stream_starts.tolist())):
        stream = scored.streams[number]
        y, counts = selection.stream_targets(number)
        row = scored.frames[start:stop] - stream.first_block * selection.index.block_frames
        streams.append(
            StreamScores(
                stream=stream,
                title=f"{stream.main} (with {stream.other or 'silence'})",
                row=row,
                probability=probability[start:stop],
                y=y[row],
                eligible=counts[row],
            )
        )
    return _one_a_recording(streams) if label.whose in ("pair", "any") else streams


def metrics_of(streams: Sequence[StreamScores]) -> FrameMetrics:
    """Return the metrics of the rows that count, all streams together."""
    y = np.concatenate([stream.y[stream.eligible] for stream in streams])
    probability = np.concatenate([stream.probability[stream.eligible] for stream in streams])
    return frame_metrics(y, probability)


def by_recording(streams: Sequence[StreamScores]) -> dict[str, list[StreamScores]]:
    """Return the streams of each recording, by its id."""
    groups: dict[str, list[StreamScores]] = {}
    for item in streams:
        groups.setdefault(item.stream.recording_id, []).append(item)
    return groups


def _one_a_recording(streams: Sequence[StreamScores]) -> list[StreamScores]:
    merged = []
    for group in by_recording(streams).values():
        first = group[0]
        assert all(np.array_equal(item.row, first.row) for item in group), (
            "assignments of a recording have the same rows when nobody's role matters"
        )
        mean = np.mean([item.probability for item in group], axis=0, dtype=np.float64)
        merged.append(replace(first, title="all speakers", probability=mean.astype(np.float32)))
    return merged
