"""A rank does not outlive its torchrun, nor a worker the command that started it."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies.

    torchrun starts each rank in a session of its own, so that a SIGKILL of torchrun and its process group leaves the
    ranks training, beside those of the same command started again. Linux alone offers this; elsewhere the run's lock
    remains.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the kernel was asked.
    if os.getppid() != parent or parent == 1:
        sys.exit("the process that started this one is gone")
