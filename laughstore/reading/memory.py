"""How much memory this process may still take."""

from contextlib import suppress
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Return the free memory of the machine or the control group, the lesser; None if unknown."""
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # version 2; `max` is no number: no limit
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        found.append(limit - used + _inactive_file_bytes())
    return max(0, min(found)) if found else None


def memory_bytes() -> int | None:
    """Return the free memory of the machine or the limit of the control group, the lesser.

    What the group uses already counts as free: most of it may be the page cache of what is read.
    """
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):
        found.append(int((_CGROUP / "memory.max").read_text()))
    return min(found) if found else None


def _inactive_file_bytes() -> int:
    """Return the page cache of the control group that the kernel takes back first."""
    with suppress(OSError, ValueError, StopIteration):
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("inactive_file ")).split()[1])
    return 0
