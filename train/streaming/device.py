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

    Returns:
        The device. A GPU has its number, and is the current one of this thread from now on.

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
        if device.type == "cuda":
            # Else each process of a machine would take memory of its first GPU, too.
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split("\n", 1)[0].split())
        raise ConfigError(
            f"device {name!r} cannot be used here ({reason}); try --device auto"
        ) from error
    return device


def device_id(device: torch.device) -> str:
    """Return what is equal for processes that compute on the same GPU, and for no others."""
    if device.type != "cuda":
        return device.type
    return str(torch.cuda.get_device_properties(device).uuid)


def device_model(device: torch.device) -> str:
    """Return what tells apart devices whose low bits differ: a GPU's model, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device, which may still be busy with it; nobody has to wait.

    A tensor of this machine may be changed or dropped at once: a GPU copies from page-locked
    memory of torch's own, which is not used again before.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class DeviceCopies:
    """Copies batches to a device while the host goes on.

    A GPU copies from page-locked memory when it comes to it, which may be many steps later, and a
    `FrameStream(pin_memory=True)` fills that memory anew for the third batch after. So `copy` waits
    until the copy two batches before is done; a loop that copies by itself, and asynchronously,
    would train on rows of other batches.

    One serves a stream for all epochs: another one would know nothing of copies that still run.

    Args:
        device: to copy to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running: deque[torch.cuda.Event] = deque()

    def copy(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x, y, weight) of a batch on the device; what is there already is not copied.

        To be called with every batch of a stream, before the next one is asked for.
        """
        device = self._device
        x = batch.x.to(device, non_blocking=True)
        y, weight = send(batch.y, device), send(batch.weight, device)
        if device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            self._running.append(event)
        # The next batch has the memory of the one that is RING_BUFFERS before it.
        while len(self._running) >= RING_BUFFERS:
            self._running.popleft().synchronize()
        return x, y, weight
