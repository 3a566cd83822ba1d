"""Score a stream as its frames come, any number at a time."""

import torch
from torch import Tensor

from ..model import ScoreModel


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

    @torch.inference_mode()
    def score(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the scores of the next frames, f32[n].

        Args:
            x: bf16[n, D], on the model's device.
            present: bool[n], False in frames that there are none of: those of a block that cannot
                be read, say. None: all are there.
        """
        model, head, context = self._model, self._model.head, self._model.context
        outputs = model.first_outputs(x, present)
        if not context:
            return model.scores_of(head.rest(outputs, None))
        outputs = torch.cat([self._before, outputs[None]], dim=1)
        self._before = outputs[:, outputs.shape[1] - context :].clone()  # not the whole call's
        return model.scores_of(head.rest(outputs, None)[0])
