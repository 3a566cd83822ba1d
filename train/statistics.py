"""One pass over the frames of each stream: its moments, computed once and kept beside the store.

All frames of a stream count, whatever their label, so that labels, filters and folds share them. A
stream is computed whole by one process, in the order of its frames and in one thread: the numbers
are the same, bit for bit, however many share the streams.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from laughstore.errors import CorruptData
from laughstore.index import Index, Stream

from .distributed.ranks import Ranks
from .kept_moments import KeptMoments, decode_moments, encode_moments, stream_key
from .moments import Moments
from .streaming.readahead import ReadAhead
from .streaming.source import FrameSource
from .threads import one_thread

_BLOCKS_A_CHUNK = 8


def stream_moments(
    index: Index,
    streams: Sequence[Stream],
    source: FrameSource,
    *,
    skip: NDArray[np.int64] | None = None,
    ranks: Ranks | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Moments]:
    """Return the moments of each of these streams of one split.

    Those that are kept beside the store cost no pass; the others are kept as soon as they are
    known, if files can be written there. The first rank alone writes.

    Args:
        index: of the shards.
        streams: of the split that `source` reads.
        source: reads their frames.
        skip: i64[K] global numbers of blocks to leave out; streams that have some are not kept.
        ranks: all of which make this call, share the streams, and get all moments.
        progress: called with (streams done, streams to do).

    Raises:
        CorruptData: a block was altered or cut, or a stream holds what has no finite moments; the
            message names it.
    """
    ranks = ranks or Ranks()
    skip = np.empty(0, np.int64) if skip is None else skip
    cut = {stream_key(stream) for stream in streams if _is_cut(stream, skip)}
    files = KeptMoments(index)
    whole = [stream for stream in streams if stream_key(stream) not in cut]
    known = files.read(whole) if ranks.rank == 0 else {}
    kept = set(ranks.decide(lambda: sorted(known), "the statistics"))
    missing = [stream for stream in streams if stream_key(stream) not in kept]
    mine = missing[ranks.rank :: ranks.world_size]
    found: dict[str, Moments] = {}
    to_keep: dict[str, Moments] = {}

    def keep() -> None:
        if ranks.rank == 0 and to_keep:
            files.write(to_keep)
        to_keep.clear()

    try:
        for done, stream in enumerate(mine):
            if done and stream.recording_id != mine[done - 1].recording_id:
                keep()
            key = stream_key(stream)
            found[key] = moments_of(stream, source, skip=skip)
            if key not in cut:
                to_keep[key] = found[key]
            if progress is not None:
                progress(done + 1, len(mine))
        if ranks.world_size > 1:
            # Sums are of float64, and JSON tells them exactly. What was kept is told, too: other
            # hosts may not see it.
            told = {key: encode_moments(item) for key, item in (known | found).items()}
            for data in ranks.gather(json.dumps(told).encode(), "the statistics"):
                for key, item in json.loads(data).items():
                    found.setdefault(key, decode_moments(item, index.dim, where=key))
            ours = {stream_key(stream) for stream in mine}
            theirs = {stream_key(stream) for stream in missing} - ours - cut
            to_keep |= {key: found[key] for key in theirs}
    finally:
        keep()
    return [(known | found)[stream_key(stream)] for stream in streams]


def moments_of(
    stream: Stream, source: FrameSource, *, skip: NDArray[np.int64] | None = None
) -> Moments:
    """Return the moments of all frames of a stream, in one pass.

    Checksums are checked even when `source` would not: what is kept of damaged bytes would outlive
    the damage.

    Args:
        stream: of the split that `source` reads.
        source: reads its frames.
        skip: i64[K] global numbers of blocks to leave out.

    Raises:
        CorruptData: as `stream_moments`.
    """
    blocks = stream.first_block + np.arange(stream.num_blocks)
    if skip is not None:
        blocks = blocks[~np.isin(blocks, skip)]
    chunk = np.arange(len(blocks)) // _BLOCKS_A_CHUNK
    first_frame = stream.first_block * source.block_frames
    in_block = np.arange(source.block_frames)
    chunk_rows = _BLOCKS_A_CHUNK * source.block_frames
    buffer = torch.empty(min(chunk_rows, stream.num_frames), source.dim, dtype=torch.int16)
    total = Moments.none(source.dim)
    with (
        # Sums by several threads of torch may differ in their last bits from those of another
        # number. They do where a thread gets only a few channels.
        one_thread(),
        ReadAhead(
            source.prepare_checked,
            chunk,
            blocks,
            max_ahead=4 * _BLOCKS_A_CHUNK,
            release=source.release,
            blocks_a_call=source.blocks_a_call,
            room=source.room,
        ) as ahead,
    ):
        for number, start in enumerate(range(0, len(blocks), _BLOCKS_A_CHUNK)):
            ahead.wait(number)
            these = blocks[start : start + _BLOCKS_A_CHUNK, None]
            frames = (these * source.block_frames + in_block).reshape(-1)
            frames = frames[frames < first_frame + stream.num_frames]
            rows = buffer[: len(frames)]
            source.gather(frames, rows)
            part = Moments.of(rows.view(torch.bfloat16))
            if not part.finite:
                source.check_finite(frames)
                raise CorruptData(
                    f"{stream_key(stream)}: rows {frames[0] - first_frame} to"
                    f" {frames[-1] - first_frame} hold values too large to be features; restore"
                    " the shard, build the recording again, or leave it out"
                )
            total = total.merge(part)
    return total


def _is_cut(stream: Stream, skip: NDArray[np.int64]) -> bool:
    """Whether some of a stream's blocks are left out."""
    last = stream.first_block + stream.num_blocks
    return bool(((skip >= stream.first_block) & (skip < last)).any())
