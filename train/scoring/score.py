"""Score the rows of a split in the order of time, and lay scores out stream by stream."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore.errors import ConfigError
from laughstore.index import Stream
from laughstore.kinds import TargetArray
from laughstore.labels import LabelSpec, Whose, asked_of

from ..distributed.ranks import Ranks
from ..float32 import full_float32
from ..model import RowModel, ScoreModel
from ..streaming.readahead import ReadAhead
from ..streaming.selection import Selection
from ..streaming.source import FrameSource
from ..threads import threads_for
from .metrics import FrameMetrics, frame_metrics
from .row_energy import RowEnergy
from .score_parts import score_parts
from .scored_rows import FIT, NOBODY_CHOSE
from .several import SeveralModels
from .stream_scorer import StreamScorer, rows_of_call


@dataclass(frozen=True, eq=False)
class StreamScores:
    """Scored rows of one stream, n of its T, in the order of time."""

    stream: Stream
    """Where roles do not matter (pair, any): the first of those that ask the same."""
    title: str
    """Whose events, for people."""
    row: NDArray[np.int64]
    """i64[n]: t, frames from the start of the recording."""
    score: NDArray[np.float32]
    """f4[n]."""
    y: TargetArray
    """u1[n] classes, or f4[n] numbers."""
    eligible: NDArray[np.bool_]
    """bool[n]: the row counts; others are ignored."""
    energy: NDArray[np.float32] | None = None
    """f4[n]: length of the row's standardised features; None where nobody asked for it."""


