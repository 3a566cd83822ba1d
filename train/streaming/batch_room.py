"""Whether a batch has room in memory, told before one is made: else the kernel ends the process."""

from dataclasses import KW_ONLY, dataclass
from typing import Final

from laughstore.errors import ConfigError
from laughstore.reading.memory import available_bytes

from .sequence_shape import SequenceShape

_CHANNEL_BYTES: Final = 2
_ROW_BYTES: Final = 16
"""Target, weight and frame id of a row."""


@dataclass(frozen=True)
class BatchRoom:
    """What one process's part of a batch takes at least.

    Raises:
        ConfigError: this machine has not so much.
    """

    num_rows: int
    """Of the part, those of context, too."""
    dim: int
    """Channels of a row."""
    sequence: SequenceShape | None
    """Shape of the sequences that the rows are of; None: of none."""
    _: KW_ONLY
    on_device: bool
    """Batches are made on a GPU, whose memory is not looked at."""

    def __post_init__(self) -> None:
        self.check(1)

    def check(self, num_processes: int, *, more_row_bytes: int = 0, num_batches: int = 1) -> None:
        """Refuse batches that cannot be made.

        Args:
            num_processes: of this machine, each with such a part.
            more_row_bytes: that each row of one batch takes besides, as what a layer makes of it.
            num_batches: that each process holds at once.

        Raises:
            ConfigError: they have no room; the message says how much is needed and how much there
                is.
        """
        free = available_bytes()
        row_bytes = num_batches * (_CHANNEL_BYTES * self.dim + _ROW_BYTES) + more_row_bytes
        needed = self.num_rows * row_bytes
        if self.on_device or free is None or needed * num_processes <= free:
            return
        each = f" in each of {num_processes} processes" if num_processes > 1 else ""
        beside = ", and one made ahead," if num_batches > 1 else ""
        what, instead = f"{self.num_rows:,} rows", "a lower --global-batch"
        if self.sequence is not None:
            rows, context, length = self.sequence.rows, self.sequence.context, self.sequence.length
            what = f"{self.num_rows // length:,} sequences of {context} + {rows} rows"
            instead = f"a shorter --context, a longer --sequence or {instead}"
        raise ConfigError(
            f"a batch of {what}{beside} takes {needed / 1e9:.3g} GB or more{each}, and"
            f" {free / 1e9:.3g} GB of memory are free; use {instead}"
        )
