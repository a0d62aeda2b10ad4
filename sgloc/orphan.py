"""Kill orphans: ranks end with their torchrun, and workers with the command that started them."""

import ctypes
import multiprocessing
import os
import signal
import sys

from sgloc.signals import leave_to_parent

_PR_SET_PDEATHSIG = 1


def die_with_parent(command: int | None = None) -> None:
    """Have the kernel kill this process when its parent dies.

    torchrun starts each rank in its own session, so a SIGKILL of torchrun and its process group would leave the ranks
    training, next to those of a restarted command. Only Linux supports this; on other systems, the run's lock protects
    the run folder.

    Args:
        command: process ID of the command, if this process is a worker. If the command is already gone, the worker
            exits silently, because reporting is up to the command.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid() if command is None else command
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the call above.
    if os.getppid() != parent or parent == 1:
        sys.exit(1 if command is not None else "the process that started this one is gone")


def begin_worker() -> None:
    """Set up a worker started by multiprocessing: it dies with the command, and leaves stop signals to it."""
    command = multiprocessing.parent_process()
    assert command is not None
    die_with_parent(command.pid)
    leave_to_parent()
