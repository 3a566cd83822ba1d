"""Scores while the sound goes on: pushed samples in, the scores of the frames that they begin out.

A call of the model has one fixed number of frames, those of the run's features; other numbers would
move low bits, and near ties flip codes of Mimi. So a call that is not full yet is made as well,
with silence behind what is known, and made again from the same state when more has come: row t
depends on nothing behind it, so what is told early is the same bits as what comes of whole files.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from extract.features import SlotBatch
from extract.feeding import SIDES
from extract.numerics import computing_as
from extract.sound.tracks import MAX_MAGNITUDE
from train.runs.trained import load_trained
from train.scoring.call_scorer import CallScorer, one_answer

from ...closing import ClosedAtExit
from ...errors import BadRecording, ConfigError
from ...label_spec import LabelSpec
from ...timebase import SAMPLE_RATE, SAMPLES_PER_FRAME, num_frames
from .opened import OpenedRun, open_run, read_run
from .rule import choose_segmenting


class Predictor(ClosedAtExit):
    """A run's scores of sound that comes piece by piece, of any sizes.

    Row t has heard the sound before t * 80 ms, and it comes out of the `push` that brings the first
    sample of frame t: after n samples in all, ceil(n / 1920) rows have come out, which are those
    that a file of these n samples has, bit for bit on the same kind of device. Nothing is waited
    for beyond that; what passes besides is the time that a call of the model takes. A score of row
    t is about frame t + `lead_frames`.

    A context manager. One at a time can use an `OpenedRun`; one thread at a time a predictor.

    Args:
        opened: the run.
        with_other: whether the sound of a second speaker is pushed, too.
        hop_frames: frames that are waited for before a call that is not full is made: 1 tells each
            row as soon as possible, more take fewer calls. A full call is always made.

    Raises:
        ConfigError: the run hears words, or a setting does not fit it.
    """

    sample_rate: Final = SAMPLE_RATE
    """Hz, of what is pushed."""

    def __init__(self, opened: OpenedRun, *, with_other: bool = False, hop_frames: int = 1) -> None:
        how, label = opened.how, opened.label
        if how.text != "none":
            raise ConfigError(
                f"{opened.run.path} hears words (text: {how.text}), which are not known while"
                " somebody speaks; score files: laughstore predict --transcript FILE"
            )
        if opened.hears_mix and with_other:
            raise ConfigError(f"{opened.run.path} hears a mix; push the sum of both as one")
        if label.whose == "other" and not with_other:
            raise ConfigError(
                f"{opened.run.path} predicts events of the other speaker; push both:"
                " with_other=True"
            )
        if hop_frames < 1:
            raise ConfigError(f"hop_frames is {hop_frames}; it must be at least 1")
        self.opened = opened
        self._with_other, self._hop_frames = with_other, hop_frames
        self._num_assignments = opened.num_assignments(has_other=with_other)
        self._call_frames = how.numerics.chunk_frames
        # Sides of slot 0; the other slots are silent. A mix is heard as other, main is silent.
        self._sides = slice(1, 2) if opened.hears_mix else slice(0, 2 if with_other else 1)
        self._stack = ExitStack()
        with computing_as(how.numerics):
            self._batch = self._stack.enter_context(
                SlotBatch(
                    opened.features,
                    slots=how.numerics.slots,
                    chunk_frames=self._call_frames,
                    assignments=opened.slot_assignments,
                    stream_order=how.stream_order,
                )
            )
        shape = how.numerics.slots, SIDES, self._call_frames * SAMPLES_PER_FRAME
        self._audio = np.zeros(shape, np.float32)
        self._begin()

    @classmethod
    def open(
        cls,
        run: Path | str,
        *,
        model: Path | str | None = None,
        checkpoint: str = "best",
        device: str = "auto",
        with_other: bool = False,
        hop_frames: int = 1,
    ) -> Self:
        """Return a predictor of a run.

        Args:
            run: its folder.
            model: directory or repository of the model of its features; None: as the run says.
            checkpoint: `best`, `last`, or the path of one.
            device: cpu, cuda, cuda:N or auto.
            with_other: see the class.
            hop_frames: see the class.

        Raises:
            NotFound: no such run, checkpoint or model.
            ConfigError: a setting cannot work.
            SpecMismatch: it is another model than that of the run's features.
            CorruptData: a file was altered or cut.
        """
        found = read_run(Path(run))
        name = None if model is None else str(model)
        opened = open_run(found, load_trained(found, checkpoint), model=name, device=device)
        return cls(opened, with_other=with_other, hop_frames=hop_frames)

    @property
    def label(self) -> LabelSpec:
        """What the head was asked."""
        return self.opened.label

    @property
    def lead_frames(self) -> int:
        """L: a score of row t is about frame t + L."""
        return self.label.lead_frames

    @property
    def threshold(self) -> float | None:
        """The score from which on a row is an alarm, as validation chose it; None of numbers.

        Raises:
            ConfigError: it chose none.
        """
        found = choose_segmenting(self.opened.run, self.opened.trained)
        return None if found is None else found.rule.threshold

    @property
    def num_rows(self) -> int:
        """Rows that have come out."""
        return self._start + self._num_told

    def push(
        self, samples: NDArray[np.floating], other: NDArray[np.floating] | None = None
    ) -> NDArray[np.float32]:
        """Take the next samples, and return the scores that can be told now.

        Args:
            samples: f4[n] or f8[n] at 24 kHz, full scale 1, of main or of the mix; n may be 0.
            other: as many of the second speaker; with `with_other` only.

        Returns:
            f4[k], of rows `num_rows` - k to `num_rows` - 1.

        Raises:
            ConfigError: the samples are none, or the wrong ones; nothing of them was taken.
            BadRecording: the model's values are not finite; `finish` begins anew.
        """
        waves = self._checked(samples, other)
        found: list[NDArray[np.float32]] = []
        taken = 0
        with computing_as(self.opened.how.numerics):
            while taken < waves.shape[1]:
                whole = self._frames_of_call * SAMPLES_PER_FRAME
                part = waves[:, taken : taken + whole - self._num_samples]
                stop = self._num_samples + part.shape[1]
                self._audio[0, self._sides, self._num_samples : stop] = part
                self._num_samples = stop
                taken += part.shape[1]
                if stop == whole:
                    found.append(self._full_call())
            if self._num_waiting >= self._hop_frames:
                found.append(self._early_call())
        return _joined(found)

    def finish(self) -> NDArray[np.float32]:
        """Return the scores of rows that `hop_frames` held back, and begin anew with frame 0."""
        found: list[NDArray[np.float32]] = []
        try:
            with computing_as(self.opened.how.numerics):
                if self._is_sound and self._num_waiting:
                    found.append(self._early_call())
        finally:
            self._begin()
        return _joined(found)

    def close(self) -> None:
        """Give the model's memory back; calling it again does nothing."""
        self._stack.close()

    def _begin(self) -> None:
        self._start, self._num_samples, self._num_told = 0, 0, 0
        self._is_sound = True
        self._audio[:] = 0
        self._state: Mapping[str, Any] | None = None  # Any: tensors
        """Before the call at hand, if that was made already."""
        model = self.opened.trained.model
        self._scorers: Sequence[CallScorer] = [
            CallScorer(model, self._call_frames) for _ in range(self._num_assignments)
        ]

    @property
    def _frames_of_call(self) -> int:
        """Frames that the call at hand takes: it ends where state begins anew."""
        every = self.opened.spec.restart_frames
        if every is None:
            return self._call_frames
        return min(self._call_frames, every - self._start % every)

    @property
    def _num_waiting(self) -> int:
        """Rows of the call at hand that could be told and were not."""
        return num_frames(self._num_samples) - self._num_told

    @property
    def _begins_anew(self) -> bool:
        """Whether state begins anew with the call at hand."""
        every = self.opened.spec.restart_frames
        return self._start == 0 or (every is not None and self._start % every == 0)

    def _full_call(self) -> NDArray[np.float32]:
        num_frames_of_call = self._frames_of_call
        scores = self._call(self._scorers, num_frames_of_call)
        self._start += num_frames_of_call
        self._num_samples, self._num_told, self._state = 0, 0, None
        self._audio[:] = 0
        return scores

    def _early_call(self) -> NDArray[np.float32]:
        known = num_frames(self._num_samples)
        scores = self._call([scorer.fork() for scorer in self._scorers], known, again=True)
        self._num_told = known
        return scores

    def _call(
        self, scorers: Sequence[CallScorer], stop: int, *, again: bool = False
    ) -> NDArray[np.float32]:
        """Make the call at hand, and return the scores of its rows up to `stop` not told yet.

        Args:
            scorers: of each assignment, at the call's start.
            stop: rows that are known.
            again: remember the state before it, since it will be made again.
        """
        self._is_sound = False
        if self._state is not None:
            self._batch.set_state(self._state)
        elif self._begins_anew:
            self._batch.restart(np.ones(self._batch.slots, np.bool_))
        if again and self._state is None:
            self._state = self._batch.state()
        frames = self._batch.step(self._batch.stage(self._audio)).wait()
        if not frames.finite[0, :stop].all():
            raise BadRecording(
                f"the model gave values that are not finite near frame {self._start}; finish()"
                " begins anew"
            )
        features = frames.features[0, : self._num_assignments, :stop]
        scores = [
            scorer.score(each)[self._num_told :]
            for scorer, each in zip(scorers, features, strict=True)
        ]
        self._is_sound = True
        return one_answer(scores)

    def _checked(
        self, samples: NDArray[np.floating], other: NDArray[np.floating] | None
    ) -> NDArray[np.float32]:
        """Return f4[sides, n] of what was pushed."""
        if not self._is_sound:
            raise ConfigError("an earlier push ended with an error; finish() begins anew")
        if self._with_other != (other is not None):
            wanted = "two: push(main, other)" if self._with_other else "one: push(samples)"
            raise ConfigError(f"sounds of a push: this predictor takes {wanted}")
        waves = [_wave(item) for item in (samples, other) if item is not None]
        if len({wave.size for wave in waves}) > 1:
            raise ConfigError(
                f"{waves[0].size} samples of main and {waves[1].size} of other: both must be of the"
                " same time"
            )
        return np.stack(waves)


def _wave(samples: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return f4[n], checked."""
    wave = np.asarray(samples)
    if wave.ndim != 1 or wave.dtype.kind != "f":
        raise ConfigError(
            f"samples are {wave.dtype}{list(wave.shape)}; they must be floats of one channel, full"
            " scale 1 (whole numbers of 16 bits: divide by 32768)"
        )
    if wave.size and not np.abs(wave).max() <= MAX_MAGNITUDE:  # false for NaN, too
        raise ConfigError("samples hold NaN, or numbers far above full scale, which is 1")
    return wave.astype(np.float32)


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(parts) if parts else np.empty(0, np.float32)
