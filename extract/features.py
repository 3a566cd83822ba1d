"""From tracks to features: recordings stream through slots of one fixed batch, at constant memory.

In: sources, each one or two tracks of 24 kHz audio. Out: chunks of features and codes of every
assignment, in order within a recording, recordings side by side. A source that fails is reported
and leaves its slot; the others do not notice.

A slot holds one recording: two rows of Mimi, one a speaker, and two rows of the language model, one
an assignment: row a has speaker a as main. Every speaker is encoded once. Every call has the same
shape, and a recording enters its slot at frame 0 of a call, so its features are the same bits
whatever else is in the batch and whatever was in the slot before. Values of the model that are not
finite end a recording: they are never delivered.

It never writes files and never resamples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import torch
from moshi.utils.compile import no_compile
from numpy.typing import NDArray

from laughstore.errors import BadRecording, ConfigError
from laughstore.timebase import SAMPLES_PER_FRAME

from .model import NUM_CODEBOOKS, NUM_STREAMS, FeatureModel
from .streaming import DelayedInput, exact_streaming, restart_rows

SPEAKERS = 2
"""Rows of a slot: speakers in Mimi, assignments in the language model."""
_MIMI_STEPS_PER_FRAME = 2
"""Mimi's transformer runs at 25 Hz (arXiv 2410.00037)."""


