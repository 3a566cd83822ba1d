"""Score a stream as its frames come, any number at a time."""

from copy import copy
from typing import Final, Self

import torch
from torch import Tensor

from ..model import ScoreModel

_ROUND: Final = 16
"""Rows. Measured: in products of 64 channels or more, the last rows of a number that is no multiple
of 4 have other low bits than the same rows elsewhere, and no other rows have."""


def rows_of_call(num_frames: int) -> int:
    """Return how many rows to make of so many frames, so that scores are the same in all calls.

    The rows behind are filling: whatever the layers of a head cut off in front, none of the frames
    is among the last rows of a product.
    """
    return -(-num_frames // _ROUND) * _ROUND + _ROUND


class StreamScorer:
    """Scores of one stream, whose frames are given in order, from its first on.

    What the first layer made of the last C frames is carried from call to call, so the scores are
    those of the sequences that the model was trained on, wherever calls are cut. Before the first
    frame, all are absent.

    Args:
        model: on the device that does the work.
    """

    def __init__(self, model: ScoreModel) -> None:
        self._model = model
        width = model.head.first.out_features
        self._before = torch.zeros(1, model.context, width, device=model.mean.device)

    def fork(self) -> Self:
        """Return another scorer of the stream up to here, which may be given other frames."""
        return copy(self)  # what is carried is replaced, never changed

    @torch.inference_mode()
    def score(self, x: Tensor, present: Tensor | None = None, *, kept: int | None = None) -> Tensor:
        """Return the scores of the next frames, f32[n], or f32[kept].

        Args:
            x: bf16[n, D], on the model's device.
            present: bool[n], False in frames that there are none of: those of a block that cannot
                be read, say. None: all are there.
            kept: frames of x, from its first on, that are the stream's; what stands behind them
                gives a call its shape and is forgotten. None: all.
        """
        model, head, context = self._model, self._model.head, self._model.context
        outputs = model.first_outputs(x, present)
        kept = len(outputs) if kept is None else kept
        if not context:
            return model.scores_of(head.rest(outputs, None))[:kept]
        outputs = torch.cat([self._before, outputs[None]], dim=1)
        self._before = outputs[:, kept : kept + context].clone()  # not the whole call's
        return model.scores_of(head.rest(outputs, None)[0])[:kept]
