"""How long the sequences of a stream are. No torch here: `laughstore train --help` reads it."""

from dataclasses import dataclass
from typing import Self

from laughstore.errors import ConfigError

from ..plan import check_whole, nearest_multiples


@dataclass(frozen=True)
class SequenceShape:
    """How long sequences are.

    Raises:
        ConfigError: a number is out of range.
    """

    rows: int | None = None
    """S, target rows; divides the frames of a block. None: a whole block."""
    context: int = 0
    """C, most rows before them that are read, too."""

    def __post_init__(self) -> None:
        rows = 1 if self.rows is None else self.rows
        for name, value, least in (("rows", rows, 1), ("context", self.context, 0)):
            check_whole(f"sequence {name}", value)
            if value < least:
                raise ConfigError(f"sequence {name} is {value}; it must be at least {least}")

    @property
    def target_rows(self) -> int:
        """S, once it is a number."""
        assert self.rows is not None, "of blocks"
        return self.rows

    @property
    def length(self) -> int:
        """C + S, once that is a number."""
        return self.context + self.target_rows

    def of_blocks(self, block_frames: int) -> Self:
        """Return this shape for blocks of so many frames, with its rows as a number.

        Raises:
            ConfigError: the rows do not divide a block.
        """
        rows = block_frames if self.rows is None else int(self.rows)
        if block_frames % rows:
            divisors = [n for n in range(1, block_frames + 1) if block_frames % n == 0]
            near = [max(n for n in divisors if n < rows), *(n for n in divisors if n > rows)][:2]
            raise ConfigError(
                f"sequence rows is {rows}, which does not divide the {block_frames} frames of a"
                f" block; the nearest values that work are {' and '.join(map(str, near))}"
            )
        return type(self)(rows, int(self.context))

    def of_stream(
        self, block_frames: int, global_batch: int, lanes: int, balance: float | None
    ) -> Self:
        """Return this shape for blocks of so many frames, checked beside a stream's settings.

        Raises:
            ConfigError: as `of_blocks`; the target rows of a step are no multiple of lanes times
                rows; or rows shall be balanced.
        """
        if balance is not None:
            raise ConfigError(
                f"balance is {balance:g}: single rows cannot be left out of sequences; use no"
                " balance, or a head that reads one row"
            )
        shape = self.of_blocks(block_frames)
        together = lanes * shape.target_rows
        if global_batch % together:
            raise ConfigError(
                f"global_batch is {global_batch}, which is no multiple of lanes ({lanes}) times"
                f" rows of a sequence ({shape.rows}); the nearest values that work are"
                f" {nearest_multiples(global_batch, together)}"
            )
        return shape
