"""Log-mel frames at 12.5 Hz: a control that hears the sound and knows no speech model.

Eight spectra a frame of 80 ms, each of the 40 ms before its end, so that nothing behind a frame is
heard: 8 x 64 bands make 512 channels, as many as Mimi's latents have.

It knows 24 kHz audio and nothing of recordings or files.
"""

import hashlib
import math

import torch
from torchaudio.functional import melscale_fbanks

from laughstore.sealed import canonical_json
from laughstore.timebase import SAMPLE_RATE, SAMPLES_PER_FRAME

NUM_BANDS = 64
SPECTRA_PER_FRAME = 8
LOGMEL_CHANNELS = SPECTRA_PER_FRAME * NUM_BANDS
"""Of one speaker's frame: the bands of the earliest spectrum first."""

_WINDOW = 960
_HOP = SAMPLES_PER_FRAME // SPECTRA_PER_FRAME
_LOW_HZ = 40.0
_FLOOR = 1e-10
"""Of power in a band, where a sine at full scale has 1/4: what is 100 dB below is silence."""

PARAMETERS = {
    "sample_rate_hz": SAMPLE_RATE,
    "window": "hann",
    "window_samples": _WINDOW,
    "hop_samples": _HOP,
    "bands": NUM_BANDS,
    "low_hz": _LOW_HZ,
    "high_hz": SAMPLE_RATE / 2,
    "mel_scale": "htk",
    "power": 2,
    "floor": _FLOOR,
    "log": "natural",
}
"""All that decides the numbers."""
LOGMEL_SHA256 = hashlib.sha256(canonical_json(PARAMETERS)).hexdigest()
"""Stands in specs where a model's weights have theirs."""
SILENT_LEVEL = math.log(_FLOOR)
"""Of every band in silence."""


class LogMel:
    """Streams of audio side by side; calls of any whole number of frames give the same numbers."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._window = torch.hann_window(_WINDOW, device=device)
        self._filters = melscale_fbanks(
            n_freqs=_WINDOW // 2 + 1,
            f_min=_LOW_HZ,
            f_max=SAMPLE_RATE / 2,
            n_mels=NUM_BANDS,
            sample_rate=SAMPLE_RATE,
        ).to(device)  # f32[F, 64]
        self.before = torch.zeros(rows, _WINDOW - _HOP, device=device)
        """f32[B, 720]: audio that the next windows reach back to; silence before the start."""

    def __call__(self, waves: torch.Tensor) -> torch.Tensor:
        """Return f32[B, n, 512] of the next frames of audio, f32[B, n * 1920]."""
        heard = torch.cat([self.before, waves], dim=1)
        self.before = heard[:, waves.shape[1] :].clone()
        # Row by row and in place: spectra are four times as large as the audio.
        return torch.stack([self._bands(row).flatten(1) for row in heard])

    def _bands(self, wave: torch.Tensor) -> torch.Tensor:
        """Return f32[n, 8, 64], the log-mel spectra of f32[720 + n * 1920]."""
        power = torch.fft.rfft(wave.unfold(0, _WINDOW, _HOP) * self._window).abs().square_()
        # A sine at full scale has power 1/4 in its bin, whatever the window's length.
        power /= self._window.sum() ** 2
        bands = (power @ self._filters).clamp_min_(_FLOOR).log_()
        return bands.unflatten(0, (-1, SPECTRA_PER_FRAME))

    def restart(self, rows: torch.Tensor) -> None:
        """Begin the rows where bool[B] is true anew, behind silence."""
        self.before = self.before.masked_fill(rows[:, None], 0)
