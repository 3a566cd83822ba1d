"""Scores of one stream from the features of one call of the model after the other.

Every call has one shape, whatever of it is wanted: a product of other rows than were there before
could differ in its low bits. So a row's score is the same bits from files and from pushed samples.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from laughstore.errors import ConfigError

from ..float32 import full_float32
from ..model import ScoreModel
from ..threads import threads_for
from .stream_scorer import StreamScorer, rows_of_call


class CallScorer:
    """Scores of one stream, whose frames come in calls of up to n, in order.

    Args:
        model: on the device that does the work.
        call_frames: n.
    """

    def __init__(self, model: ScoreModel, call_frames: int) -> None:
        self._model, self._call_frames = model, call_frames
        self._scorer = StreamScorer(model)

    def fork(self) -> Self:
        """Return another scorer of the stream up to here."""
        other = type(self)(self._model, self._call_frames)
        other._scorer = self._scorer.fork()
        return other

    def score(self, features: NDArray[np.uint16]) -> NDArray[np.float32]:
        """Return the scores f4[m] of the next frames, u2[m, D] bits of bf16, m at most n.

        Raises:
            ConfigError: a score is not finite, because training the head diverged.
        """
        num_frames, dim = features.shape
        call = np.zeros((rows_of_call(self._call_frames), dim), np.uint16)
        call[:num_frames] = features
        x = torch.from_numpy(call.view(np.int16)).view(torch.bfloat16)
        # Whatever the calls of the networks are made with, in which these may be.
        with threads_for(self._model.num_outputs), full_float32():
            scores = self._scorer.score(x.to(self._model.mean.device), kept=num_frames)
            found = scores.cpu().numpy()
        if not np.isfinite(found).all():
            raise ConfigError(
                "the head's scores are not finite: training it diverged; train again with a lower"
                " --lr"
            )
        return found


def one_answer(scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return f4[m] from those of the assignments that were asked the same: their mean."""
    if len(scores) == 1:
        return scores[0]
    total = np.zeros(len(scores[0]))
    for item in scores:
        total += item
    return (total / len(scores)).astype(np.float32)
