"""The networks in streaming state, for a fixed number of recordings and frames a call.

A slot holds one pair of sides: two rows of Mimi, one a side, and one or two rows of the language
model, one an assignment: row a has side a as main. Every call has the same shape. What a tap other
than the language model stores (the controls) is made of both sides too, main first, and is one
frame behind, so that row t has heard the same audio whatever the tap: strictly before t * 80 ms.

This module knows tensors; it never sees recordings, tracks or files.
"""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from moshi.utils.compile import no_compile, no_cuda_graph
from numpy.typing import NDArray

from laughstore.arrays import MISSING_CODE
from laughstore.errors import ConfigError
from laughstore.spec import StreamOrder
from laughstore.timebase import SAMPLES_PER_FRAME

from .feeding import SIDES
from .logmel import SILENT_LEVEL, LogMel
from .model import NUM_CODEBOOKS, NUM_STREAMS, FeatureModel
from .streaming import DelayedInput, exact_streaming, restart_rows, streaming_tensors
from .text import PADDING_ID


@dataclass(frozen=True)
class HostFrames:
    """The frames of one call in the memory of the host, for A assignments."""

    features: NDArray[np.uint16]
    """uint16[S, A, n, D], bits of bf16."""
    codes: NDArray[np.int16]
    """i16[S, A, n, 17]."""
    finite: NDArray[np.bool_]
    """bool[S, n]: false at frames where a value of the model is not finite; the codes there mean
    nothing."""


class PendingFrames:
    """The frames of one call, which a GPU may not have finished yet."""

    def __init__(
        self, features: torch.Tensor, codes: torch.Tensor, finite: torch.Tensor, shape: list[int]
    ) -> None:
        """Begin the copy to the host; `shape` is [S, A, n] of what is given as [S * A, n, ...]."""
        slots, assignments, num_frames = shape
        self._tensors = [
            features.view(torch.int16).reshape(slots, assignments, num_frames, -1),
            codes.to(torch.int16).reshape(slots, assignments, num_frames, -1),
            finite,
        ]
        self._copied: torch.cuda.Event | None = None
        if features.device.type == "cuda":
            self._tensors = [
                torch.empty_like(item, device="cpu", pin_memory=True).copy_(item, non_blocking=True)
                for item in self._tensors
            ]
            # On the stream that copies. By itself an event asks the current device, which may be an
            # idle one: what the memory held before would pass for the frames.
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(features.device))

    def wait(self) -> HostFrames:
        """Return the frames; waits until the device has finished them."""
        if self._copied is not None:
            self._copied.synchronize()
        features, codes, finite = (item.numpy() for item in self._tensors)
        return HostFrames(features.view(np.uint16), codes, finite)


