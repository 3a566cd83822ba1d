"""One step of a rank, as the stream yields it."""

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """One step's rows of one rank: B = global_batch / world_size."""

    x: Tensor
    """bf16[B, D] features; zeros in pad rows."""
    y: Tensor
    """f32[B] targets; 0 in pad rows."""
    weight: Tensor
    """f32[B]: 1, or 0 in pad rows."""
    frame: Tensor
    """i64[B] global frame ids (see `laughstore.index`); -1 in pad rows."""
    epoch: int
    """From 0."""
    step: int
    """In the epoch, from 0."""
    num_real: int
    """Rows of the step, over all ranks, that are no pad rows."""

    def pin_memory(self) -> "Batch":
        """Return the batch with its features in page-locked memory; a DataLoader asks for it."""
        if self.x.device.type != "cpu":
            return self
        return replace(self, x=self.x.pin_memory())

    def __repr__(self) -> str:
        rows, dim = self.x.shape
        return (
            f"Batch(epoch {self.epoch}, step {self.step}, x bf16[{rows}, {dim}],"
            f" {self.num_real} real over all ranks)"
        )
