"""One step of a rank, as the stream yields it."""

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """One step's rows of one rank: B = global_batch / world_size.

    Of sequences, S target rows behind C context rows each (`train.streaming.sequences`): instead
    of [B] all is [b, C + S], b = B / S. Rows that do not exist, or cannot be read, are pad rows of
    them.
    """

    x: Tensor
    """bf16[B, D] features; zeros in pad rows."""
    y: Tensor
    """f32[B] targets; 0 where the weight is 0."""
    weight: Tensor
    """f32[B]: 1, or 0 in pad rows; of sequences also in context and rows that do not take part."""
    frame: Tensor
    """i64[B] global frame ids (see `laughstore.index`); -1 in pad rows."""
    epoch: int
    """From 0."""
    step: int
    """In the epoch, from 0."""
    num_real: int
    """Rows of weight 1 of the step, over all ranks."""

    @property
    def present(self) -> Tensor:
        """bool[B]: False in pad rows."""
        return self.frame >= 0

    def pin_memory(self) -> "Batch":
        """Return the batch with its features in page-locked memory; a DataLoader asks for it."""
        if self.x.device.type != "cpu":
            return self
        return replace(self, x=self.x.pin_memory())

    def __repr__(self) -> str:
        return (
            f"Batch(epoch {self.epoch}, step {self.step}, x bf16{list(self.x.shape)},"
            f" {self.num_real} real over all ranks)"
        )
