"""Compile the copying loop of the stream when laughstore is built or installed.

It is called by ctypes: no header of Python is needed, and one library serves all its versions.
Where there is no C compiler that works, laughstore is installed without it and copies by numpy.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
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
        compiler = shlex.split(os.environ.get("CC", "cc"))
        flags = ["-std=c99", "-O3", "-fPIC", "-shared"]
        temporary = library.with_suffix(f".{os.getpid()}")
        try:
            subprocess.run(
                [*compiler, *flags, "-o", temporary, Path(self.root, _SOURCE)], check=True
            )
            temporary.replace(library)  # a process may have the old one mapped
        except (OSError, subprocess.CalledProcessError) as error:
            temporary.unlink(missing_ok=True)
            library.unlink(missing_ok=True)
            print(f"laughstore: the stream will copy by numpy: {error}", file=sys.stderr)
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["pure_python"] = False
        build_data["artifacts"].append(_LIBRARY)
