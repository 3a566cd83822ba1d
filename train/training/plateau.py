"""When a learning rate falls that waits for validation to get better.

The same on all ranks: it sees only what was decided once, whether an epoch was the best so far.
"""

from dataclasses import dataclass


@dataclass
class Plateau:
    """How long nothing got better; changes as a run goes, and is kept in its checkpoints."""

    drops: int = 0
    """How often the learning rate has fallen."""
    waited: int = 0
    """Epochs without a better validation since then, or since the best one."""

    def count(self, *, is_best: bool, epochs: int) -> None:
        """Take an epoch into account.

        Args:
            is_best: its validation is the best so far.
            epochs: without that, after which the learning rate falls.
        """
        self.waited = 0 if is_best else self.waited + 1
        if self.waited >= epochs:
            self.drops, self.waited = self.drops + 1, 0
