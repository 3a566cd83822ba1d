"""Where tensors are computed on, and how batches get there."""

from collections import deque

import torch
from torch import Tensor

from laughstore.errors import ConfigError

from .batch import Batch
from .buffers import RING_BUFFERS


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device of this name; auto is cuda if there is one, else cpu.

    Args:
        name: cpu, cuda, cuda:N or auto.
        local_rank: which of the GPUs `cuda` is, counted in a circle.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.device_count():
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here; try --device auto") from error
    return device


class DeviceCopies:
    """Copy batches to a device without waiting, and wait before their memory is used again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running: deque[torch.cuda.Event] = deque()

    def copy(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x, y, weight) of a batch on the device; what is there already is not copied."""
        device = self._device
        x = batch.x.to(device, non_blocking=True)
        y, weight = batch.y.to(device), batch.weight.to(device)
        if device.type == "cuda" and batch.x.device.type == "cpu":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            self._running.append(event)
        return x, y, weight

    def make_room(self) -> None:
        """Wait until the buffer that the stream fills next is copied."""
        if len(self._running) == RING_BUFFERS:
            self._running.popleft().synchronize()
