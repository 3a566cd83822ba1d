"""Mean and spread of every channel, so that inputs can be standardised.

Kept as (n, mean, M2) of each stream, M2 the sum of squared deviations, and merged over exactly the
streams trained on: another fold costs no pass over the features and leaks nothing into it. The
pass uses all frames of a stream, whatever their label.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laughstore import layout
from laughstore.base64_arrays import decode_array, encode_array
from laughstore.errors import CorruptData
from laughstore.files import write_atomic
from laughstore.index import Index, Stream
from laughstore.sealed import seal, unseal

from .ranks import Ranks
from .readahead import ReadAhead
from .source import FrameSource

logger = logging.getLogger(__name__)

STATS_FORMAT = "laughstore-stats"
STATS_VERSION = 1
_BLOCKS_A_CHUNK = 8
_DEAD_BELOW = 1e-3
"""Channels that spread less than this share of the median channel are dropped."""
_KEEP_EVERY_S = 60.0


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of some rows."""

    n: int
    mean: NDArray[np.float64]
    """f8[D]."""
    m2: NDArray[np.float64]
    """f8[D]."""

    @property
    def finite(self) -> bool:
        """Whether every number is."""
        return bool(np.isfinite(self.mean).all() and np.isfinite(self.m2).all())

    @classmethod
    def none(cls, dim: int) -> "Moments":
        """Return the moments of no rows."""
        return cls(0, np.zeros(dim), np.zeros(dim))

    @classmethod
    def of(cls, x: Tensor) -> "Moments":
        """Return the moments of the rows of bf16[n, D], n >= 1.

        Sums are of float32 deviations from the float32 mean; what that mean misses is put right
        in float64 (Chan, Golub and LeVeque 1983, eq. 1.7).
        """
        rows = x.float()
        centre = rows.mean(dim=0)
        rows -= centre
        missed = rows.sum(dim=0).double()
        m2 = rows.square_().sum(dim=0).double() - missed.square() / len(x)
        mean = centre.double() + missed / len(x)
        return cls(len(x), mean.numpy(), m2.clamp_(min=0).numpy())

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of rows together (Chan et al. 1983)."""
        n = self.n + other.n
        if not n:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        return Moments(n, mean, self.m2 + other.m2 + delta**2 * (self.n * other.n / n))


@dataclass(frozen=True)
class Standardiser:
    """What makes each channel of the training rows have mean 0 and standard deviation 1."""

    mean: NDArray[np.float32]
    """f4[D]."""
    inverse_std: NDArray[np.float32]
    """f4[D], finite; 0 for channels that are dropped."""

    @classmethod
    def none(cls, dim: int) -> "Standardiser":
        """Return the one that changes nothing."""
        return cls(np.zeros(dim, np.float32), np.ones(dim, np.float32))

    @classmethod
    def of(cls, moments: Moments) -> "Standardiser":
        """Return the standardiser of these rows.

        A channel that hardly moves in them (less than a thousandth of the median moving channel)
        says nothing about them, and its scale is unknown: where it moves in other rows, dividing by
        its spread would drown all other channels. It is dropped.
        """
        std = np.sqrt(moments.m2 / max(moments.n, 1))
        moving = std[std > 0]
        floor = _DEAD_BELOW * float(np.median(moving)) if len(moving) else np.inf
        kept = std >= max(floor, float(np.finfo(np.float32).tiny))  # so that 1 / std is finite
        inverse = np.divide(1.0, std, out=np.zeros_like(std), where=kept)
        return cls(moments.mean.astype(np.float32), inverse.astype(np.float32))


def merged(moments: Iterable[Moments], dim: int) -> Moments:
    """Return the moments of all rows together."""
    total = Moments.none(dim)
    for item in moments:
        total = total.merge(item)
    return total


def stream_moments(
    index: Index,
    streams: Sequence[Stream],
    source: FrameSource,
    *,
    skip: NDArray[np.int64] | None = None,
    ranks: Ranks | None = None,
    progress: Callable[[int, int], None] | None = None,
    keep_every_s: float = _KEEP_EVERY_S,
) -> list[Moments]:
    """Return the moments of each of these streams of one split.

    They are kept in `stats/<index id>.json` beside the shards folder, whatever ends the pass; only
    those not there yet cost one. Because they are kept, checksums are checked even when `source`
    would not. Where that file cannot be written, nothing is kept.

    Args:
        index: of the shards.
        streams: of the split that `source` reads.
        source: reads their frames.
        skip: i64[K] global numbers of blocks to leave out; streams that have some are not kept.
        ranks: all of which make this call, share the streams, and get all moments.
        progress: called with (streams done, streams to do).
        keep_every_s: seconds after which the file is written anew during a long pass.

    Raises:
        CorruptData: a block was altered or cut, or a stream holds what has no finite moments; the
            message names it.
    """
    ranks = ranks or Ranks()
    skip = np.empty(0, np.int64) if skip is None else skip
    cut = {_key(stream) for stream in streams if _is_cut(stream, skip)}
    path = _path(index) if ranks.rank == 0 else None
    known = {} if path is None else _read(path, index)
    kept = set(ranks.decide(lambda: sorted(known), "the statistics")) - cut
    missing = [stream for stream in streams if _key(stream) not in kept]
    mine = missing[ranks.rank :: ranks.world_size]
    found: dict[str, Moments] = {}

    def keep() -> None:
        lasting = {key: item for key, item in found.items() if key not in cut}
        if lasting:
            _write(path, index, known | lasting)

    kept_at = time.monotonic()
    try:
        for done, stream in enumerate(mine):
            found[_key(stream)] = _pass(stream, source, skip)
            if time.monotonic() - kept_at >= keep_every_s:
                keep()
                kept_at = time.monotonic()
            if progress is not None:
                progress(done + 1, len(mine))
        if ranks.world_size > 1:
            # Sums are of float64, and JSON tells them exactly. What was kept is told, too: other
            # hosts may not see it.
            here = {key: known[key] for key in kept if key in known} | found
            for data in ranks.gather(json.dumps(_encoded(here)).encode(), "the statistics"):
                told = json.loads(data).items()
                found |= {key: _decode(item, index.dim, where=key) for key, item in told}
    finally:
        keep()
    return [(known | found)[_key(stream)] for stream in streams]


def _is_cut(stream: Stream, skip: NDArray[np.int64]) -> bool:
    """Whether some of a stream's blocks are left out."""
    last = stream.first_block + stream.num_blocks
    return bool(((skip >= stream.first_block) & (skip < last)).any())


