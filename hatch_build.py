"""Compile the copying loop of the stream when laughstore is built or installed.

It is called by ctypes: no header of Python is needed, and one library serves all its versions.
Where there is no C compiler that works, or the sources may not be written to, laughstore is
installed without it and copies by numpy.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE = "train/streaming/row_copy.c"
_LIBRARY = "train/streaming/librow_copy.so"


class RowCopyHook(BuildHookInterface):
    """Makes the library beside its source, and names the wheel after the machine it is for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless a source distribution is what is made."""
        if self.target_name != "wheel":
            return
        library = Path(self.root, _LIBRARY)
        try:
            _compile(Path(self.root, _SOURCE), library)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            with suppress(OSError):
                library.unlink(missing_ok=True)  # it may be of other sources
            print(f"laughstore: the stream will copy by numpy: {error}", file=sys.stderr)
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False
        build_data["artifacts"].append(_LIBRARY)


def _compile(source: Path, library: Path) -> None:
    """Make a library, whole or not at all: another build may run beside this one."""
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    flags = ["-std=c99", "-O3", "-fPIC", "-shared"]
    # A process may have the old one mapped: it is replaced, not written over.
    handle, name = tempfile.mkstemp(".so", dir=library.parent)
    os.close(handle)
    made = Path(name)
    try:
        subprocess.run([*compiler, *flags, "-o", made, source], check=True)
        made.chmod(0o755)
        made.replace(library)
    finally:
        made.unlink(missing_ok=True)
