"""How much memory this process may still take."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


class _Names(NamedTuple):
    """Files of a control group, by version."""

    limit: str
    used: str
    page_cache: tuple[str, ...]
    """Lines of `memory.stat`: page cache that the kernel takes back before it kills."""


_V1: Final = _Names(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")
)
_V2: Final = _Names("memory.max", "memory.current", ("inactive_file", "active_file"))


def available_bytes() -> int | None:
    """Return the free memory of the machine or the control groups, the least; None if unknown.

    As the machine counts its page cache as free, so does a group: what was read once or often of a
    store must not be in the way of loading it.
    """
    found = _machine_bytes()
    for folder, names in _groups():
        with suppress(OSError, ValueError):  # `max` is no number: no limit
            limit = int((folder / names.limit).read_text())
            used = int((folder / names.used).read_text())
            found.append(limit - used + _page_cache_bytes(folder, names))
    return max(0, min(found)) if found else None


def memory_bytes() -> int | None:
    """Return the free memory of the machine or the limit of the control groups, the least.

    What a group uses already counts as free: most of it may be the page cache of what is read.
    """
    found = _machine_bytes()
    for folder, names in _groups():
        with suppress(OSError, ValueError):
            found.append(int((folder / names.limit).read_text()))
    return min(found) if found else None


def _machine_bytes() -> list[int]:
    with suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return [int(line.split()[1]) * 1024]
    return []


def _groups() -> Iterator[tuple[Path, _Names]]:
    """Yield this process's groups and those around them: each may have a limit.

    In a container the root alone is there, whatever path the process is told of.
    """
    paths = {_V1: Path(), _V2: Path()}
    with suppress(OSError, ValueError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            names = _V1 if "memory" in controllers.split(",") else _V2 if not controllers else None
            if names is not None:
                paths[names] = Path(path.lstrip("/"))
    for names, path in paths.items():
        root = _CGROUP / "memory" if names is _V1 else _CGROUP
        for folder in (path, *path.parents):
            yield root / folder, names


def _page_cache_bytes(folder: Path, names: _Names) -> int:
    with suppress(OSError, ValueError):
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return sum(int(number) for name, number in lines if name in names.page_cache)
    return 0
