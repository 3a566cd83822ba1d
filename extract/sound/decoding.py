"""Sound decoded from its beginning to its end; a disk that fails is told from a damaged file.

In: a path, or the frames of an MP3 behind a first one of our own. Out: audio samples as they are in
the file. libsndfile takes a disk or server that fails for another format, or for the end of the
file, so that what cannot be decoded is read once more as bytes: that raises what the system says.
"""

import errno
import io
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from laughstore.files import check_readable, named_in_errors

from .fronted_file import FrontedFile

MAX_CHECKED_BYTES = 4 << 30
_SYSTEM_ERROR = 2
"""Code of libsndfile (SF_ERR_SYSTEM) for a read that the system refused, whatever the format."""


class ForwardSound(soundfile.SoundFile):
    """A sound file that is read from its beginning to its end.

    Of others, soundfile seeks to where it is after every read. In an MP3 that forgets the bits that
    coming frames borrow from earlier ones: up to 0.2 s after every read would be wrong.
    """

    def __init__(self, path: Path, fronted: io.BufferedReader | None = None) -> None:
        """Open the file.

        Args:
            path: of the file.
            fronted: what is decoded instead, see `Mp3.repaired`; the caller closes it.

        Raises:
            SoundFileError: libsndfile cannot read it.
            OSError: the disk or its server fails while an MP3 is read through `fronted`.
        """
        self._path, self._fronted = path, fronted
        try:
            with _signals_held():
                super().__init__(str(path) if fronted is None else fronted)
        except soundfile.SoundFileError:
            self._raise_failure()
            raise

    def seekable(self) -> bool:
        """Return false."""
        return False

    def take(
        self,
        num_samples: int,
        dtype: Literal["float32", "float64"],
        *,
        first: int | None = None,
    ) -> NDArray[Any]:  # Any: of the dtype
        """Return the next audio samples [n, channels]; fewer where the file ends too early.

        Args:
            num_samples: a channel; the header tells how many there are.
            dtype: of the result.
            first: audio sample to begin at; None: where the last one ended.

        Raises:
            SoundFileError: the file is damaged.
            OSError: the disk or its server fails: nothing is known of the file.
        """
        try:
            with _signals_held():
                if first is not None:
                    self.seek(first)
                found = np.asarray(self.read(num_samples, dtype=dtype, always_2d=True))
        except soundfile.SoundFileError as error:
            self._raise_failure()
            refuse_failing(self._path, error)
            raise
        self._raise_failure()
        if len(found) < num_samples:
            refuse_failing(self._path)
        return found

    def _raise_failure(self) -> None:
        """Raise what the system said while libsndfile read through Python, which tells it not."""
        raw = None if self._fronted is None else self._fronted.raw
        if isinstance(raw, FrontedFile) and raw.failure is not None:
            with named_in_errors(self._path):
                raise raw.failure


@contextmanager
def _signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the end of this block.

    Raised amid a callback of libsndfile, which reads some files through Python, what they raise
    would be printed and lost, and the file seem to end there.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # others handle no signals
        yield
        return
    try:
        with ExitStack() as restored:
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(before := signal.getsignal(number)):
                    restored.callback(signal.signal, number, before)
                    signal.signal(number, lambda number, _: came.append(number))
            yield
    finally:
        with ExitStack() as raised:  # the first one raises, and the other counts, too
            for number in dict.fromkeys(came):
                raised.callback(signal.raise_signal, number)


def refuse_failing(
    path: Path, error: BaseException | None = None, *, num_bytes: int = MAX_CHECKED_BYTES
) -> None:
    """Read the beginning of a file that could not be decoded, for what its decoder does not tell.

    Args:
        path: of the file.
        error: of the decoder, if it raised one.
        num_bytes: to read, at most.

    Raises:
        OSError: the disk or server fails, or did just now, which tells nothing of the recording.
    """
    has_passed = check_readable(path, num_bytes)
    if has_passed and getattr(error, "code", None) == _SYSTEM_ERROR:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error
