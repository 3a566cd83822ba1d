"""See to it that a child does not outlive the process that started it, however that ends."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; does so now if it has ended.

    A hint where the system is no Linux: nothing happens there.

    Args:
        parent_pid: who started this process.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        prctl = ctypes.CDLL(None).prctl
    except (AttributeError, OSError):
        return
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before the call
        os.kill(os.getpid(), signal.SIGKILL)
