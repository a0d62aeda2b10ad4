"""Process memory: keep freed memory from being returned to the system, and report peak usage."""

import ctypes
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Constants of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make malloc keep freed memory for later allocations instead of returning it to the system.

    A train step allocates and frees the same gigabyte again and again; if it is returned, every page faults when next
    touched, which takes a sixth of the whole step at the published sizes. The setting affects the whole process, so
    only commands call this.

    Returns:
        Whether the setting succeeded; only the GNU C library supports it.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    return all(set_option(option, value) == 1 for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST)))


def peak_memory(device: "torch.device") -> float:
    """Return the peak memory usage of this process in MiB: device memory on CUDA, resident memory otherwise."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
