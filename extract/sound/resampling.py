"""Resampling to 24 kHz, window by window: the same numbers as resampling a track in one piece.

In: float32 audio at another rate, with some of what stands before and after it. Out: float32 at
24 kHz. One filter for all rates, torchaudio's default: a sinc cut off at 0.99 of the lower of the
two rates, under a Hann window over six zeros on either side. It is symmetric, so nothing is
delayed.

Two kernels compute it. Rates with much in common with 24 kHz have few phases: torchaudio lays its
kernel out densely, phases by a whole period of input. For 44,101 Hz that would be a billion
numbers, nearly all zero: there only the taps that count are kept, a row for each phase.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from laughstore.timebase import SAMPLE_RATE

# Default lowpass_filter_width and rolloff of torchaudio.functional.resample.
_FILTER_ZEROS = 6
_ROLLOFF = 0.99
_MAX_DENSE_KERNEL = 1 << 18
"""Numbers in a dense kernel. It is made anew for every block and in single precision, which is
exact enough and fast below this: 44.1 kHz takes 14 thousand, 11.025 kHz 51 thousand."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A rate as a fraction of 24 kHz: a group of `old` input samples becomes `new` at 24 kHz."""

    old: int
    new: int
    reach: int
    """Input samples on each side of a moment that the sound at this moment depends on."""

    @classmethod
    def of(cls, sample_rate: int) -> "Ratio":
        """Return the ratio of a rate in Hz, in lowest terms."""
        divisor = math.gcd(sample_rate, SAMPLE_RATE)
        old, new = sample_rate // divisor, SAMPLE_RATE // divisor
        if old == new:
            return cls(1, 1, 0)
        # The sinc of the lower of the two rates, up to its sixth zero on either side.
        return cls(old, new, math.ceil(_FILTER_ZEROS * old / (min(old, new) * _ROLLOFF)))

    @property
    def dense_kernel_size(self) -> int:
        """Numbers in torchaudio's kernel."""
        return self.new * (self.old + 2 * self.reach)


class Kernel(Protocol):
    """Resamples windows; holds no state between them, so threads may share it."""

    @property
    def ratio(self) -> Ratio:
        """The groups that a window is made of."""
        ...

    @property
    def context(self) -> int:
        """c: input samples that a window has before its first group, and again after its last."""
        ...

    def resample(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the k groups of a window at 24 kHz: f32[2 c + k old] to f32[k new], fresh."""
        ...


@lru_cache(maxsize=8)
def kernel_of(sample_rate: int) -> Kernel:
    """Return what resamples this rate (Hz) to 24 kHz."""
    ratio = Ratio.of(sample_rate)
    if ratio.old == ratio.new:
        return _SameRate(ratio)
    return DenseKernel(ratio) if ratio.dense_kernel_size <= _MAX_DENSE_KERNEL else TapsKernel(ratio)


@dataclass(frozen=True, slots=True)
class _SameRate:
    ratio: Ratio
    context: int = 0

    def resample(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        return window.copy()


@dataclass(frozen=True, slots=True)
class DenseKernel:
    """torchaudio's own resampling, for rates with few phases."""

    ratio: Ratio

    @property
    def context(self) -> int:
        """Whole groups, `reach` at least: torchaudio puts its zeros around what it is given."""
        return -(-self.ratio.reach // self.ratio.old) * self.ratio.old

    def resample(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the k groups of a window at 24 kHz: f32[2 c + k old] to f32[k new], fresh."""
        # Here, so that looking at headers and data sets does not wait for torch to load.
        import torch
        from torchaudio.functional import resample

        old, new = self.ratio.old, self.ratio.new
        with torch.inference_mode():
            resampled = resample(torch.from_numpy(window), old, new).numpy()
        edge = self.context // old * new
        return resampled[edge : resampled.size - edge]


class TapsKernel:
    """The same filter with a row of taps for each phase, for any rate; 10 MB at most."""

    def __init__(self, ratio: Ratio) -> None:
        """Compute the taps in double precision."""
        self.ratio = ratio
        self.context = ratio.reach
        num_taps = 2 * ratio.reach
        position = np.arange(ratio.new) * ratio.old  # of output j, in 1 / new input samples
        # A window's sample `context` is the group's first, at position 0.
        self._first_tap = position // ratio.new + 1
        phase = position % ratio.new / ratio.new
        distance = np.arange(1 - ratio.reach, ratio.reach + 1) - phase[:, None]  # [new, num_taps]
        self._taps = _filter(distance, min(ratio.old, ratio.new) / ratio.old).astype(np.float32)
        assert self._taps.shape == (ratio.new, num_taps)

    def resample(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the k groups of a window at 24 kHz: f32[2 c + k old] to f32[k new], fresh."""
        ratio = self.ratio
        num_groups = (window.size - 2 * self.context) // ratio.old
        spans = sliding_window_view(window, self._taps.shape[1])
        resampled = np.empty((num_groups, ratio.new), np.float32)
        # By group: what is gathered stays in the cache.
        for group in range(num_groups):
            heard = spans[group * ratio.old + self._first_tap]  # [new, num_taps]
            np.einsum("jt,jt->j", heard, self._taps, out=resampled[group])
        return resampled.ravel()


def _filter(distance: NDArray[np.float64], bandwidth: float) -> NDArray[np.float64]:
    """Return the filter's values at distances in input samples.

    Args:
        distance: f64 of any shape.
        bandwidth: the lower of the two rates over the input's.
    """
    scale = bandwidth * _ROLLOFF
    zeros = np.clip(distance * scale, -_FILTER_ZEROS, _FILTER_ZEROS)
    hann = np.cos(zeros * (np.pi / (2 * _FILTER_ZEROS))) ** 2
    return np.asarray(scale * np.sinc(zeros) * hann, np.float64)
