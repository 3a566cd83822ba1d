"""Streaming that equals the one-shot forward, and the delayed input of Moshi's codes.

moshi's stock streaming is silently wrong with more than one step a call: its ring of past keys is
as long as the attention window, and a call of n steps writes all its keys before it attends, so its
first query has lost the n - 1 oldest keys it should see. The longer the calls, the worse: beyond a
window the ring even overwrites keys of the same call. Mimi is affected with one frame a call, which
is two steps of its transformer. Nothing raises; only the numbers differ. Its reset of a row also
leaves the row's old keys and values behind the mask, where a NaN still reaches the next stream.

This module knows transformers and codes; it never sees audio, files or recordings.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from moshi.modules.streaming import StreamingModule
from moshi.modules.transformer import StreamingMultiheadAttention, set_attention_context
from torch import nn

from laughstore.errors import ConfigError

_RING_MULTIPLE = 64
"""Ring lengths are whole multiples of this: attention kernels want aligned masks."""


@contextmanager
def exact_streaming(
    module: StreamingModule, transformer: nn.Module, *, rows: int, steps_per_call: int
) -> Iterator[None]:
    """Stream `module` so that calls of up to `steps_per_call` steps equal the one-shot forward.

    The ring is allocated for a longer window, then the window is set back: the mask, which is made
    of the window at every call, hides the keys that the longer ring still holds. A ring of
    window + steps - 1 keeps every key that any query of a call may see.

    Args:
        module: what is put into streaming mode: the transformer itself, or a model around it.
        transformer: the part of `module` whose attention runs over the stream.
        rows: streams side by side.
        steps_per_call: the most steps of `transformer` in a call (Mimi's has two a frame).

    Raises:
        ConfigError: the transformer has no attention window, or not the same one in every layer.
    """
    window = attention_window(transformer)
    num_keys = window + steps_per_call - 1
    set_attention_context(transformer, -(-num_keys // _RING_MULTIPLE) * _RING_MULTIPLE)
    try:
        session = module.streaming(rows)  # allocates the rings
    finally:
        set_attention_context(transformer, window)
    with session:
        yield


def restart_rows(module: StreamingModule, rows: torch.Tensor) -> None:
    """Start streams at their first step, with nothing left of what their rows held before.

    Args:
        module: a module in streaming mode; its parts restart with it.
        rows: bool[B], true where a stream starts; the other rows are not touched.
    """
    # This sets back all that moshi keeps by row, each by selection, so that a NaN is dropped too:
    # offsets, execution masks, the last inputs of convolutions and of Mimi's downsampling, the
    # overlap of transposed convolutions. Only the rings of keys and values keep their content.
    module.reset_streaming(rows)
    # A masked key has weight 0, and 0 * inf is NaN: what overflowed would outlive its stream.
    restarted = rows.nonzero().flatten().tolist()
    for part in module.modules():
        state = part._streaming_state if isinstance(part, StreamingMultiheadAttention) else None
        if state is not None and state.kv_cache is not None:
            for row in restarted:
                state.kv_cache.cache[:, row] = 0  # of [2, B, heads, steps, channels]


def streaming_tensors(module: StreamingModule) -> dict[str, torch.Tensor]:
    """Return all that a module in streaming mode remembers, by name; the tensors themselves.

    Writing into them sets the module back to where it was when they held these values. moshi also
    counts steps in plain numbers, which only the depth transformer reads.
    """
    found: dict[str, torch.Tensor] = {}
    for name, state in module.get_streaming_state().items():
        parts = {"": state, ".ring": getattr(state, "kv_cache", None)}
        for suffix, part in parts.items():
            if part is not None:
                found |= {
                    f"{name}{suffix}.{key}": value
                    for key, value in vars(part).items()
                    if isinstance(value, torch.Tensor)
                }
    return found


def attention_window(transformer: nn.Module) -> int:
    """Return how many steps back a transformer's attention reaches, its own step included.

    Raises:
        ConfigError: there is no window, or not the same one in every layer.
    """
    windows = {
        layer.context
        for layer in transformer.modules()
        if isinstance(layer, StreamingMultiheadAttention)
    }
    window = windows.pop() if len(windows) == 1 else None
    if window is None:
        raise ConfigError(
            "the transformer has no single attention window, so it cannot be streamed exactly: "
            "give `context` in its configuration"
        )
    return window


class DelayedInput:
    """Turns codes, in chunks of any length, into the input that predicts them.

    Column t of the input holds what Moshi knows before frame t: of stream k the code of frame
    t - 1 - delay[k], or the stream's initial token where that lies before the first frame. The
    chunks joined equal the delayed codes of the whole recording behind one initial column.
    """

    def __init__(self, initial: torch.Tensor, delays: Sequence[int], rows: int) -> None:
        """Start every row at its first frame.

        Args:
            initial: i64[1, K, 1], the initial token of each stream.
            delays: frames by which each of the K streams lags.
            rows: streams side by side, B.
        """
        self._delays = torch.tensor(delays, device=initial.device)
        self._carry_frames = max(delays) + 1
        self._initial = initial
        self.history = initial.repeat(rows, 1, self._carry_frames)
        """i64[B, K, carry]: codes of the frames before the next chunk."""

    def __call__(self, codes: torch.Tensor) -> torch.Tensor:
        """Return i64[B, K, n], the input of the n frames whose codes i64[B, K, n] are given."""
        known = torch.cat([self.history, codes], dim=2)
        self.history = known[:, :, -self._carry_frames :]
        frames = torch.arange(codes.shape[2], device=codes.device)
        # Frame t of this chunk stands at column carry + t of `known`.
        columns = self._carry_frames + frames - 1 - self._delays[:, None]
        return known.gather(2, columns.expand(len(codes), -1, -1))

    def reset(self, rows: torch.Tensor) -> None:
        """Start the rows where bool[B] is true at their first frame again."""
        self.history = torch.where(rows[:, None, None], self._initial, self.history)
