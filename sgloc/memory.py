"""A process's memory: what a CPU's keeps of what is freed, and the most that was held."""

import ctypes
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed for the next allocation in place of giving it back to the system.

    A training step allocates and frees the same gigabyte again and again; given back, each page of it costs a fault
    when it is next touched, a sixth of the whole step at published sizes. It is the process's choice, so only commands
    make it.

    Returns:
        Whether it is done; only the GNU C library can.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return all(set_option(option, value) == 1 for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST)))


def peak_memory(device: "torch.device") -> float:
    """The most memory that this process has held at once, in MiB: the device's on CUDA, else the process's."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
