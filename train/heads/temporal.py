"""Dilated causal convolutions over the last frames."""

from itertools import accumulate

import torch
from torch import Tensor, nn

from . import HeadConfig
from .activations import ACTIVATIONS, Function
from .dropout import drop_out
from .head import Head, linear_of_zeros
from .initial import uniform


class TemporalHead(Head):
    """D to H channels of each frame, then layers that each see further back, and their sum to 1.

    A layer adds to a row what a convolution along time (a few taps a channel), the activation and
    a layer across channels make of it and of rows before it. No row is made up where frames are
    missing: each layer gives fewer rows than it takes, and all together C, the context, fewer. So
    an answer depends on exactly C + 1 frames, whatever stands around them.

    The last layer begins at zero, so an untrained head answers its bias.
    """

    def __init__(self, config: HeadConfig, dim: int) -> None:
        super().__init__(config, dim)
        width = config.channels
        self.context = config.context.frames
        self._activate = ACTIVATIONS[config.activation]
        self.first = linear_of_zeros(dim, width)
        self.layers = nn.ModuleList(
            _Layer(width, num_taps, dilation, self._activate)
            for num_taps, dilation in reaches(self.context)
        )
        self.last = linear_of_zeros(width, 1)
        self.drops_out = config.dropout > 0
        self._dropout = config.dropout

    @property
    def last_bias(self) -> nn.Parameter:
        """f32[1]: what a head that ignores its input answers."""
        return self.last.bias

    def begin(self, seed: int) -> None:
        """Draw all weights but the last layer's, so that channels keep about their spread."""
        drawn = [self.first.weight]  # He, as of an mlp
        bounds = [(6 / self.first.in_features) ** 0.5]
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            drawn += [layer.taps, layer.across.weight]
            bounds += [(3 / len(layer.taps)) ** 0.5, (3 / self.first.out_features) ** 0.5]
        sizes = [weight.numel() for weight in drawn]
        # One draw for all: two of one seed would be the same numbers.
        numbers = torch.from_numpy(uniform((sum(sizes),), 1.0, seed))
        with torch.no_grad():
            for weight, bound, stop in zip(drawn, bounds, accumulate(sizes), strict=True):
                weight.copy_(bound * numbers[stop - weight.numel() : stop].view_as(weight))

    def rest(self, hidden: Tensor, keys: Tensor | None) -> Tensor:
        """Return answers f32[b, n] from the first layer's outputs f32[b, C + n, H]."""
        for layer in self.layers:
            hidden = layer(hidden)
        hidden = self._activate(hidden)
        if keys is not None:
            flat = drop_out(hidden.flatten(0, 1), keys.flatten(), self._dropout)
            hidden = flat.view_as(hidden)
        return self.last(hidden).squeeze(-1)


class _Layer(nn.Module):
    """Adds to each row what it and rows `dilation` and more before it say; starts at zero.

    Args:
        width: H, channels.
        num_taps: rows that are seen.
        dilation: rows from one of them to the next.
        activate: between the convolution and the layer across channels.
    """

    def __init__(self, width: int, num_taps: int, dilation: int, activate: Function) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.zeros(num_taps, width))
        """f32[num_taps, H], the earliest row's first."""
        self.bias = nn.Parameter(torch.zeros(width))
        self.across = linear_of_zeros(width, width)
        self._dilation, self._activate = dilation, activate

    def forward(self, hidden: Tensor) -> Tensor:
        """Return f32[b, n - (num_taps - 1) * dilation, H] of f32[b, n, H]."""
        step = self._dilation
        reach = (len(self.taps) - 1) * step
        num_rows = hidden.shape[1] - reach
        # Sums of slices: quicker on a CPU than conv1d, which wants time last, and on every device
        # the same sums from run to run.
        seen = self.bias + self.taps[0] * hidden[:, :num_rows]
        for number, tap in enumerate(self.taps[1:], start=1):
            seen = seen + tap * hidden[:, number * step : number * step + num_rows]
        return hidden[:, reach:] + self.across(self._activate(seen))


def reaches(context: int) -> list[tuple[int, int]]:
    """Return (taps, dilation) of layers that see exactly `context` rows back, none of them skipped.

    Three taps, 1, 2, 4, ... rows apart, for as long as the context lasts, then two that see what is
    left: 30 rows are four layers of three taps.
    """
    layers: list[tuple[int, int]] = []
    dilation, left = 1, context
    while left >= 2 * dilation:
        layers.append((3, dilation))
        left -= 2 * dilation
        dilation *= 2
    # At most what the layers so far see, so no row between is passed over.
    return [*layers, (2, left)] if left else layers
