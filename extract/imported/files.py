"""A file of features, whichever its form: opened safely, read a stretch of frames at a time."""

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from laughstore.errors import BadRecording
from laughstore.files import is_passing, named_in_errors

from .rounding import Rounded, not_finite, round_to_bfloat16

PT: Final = ".pt"
NPY: Final = ".npy"
SUFFIXES: Final = (PT, NPY)


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
        """
        values = self.rows[stream, start:stop]
        if values.dtype.kind == "u":
            found = Rounded(np.ascontiguousarray(values), 0)
        else:
            found = round_to_bfloat16(values)
        row = not_finite(found.bits)
        if row is not None:
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
        BadRecording: it is none, was cut or altered, or would run code.
        OSError: a disk or server fails; the next run may read it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if is_passing(error):
            raise
        raise BadRecording(f"{path}: cannot be read ({error.strerror}); check it") from error
    if not stat.S_ISREG(mode):  # a pipe would wait for ever
        raise BadRecording(f"{path}: is no plain file; give files of features")
    with named_in_errors(path):
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