@torch.inference_mode()
def score_rows(
    model: RowModel,
    selection: Selection,
    source: FrameSource,
    *,
    ranks: Ranks | None = None,
    watch: Callable[[int, Tensor], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Return the model's score of every row that takes part.

    Ranks share the parts that the split is cut into, and each gets all scores: those of one
    process, bit for bit, as the cut is the same.

    Args:
        model: on the device that does the work.
        selection: N rows of the split that `source` reads.
        source: reads their frames.
        ranks: all of which make this call.
        watch: called with the rows that this rank scores, bf16[n, D] on the model's device, and the
            number of the first of them among the N.
        progress: called with (rows done, rows to do).

    Returns:
        f4[N], in the order of `selection.frames`; f4[N, K] of a model of K probes.

    Raises:
        ConfigError: a score is not finite, because training the model diverged.
        CorruptData: a block was altered or cut, or holds values that are not finite.
    """
    device, ranks = model.mean.device, ranks or Ranks()
    parts = score_parts(selection, model.context)
    bounds, reads = parts.bounds, parts.reads
    shares = [ranks.part(len(bounds) - 1, rank) for rank in range(ranks.world_size)]
    mine = shares[ranks.rank]
    is_mine = (reads.step >= mine.start) & (reads.step < mine.stop)
    first_row, num_rows = int(bounds[mine.start]), int(bounds[mine.stop] - bounds[mine.start])
    scores = np.empty((num_rows, *model.row_shape), np.float32)
    bits = torch.empty(rows_of_call(parts.max_frames), source.dim, dtype=torch.int16)
    with ReadAhead(
        source.prepare,
        reads.step[is_mine],
        reads.block[is_mine],
        max_ahead=2 * parts.max_blocks,
        release=source.release,
        blocks_a_call=source.blocks_a_call,
        room=source.room,
    ) as ahead:
        for number in mine:
            if ranks.told is not None:
                break  # all end together, below
            start, stop = bounds[number : number + 2].tolist()
            ahead.wait(number)
            frames, scored = parts.frames(number), parts.scored(number)
            rows = bits[: rows_of_call(len(frames))]
            source.gather(frames, rows[: len(frames)])
            rows[len(frames) :] = 0
            x = rows.view(torch.bfloat16).to(device)
            present = None
            if model.context:
                present = torch.zeros(len(rows), dtype=torch.bool)
                present[: len(frames)] = torch.from_numpy(frames >= 0)
                present = present.to(device)
            with threads_for(model.num_outputs), full_float32():
                found = _scores(model, x, present, len(frames)).cpu().numpy()
            here = slice(start - first_row, stop - first_row)
            scores[here] = found if scored is None else found[scored]
            if not np.isfinite(scores[here]).all():
                source.check_finite(frames)
                if isinstance(model, SeveralModels):
                    model.check(scores[here])
                raise ConfigError(
                    "the model's scores are not finite: training it diverged; train again with a"
                    " lower --lr"
                )
            if watch is not None:
                real = x[: len(frames)]
                watch(start, real if scored is None else real[torch.from_numpy(scored).to(device)])
            if progress is not None:
                progress(stop - first_row, num_rows)
    ranks.agree("validation")
    width = math.prod(model.row_shape)
    counts = [int(bounds[share.stop] - bounds[share.start]) * width for share in shares]
    gathered = ranks.gather_rows(scores.reshape(-1), counts, "validation")
    return gathered.reshape(-1, *model.row_shape)


def _scores(model: RowModel, x: Tensor, present: Tensor | None, kept: int) -> Tensor:
    if isinstance(model, ScoreModel):
        return StreamScorer(model).score(x, present, kept=kept)
    if isinstance(model, SeveralModels):
        return model.score(x, present, kept=kept)
    return model.score(x)[:kept]


def score_streams(
    model: ScoreModel,
    selection: Selection,
    source: FrameSource,
    label: LabelSpec,
    *,
    ignored_too: bool = False,
    energies: bool = False,
    ranks: Ranks | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[StreamScores]:
    """Return scores stream by stream, of the streams that have a row.

    Assignments of a recording that ask the same question (about the same pair, or about anyone)
    get one answer: the mean of what they say.

    Args:
        model: on the device that does the work.
        selection: rows of the split that `source` reads.
        source: reads their frames.
        label: that the selection was made with.
        ignored_too: score rows that the label ignores, too.
        energies: tell the energy of rows, too; of one process alone.
        ranks: all of which make this call; each gets all scores.
        progress: called with (rows done, rows to do).

    Raises:
        ConfigError: as `score_rows`.
        CorruptData: as `score_rows`.
    """
    scored = selection
    if ignored_too:
        scored = replace(selection, eligible=selection.eligible | selection.ignored)
    energy = RowEnergy(model, scored.num_rows) if energies else None
    watch = None if energy is None else energy.take
    scores = score_rows(model, scored, source, ranks=ranks, watch=watch, progress=progress)
    y, eligible = selection.y[scored.eligible], selection.eligible[scored.eligible]
    values = None if energy is None else energy.values
    return by_stream(scored, scores, y, eligible, label, energy=values)


def by_stream(
    scored: Selection,
    scores: NDArray[np.float32],
    y: TargetArray,
    eligible: NDArray[np.bool_],
    label: LabelSpec,
    *,
    energy: NDArray[np.float32] | None = None,
) -> list[StreamScores]:
    """Lay the scores of N rows out stream by stream, one answer a question; see `score_streams`.

    Args:
        scored: the N rows.
        scores: f4[N].
        y: u1[N] or f4[N], their targets.
        eligible: bool[N]: the row counts.
        label: of the targets.
        energy: f4[N], of the rows.
    """
    streams: list[StreamScores] = []
    frames = scored.frames
    for stream, (start, stop) in zip(
        scored.streams, pairwise(scored.stream_starts.tolist()), strict=True
    ):
        if start == stop:
            continue  # the filter left nothing of it
        here = slice(start, stop)
        streams.append(
            StreamScores(
                stream=stream,
                title=_title(stream, label.whose),
                row=frames[here] - stream.first_block * scored.index.block_frames,
                score=scores[here],
                y=y[here],
                eligible=eligible[here],
                energy=None if energy is None else energy[here],
            )
        )
    return _one_a_question(streams, label.whose)


def counted_rows(streams: Sequence[StreamScores]) -> tuple[TargetArray, NDArray[np.float32]]:
    """Return (targets, scores f4[N]) of the rows that count, all streams together."""
    y = np.concatenate([stream.y[stream.eligible] for stream in streams])
    score = np.concatenate([stream.score[stream.eligible] for stream in streams])
    return y, score


def metrics_of(
    streams: Sequence[StreamScores],
    label: LabelSpec,
    *,
    threshold: float | Literal["fit"] | None = FIT,
    no_threshold: str = NOBODY_CHOSE,
) -> FrameMetrics:
    """Return the metrics of the rows that count, all streams together; see `frame_metrics`."""
    y, score = counted_rows(streams)
    return frame_metrics(y, score, label, threshold=threshold, no_threshold=no_threshold)


def by_recording(streams: Sequence[StreamScores]) -> dict[str, list[StreamScores]]:
    """Return the streams of each recording, by its id."""
    groups: dict[str, list[StreamScores]] = {}
    for item in streams:
        groups.setdefault(item.stream.recording_id, []).append(item)
    return groups


def _one_a_question(streams: Sequence[StreamScores], whose: Whose) -> list[StreamScores]:
    groups: dict[tuple[str, frozenset[str | None]], list[StreamScores]] = {}
    for item in streams:
        groups.setdefault(question_of(item.stream, whose), []).append(item)
    return [group[0] if len(group) == 1 else _mean(group) for group in groups.values()]


def _mean(group: Sequence[StreamScores]) -> StreamScores:
    """One answer of streams that ask the same: of every row, the mean of those that have it.

    They have the same rows, but for blocks that are left out of one of them as corrupt.
    """
    first = group[0]
    num_frames = max(item.stream.num_frames for item in group)
    total, energy, num_answers = np.zeros((3, num_frames))
    y, eligible = np.zeros(num_frames, first.y.dtype), np.zeros(num_frames, np.bool_)
    for item in group:
        total[item.row] += item.score
        energy[item.row] += 0 if item.energy is None else item.energy
        num_answers[item.row] += 1
        y[item.row], eligible[item.row] = item.y, item.eligible
    for item in group:
        same = np.array_equal(y[item.row], item.y) and np.array_equal(
            eligible[item.row], item.eligible
        )
        assert same, "streams that ask the same question have the same targets"
    row = np.flatnonzero(num_answers)
    return replace(
        first,
        row=row,
        score=(total[row] / num_answers[row]).astype(np.float32),
        y=y[row],
        eligible=eligible[row],
        energy=None
        if first.energy is None
        else (energy[row] / num_answers[row]).astype(np.float32),
    )


def question_of(stream: Stream, whose: Whose) -> tuple[str, frozenset[str | None]]:
    """Return what is equal for streams of which a label asks the same, and for no others."""
    match asked_of(whose, stream.main):
        case "any":
            return stream.recording_id, frozenset()
        case "pair":
            return stream.recording_id, frozenset((stream.main, stream.other))
        case "main" | "other":
            return f"{stream.recording_id}/{stream.assignment}", frozenset()


def _title(stream: Stream, whose: Whose) -> str:
    """Whose events a label asks about, for people."""
    match asked_of(whose, stream.main):
        case "main":
            return f"{stream.main} (with {stream.other or 'silence'})"
        case "other":
            return f"{stream.other or 'nobody'} (with {stream.main} as main speaker)"
        case "pair":
            return " or ".join(name for name in (stream.main, stream.other) if name is not None)
        case "any":
            return "anyone"
