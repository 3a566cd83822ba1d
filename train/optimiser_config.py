"""How weights are changed by a step. No torch here: `laughstore train --help` reads this module.

The attributes' docstrings are the help of the command line.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

from laughstore.errors import ConfigError

from .options import check_options, read_options

_ALWAYS: Final = frozenset({"l2", "clip", "ema", "autocast"})
_OPTIONS: Final = {
    "cosine": _ALWAYS,
    "plateau": _ALWAYS | {"plateau_epochs", "plateau_factor"},
}
"""Fields that each schedule reads."""


@dataclass(frozen=True)
class OptimiserConfig:
    """What a step does with its gradients, beside the learning rate and the decay of weights.

    Raises:
        ConfigError: a field cannot work, or belongs to another schedule.
    """

    schedule: Literal["cosine", "plateau"] = "cosine"
    """How the learning rate falls after its warm-up: cosine (half a wave, towards 0 at the last of
    --epochs), or plateau (each time that validation gets no better for a while)."""
    plateau_epochs: int = 3
    """Epochs without a better validation after which the learning rate falls (plateau); fewer than
    --patience."""
    plateau_factor: float = 0.3
    """What it is multiplied by then (plateau); between 0 and 1."""
    l2: float = 0.0
    """Adds l2 / 2 times the sum of squares of weights, not of biases, to the loss. Of the linear
    head with bce, n rows and no weight decay, scikit-learn's C is 1 / (n * l2)."""
    clip: Literal["off"] | float = "off"
    """Largest norm of a step's gradients, all weights together; longer ones are shortened to it."""
    ema: Literal["off"] | float = "off"
    """Moving average of the weights: the share of the old value that stays in a step, as 0.999.
    Validation, and so the best epoch, and all checkpoints have the average."""
    autocast: Literal["off", "bf16"] = "off"
    """Precision of the product of frames and first layer in training: off (float32) or bf16, with
    frames standardised before; all else, and scores, stay float32."""

    def __post_init__(self) -> None:
        if self.schedule not in _OPTIONS:
            raise ConfigError(f"schedule is {self.schedule!r}; it must be cosine or plateau")
        if self.autocast not in ("off", "bf16"):
            raise ConfigError(f"autocast is {self.autocast!r}; it must be off or bf16")
        if not (isinstance(self.plateau_epochs, int) and self.plateau_epochs >= 1):
            raise ConfigError(f"plateau_epochs is {self.plateau_epochs}; it must be at least 1")
        if not 0 < self.plateau_factor < 1:
            raise ConfigError(
                f"plateau_factor is {self.plateau_factor}; it must lie between 0 and 1"
            )
        if not (self.l2 >= 0 and math.isfinite(self.l2)):
            raise ConfigError(f"l2 is {self.l2}; it must be at least 0 and finite")
        for name, most in (("clip", math.inf), ("ema", 1.0)):
            value = getattr(self, name)
            if isinstance(value, str):
                if value != "off":
                    raise ConfigError(f"{name} is {value!r}; it must be off or a number")
            elif not 0 < value < most:  # also refuses NaN
                rule = "above 0 and finite" if name == "clip" else "between 0 and 1"
                raise ConfigError(f"{name} is {value}; a number must be {rule}")
        check_options(self, "schedule", _OPTIONS)

    @property
    def clip_norm(self) -> float | None:
        """Largest norm of a step's gradients; None: any."""
        return None if isinstance(self.clip, str) else float(self.clip)

    @property
    def ema_decay(self) -> float | None:
        """Share of the old value in a step of the average; None: no average."""
        return None if isinstance(self.ema, str) else float(self.ema)

    def to_json(self) -> dict[str, Any]:  # Any: JSON values
        """Return the JSON object of the fields that this schedule reads."""
        return read_options(self, "schedule", _OPTIONS)

    def describe(self) -> str:
        """Return one line for people."""
        schedule = "cosine"
        if self.schedule == "plateau":
            epochs = f"{self.plateau_epochs} epoch{'s' if self.plateau_epochs > 1 else ''}"
            schedule = f"times {self.plateau_factor:g} after {epochs} no better"
        clip, ema = self.clip_norm, self.ema_decay
        parts = [
            f"schedule {schedule}",
            "gradients as they are" if clip is None else f"gradients clipped to norm {clip:g}",
            "no average of weights" if ema is None else f"average of weights, decay {ema:g}",
            "float32" if self.autocast == "off" else "first layer in bf16",
        ]
        if self.l2:
            parts.append(f"L2 term {self.l2:g}")
        return ", ".join(parts)
