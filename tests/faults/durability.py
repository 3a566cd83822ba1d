"""What a power cut may take: a model of a file system that promises no more than POSIX does.

A file's content lasts once it was synced after its last write; a name lasts once its folder was
synced after the name was made. Everything else may be lost, or may stay. Renames are atomic.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from laughstore.files import TEMPORARY_MARK

from .harness import Call

PARENT = ".."
"""The folder that the store stands in."""

_UNDER_WAY = 1 << 62
"""Change number of a name that is being made: no sync covers it."""


@dataclass
class _Inode:
    num_changes: int = 0
    num_under_way: int = 0
    num_synced: int = 0
    """Changes that a sync has made last."""

    @property
    def lasts(self) -> bool:
        return self.num_synced == self.num_changes


@dataclass
class _Name:
    inode: _Inode
    change: int
    """Number of the change of its folder that made it."""


@dataclass
class Disk:
    """Replays calls, of one process after the other; asks may be made at every begin of a call."""

    names: dict[str, _Name] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names.setdefault(PARENT, _Name(_Inode(), 0))

    def replay(self, calls: Iterable[Call]) -> Iterator[Call]:
        """Replay calls; yields each at its begin, when the disk is as it was just before."""
        ticks = [
            (tick, call, ends)
            for call in calls
            for tick, ends in ((call.begin, False), (call.end, True))
        ]
        syncs: dict[int, int | None] = {}
        for _, call, ends in sorted(ticks, key=lambda item: item[0]):
            if not ends:
                yield call
            if call.error:
                continue
            if call.name in ("write", "chmod"):
                self._write(call.path, ends=ends)
            elif call.name == "fsync":
                self._sync(call, syncs, ends=ends)
            elif call.name == "sync_file_range":
                pass  # a hint, which makes nothing last
            elif call.name in ("open", "mkdir"):
                self._create(call, ends=ends)
            elif ends:
                self._change_names(call)

    def final_names(self, calls: Iterable[Call]) -> Iterator[Call]:
        """Replay calls; yields those that give a file its final name, just before they do."""
        for call in self.replay(calls):
            is_final = call.second and TEMPORARY_MARK not in call.second
            if call.name in ("rename", "link") and is_final and not call.error:
                yield call

    def content_lasts(self, path: str) -> bool:
        """Whether a power cut now would leave this file's content whole."""
        return self.names[path].inode.lasts

    def name_lasts(self, path: str) -> bool:
        """Whether a power cut now would leave this name, and those of all folders above it."""
        while path != PARENT:
            folder = _folder(path)
            if self.names[path].change > self.names[folder].inode.num_synced:
                return False
            path = folder
        return True

    def _write(self, path: str, *, ends: bool) -> None:
        inode = self.names[path].inode
        if ends:
            inode.num_under_way -= 1
        else:
            inode.num_changes += 1
            inode.num_under_way += 1

    def _sync(self, call: Call, syncs: dict[int, int | None], *, ends: bool) -> None:
        inode = self.names[call.path].inode
        if not ends:
            # What is written while the sync runs may or may not be part of it.
            syncs[call.begin] = None if inode.num_under_way else inode.num_changes
        elif (covered := syncs.pop(call.begin)) is not None:
            inode.num_synced = max(inode.num_synced, covered)

    def _create(self, call: Call, *, ends: bool) -> None:
        # From its begin on: another thread may see a folder before the call has come back.
        if not ends:
            if call.path not in self.names:
                self.names[call.path] = _Name(_Inode(), _UNDER_WAY)
            elif call.name == "open":  # perhaps emptied
                self.names[call.path].inode.num_changes += 1
        elif self.names[call.path].change == _UNDER_WAY:
            self._make_name(call.path, self.names[call.path].inode)

    def _change_names(self, call: Call) -> None:
        if call.name == "unlink":
            # Another thread's rename may have happened as its process was killed: in no log.
            self.names.pop(call.path, None)
            self.names[_folder(call.path)].inode.num_changes += 1
        elif call.name in ("link", "rename"):
            inode = self.names[call.path].inode
            there = self.names.get(call.second)
            if there is not None and there.inode is inode:
                return  # two names of one file: nothing happens
            self._make_name(call.second, inode)
            if call.name == "rename":
                del self.names[call.path]
                self.names[_folder(call.path)].inode.num_changes += 1
        else:
            raise AssertionError(f"the model does not know {call}")

    def _make_name(self, path: str, inode: _Inode) -> None:
        folder = self.names[_folder(path)].inode
        folder.num_changes += 1
        self.names[path] = _Name(inode, folder.num_changes)


def _folder(path: str) -> str:
    return PARENT if path == "." else str(PurePosixPath(path).parent)