def _pass(stream: Stream, source: FrameSource, skip: NDArray[np.int64]) -> Moments:
    blocks = stream.first_block + np.arange(stream.num_blocks)
    blocks = blocks[~np.isin(blocks, skip)]
    chunk = np.arange(len(blocks)) // _BLOCKS_A_CHUNK
    first_frame = stream.first_block * source.block_frames
    in_block = np.arange(source.block_frames)
    chunk_rows = _BLOCKS_A_CHUNK * source.block_frames
    buffer = torch.empty(min(chunk_rows, stream.num_frames), source.dim, dtype=torch.int16)
    total = Moments.none(source.dim)
    with ReadAhead(
        source.prepare_checked,
        chunk,
        blocks,
        max_ahead=4 * _BLOCKS_A_CHUNK,
        release=source.release,
        blocks_a_call=source.blocks_a_call,
    ) as ahead:
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
                    f"{_key(stream)}: rows {frames[0] - first_frame} to"
                    f" {frames[-1] - first_frame} hold values too large to be features; restore"
                    " the shard, build the recording again, or leave it out"
                )
            total = total.merge(part)
    return total


def _path(index: Index) -> Path | None:
    """Where moments are kept; None beside remote shards, which are only read."""
    if index.folder.local is None:
        return None
    store = index.folder.local.absolute().parent
    return store / layout.STATS / f"{index.index_id}.json"


def _key(stream: Stream) -> str:
    return f"{stream.recording_id}/{stream.assignment}"


def _read(path: Path, index: Index) -> dict[str, Moments]:
    """Moments by stream. The file is derived: a damaged one is made again, and the log says so."""
    try:
        content, _ = unseal(path.read_bytes(), where=str(path))
        if (content["format"], content["version"]) != (STATS_FORMAT, STATS_VERSION):
            raise CorruptData(f"{path}: not of this release")
        return {
            key: _decode(item, index.dim, where=str(path))
            for key, item in content["streams"].items()
        }
    except OSError:
        return {}
    except (CorruptData, KeyError, TypeError, AttributeError) as error:
        logger.warning("statistics are computed again: %s", error)
        return {}


def _encoded(moments: Mapping[str, Moments]) -> dict[str, dict[str, Any]]:  # Any: JSON values
    return {
        key: {
            "n": item.n,
            "mean": encode_array(item.mean, "<f8"),
            "m2": encode_array(item.m2, "<f8"),
        }
        for key, item in moments.items()
    }


def _decode(item: Mapping[str, Any], dim: int, *, where: str) -> Moments:  # Any: JSON values
    moments = Moments(
        n=int(item["n"]),
        mean=decode_array(item["mean"], "<f8", dim, where=where),
        m2=decode_array(item["m2"], "<f8", dim, where=where),
    )
    if not moments.finite:
        raise CorruptData(f"{where}: holds numbers that are not finite")
    return moments


def _write(path: Path | None, index: Index, known: Mapping[str, Moments]) -> None:
    if path is None:
        return
    content = {
        "format": STATS_FORMAT,
        "version": STATS_VERSION,
        "index_id": index.index_id,
        "spec_id": index.spec_id,
        "streams": _encoded(known),
    }
    try:
        write_atomic(path, seal(content))
    except OSError as error:
        logger.info("statistics are not kept: %s cannot be written (%s)", path, error.strerror)
