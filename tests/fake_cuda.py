"""GPUs that are not there: their tensors have devices, shapes and types, and no values.

An operation that mixes devices fails, as it would on a machine that has them. Events and streams,
which only CUDA can make, are replaced by ones that remember what was asked of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode


class Stream:
    """Of a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device


class Cuda:
    """What was asked of CUDA.

    Args:
        num_gpus: that there are.
    """

    def __init__(self, num_gpus: int) -> None:
        self.num_gpus = num_gpus
        self.current = torch.device("cuda:0")
        self.events: list[Event] = []
        """In the order of records."""
        self.num_pinned = 0
        """Tensors in page-locked memory."""

    def set_device(self, device: torch.device) -> None:
        """Make a device the current one."""
        assert device.index is not None, "torch refuses a GPU without a number here"
        self.current = device

    def current_stream(self, device: torch.device | None = None) -> Stream:
        """Return the stream of a device; by default that of the current one."""
        device = device or self.current
        return Stream(device if device.index is not None else self.current)

    @property
    def unfinished(self) -> list["Event"]:
        """Events that nobody has waited for."""
        return [event for event in self.events if not event.is_over]


class Event:
    """Remembers where it was recorded, and whether somebody waited for it."""

    cuda: Cuda
    """Set by `fake_cuda`."""

    def __init__(self) -> None:
        self.is_over = False

    def record(self, stream: Stream | None = None) -> None:
        """Record it on a stream; by default on that of the current device."""
        self.device = (stream or self.cuda.current_stream()).device
        self.cuda.events.append(self)

    def synchronize(self) -> None:
        """Wait for it."""
        self.is_over = True


class _Pinning(TorchFunctionMode):
    """Count page-locked tensors and make plain ones: none without values can be page-locked."""

    def __init__(self, cuda: Cuda) -> None:
        super().__init__()
        self._cuda = cuda

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.pop("pin_memory", False):
            self._cuda.num_pinned += 1
        if func is torch.Tensor.pin_memory:
            self._cuda.num_pinned += 1
            return args[0].clone()
        return func(*args, **kwargs)


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch, num_gpus: int = 2) -> Iterator[Cuda]:
    """Let there be GPUs in this block; cuda:0 is the current one at its begin."""
    cuda = Cuda(num_gpus)
    fake_event = type("FakeEvent", (Event,), {"cuda": cuda})
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "Event", fake_event)
        patch.setattr(torch.cuda, "current_stream", cuda.current_stream)
        patch.setattr(torch.cuda, "set_device", cuda.set_device)
        with FakeTensorMode(allow_non_fake_inputs=True), _Pinning(cuda):
            yield cuda
