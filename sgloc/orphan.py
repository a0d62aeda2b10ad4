"""A rank does not outlive its torchrun, nor a worker the command that started it."""

import ctypes
import multiprocessing
import os
import signal
import sys

from sgloc.signals import leave_to_parent

_PR_SET_PDEATHSIG = 1


def die_with_parent(command: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies.

    torchrun starts each rank in a session of its own, so that a SIGKILL of torchrun and its process group leaves the
    ranks training, beside those of the same command started again. Linux alone offers this; elsewhere the run's lock
    remains.

    Args:
        command: process number of the command that this process is a worker of. If the command is gone already, the
            worker ends without a word: the end of a command is for the command to report.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid() if command is None else command
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the kernel was asked.
    if os.getppid() != parent or parent == 1:
        sys.exit(1 if command is not None else "the process that started this one is gone")


def begin_worker() -> None:
    """Tie a worker, which multiprocessing has started from the command itself, to the command's life and signals."""
    command = multiprocessing.parent_process()
    assert command is not None
    die_with_parent(command.pid)
    leave_to_parent()
