"""How a process that trains on a CPU treats memory that it has freed."""

import ctypes

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
