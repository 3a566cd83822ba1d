"""Heads: what is trained. A head is one module here and its line in `HEADS`.

Its arguments are fields of `HeadConfig`, which are flags. No torch is loaded before a head is made:
`laughstore train --help` reads this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from laughstore.errors import ConfigError

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
}
_OPTIONS: Final = {name: home.options for name, home in HEADS.items()}
_MAX_HIDDEN: Final = 1 << 16

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
    """On the standardised features: linear (logistic regression), or mlp (one hidden layer)."""
    hidden: int = 1024
    """Width of the hidden layer (mlp), in units."""
    activation: Activation = "gelu"
    """Of the hidden layer (mlp)."""
    dropout: float = 0.0
    """Share of hidden units that are left out of each row in training (mlp); 0 to below 1."""

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise ConfigError(f"head is {self.head!r}; it must be {', '.join(HEADS)}")
        if not (isinstance(self.hidden, int) and 1 <= self.hidden <= _MAX_HIDDEN):
            raise ConfigError(f"hidden is {self.hidden}; it must be 1 to {_MAX_HIDDEN} units")
        if self.activation not in ("gelu", "relu", "silu"):
            raise ConfigError(f"activation is {self.activation!r}; it must be gelu, relu or silu")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        check_options(self, "head", _OPTIONS)

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON object of the fields that this head reads."""
        return read_options(self, "head", _OPTIONS)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:  # Any: JSON values
        """Return the config that `to_json` wrote.

        Raises:
            ConfigError, TypeError: it did not.
        """
        return cls(**data)


def make_head(config: HeadConfig, dim: int) -> "Head":
    """Return a head that has not begun: of zeros.

    Args:
        config: which, and its arguments.
        dim: D, channels of a frame.
    """
    home = HEADS[config.head]
    return getattr(import_module(f".{home.module}", __name__), home.name)(config, dim)
