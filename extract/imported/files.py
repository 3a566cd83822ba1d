"""A file of features, whichever its form: opened safely, read a stretch of frames at a time."""

import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import BadRecording, LaughstoreError
from laughstore.files import check_readable, is_passing, named_in_errors

from .pages import are_there
from .rounding import Rounded, not_finite, round_to_bfloat16

PT: Final = ".pt"
NPY: Final = ".npy"
SUFFIXES: Final = (PT, NPY)
_CHECKED_BYTES: Final = 1 << 40


@dataclass(frozen=True)
class FeatureFile:
    """Features in a file, mapped: frames are read from the disk when they are asked for."""

    path: Path
    rows: NDArray[Any] = field(repr=False)
    """[A, T, D]: f4, f2, or u2, the bits of bfloat16."""
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)  # Any: plain values
    """What a .pt file says of its features; unchecked."""
    check_bytes: Callable[[], None] = field(default=lambda: None, repr=False)
    """Compares the bytes with the checksums of the file, if it has any. Raises BadRecording."""
    opened: os.stat_result | None = field(default=None, repr=False)
    """The file as it was then."""

    @property
    def num_streams(self) -> int:
        """A: arrays in the file."""
        return self.rows.shape[0]

    @property
    def num_rows(self) -> int:
        """T: rows of each."""
        return self.rows.shape[1]

    @property
    def dim(self) -> int:
        """D: channels."""
        return self.rows.shape[2]

    def refuse_changed(self) -> None:
        """Refuse a file that was written to since it was opened: what was read may be of two files.

        One that was replaced or removed as a whole is still the one that was opened.

        Raises:
            LaughstoreError: its size or time has changed; the next run may find it whole.
        """
        try:
            now = self.path.stat()
        except FileNotFoundError:
            return
        was = self.opened
        if was is None or not os.path.samestat(now, was):
            return
        if (now.st_size, now.st_mtime_ns) != (was.st_size, was.st_mtime_ns):
            raise LaughstoreError(
                f"{self.path}: was written to while it was read; run the same command again when it"
                " is whole"
            )

    def read(self, stream: int, start: int, stop: int, *, first_frame: int = 0) -> Rounded:
        """Return rows as they are stored.

        Args:
            stream: which of the arrays.
            start: first row.
            stop: the row behind the last.
            first_frame: row of the file that is frame 0 of its recording, for messages.

        Raises:
            BadRecording: a value is NaN, infinite, or larger than any bfloat16; the message names
                file and frame.
            LaughstoreError: the file was cut, or written to, meanwhile.
            OSError: the disk or its server fails.
        """
        values = self.rows[stream, start:stop]
        if not are_there(values):
            self.refuse_changed()
            check_readable(self.path, _CHECKED_BYTES)
            if not are_there(values):  # it was not the disk, for a moment
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.path))
        if values.dtype.kind == "u":
            found = Rounded(np.ascontiguousarray(values), 0)
        else:
            found = round_to_bfloat16(values)
        row = not_finite(found.bits)
        if row is not None:
            self.refuse_changed()
            if values.dtype.kind != "u" and np.isfinite(values[row]).all():
                what = "is larger than the largest bfloat16 (3.39e38)"
            else:
                what = "is NaN or infinite"
            raise BadRecording(
                f"{self.path}: a value of frame {start + row - first_frame} {what}; extract this"
                " recording again"
            )
        return found


def open_feature_file(path: Path) -> FeatureFile:
    """Open a .pt or .npy file of features.

    Raises:
        BadRecording: it is none, was cut or altered, would run code, or may not be read.
        LaughstoreError: its file system maps no files.
        OSError: a disk or server fails; the next run may read it.
    """
    try:
        opened = path.stat()
        if stat.S_ISREG(opened.st_mode):  # a pipe would wait for ever
            path.open("rb").close()  # who opens it below takes a refusal for a broken file
    except OSError as error:
        if is_passing(error):
            raise
        raise BadRecording(f"{path}: cannot be read ({error.strerror}); check it") from error
    if not stat.S_ISREG(opened.st_mode):
        raise BadRecording(f"{path}: is no plain file; give files of features")
    try:
        with named_in_errors(path):
            return replace(_open(path), opened=opened)
    except OSError as error:
        if error.errno != errno.ENODEV:  # of a disk that is gone, too: that fails here
            raise
        check_readable(path, 1)
        raise LaughstoreError(
            f"{path}: its file system maps no files into memory; copy the features to another disk"
        ) from error


def _open(path: Path) -> FeatureFile:
    if path.suffix.lower() == NPY:
        from .npy_file import open_npy

        return open_npy(path)
    from .torch_file import open_pt

    return open_pt(path)


def as_streams(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (A, T, D) of an array of features.

    Raises:
        BadRecording: it is of another shape, or empty.
    """
    if len(shape) not in (2, 3) or 0 in shape:
        raise BadRecording(
            f"{path}: an array of shape {list(shape)}; features are [frames, channels] or"
            " [streams, frames, channels], and not empty"
        )
    streams, rows, channels = shape if len(shape) == 3 else (1, *shape)
    return streams, rows, channels


def refuse_dtype(path: Path, dtype: object) -> BadRecording:
    """Return the error that an array holds another kind of numbers."""
    return BadRecording(
        f"{path}: holds {dtype}; features are float32, float16 or bfloat16: convert it"
    )
