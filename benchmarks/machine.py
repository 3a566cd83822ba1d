"""What a number was measured on: processor, memory, kernel, versions. Never a host name or path."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("laughstore", "numpy", "torch", "zarr", "webdataset", "crc32c", "google-crc32c")


def machine() -> dict[str, str | int | float | bool]:
    """Return processor, cores, memory (GiB), kernel, and whether a hypervisor is below it."""
    cpu = _fields(Path("/proc/cpuinfo"))
    memory = _fields(Path("/proc/meminfo"))
    memory_kib = int(memory.get("MemTotal", "0 kB").split()[0])
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "virtual": "hypervisor" in cpu.get("flags", "").split(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on, if installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # on a borrowed GPU the project runs from its folder
            continue
    return found


def load_average() -> float:
    """Return the mean number of running processes of the last minute."""
    return round(os.getloadavg()[0], 2)


def busy_seconds() -> tuple[float, float]:
    """Return CPU seconds since the start: (of the whole machine, of this process and children)."""
    times = os.times()
    ours = times.user + times.system + times.children_user + times.children_system
    stat = Path("/proc/stat")
    if not stat.is_file():
        return ours, ours
    user, nice, system, _idle, _waiting, irq, soft_irq, stolen = map(
        int, stat.read_text().split("\n", 1)[0].split()[1:9]
    )
    ticks = user + nice + system + irq + soft_irq + stolen
    return ticks / os.sysconf("SC_CLK_TCK"), ours


def _fields(path: Path) -> dict[str, str]:
    """Parse `key : value` lines; the first of equal keys counts. Empty where there is no /proc."""
    if not path.is_file():
        return {}
    fields: dict[str, str] = {}
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields
