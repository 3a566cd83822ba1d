"""Where a stream's rows are loaded before they are used, and whether they have room there."""

from typing import Final, get_args

import torch
from torch import Tensor

from laughstore.errors import ConfigError
from laughstore.reading.memory import available_bytes

from .choices import Preload
from .loaded_rows import LoadProgress
from .selection import Selection
from .source import FrameSource

_SHARE_OF_FREE: Final = 0.9
"""The rest is left to batches, models and the page cache."""


class Preloading:
    """What a stream does about the rows that take part, before its first batch.

    Args:
        selection: whose rows these are.
        preload: where they are loaded: `cpu`, memory of this process; `gpu`, a GPU; or `none`.
        device: for gpu; the first one by default. Any other device of torch does the same.

    Raises:
        ConfigError: they have no room, there is no GPU, or preload is none of these.
    """

    def __init__(
        self, selection: Selection, preload: Preload, device: torch.device | None = None
    ) -> None:
        if preload not in get_args(Preload):
            raise ConfigError(f"preload is {preload!r}; use none, cpu or gpu")
        if preload == "gpu" and device is None:
            device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
            check_preload(preload, device)
        self._selection, self._preload = selection, preload
        self._device = device if preload == "gpu" else None
        self.check_memory(1)

    def check_memory(self, num_processes: int, num_on_device: int = 1) -> None:
        """Check that the rows have room, before anything is read.

        Args:
            num_processes: of this machine that load them, each for itself.
            num_on_device: of those, how many load them into this one's GPU.

        Raises:
            ConfigError: they have not; the message says how much is needed, and how much there is.
        """
        if self._preload == "none":
            return
        selection, device = self._selection, self._device
        needed = (selection.num_rows + 1) * selection.index.geometry.row_bytes
        free, what = available_bytes(), "memory"
        if device is not None and device.type == "cuda":
            free, what = torch.cuda.mem_get_info(device)[0], f"memory of {device}"
            num_processes = num_on_device
        if free is None or needed * num_processes <= free * _SHARE_OF_FREE:
            return
        each = f" in each of {num_processes} processes" if num_processes > 1 else ""
        raise ConfigError(
            f"preload {self._preload} needs {_gb(needed)}{each} for the {selection.num_rows:,} rows"
            f" of split {selection.split!r}; of the {what}, {_gb(free)} are free, and it takes at"
            f" most {100 * _SHARE_OF_FREE:g} % of them; use --preload none, a stricter filter or"
            " fewer processes"
        )

    def check_workers(self) -> None:
        """Refuse to serve batches in a worker of a DataLoader. Raises ConfigError."""
        if self._preload != "none":
            raise ConfigError(
                f"preload {self._preload} serves batches out of the memory of one process; use"
                " num_workers=0 (and threads=, if one thread is too slow)"
            )

    def load(self, source: FrameSource, progress: LoadProgress | None = None) -> None:
        """Load the rows, if that is asked for and not done.

        Args:
            source: reads the frames of the selection's split, and serves them from then on.
            progress: called as rows are loaded.

        Raises:
            ConfigError, CorruptData, ValueError: as `FrameSource.load`.
        """
        if self._preload != "none" and not source.is_loaded:
            source.load(self._selection, self._device, progress)

    def buffers(self, shape: tuple[int, int]) -> "DeviceBuffers | None":
        """Return where batches are put, int16[shape]; None: in memory of this machine."""
        return None if self._device is None else DeviceBuffers(shape, self._device)


class DeviceBuffers:
    """Buffers of batches that are made on a device: torch's allocator uses memory again there.

    Args:
        shape: of a buffer, int16.
        device: that has the rows.
    """

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self._shape, self._device = shape, device

    def next(self) -> Tensor:
        """Return int16[shape] with any content."""
        return torch.empty(self._shape, dtype=torch.int16, device=self._device)


def check_preload(preload: Preload, device: torch.device) -> None:
    """Check that batches can be made where they are trained on.

    Raises:
        ConfigError: gpu, and the device is none.
    """
    if preload == "gpu" and device.type != "cuda":
        raise ConfigError(
            f"preload gpu holds the rows on the GPU that trains, and this trains on {device}; use"
            " --preload cpu, or --device cuda on a machine that has one"
        )


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.3g} GB"
