"""Heads: what is trained. A head is one module here and its line in `HEADS`.

Its arguments are fields of `HeadConfig`, which are flags. No torch is loaded before a head is made:
`laughstore train --help` reads this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from laughstore.errors import ConfigError
from laughstore.timebase import Span

from ..options import check_options, read_options

if TYPE_CHECKING:
    from .head import Head

Activation = Literal["gelu", "relu", "silu"]


class _Home(NamedTuple):
    """Where a head is, and which fields of `HeadConfig` it reads."""

    module: str
    name: str
    options: frozenset[str] = frozenset()


HEADS: Final[dict[str, _Home]] = {
    "linear": _Home("linear", "LinearHead"),
    "mlp": _Home("mlp", "MlpHead", frozenset({"hidden", "activation", "dropout"})),
    "temporal": _Home(
        "temporal",
        "TemporalHead",
        frozenset({"context", "channels", "activation", "dropout"}),
    ),
}
_OPTIONS: Final = {name: home.options for name, home in HEADS.items()}
_MAX_HIDDEN: Final = 1 << 16
_MAX_CHANNELS: Final = 4096
"""Layers have the square of it in weights, 64 MiB; a checkpoint says how many are allocated."""
_MAX_CONTEXT: Final = 4096
"""Rows, 5 minutes: each sequence reads its context anew."""
_CONTEXT: Final = Span("30f")

if TYPE_CHECKING:
    HeadName = str
else:
    HeadName = Literal[*HEADS]  # the choices that the command line shows


@dataclass(frozen=True)
class HeadConfig:
    """The part that is trained.

    Raises:
        ConfigError: a field cannot work, or belongs to another head.
    """

    head: HeadName = "linear"
    """On the standardised features: linear (logistic regression), mlp (one hidden layer), or
    temporal (causal convolutions over the last frames)."""
    hidden: int = 1024
    """Width of the hidden layer (mlp), in units."""
    activation: Activation = "gelu"
    """Of hidden layers (mlp, temporal)."""
    dropout: float = 0.0
    """Share of units of the last hidden layer that are left out of each row in training (mlp,
    temporal); 0 to below 1."""
    context: Span = _CONTEXT
    """How far before a row its score looks (temporal), 30f being 2.4 s; there are as many layers as
    it takes to see so far."""
    channels: int = 256
    """Width of the layers (temporal)."""

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ConfigError(f"head is {self.head!r}; it must be {', '.join(HEADS)}")
        if not (isinstance(self.hidden, int) and 1 <= self.hidden <= _MAX_HIDDEN):
            raise ConfigError(f"hidden is {self.hidden}; it must be 1 to {_MAX_HIDDEN} units")
        if not (isinstance(self.channels, int) and 1 <= self.channels <= _MAX_CHANNELS):
            raise ConfigError(f"channels is {self.channels}; it must be 1 to {_MAX_CHANNELS}")
        if not isinstance(self.context, Span) or not 1 <= self.context.frames <= _MAX_CONTEXT:
            raise ConfigError(
                f"context is {self.context}; it must be 1 to {_MAX_CONTEXT} frames (head mlp sees"
                " one row alone)"
            )
        if self.activation not in ("gelu", "relu", "silu"):
            raise ConfigError(f"activation is {self.activation!r}; it must be gelu, relu or silu")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        # However it was written, it is the same head.
        object.__setattr__(self, "context", Span.of_frames(self.context.frames))
        check_options(self, "head", _OPTIONS)

    @property
    def context_frames(self) -> int:
        """C: rows before a row that this head reads, too."""
        return self.context.frames if "context" in HEADS[self.head].options else 0

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON object of the fields that this head reads."""
        told = read_options(self, "head", _OPTIONS)
        spans = {name: str(value) for name, value in told.items() if isinstance(value, Span)}
        return told | spans

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Return the config that `to_json` wrote.

        Raises:
            ConfigError, TypeError: it did not.
        """
        values = {**data}
        if isinstance(values.get("context"), str):
            values["context"] = Span(values["context"])
        return cls(**values)


def make_head(config: HeadConfig, dim: int) -> "Head":
    """Return a head that has not begun: of zeros.

    Args:
        config: which, and its arguments.
        dim: D, channels of a frame.
    """
    home = HEADS[config.head]
    return getattr(import_module(f".{home.module}", __name__), home.name)(config, dim)
