"""See what a process opens, runs and deletes while it reads a hostile store.

Python reports such acts to audit hooks (PEP 578), of which none can be removed: one stands here for
good and sleeps between tests.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RUNNING = frozenset(
    [
        "os.system",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "os.spawn",
        "subprocess.Popen",
        "pickle.find_class",
        "exec.of.text",
        "socket.connect",
        "urllib.Request",
        "shelve.open",
    ]
)
_CHANGING = frozenset(
    ["os.remove", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.rmtree", "os.chmod"]
)
_SYSTEM = tuple(
    os.path.realpath(path)
    for path in (sys.prefix, sys.base_prefix, Path(__file__).parents[2], "/proc", "/sys", "/usr")
)

_watched: Path | None = None
_acts: list[str] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watched is None:
        return
    if event in _RUNNING:
        _acts.append(f"{event} {arguments[:2]!r}")
    elif event == "open" or event in _CHANGING:
        path = arguments[0]
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if isinstance(path, str | os.PathLike):
            real = os.path.realpath(path)
            if not _is_inside(real, str(_watched)) and not real.startswith(_SYSTEM):
                _acts.append(f"{event} {path} ({real})")


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + os.sep)


sys.addaudithook(_hook)


@contextmanager
def watched(store: Path) -> Iterator[list[str]]:
    """Collect every act outside of a store: files opened or changed, code run, sockets."""
    global _watched
    _acts.clear()
    _watched = Path(os.path.realpath(store))
    try:
        yield _acts
    finally:
        _watched = None