class TrackReader(Protocol):
    """One speaker's audio, read forwards once."""

    def read(self, num_frames: int) -> NDArray[np.float32]:
        """Return the next f32[num_frames * 1920] audio samples at 24 kHz, zeros after the end.

        Raises:
            BadRecording: the track cannot be read further.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


@dataclass(frozen=True)
class Source:
    """A recording to extract."""

    key: str
    """Names the recording in messages; not interpreted."""
    num_frames: int
    """T: features are delivered for frames 0 to T - 1, at least 1."""
    open_tracks: Callable[[], Sequence[TrackReader]]
    """Opens one or two tracks when the recording enters its slot; may raise BadRecording."""

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ConfigError(f"{self.key} has {self.num_frames} frames; it must have at least 1")


@dataclass(frozen=True)
class FeatureChunk:
    """Consecutive frames of one recording, for each of its A assignments (one a track)."""

    source: Source
    start_frame: int
    features: NDArray[np.uint16]
    """uint16[A, n, D], the bits of bf16. Assignment a has track a as main. Row t has heard audio
    strictly before t * 80 ms."""
    codes: NDArray[np.int16]
    """i16[A, n, 17] codes of the frames themselves: text of main, audio of main, of other."""


@dataclass(frozen=True)
class FeatureFailure:
    """A recording that ended early; chunks already delivered of it are to be thrown away."""

    source: Source
    error: BadRecording


class SlotBatch:
    """The two networks in streaming state, for a fixed number of slots and frames a call.

    A context manager; one a model at a time, since the state lives in the modules.
    """

    def __init__(self, model: FeatureModel, *, slots: int, chunk_frames: int) -> None:
        """Check the shape; nothing is allocated before the context is entered."""
        if slots < 1 or chunk_frames < 1:
            raise ConfigError(
                f"slots is {slots} and chunk_frames {chunk_frames}; both must be at least 1"
            )
        self.slots = slots
        self.chunk_frames = chunk_frames
        self._model = model
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        lm, mimi = self._model.lm, self._model.mimi
        rows = SPEAKERS * self.slots
        assert mimi.encoder_transformer is not None, "every Mimi configuration has a transformer"
        with torch.inference_mode():
            self._delayed = DelayedInput(lm._get_initial_token(), lm.delays, rows)
            with ExitStack() as stack:
                # Compiled code has other low bits, and needs a C++ compiler and a minute on CPUs.
                stack.enter_context(no_compile())
                stack.enter_context(
                    exact_streaming(
                        mimi,
                        mimi.encoder_transformer,
                        rows=rows,
                        steps_per_call=_MIMI_STEPS_PER_FRAME * self.chunk_frames,
                    )
                )
                stack.enter_context(
                    exact_streaming(
                        lm.transformer,
                        lm.transformer,
                        rows=rows,
                        steps_per_call=self.chunk_frames,
                    )
                )
                self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @torch.inference_mode()
    def restart(self, slots: NDArray[np.bool_]) -> None:
        """Begin a new recording, at its frame 0, in the slots where bool[S] is true."""
        rows = torch.from_numpy(slots).repeat_interleave(SPEAKERS).to(self._model.device)
        restart_rows(self._model.mimi, rows)
        restart_rows(self._model.lm.transformer, rows)
        self._delayed.reset(rows)

    @torch.inference_mode()
    def step(
        self, audio: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint16], NDArray[np.int16], NDArray[np.bool_]]:
        """Return the features and codes of the next frames of every slot, and which can be used.

        Args:
            audio: f32[S, 2, n * 1920], n = chunk_frames; zeros where nobody speaks.

        Returns:
            (uint16[S, 2, n, D] bits of bf16, i16[S, 2, n, 17], bool[S, n]), assignment a having
            speaker a as main. The last is false at frames where the model's values are not finite
            for either speaker or assignment; the codes there mean nothing.
        """
        lm = self._model.lm
        num_samples_audio = self.chunk_frames * SAMPLES_PER_FRAME
        assert audio.shape == (self.slots, SPEAKERS, num_samples_audio), audio.shape
        waves = torch.from_numpy(audio).reshape(-1, 1, num_samples_audio).to(self._model.device)
        latents = self._model.mimi.encode_to_latent(waves, quantize=False)  # f32[2 S, C, n]
        speech = self._model.mimi.quantizer.encode(latents)  # i64[2 S, 8, n]
        codes = self._assignment_codes(speech)
        # A missing code is -1; anything lower would be embedded as code 0 without an error.
        assert int(codes.min()) >= lm.zero_token_id, "codes hold an ungenerated token"
        hidden, _ = lm.forward_text(self._delayed(codes))
        stored = hidden.to(torch.bfloat16)  # [2 S, n, D]
        # Codes are finite whatever they were made of, so that the features do not show a damaged
        # latent. Its square must be finite too: the quantiser compares squared distances. A sum is
        # finite only if all its terms are; on the CPU it is 30 times as fast as asking each.
        finite = latents.square().sum(1).isfinite() & stored.sum(2).isfinite()
        bits = stored.view(torch.int16).cpu().numpy().view(np.uint16)
        frames = codes.transpose(1, 2).to(torch.int16).cpu().numpy()
        shape = (self.slots, SPEAKERS, self.chunk_frames)
        return (
            bits.reshape(*shape, self._model.dim),
            frames.reshape(*shape, NUM_STREAMS),
            finite.reshape(shape).all(1).cpu().numpy(),
        )

    def _assignment_codes(self, speech: torch.Tensor) -> torch.Tensor:
        """Return i64[2 S, 17, n], [text | main | other], of the speakers' codes i64[2 S, 8, n]."""
        num_frames = speech.shape[2]
        main = speech.reshape(self.slots, SPEAKERS, NUM_CODEBOOKS, num_frames)
        text = torch.full_like(main[:, :, :1], self._model.lm.text_padding_token_id)
        return torch.cat([text, main, main.flip(1)], dim=2).flatten(0, 1)


def extract_features(
    model: FeatureModel, sources: Iterable[Source | None], *, slots: int, chunk_frames: int
) -> Iterator[FeatureChunk | FeatureFailure]:
    """Extract recordings, `slots` at a time, and yield their features as they come.

    A slot whose recording has ended or failed takes the next source at the next call. Arrays of a
    chunk are the caller's. Closing the iterator early closes the tracks that are open.

    Args:
        model: from `load_model`; it serves one extraction at a time.
        sources: taken one by one, when a slot is free. None: there is none now; asked again before
            the next call, until all slots are free.
        slots: recordings side by side.
        chunk_frames: frames of every call, and of every chunk but the last of a recording.

    Raises:
        ConfigError: `slots` or `chunk_frames` is below 1, or a source opens no or three tracks.
    """
    waiting = iter(sources)
    with SlotBatch(model, slots=slots, chunk_frames=chunk_frames) as batch, ExitStack() as stack:
        seats = [_Seat() for _ in range(slots)]
        for seat in seats:
            stack.callback(seat.leave)
        audio = np.zeros((slots, SPEAKERS, chunk_frames * SAMPLES_PER_FRAME), np.float32)
        while True:
            for seat, slot_audio in zip(seats, audio, strict=True):
                yield from seat.fill(waiting, slot_audio)
            if not any(seat.source for seat in seats):
                return
            entered = np.array(
                [seat.source is not None and seat.start_frame == 0 for seat in seats]
            )
            if entered.any():
                batch.restart(entered)
            features, codes, finite = batch.step(audio)
            for seat, *delivered in zip(seats, features, codes, finite, strict=True):
                if seat.source is not None:
                    yield seat.deliver(*delivered)


@dataclass
class _Seat:
    """What sits in one slot: a source, its open tracks, and the next frame to extract."""

    source: Source | None = None
    tracks: list[TrackReader] = field(default_factory=list)
    start_frame: int = 0

    def fill(
        self, waiting: Iterator[Source | None], audio: NDArray[np.float32]
    ) -> Iterator[FeatureFailure]:
        """Read the next frames into f32[2, N], taking sources until one can be read.

        The audio of an empty seat, and of a second speaker who is not there, is silence.
        """
        num_frames = audio.shape[1] // SAMPLES_PER_FRAME
        while self._enter_if_free(waiting):
            assert self.source is not None
            try:
                if not self.tracks:
                    self._open(self.source)
                audio[len(self.tracks) :] = 0
                for row, track in zip(audio, self.tracks, strict=False):
                    row[:] = track.read(num_frames)
            except BadRecording as error:
                yield self._fail(self.source, error)
            else:
                return
        audio[:] = 0

    def deliver(
        self, features: NDArray[np.uint16], codes: NDArray[np.int16], finite: NDArray[np.bool_]
    ) -> FeatureChunk | FeatureFailure:
        """Return the chunk of uint16[2, n, D] and i16[2, n, 17], and move on by its frames.

        If a frame of it is not finite, bool[n], free the seat and return the failure.
        """
        assert self.source is not None
        num_frames = min(features.shape[1], self.source.num_frames - self.start_frame)
        if not finite[:num_frames].all():
            # A NaN shows in frames of its call before it too: masked, it has weight 0 there.
            return self._fail(
                self.source,
                BadRecording(
                    f"{self.source.key}: the model gave values that are not finite at frame"
                    f" {self.start_frame + int(np.argmin(finite))}; the audio is damaged near it,"
                    f" before frame {self.start_frame + finite.size}: export it again, or leave"
                    " the recording out"
                ),
            )
        kept = slice(len(self.tracks)), slice(num_frames)
        chunk = FeatureChunk(self.source, self.start_frame, features[kept], codes[kept])
        self.start_frame += num_frames
        if self.start_frame == self.source.num_frames:
            self.leave()
        return chunk

    def leave(self) -> None:
        """Close the tracks and free the seat."""
        tracks, self.tracks = self.tracks, []
        self.source, self.start_frame = None, 0
        with ExitStack() as stack:  # every track is closed, also when closing one fails
            for track in tracks:
                stack.callback(track.close)

    def _fail(self, source: Source, error: BadRecording) -> FeatureFailure:
        self.leave()
        return FeatureFailure(source, error)

    def _enter_if_free(self, waiting: Iterator[Source | None]) -> bool:
        if self.source is None:
            self.source = next(waiting, None)
        return self.source is not None

    def _open(self, source: Source) -> None:
        self.tracks = list(source.open_tracks())
        if not 1 <= len(self.tracks) <= SPEAKERS:
            raise ConfigError(
                f"{source.key} has {len(self.tracks)} tracks; a recording has 1 or {SPEAKERS}"
            )
