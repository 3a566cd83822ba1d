"""Blocks that cannot be read as they were written, left out by name.

The list is what `laughstore verify --bad-blocks LIST` writes: one key a line,
`<recording id>/<assignment>/<block, six digits>`.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import ConfigError, NotFound
from laughstore.index import Index
from laughstore.naming import block_key

from .selection import Selection


def read_skip_list(path: Path) -> tuple[str, ...]:
    """Return the keys of a list, as written.

    Raises:
        NotFound: there is no such file.
        ConfigError: it is no text file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(
            f"{path} does not exist; write it with: laughstore verify STORE --bad-blocks {path}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is no list of blocks ({error}); write one with: laughstore verify STORE"
            " --bad-blocks LIST"
        ) from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def read_skipped_blocks(index: Index, split: str, path: Path | None) -> dict[int, str]:
    """Return the keys of a list that are of one split, by global block number, rising.

    Without a list there are none.

    Raises:
        NotFound, ConfigError: as `read_skip_list` and `skipped_blocks`.
    """
    if path is None:
        return {}
    return skipped_blocks(index, split, read_skip_list(path), where=str(path))


def skipped_blocks(
    index: Index, split: str, keys: Iterable[str], *, where: str, may_be_gone: bool = False
) -> dict[int, str]:
    """Return the keys of one split by global block number, rising; keys of other splits are left.

    Args:
        index: of the shards.
        split: one of the index's.
        keys: of blocks of any split.
        where: the list, for messages.
        may_be_gone: pass over keys that name no block of the index, as other shards than those the
            list was made for lack some.

    Raises:
        ConfigError: a key names no block of the index.
    """
    # The split that the recording counts in: on a fold, its shards may be another's.
    streams = {
        (stream.recording_id, stream.assignment): (stream, recording.split)
        for recording in index.recordings
        for stream in recording.streams
    }
    found: dict[int, str] = {}
    for key in keys:
        *parts, number = key.split("/")
        found_stream = streams.get((parts[0], parts[1])) if len(parts) == 2 else None
        block = int(number) if number.isdecimal() and number.isascii() else -1
        if found_stream is None or not 0 <= block < found_stream[0].num_blocks:
            if may_be_gone:
                continue
            raise ConfigError(
                f"{where}: {key[:200]!r} names no block of {index.where}; the list is of another"
                " store: write it anew with laughstore verify --bad-blocks"
            )
        stream, counts_in = found_stream
        if counts_in == split:
            name = block_key(stream.recording_id, stream.assignment, block)
            found[stream.first_block + block] = name
    return dict(sorted(found.items()))


def without_blocks(selection: Selection, blocks: NDArray[np.int64]) -> Selection:
    """Return the selection without the rows of these blocks (i64[K] global numbers).

    Raises:
        ConfigError: no row is left.
    """
    gone = np.isin(selection.blocks, blocks)
    if not gone.any():
        return selection
    eligible, ignored = selection.eligible.copy(), selection.ignored.copy()
    y = selection.y.copy()
    eligible[gone], ignored[gone], y[gone] = False, False, 0
    if not eligible.any():
        raise ConfigError(
            f"no row of split {selection.split!r} takes part: all blocks with eligible rows are"
            " left out as corrupt; restore the shards"
        )
    return replace(selection, eligible=eligible, ignored=ignored, y=y, left_out=gone)
