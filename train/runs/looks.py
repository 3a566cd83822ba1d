"""Each look at a split that is neither trained on nor chosen by, counted in the run.

    RUN/test_looks.jsonl    one JSON object a line, never changed, only added to

The more often test is looked at, the more its numbers are those of a choice. A look is written once
scores are made and before anything is told of them: one that fails earlier is none, one that is
interrupted later is one.
"""

import errno
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from laughstore.errors import ConfigError
from laughstore.files import fsync_dir

from .folds import TRAIN_SPLIT, VALIDATION_SPLIT
from .run import Run

LOOKS_FILE: Final = "test_looks.jsonl"
_UNSUPPORTED: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Look:
    """One look at a split."""

    look: int
    """Number of this look at this split by this run, from 1."""
    split: str
    when: str
    """ISO 8601, UTC."""
    checkpoint: str
    """Its name."""
    checkpoint_sha256: str
    index_id: str
    """Of what was scored."""
    annotations_sha256: str
    """Of the tables that labels were made from."""
    by: str
    """What looked: `evaluate`, `report`, `compare` or `spots`."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return a JSON object."""
        return asdict(self)


def is_counted(split: str) -> bool:
    """Whether looks at a split are counted: not at those that a run learns from."""
    return split not in (TRAIN_SPLIT, VALIDATION_SPLIT)


def record_look(
    run: Run,
    split: str,
    *,
    checkpoint: Path,
    checkpoint_sha256: str,
    index_id: str,
    annotations_sha256: str,
    by: str = "evaluate",
) -> Look:
    """Count a look, durably, and return it. Of several processes each gets its own number.

    Args:
        run: that looks.
        split: looked at; one that `is_counted`.
        checkpoint: that the scores are of.
        checkpoint_sha256: its digest.
        index_id: of what was scored.
        annotations_sha256: of the tables that labels were made from.
        by: what looks.

    Raises:
        ConfigError: the run cannot be written to.
    """
    path = run.path / LOOKS_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); each look at {split!r} is counted in its"
            " run: make the folder writable, or evaluate a copy of it"
        ) from error
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        _lock(file.fileno())
        before = file.read() or b""
        look = Look(
            look=1 + sum(item is None or item.get("split") == split for item in _lines(before)),
            split=split,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            checkpoint=checkpoint.name,
            checkpoint_sha256=checkpoint_sha256,
            index_id=index_id,
            annotations_sha256=annotations_sha256,
            by=by,
        )
        line = json.dumps(look.to_json(), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        # What a power cut left of a line stays a line of its own.
        rest = line if not before or before.endswith(b"\n") else b"\n" + line
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    fsync_dir(run.path)
    return look


def read_looks(run: Run) -> list[dict[str, Any] | None]:  # Any: JSON values
    """Return the looks of a run, oldest first; None in the place of a line that cannot be read.

    Such a line was a look, too: it was cut by what ended the process, or altered.
    """
    try:
        return _lines((run.path / LOOKS_FILE).read_bytes())
    except FileNotFoundError:
        return []


def _lines(data: bytes) -> list[dict[str, Any] | None]:  # Any: JSON values
    return [_parsed(line) for line in data.split(b"\n") if line.strip()]


def _parsed(line: bytes) -> dict[str, Any] | None:  # Any: JSON values
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _lock(descriptor: int) -> None:
    """Wait for other processes that count; on a file system without locks there is no waiting."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