class SlotBatch:
    """The networks in streaming state.

    A context manager; one a model at a time, since the state lives in the modules.

    Args:
        model: from `load_model`.
        slots: pairs side by side, S.
        chunk_frames: frames of every call, n.
        assignments: of every slot, A: 2, or 1 when only side 0 is ever main.
        stream_order: where the text of which side goes.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        model: FeatureModel,
        *,
        slots: int,
        chunk_frames: int,
        assignments: int = SIDES,
        stream_order: StreamOrder = "main-other",
    ) -> None:
        if slots < 1 or chunk_frames < 1:
            raise ConfigError(
                f"slots is {slots} and chunk_frames {chunk_frames}; both must be at least 1"
            )
        assert 1 <= assignments <= SIDES, "a pair has two sides"
        self.slots, self.chunk_frames, self.assignments = slots, chunk_frames, assignments
        self._model = model
        self._stream_order = stream_order
        self._stack = ExitStack()
        self._delayed: DelayedInput | None = None
        self._logmel: LogMel | None = None
        self._behind: torch.Tensor | None = None  # [2 S, 1, C]: a control's last frame

    def __enter__(self) -> Self:
        lm, mimi = self._model.lm_or_none, self._model.mimi_or_none
        rows = SIDES * self.slots
        with torch.inference_mode(), ExitStack() as stack:
            # Compiled code has other low bits, and needs a C++ compiler and a minute on CPUs. Few
            # long calls gain nothing from graphs of their kernels.
            stack.enter_context(no_compile())
            stack.enter_context(no_cuda_graph())
            if mimi is not None:
                assert mimi.encoder_transformer is not None, "every Mimi has a transformer"
                # Its transformer runs at 25 Hz, two steps a frame (arXiv 2410.00037).
                steps = math.ceil(mimi.encoder_frame_rate / mimi.frame_rate) * self.chunk_frames
                transformer = mimi.encoder_transformer
                stack.enter_context(
                    exact_streaming(mimi, transformer, rows=rows, steps_per_call=steps)
                )
            else:
                self._logmel = LogMel(rows, self._model.device)
            if lm is not None:
                streams = self.assignments * self.slots
                self._delayed = DelayedInput(lm._get_initial_token(), lm.delays, streams)
                stack.enter_context(
                    exact_streaming(
                        lm.transformer,
                        lm.transformer,
                        rows=streams,
                        steps_per_call=self.chunk_frames,
                    )
                )
            else:
                channels = self._model.dim // SIDES
                self._behind = torch.full(
                    (rows, 1, channels), self._level_before, device=self._model.device
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @torch.inference_mode()
    def restart(self, slots: NDArray[np.bool_]) -> None:
        """Begin anew, as at frame 0 of a recording, in the slots where bool[S] is true."""
        chosen = torch.from_numpy(slots).to(self._model.device)
        sides = chosen.repeat_interleave(SIDES)
        if self._model.mimi_or_none is not None:
            restart_rows(self._model.mimi, sides)
        if self._logmel is not None:
            self._logmel.restart(sides)
        if self._delayed is not None:
            streams = chosen.repeat_interleave(self.assignments)
            restart_rows(self._model.lm.transformer, streams)
            self._delayed.reset(streams)
        if self._behind is not None:
            self._behind = self._behind.masked_fill(sides[:, None, None], self._level_before)

    def stage(self, audio: NDArray[np.float32]) -> torch.Tensor:
        """Return audio as `step` wants it, in memory that a GPU copies from on its own.

        Any thread may call this, so that the copy does not wait for the model.
        """
        waves = torch.from_numpy(audio)
        return waves.pin_memory() if self._model.device.type == "cuda" else waves

    @torch.inference_mode()
    def step(self, audio: torch.Tensor, text: NDArray[np.int16] | None = None) -> PendingFrames:
        """Compute the next frames of every slot.

        Args:
            audio: f32[S, 2, n * 1920] from `stage`; zeros where nobody speaks.
            text: i16[S, 2, n], token of each side in each frame; None is padding everywhere.
        """
        num_samples_audio = self.chunk_frames * SAMPLES_PER_FRAME
        assert audio.shape == (self.slots, SIDES, num_samples_audio), audio.shape
        waves = audio.to(self._model.device, non_blocking=True).flatten(0, 1)  # [2 S, N]
        if self._logmel is not None:
            sides = self._logmel(waves)
            finite = sides.sum(2).isfinite()
            codes = torch.full((len(waves), NUM_CODEBOOKS, self.chunk_frames), MISSING_CODE)
            streams = self._streams(codes.to(waves.device), None, MISSING_CODE)
        else:
            latents = self._model.mimi.encode_to_latent(waves[:, None], quantize=False)
            # Codes are finite whatever they were made of, so that the features do not show a
            # damaged latent. Its square must be finite too: the quantiser compares squared
            # distances. A sum is finite only if all its terms are; on the CPU it is 30 times as
            # fast as asking each.
            finite = latents.square().sum(1).isfinite()  # of f32[2 S, C, n]
            speech = self._model.mimi.quantizer.encode(latents)  # i64[2 S, 8, n]
            streams = self._streams(speech, text, PADDING_ID)
            sides = latents.transpose(1, 2)
        finite = finite.reshape(self.slots, SIDES, -1).all(1)
        if self._delayed is not None:
            hidden, _ = self._model.lm.forward_text(self._delayed(streams))
            stored = hidden.to(torch.bfloat16)  # [A S, n, D]
            heard = stored.sum(2).isfinite().reshape(self.slots, self.assignments, -1)
            finite = finite & heard.all(1)
        else:
            stored = self._controls(sides)
        shape = [self.slots, self.assignments, self.chunk_frames]
        return PendingFrames(stored, streams.transpose(1, 2), finite, shape)

    @torch.inference_mode()
    def state(self) -> dict[str, torch.Tensor]:
        """Return copies of all that is remembered, for `set_state` of a batch of this shape."""
        return {name: tensor.clone() for name, tensor in self._remembered().items()}

    @torch.inference_mode()
    def set_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state` returned: the frames that follow are the same bits."""
        own = self._remembered()
        assert set(own) == set(state), "the state is of another tap"
        for name, tensor in own.items():
            assert tensor.shape == state[name].shape, f"{name} is of a batch of another shape"
            tensor.copy_(state[name])

    def _remembered(self) -> dict[str, torch.Tensor]:
        """Return everything that later frames depend on, by name; the tensors themselves."""
        found: dict[str, torch.Tensor] = {}
        if self._model.mimi_or_none is not None:
            found |= {f"mimi {k}": v for k, v in streaming_tensors(self._model.mimi).items()}
        if self._logmel is not None:
            found["logmel"] = self._logmel.before
        if self._delayed is not None:
            found |= {
                f"lm {k}": v for k, v in streaming_tensors(self._model.lm.transformer).items()
            }
            found["delayed"] = self._delayed.history
        if self._behind is not None:
            found["behind"] = self._behind
        return found

    @property
    def _level_before(self) -> float:
        """What row 0 of a control holds, which has heard nothing."""
        return 0.0 if self._logmel is None else SILENT_LEVEL

    def _streams(
        self, speech: torch.Tensor, text: NDArray[np.int16] | None, padding: int
    ) -> torch.Tensor:
        """Return i64[A S, 17, n], [text | main | other], of the sides' codes i64[2 S, 8, n]."""
        sides = speech.reshape(self.slots, SIDES, NUM_CODEBOOKS, -1)
        if text is None:
            words = torch.full_like(sides[:, :, :1], padding)
        else:
            words = torch.from_numpy(text.astype(np.int64)).to(speech.device)[:, :, None]
        if self._stream_order == "legacy":
            words = words.flip(1)
        both = torch.cat([words, sides, sides.flip(1)], dim=2)
        assert both.shape[2] == NUM_STREAMS
        return both[:, : self.assignments].flatten(0, 1)

    def _controls(self, sides: torch.Tensor) -> torch.Tensor:
        """Return bf16[A S, n, 2 C], main then other and a frame late, of the sides' [2 S, n, C]."""
        assert self._behind is not None
        late = torch.cat([self._behind, sides[:, :-1]], dim=1)
        self._behind = sides[:, -1:].clone()
        pairs = late.to(torch.bfloat16).reshape(self.slots, SIDES, *late.shape[1:])
        both = torch.cat([pairs, pairs.flip(1)], dim=3)
        return both[:, : self.assignments].flatten(0, 1).contiguous()
